"""Settings of all tests."""

import atexit
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from command import Command
from hypothesis import settings

from pipeline.plan import config
from pipeline.plan.model_path import demo_model
from pipeline.plan.sizing import engine_for
from stages.detector import bundle, zoo

# How long an example takes is the machine's affair; what hangs is pytest-timeout's.
settings.register_profile("search", settings(), deadline=None)
# The same examples each time: a suite that draws others finds a bug some day, in a change that has none.
settings.register_profile("same", settings.get_profile("search"), derandomize=True)
settings.load_profile("same")


# What nohup or a shell in the background has made deaf would make all that is started here deaf, too.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

# A cache of our own, with the demo model in the place of the one that real cameras get: no test has a
# network, and what a person keeps is nobody's test.
CACHE = Path(tempfile.mkdtemp(prefix="manyeyes-tests-"))
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
os.environ["XDG_CACHE_HOME"] = str(CACHE)
(CACHE / "manyeyes" / "models").mkdir(parents=True)
shutil.copy(demo_model(), CACHE / "manyeyes" / "models" / f"{zoo.DEFAULT}.bundle")
# And the engine of the demo model is known: a first run on a host tries them, takes seconds for it and says
# so, and which test comes first is nobody's to know.
FASTEST = {"engine": "onnx", "picture_ms": {"torchscript": 19.4, "onnx": 7.1}}
for threads in range(1, 1 + (os.cpu_count() or 1)):
    demo = config.from_sources(["synthetic://"])
    choice, _ = engine_for(demo, bundle.read_facts(str(demo_model())), (), threads)
    if "memory" in choice:  # there are others than TorchScript
        Path(choice["memory"]).parent.mkdir(exist_ok=True)
        Path(choice["memory"]).write_text(json.dumps(FASTEST))


def pytest_xdist_auto_num_workers():
    """One worker more than there are cores, since many a test waits for a process or a clock."""
    return 1 + (os.cpu_count() or 1)


def pytest_collection_finish():
    """One thread of PyTorch in this process, since there are more workers than cores: threads that wait for
    the others of their pool spin."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption("--edits", type=int, default=8, help="of a run, in test_edits")
    parser.addoption("--seeds", type=int, default=5, help="runs, in test_edits")


@pytest.fixture
def manyeyes(tmp_path):
    command = Command(tmp_path)
    yield command
    for pid in command.processes():
        os.kill(int(pid), signal.SIGKILL)


@pytest.fixture(autouse=True)
def no_place_before_others():
    """A library that gave this process real time would keep all other tests from their cores, and all that
    they start: what waits in circles for another process waits for ever."""
    before = os.sched_getscheduler(0)
    yield
    if (now := os.sched_getscheduler(0)) != before:
        os.sched_setscheduler(0, before, os.sched_param(0))
        pytest.fail(f"the scheduling policy was {before}, and is {now} now")


@pytest.fixture(autouse=True)
def no_handler_for_children():
    """PyTorch's loader leaves one behind. It runs on the stack for signals that other libraries move about
    in this process, and none of ours: where that is gone, the end of any child is a segmentation fault."""
    yield
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
