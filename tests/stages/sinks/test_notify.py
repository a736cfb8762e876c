"""Alarms by apprise, through a service of its own that a test can be: a JSON receiver."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from alarming import account, alarms, happening, seen, until

from pipeline.errors import ConfigError

pytest.importorskip("apprise", reason="NOT TESTED: pip install apprise")

TARGET = {"name": "ops", "run": "stages.sinks.alarms.notify:Notify", "credentials": "PHONE"}


# of the library's, which has a way without it
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
answers, took = [], []


class Service(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status = answers.pop(0) if answers else 200
        if status == 200:
            took.append(body)
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_service_gets_a_line_of_text_and_its_address_is_shown_to_nobody(
    tmp_path, monkeypatch, caplog
):
    answers[:], took[:] = [500, 403], []
    server = HTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    port = server.server_address[1]
    monkeypatch.setenv("PHONE_URL", f"json://me:topsecret@127.0.0.1:{port}/room17")
    picture = tmp_path / "pictures" / "5f3a" / "gate" / "7.jpg"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"JPEG")
    target = TARGET | {"picture": "object"}
    stage = alarms(tmp_path / "o.db", [target], pictures=str(tmp_path / "pictures"))
    stage.process(seen(0, happening()))
    until(stage, lambda: account(stage) == (1, 1, 0))
    assert stage.runtime.counted("delivery:ops:failed", "gate") == 2
    assert stage.secrets(stage.config) == ("PHONE_URL", "PHONE_FILE")
    stage.close()
    server.shutdown()
    server.server_close()
    [body] = took
    assert body["title"] == "visitor"
    [attached] = body["attachments"]
    assert attached["filename"] == "7.jpg"
    assert attached["mimetype"] == "image/jpeg"
    assert base64.b64decode(attached["base64"]) == b"JPEG"
    assert body["message"].splitlines() == [
        "gate: person entered yard", "2025-11-22T10:00:00.000000Z",
    ]  # fmt: skip
    assert "credentials 'PHONE': the service did not take it" in caplog.text
    assert "topsecret" not in caplog.text
    assert "room17" not in caplog.text


@pytest.mark.parametrize("url", ["", "nonsense", "mars://secret", "syslog://", "dbus://"])
def test_what_is_no_service_outside_is_refused(tmp_path, monkeypatch, url):
    monkeypatch.setenv("PHONE_URL", url)
    with pytest.raises(
        ConfigError, match="target 'ops': credentials 'PHONE': wanted a URL"
    ) as error:
        alarms(tmp_path / "o.db", [TARGET])
    assert "secret" not in str(error.value)
