"""A run in a process of its own that is changed while it goes on, and what it says of itself."""

import signal
import time

from patience import BOUND_S

from pipeline.errors import ManyeyesError
from pipeline.supervision.asking import ask


class Run:
    """`manyeyes run run.toml`, and what it says of itself."""

    def __init__(self, manyeyes, *options):
        self.manyeyes = manyeyes
        self.log = open(manyeyes.folder / "log.txt", "w+")  # noqa: SIM115
        self.process = manyeyes.start("run", "run.toml", *options, stderr=self.log)
        self.until(lambda: self.status()["state"] == "running")

    def ask(self, do, **what):
        return ask(self.process.pid, {"do": do, **what})["lines"]

    def status(self):
        try:
            return ask(self.process.pid, {"do": "status"})
        except ManyeyesError:  # it has not come so far
            assert self.process.poll() is None, self.said()
            return {"state": "", "cameras": {}}

    def said(self):
        return (self.manyeyes.folder / "log.txt").read_text()

    def until(self, condition):
        """Poll for what another process does; there is nothing to wait on."""
        end = time.monotonic() + BOUND_S
        while not condition():
            assert time.monotonic() < end, self.said()
            time.sleep(0.05)

    def until_cameras(self, *names):
        """Until these deliver, and no other is there any more."""

        def they_do():
            cameras = self.status()["cameras"]
            here = {name for name, row in cameras.items() if row["state"] != "left"}
            return here == {*names} and all(cameras[n]["delivered"] for n in names)

        self.until(they_do)

    def end(self):
        """Exit code and output."""
        self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=BOUND_S)
        return self.process.returncode, out

    def close(self):
        self.process.kill()
        self.process.communicate()
        self.log.close()
