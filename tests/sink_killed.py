"""Runs a sink in a process of its own and kills it at a moment that its own output tells."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from patience import BOUND_S

SCRIPT = """
import sys
from sink_frames import frame, result
from pipeline.runtime import LocalRuntime
from stages.sinks.events import Events, EventsConfig
from stages.sinks.video import Video, VideoConfig

kind, path = sys.argv[1:]
if kind == "video":
    sink, make = Video(VideoConfig(path=path)), frame
else:
    sink, make = Events(EventsConfig(path=path, classes=("person", "car"))), result
sink.runtime = LocalRuntime()
sink.setup()
n = 0
while True:
    sink.process(make(n))
    print(n, flush=True)
    n += 1
"""


def run_and_kill(kind: str, path: Path, after: int) -> int:
    """Kill -9 a sink once it says that item `after` is done; returns the last that it said."""
    tests = Path(__file__).parent
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, kind, str(path)],
        cwd=tests.parent, env=os.environ | {"PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = -1
    try:
        for line in child.stdout:
            said = int(line)
            if said >= after:
                break
    finally:
        child.kill()
        rest, errors = child.communicate(timeout=BOUND_S)
    assert said >= after, errors
    return max([said, *map(int, rest.split("\n")[:-1])])
