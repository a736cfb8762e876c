"""Why a camera is down, as the error of its source says it."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from pipeline.errors import SourceError
from stages.capture.av import AvConfig, AvSource
from stages.capture.snapshots import SnapshotsConfig, SnapshotsSource


class _Camera(BaseHTTPRequestHandler):
    def do_GET(self):
        code = {"/login": 401, "/forbidden": 403, "/gone": 404}.get(self.path, 200)
        body = b"<html>this is no video</html>" * 50
        self.send_response(code)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def address():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Camera)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "cause"),
    [("login", "login"), ("forbidden", "login"), ("gone", "network"), ("page", "codec")],
)
def test_what_a_stream_answers(address, path, cause):
    source = AvSource(AvConfig(url=f"http://{address}/{path}"))
    source.setup()
    with pytest.raises(SourceError) as caught:
        source.open()
    source.close()
    assert caught.value.cause == cause


@pytest.mark.parametrize(("path", "cause"), [("login", "login"), ("gone", "network")])
def test_what_a_picture_answers(address, path, cause):
    source = SnapshotsSource(SnapshotsConfig(url=f"http://{address}/{path}"))
    source.setup()
    source.open()
    with pytest.raises(SourceError) as caught:
        source.read(np.empty(1 << 20, np.uint8))  # the first one is due at once
    source.close()
    assert caught.value.cause == cause


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_where_nobody_listens_it_is_the_network(scheme):
    with socket.socket() as closed:  # bound, so that nobody else gets it, and not listening
        closed.bind(("127.0.0.1", 0))
        source = AvSource(AvConfig(url=f"{scheme}://127.0.0.1:{closed.getsockname()[1]}/x"))
        source.setup()
        with pytest.raises(SourceError) as caught:
            source.open()
    source.close()
    assert caught.value.cause == "network"
