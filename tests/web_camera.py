"""A camera behind HTTP on loopback, for tests: live playlists, streams of bytes, snapshots, files.

with WebCamera({"/film.ts": data}, streams={"/live.flv": flv_forever}) as camera:
    source = AvSource(AvConfig(url=camera.url("/film.ts")))
"""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterable, Mapping

Answer = tuple[int, dict[str, str], bytes]  # status, headers, body


class WebCamera:
    """Serves what it was given, each request in a thread of its own; `seen` is what was asked for."""

    def __init__(
        self,
        files: Mapping[str, bytes] | None = None,
        *,
        streams: Mapping[str, tuple[str, Callable[[], Iterable[bytes]]]] | None = None,
        answers: Mapping[str, Callable[[Mapping[str, str]], Answer]] | None = None,
    ) -> None:
        """By path. files: whole, with their length; streams: (content type, pieces), without;
        answers: made for each request, from its headers."""
        self.files, self.streams, self.answers = files or {}, streams or {}, answers or {}
        self.seen: list[tuple[str, Mapping[str, str]]] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)

    def url(self, path: str) -> str:
        """Of what lies there."""
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def __enter__(self) -> WebCamera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        camera = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                camera.seen.append((path, dict(self.headers)))
                try:
                    if path in camera.streams:
                        return self._stream(*camera.streams[path])
                    if path in camera.answers:
                        return self._answer(*camera.answers[path](self.headers))
                    if path in camera.files:
                        return self._answer(200, {}, camera.files[path])
                    return self._answer(404, {}, b"")
                except (BrokenPipeError, ConnectionResetError):
                    return None  # who asked is gone

            def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def _stream(self, kind: str, pieces: Callable[[], Iterable[bytes]]) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.end_headers()
                for piece in pieces():
                    self.wfile.write(piece)
                    self.wfile.flush()

        return Handler
