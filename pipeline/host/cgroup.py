"""What the control groups of this process allow it, cgroups(7), in version 2 and 1."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_OF_THIS_PROCESS = Path("/proc/self/cgroup")


def groups(controller: str) -> Iterator[Path]:
    """The folders of its group and of all above it, whose limits hold as well; the innermost first.

    In a container a path may be the host's, of which only the root is to be seen here.
    """
    with contextlib.suppress(OSError):
        for line in _OF_THIS_PROCESS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                root = _CGROUP / controller
            elif not controllers:
                root = _CGROUP
            else:
                continue
            own = root / path.lstrip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(root))


def left(controller: str, *names: tuple[str, str]) -> Iterator[tuple[Path, int]]:
    """(folder, limit − use) of every group with a limit; names: of the files of both, by version."""
    for folder in groups(controller):
        for limit, used in names:
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                size, taken = (int((folder / name).read_text()) for name in (limit, used))
                yield folder, max(0, size - taken)
