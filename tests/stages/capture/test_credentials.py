"""Passwords come from the environment, reach the camera whole, and are never shown."""

from __future__ import annotations

import http.server
import logging
import threading
import traceback
from base64 import b64encode
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import pytest
from cameras import Camera
from clips import moving_square, write_clip
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, SourceError
from stages.capture.av import AvConfig, AvSource
from stages.capture.credentials import Credentials, load, refuse_secrets

LOGINS = [
    ("operator7", "simplepass9"),
    ("first.last", "dots.and-dashes_1"),
    ("me@example.org", "p@ss@word"),
    ("colon", "a:b:c:d"),
    ("slashes", "s/l\\a/s?h#es"),
    ("percent", "100%41%zz"),
    ("spaces", "two  blanks +plus+"),
    ("umlaut", "schlüssel-пароль"),
    ("quotes", 'it\'s "quoted" $HOME `x`'),
    ("ampersand", "a&pwd=b;c=d"),
    ("", "no-user-at-all"),
    ("brackets", "{user}[0]<tag>"),
]


def shapes(user: str, password: str) -> list[str]:
    found = [b64encode(f"{user}:{password}".encode()).decode()]
    for secret in filter(None, (user, password)):
        found += [secret, quote(secret), quote(secret, safe="")]
    return found


@pytest.fixture
def gate(monkeypatch):
    """Set GATE_USER and GATE_PASSWORD."""

    def put(user: str, password: str) -> None:
        monkeypatch.setenv("GATE_USER", user)
        monkeypatch.setenv("GATE_PASSWORD", password)

    return put


@pytest.mark.parametrize(("user", "password"), LOGINS)
def test_the_camera_gets_them_and_nobody_else(gate, capfd, caplog, user, password):
    caplog.set_level(logging.DEBUG)
    gate(user, password)
    said = []
    with Camera(login=f"{user}:{password}", fault="close", after=3) as camera:
        config = AvConfig(url=camera.url, credentials="GATE")
        AvSource.check(config)
        source = AvSource(config)
        source.open()
        said += [repr(config), repr(source), *lost(source)]
        source.close()
    said += lost(source, source.open)  # nobody listens any more
    with Camera(login="another:one", port=camera.port) as camera:
        said += lost(source, source.open)
    assert any("401" in text for text in said)
    out, err = capfd.readouterr()
    for text in (*said, out, err, caplog.text):
        for shape in shapes(user, password):
            assert shape not in text


def lost(source: AvSource, call=None) -> list[str]:
    """What is said about a lost camera, in its longest form: locals of all frames, all causes."""
    buffer = np.empty(1 << 18, np.uint8)
    try:
        while True:
            call() if call else source.read(buffer)
    except SourceError as error:
        said = [str(error), repr(error)]
        while error is not None:
            trace = traceback.TracebackException.from_exception(error, capture_locals=True)
            # Only frames of the product: this test itself knows the password.
            said += [str(f.locals) for f in trace.stack if "/tests/" not in f.filename]
            said += trace.format_exception_only()
            error = error.__cause__ or error.__context__
        return said


class _Guarded(http.server.BaseHTTPRequestHandler):
    """Asks for a login with HTTP Basic, then serves `server.body`."""

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == self.server.wanted
        body = self.server.body if known else b""
        self.send_response(200 if known else 401)
        self.send_header("WWW-Authenticate", 'Basic realm="camera"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_http_gets_them_too(gate, tmp_path):
    user, password = "me@home", "p/w:&%?"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Guarded)
    server.wanted = "Basic " + b64encode(f"{user}:{password}".encode()).decode()
    server.body = write_clip(tmp_path / "a.ts", moving_square(3)).read_bytes()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        gate(user, password)
        url = f"http://127.0.0.1:{server.server_port}/a.ts"
        source = AvSource(AvConfig(url=url, credentials="GATE"))
        source.open()
        assert source.read(np.empty(1 << 18, np.uint8)).width == 96
        source.close()
        gate(user, "another")
        assert any("401" in text for text in lost(source, source.open))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
