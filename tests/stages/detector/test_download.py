"""Downloads from a server of our own: whole and checked, or one sentence and nothing left."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from patience import BOUND_S

from pipeline.errors import ConfigError
from stages.detector import download

DATA = bytes(range(256)) * 4096  # 1 MiB, in more than one piece
SHA256 = hashlib.sha256(DATA).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/none":
            self.send_error(404, "Not Found")
            return
        self.send_response(200)
        if self.path != "/untold":
            self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        if self.path == "/mute":
            self.server.over.wait(BOUND_S)
            return
        self.wfile.write(DATA[: len(DATA) // 2] if self.path == "/cut" else DATA)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.over = threading.Event()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("sha256", [SHA256, SHA256[:8], ""])
@pytest.mark.parametrize("path", ["/file", "/untold"])
def test_a_file_comes_whole(server, tmp_path, path, sha256):
    seen = []
    target = tmp_path / "new" / "model.onnx"
    download.fetch(server + path, target, sha256, lambda done, total: seen.append((done, total)))
    assert target.read_bytes() == DATA
    assert seen[-1] == (len(DATA), len(DATA) if path == "/file" else None)
    assert len(seen) > 1
    assert [p.name for p in target.parent.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(
    ("path", "sha256", "says"),
    [
        ("/file", "0" * 8, r"sha256 begins with 00000000, got .*nothing was kept"),
        ("/cut", "", "it ended after 524288 of 1048576 bytes"),
        ("/none", "", "the server answers 404 Not Found"),
        ("/mute", "", "timed out"),
    ],
)
def test_what_is_not_whole_leaves_nothing(server, tmp_path, monkeypatch, path, sha256, says):
    monkeypatch.setattr(download, "TIMEOUT_S", 0.5 if path == "/mute" else 20.0)
    with pytest.raises(ConfigError, match=says):
        download.fetch(server + path, tmp_path / "model.onnx", sha256)
    assert list(tmp_path.iterdir()) == []


def test_nobody_there(tmp_path):
    with pytest.raises(download.Unreachable, match=r"^Connection refused$"):
        download.fetch("http://127.0.0.1:1/x", tmp_path / "x", "")


def test_a_cache_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="set XDG_CACHE_HOME to another folder"):
        download.fetch(f"{server}/file", tmp_path / "file" / "x", "")
