"""The first instructions of a process: what it needs is loaded behind those that are at work."""

import os
import subprocess
import sys

MODULE = """
import os, threading
loaded_at = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
"""
LOADS = """
import os, sys, threading
from pipeline.process.start import load
mine = os.PRIO_PROCESS, threading.get_native_id()
before = os.getpriority(*mine)
load([sys.argv[1], "broken"], 5)
print(before, sys.modules[sys.argv[1]].loaded_at, os.getpriority(*mine))
"""


def test_what_is_loaded_is_nice_and_what_follows_is_not(tmp_path):
    (tmp_path / "heavy.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("1 / 0")
    path = os.pathsep.join([os.getcwd(), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOADS, "heavy"],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    before, loading, after = map(int, done.stdout.split())
    assert loading == min(19, before + 5)
    assert after == before
    assert done.stderr == ""  # who needs what is broken says so, and once
