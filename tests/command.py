"""`manyeyes` as a process of its own, for tests; the fixture `manyeyes` is in conftest.py."""

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

from patience import BOUND_S

MANYEYES = (sys.executable, "-P", "-m", "pipeline")  # what the installed script calls
_ON_TERMINAL = """
import os, sys
os.login_tty(int(sys.argv[1]))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Command:
    """`manyeyes` in a folder of its own; knows what a run left behind."""

    def __init__(self, folder):
        self.folder, self.mark = folder / "work", f"MARK={uuid.uuid4()}"
        self.temporary = folder / "tmp"
        self.folder.mkdir()
        self.temporary.mkdir()
        name, value = self.mark.split("=")
        self.environment = {
            **{k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")},
            "TMPDIR": str(self.temporary), "XDG_RUNTIME_DIR": str(self.temporary),
            "COLUMNS": "80", name: value,
        }  # fmt: skip

    def start(self, *arguments, before=(), **options):
        """before: a command that runs it."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(
            [*before, *MANYEYES, *map(str, arguments)],
            cwd=self.folder, env=self.environment, **(pipes | options),
        )  # fmt: skip

    def start_on(self, terminal, *arguments):
        """With this terminal as its own; the descriptor is closed here."""
        command = [sys.executable, "-c", _ON_TERMINAL, str(terminal), *MANYEYES, *arguments]
        try:
            return subprocess.Popen(
                command, cwd=self.folder, env=self.environment, pass_fds=[terminal]
            )
        finally:
            os.close(terminal)

    def __call__(self, *arguments, **options):
        process = self.start(*arguments, **options)
        try:
            out, err = process.communicate(timeout=BOUND_S)
        finally:
            process.kill()
        return process.returncode, out, err

    def write(self, text, name="run.toml"):
        (self.folder / name).write_text(text)

    def processes(self):
        """Every process that was started by this one, at any depth, and lives."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in path.read_bytes().split(b"\0"):
                    found.append(path.parent.name)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found

    def files(self):
        return {path.relative_to(self.folder) for path in self.folder.rglob("*")}

    def assert_nothing_left(self):
        end = time.monotonic() + 10
        while (
            self.processes() and time.monotonic() < end
        ):  # the kernel ends them after their parent
            time.sleep(0.01)
        assert self.processes() == []
        assert list(self.temporary.iterdir()) == []
