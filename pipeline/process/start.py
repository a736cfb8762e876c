"""The first instructions of a process of a run: its libraries are loaded, and it is `main`'s.

    python -P -m pipeline.process.start NAME CONTROL_FD PARENT_PID NICENESS [MODULE]    by the supervisor

Loading takes a fifth of a second of a core, more than all else before its first frame. Where others are at
work already, a thread does it that is nice(2) to them; only a privileged process could take that back for
itself. Nothing may be imported here but what costs nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from collections.abc import Sequence


def load(modules: Sequence[str], niceness: int) -> None:
    """Import modules, as far as they can be, by a thread that is so much nicer, and wait for it."""

    def work() -> None:
        os.nice(niceness)  # Linux: of this thread, on top of what the run has
        # whoever needs a module that is broken meets the same, and has words for it
        with contextlib.suppress(Exception):
            for module in modules:
                importlib.import_module(module)

    loader = threading.Thread(target=work)
    loader.start()
    loader.join()


if __name__ == "__main__":
    niceness, *its_own = sys.argv[4:]
    if niceness != "0":
        load(["pipeline.process.main", *its_own], int(niceness))
    from pipeline.process.main import run

    run()
