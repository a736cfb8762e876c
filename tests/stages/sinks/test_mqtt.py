"""Alarms over a real broker: what arrives, over its absence and our death, and what it refuses."""

import gc
import json
import signal
import subprocess
import threading
import time

import pytest
from alarming import account, alarms, alert, happening, mqtt, seen, start, until
from broker import Broker, Listener, needs_broker
from patience import BOUND_S

from pipeline.errors import ConfigError

pytestmark = needs_broker


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "broker") as one:
        yield one


def expected(n):
    return [f"5f3a-gate-{i}-0:visitor" for i in range(n)]


def test_alarms_are_retained_and_we_are_there(tmp_path, broker):
    with Listener(broker.port) as listener:
        stage = alarms(tmp_path / "o.db", [mqtt(broker)])
        for n in range(5):
            stage.process(seen(n, happening(track=n)))
        until(stage, lambda: account(stage) == (5, 5, 0) and len(listener.ids()) == 5)
        assert listener.ids() == expected(5)
        until(stage, lambda: listener.last("homeassistant/device/manyeyes/config"))
        assert listener.last("manyeyes/status") == "online"
        config = json.loads(listener.last("homeassistant/device/manyeyes/config"))
        assert set(config["components"]) == {"visitor", ".status"}
        before = len([t for t, *_ in listener.heard if t.endswith("/config")])
        listener.say("homeassistant/status", "online")  # Home Assistant starts
        until(stage, lambda: len([t for t, *_ in listener.heard if t.endswith("/config")]) > before)
        stage.close()
        until_heard(listener, "manyeyes/status", "offline")
    with Listener(broker.port, "manyeyes/#", name="late") as late:
        # a broker promises an order within a topic only: what it keeps is all here when it has
        # sent what was said after it
        late.say("manyeyes/said", "after")
        until_heard(late, "manyeyes/said", "after")
        *kept, _ = late.heard
        assert late.last("manyeyes/status") == "offline"
        assert late.ids() == expected(5)[-1:]
        assert all(retained for _, _, retained in kept)


def until_heard(listener, topic, payload):
    end_s = time.monotonic() + BOUND_S
    while listener.last(topic) != payload:
        assert time.monotonic() < end_s, listener.heard
        time.sleep(0.01)


def test_a_broker_that_was_away_gets_all_of_it_in_order(tmp_path, broker):
    with Listener(broker.port) as listener:
        stage = alarms(tmp_path / "o.db", [mqtt(broker)])
        for n in range(30):
            if n == 10:
                until(stage, lambda: account(stage)[1] >= 5)
                broker.stop()
            stage.process(seen(n, happening(track=n)))
            stage.idle()
        until(stage, lambda: stage.runtime.counted("delivery:ops:failed", "gate") > 0)
        broker.start()
        until(stage, lambda: account(stage) == (30, 30, 0) and len(listener.ids()) == 30)
        assert listener.ids() == expected(30)
        stage.close()


def test_who_is_killed_says_goodbye_and_goes_on(tmp_path, broker):
    with Listener(broker.port) as listener:
        with start(tmp_path / "o.db", f"mqtt://127.0.0.1:{broker.port}", 0) as child:
            last = next(n for n in map(int, child.stdout) if n >= 20 and listener.ids())
            child.send_signal(signal.SIGKILL)
            last = max([last, *map(int, child.stdout.read().split("\n")[:-1])])
        until_heard(listener, "manyeyes/status", "offline")
        stage = alarms(tmp_path / "o.db", [mqtt(broker)])
        until(stage, lambda: not +stage._waiting and len(listener.ids()) > last)
        assert listener.ids() == expected(len(listener.ids()))
        assert last + 1 <= len(listener.ids()) <= last + 2
        stage.close()


def problem(tmp_path, target, words, caplog):
    stage = alarms(tmp_path / "o.db", [target])
    stage.process(seen(0, happening()))
    until(stage, lambda: words in caplog.text)
    assert account(stage) == (1, 0, 0)
    stage.close()
    assert "secret" not in caplog.text


def test_a_wrong_password_and_a_right_one(tmp_path, monkeypatch, caplog):
    passwords = tmp_path / "passwords"
    passwords.write_text("me:secret-one\n")
    subprocess.run(["mosquitto_passwd", "-U", passwords], check=True)
    passwords.chmod(0o644)
    lines = "allow_anonymous false", f"password_file {passwords}"
    with Broker(tmp_path / "broker", *lines) as broker:
        monkeypatch.setenv("HOME_USER", "me")
        monkeypatch.setenv("HOME_PASSWORD", "secret-two")
        target = mqtt(broker, credentials="HOME")
        problem(tmp_path, target, "refuses us: Not authorized", caplog)
        monkeypatch.setenv("HOME_PASSWORD", "secret-one")
        stage = alarms(tmp_path / "o.db", [target])
        until(stage, lambda: account(stage) == (1, 1, 0))
        assert stage.secrets(stage.config) == ("HOME_USER", "HOME_PASSWORD", "HOME_FILE")
        stage.close()


# the library leaves a connection whose certificate it refused to the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_certificate_that_nobody_trusts_and_one_that_is_trusted(tmp_path, caplog):
    folder = tmp_path / "broker"
    folder.mkdir()
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    key.chmod(0o644)
    lines = "allow_anonymous true", f"certfile {certificate}", f"keyfile {key}"
    with Broker(folder, *lines) as broker:
        problem(tmp_path, mqtt(broker, tls=True), "certificate verify failed", caplog)
        stage = alarms(tmp_path / "o.db", [mqtt(broker, tls=True, ca_file=str(certificate))])
        until(stage, lambda: account(stage) == (1, 1, 0))
        stage.close()
    for thread in threading.enumerate():  # `close` does not wait for one that is connecting
        if thread.name.startswith("paho"):
            thread.join()
    gc.collect()


def test_a_message_that_it_does_not_allow_is_not_delivered(tmp_path, caplog):
    rights = tmp_path / "rights"
    rights.write_text("topic read #\ntopic write manyeyes/status\ntopic write homeassistant/#\n")
    with Broker(tmp_path / "broker", "allow_anonymous true", f"acl_file {rights}") as broker:
        problem(tmp_path, mqtt(broker), "does not take the message: Not authorized", caplog)


def test_mistakes_are_one_sentence(tmp_path):
    for fields, words in (
        ({"url": "http://x"}, "url must be mqtt://host or mqtts://host"),
        ({"url": "mqtt://me:secret@x"}, "url must be mqtt://"),
        ({"url": "mqtt://x:port"}, "url must be mqtt://"),
        ({"url": "mqtt://x/topic"}, "url must be mqtt://"),
        ({"topic": "a/#"}, "topic must be a topic without"),
        ({"topic": ""}, "topic must be a topic without"),
        ({"topic": "/a"}, "topic must be a topic without"),
        ({"credentials": "NO"}, "wanted NO_USER and NO_PASSWORD, or NO_FILE"),
        ({"ca_file": "/nowhere"}, "no certificates can be read there"),
        ({"timeout_s": 0.0}, "timeout_s must be within"),
    ):
        with pytest.raises(ConfigError, match=f"target 'ops': .*{words}") as error:
            alarms(tmp_path / "o.db", [mqtt(None, **fields)], [alert()])
        assert "secret" not in str(error.value)