def test_join_can_be_taken_apart_again(user, password):
    url = Credentials(user, password).join("rtsp://10.0.0.7:554/a/b?c=d")
    parts = urlsplit(url)
    assert (parts.hostname, parts.port, parts.path, parts.query) == ("10.0.0.7", 554, "/a/b", "c=d")
    name, _, word = parts.netloc.rpartition("@")[0].partition(":")
    assert (unquote(name), unquote(word)) == (user, password)


def test_join_puts_them_where_the_url_says():
    secret = Credentials("me", "a&b")
    assert secret.join("http://cam/v?u={user}&p={password}") == "http://cam/v?u=me&p=a%26b"


@given(st.text(min_size=1), st.text(min_size=1), st.text(), st.text())
def test_scrub_leaves_no_shape(user, password, before, after):
    secret = Credentials(user, password)
    marked = {*user, *password} & {*"*"}
    for shape in shapes(user, password):
        left = secret.scrub(f"{before}{shape}{after}")
        assert marked or password not in left
    assert user not in repr(secret).replace("Credentials", "") or user in "()"
    assert secret.scrub("") == ""


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://admin:hunter22@10.0.0.7/1",
        "rtsp://hunter22@10.0.0.7/1",
        "rtsp://:hunter22@10.0.0.7/1",
        "rtsp://admin:hunter22%40x@10.0.0.7/1",
        "rtsp://admin:p@hunter22@10.0.0.7/1",
        "rtsp://admin:hunter22/x@10.0.0.7/1",
        "rtsp://admin:hunter22#x@10.0.0.7/1",
        "rtsp://admin:hunter22?x@10.0.0.7/1",
        "http://10.0.0.7/video?user=admin&pwd=hunter22",
        "http://10.0.0.7/video?passwd=hunter22",
        "rtsp://10.0.0.7/user=admin&password=hunter22&channel=1",
        "rtsp://[hunter22/1",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_repeated(url):
    with pytest.raises(ConfigError, match="credentials = ") as caught:
        AvSource.check(AvConfig(url=url))
    assert "hunter22" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://10.0.0.7/live@1",
        "rtsp://[fe80::1]:554/a",
        "http://cam/v?user={user}&password={password}",
        "https://cam.example.org:8443/stream?channel=1",
    ],
)
def test_other_urls_pass(url):
    refuse_secrets(url)


def test_load_from_a_file(tmp_path):
    path = tmp_path / "gate"
    path.write_text("me\nsecret word\n")
    path.chmod(0o600)
    found = load("GATE", {"GATE_FILE": str(path)})
    assert (found.user, found.password) == ("me", "secret word")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_that_others_may_read_is_refused(tmp_path, mode):
    path = tmp_path / "gate"
    path.write_text("me\nsecret word\n")
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        load("GATE", {"GATE_FILE": str(path)})


@pytest.mark.parametrize("content", [b"", b"one line", b"a\nb\nc\n", b"\xff\xfe"])
def test_a_file_of_another_form_is_refused_and_not_quoted(tmp_path, content):
    path = tmp_path / "gate"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="two") as caught:
        load("GATE", {"GATE_FILE": str(path)})
    assert "one line" not in str(caught.value)


def test_what_is_missing_is_named():
    for environ in ({}, {"GATE_USER": "me"}, {"GATE_PASSWORD": "secret"}):
        with pytest.raises(ConfigError, match="GATE_USER and GATE_PASSWORD, or GATE_FILE"):
            load("GATE", environ)
    with pytest.raises(ConfigError, match="GATE_FILE can't be read"):
        load("GATE", {"GATE_FILE": "/nowhere/gate"})


def test_a_password_that_ffmpeg_would_cut_is_refused():
    with pytest.raises(ConfigError, match="at most 127") as caught:
        load("GATE", {"GATE_USER": "me", "GATE_PASSWORD": "x" * 125})
    assert "xx" not in str(caught.value)
    load("GATE", {"GATE_USER": "me", "GATE_PASSWORD": "x" * 124})
