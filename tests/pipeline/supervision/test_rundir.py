import os
import signal
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.errors import AlreadyRunning, ResourceError
from pipeline.hop import transport
from pipeline.supervision.rundir import RunDirectory

HOLDS_ONE = """
import sys
from pathlib import Path
from pipeline.supervision.rundir import RunDirectory
run = RunDirectory(None)
print(run.sockets, run._janitor.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def base(monkeypatch):
    """A short, empty folder for temporary files, where every run makes its own."""
    with tempfile.TemporaryDirectory(prefix="rundir-", dir="/tmp") as folder:
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def test_a_socket_can_be_bound_whatever_its_number(base, monkeypatch):
    for folder in (base, base / ("x" * (150 - len(str(base))))):
        folder.mkdir(exist_ok=True)
        monkeypatch.setenv("TMPDIR", str(folder))
        with closing(RunDirectory(None)) as run:
            endpoint = run.endpoint(65_535, 4_294_967_295)
            inbox = transport.Inbox(context := transport.context(), endpoint)
            inbox.close()
            context.term()


def test_it_is_for_its_user_alone_and_gone_at_the_end(base):
    with closing(RunDirectory(None)) as run:
        assert run.sockets.parent == base
        assert run.sockets.stat().st_mode & 0o777 == 0o700
        assert list(run.sockets.iterdir()) == []
    assert list(base.iterdir()) == []


def test_a_folder_that_takes_none_is_passed_over(base, monkeypatch):
    (base / "file").touch()
    for useless in ("there/not", "file", "\udcff", "relative"):
        monkeypatch.setenv("TMPDIR", str(base / useless) if useless != "relative" else useless)
        with closing(RunDirectory(None)) as run:
            assert run.sockets.is_dir()


def start_holder():
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS_ONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    sockets, janitor = process.stdout.readline().split()
    return process, Path(sockets), int(janitor)


def test_what_is_left_when_all_are_killed_goes_with_the_next_run(base):
    process, sockets, janitor = start_holder()
    with process:
        os.kill(janitor, signal.SIGKILL)
        process.kill()
    (sockets / "1.0").touch()
    foreign = base / "manyeyes-run-foreign"
    foreign.symlink_to(base)
    with closing(RunDirectory(None)):
        assert not sockets.exists()
        assert foreign.is_symlink()


def test_a_run_that_lives_keeps_its_folder(base):
    process, sockets, _ = start_holder()
    with process:
        with closing(RunDirectory(None)) as run:
            assert run.sockets != sockets
        assert sockets.is_dir()
        process.kill()


def test_a_directory_has_one_run_at_a_time(base):
    with closing(RunDirectory(base / "here")):
        with pytest.raises(AlreadyRunning, match="another run holds it"):
            RunDirectory(base / "here")
        left = [path for path in base.iterdir() if path.name != "here"]
        assert len(left) == 1, "the second one left nothing"
    with closing(RunDirectory(base / "here")):
        pass


@pytest.mark.parametrize("name", ["file/below", "x" * 300])
def test_a_directory_that_can_not_be_made_is_refused_with_its_name(base, name):
    (base / "file").touch()
    with pytest.raises(ResourceError, match=name):
        RunDirectory(base / name)
    assert [path.name for path in base.iterdir()] == ["file"]


def test_two_that_start_at_once_do_not_sweep_each_other(base):
    """A folder that is not locked yet is fair game; then its maker takes another one."""
    holders = [
        subprocess.Popen(
            [sys.executable, "-c", HOLDS_ONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]  # fmt: skip
    folders = [Path(holder.stdout.readline().split()[0]) for holder in holders]
    assert len(set(folders)) == 6
    assert all(folder.is_dir() for folder in folders)
    for holder in holders:
        with holder:
            holder.kill()
