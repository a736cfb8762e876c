"""Which engine is the fastest on this host for a bundle: what "bare model" means in every figure.

    python -m benchmarks.fastest_engine BUNDLE [THREADS]       prints its name

By the trial that a run makes at its start, in a process of its own, since it loads all of them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.rig.measure import ROOT


def fastest_engine(bundle: Path, threads: int = 1) -> str:
    """The engine's name. Takes seconds. Raises RuntimeError: none runs it; its own words are above."""
    command = [sys.executable, "-m", "benchmarks.fastest_engine", str(bundle), str(threads)]
    child = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if child.returncode:
        raise RuntimeError(f"{bundle}: no engine runs it")
    return child.stdout.split()[-1]


def main() -> None:
    """Try them, print the name."""
    from stages.detector import engines, fastest
    from stages.detector.bundle import read_facts

    path, threads = sys.argv[1], int((*sys.argv[2:], "1")[0])
    facts = read_facts(path)
    name, _ = fastest.load(
        fastest.candidates(path, facts, "auto"),
        facts,
        lambda engine: engines.load(path, facts, engine=engine, threads=threads, max_batch=4),
    )
    print(name)


if __name__ == "__main__":
    main()
