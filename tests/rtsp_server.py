"""A camera that is not ours: GStreamer's RTSP server, in a process of its own.

    if missing() is not None: skip
    with GstCamera() as camera:
        source = AvSource(AvConfig(url=camera.url))

As a program it runs under the system's Python, where Debian puts the bindings (.ci/apt-packages):
`/usr/bin/python3 tests/rtsp_server.py --port 8554` prints READY and serves until it is killed.
"""

from __future__ import annotations

import argparse
import os
import select
import subprocess
from functools import cache

from patience import BOUND_S

PYTHON = "/usr/bin/python3"
ELEMENTS = ("videotestsrc", "videoconvert", "x264enc", "rtph264pay")
PIPELINE = (
    "( videotestsrc is-live=true pattern=ball"
    " ! video/x-raw,format=I420,width={width},height={height},framerate={fps}/1"
    " ! x264enc tune=zerolatency speed-preset=ultrafast threads=1 key-int-max={fps}"
    " ! rtph264pay name=pay0 pt=96 config-interval=1 )"
)


class GstCamera:
    """GStreamer's server showing a moving ball; can be stopped and started at the same port."""

    def __init__(
        self,
        *,
        port: int = 0,
        size: tuple[int, int] = (320, 240),
        fps: int = 25,
        login: str | None = None,  # "user:password", asked for with HTTP Digest
    ) -> None:
        self.port, self.size, self.fps, self.login = port, size, fps, login
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Where to watch it; without the login."""
        return f"rtsp://127.0.0.1:{self.port}/stream"

    def start(self) -> GstCamera:
        """Returns when the server accepts connections."""
        width, height = self.size
        self.process = subprocess.Popen(
            [PYTHON, __file__, "--port", str(self.port), "--fps", str(self.fps),
             "--size", f"{width}x{height}"],
            stdout=subprocess.PIPE, text=True,
            env={**os.environ, "RTSP_LOGIN": self.login or "", "PYTHONPATH": ""},
        )  # fmt: skip
        assert self.process.stdout is not None
        ready = select.select([self.process.stdout], [], [], 20)[0]
        line = self.process.stdout.readline() if ready else ""
        if not line.startswith("READY "):
            self.stop()
            raise RuntimeError(f"the RTSP server did not start: {line!r}")
        self.port = int(line.split()[1])
        return self

    def stop(self) -> None:
        """Kill the server, as when a camera loses power."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.communicate()

    def __enter__(self) -> GstCamera:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


@cache
def missing() -> str | None:
    """Why the server can't run here, in one sentence; None if it can."""
    try:
        done = subprocess.run(
            [PYTHON, __file__, "--probe"], check=False, capture_output=True, text=True, timeout=BOUND_S,
            env={**os.environ, "PYTHONPATH": ""},
        )  # fmt: skip
    except OSError as error:
        reason = str(error)
    else:
        if done.returncode == 0:
            return None
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return f"no GStreamer RTSP server ({reason}): apt-get install $(cat .ci/apt-packages)"


def _bindings():
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    for element in ELEMENTS:
        if Gst.ElementFactory.find(element) is None:
            raise SystemExit(f"GStreamer has no element {element}")
    return GLib, Gst, GstRtspServer


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--probe", action="store_true", help="exit 0 if everything is there")
    options = parser.parse_args()
    glib, _, rtsp = _bindings()
    if options.probe:
        return
    width, height = options.size.split("x")
    server = rtsp.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(options.port))
    factory = rtsp.RTSPMediaFactory()
    factory.set_launch(PIPELINE.format(width=width, height=height, fps=options.fps))
    factory.set_shared(True)
    if os.environ.get("RTSP_LOGIN"):
        _ask_for_login(rtsp, server, factory, *os.environ["RTSP_LOGIN"].split(":", 1))
    server.get_mount_points().add_factory("/stream", factory)
    if not server.attach(None):
        raise SystemExit(f"port {options.port} is in use")
    print("READY", server.get_bound_port(), flush=True)
    glib.MainLoop().run()


def _ask_for_login(rtsp, server, factory, user: str, password: str) -> None:
    from gi.repository import GstRtsp

    auth = rtsp.RTSPAuth()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    token = rtsp.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_digest(user, password, token)
    server.set_auth(auth)
    permissions = rtsp.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    factory.set_permissions(permissions)


if __name__ == "__main__":
    main()
