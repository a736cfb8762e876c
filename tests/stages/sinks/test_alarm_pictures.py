"""The picture that goes with an alarm, to each kind of target."""

import base64
import json
import threading
import time
from dataclasses import replace

import pytest
from alarming import SECOND, account, alarms, alert, happening, mqtt, seen, until, webhook
from broker import Broker, Listener, needs_broker
from receiver import Receiver
from standardwebhooks import Webhook as Oracle

from pipeline.errors import ConfigError

KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqr"
OBJECT, FRAME = b"JPEG of 7", b"JPEG of all"


@pytest.fixture
def pictures(tmp_path):
    """The folder of a store, with the pictures of one object."""
    folder = tmp_path / "store.db.pictures" / "5f3a" / "gate"
    folder.mkdir(parents=True)
    (folder / "7.jpg").write_bytes(OBJECT)
    (folder / "7.frame.jpg").write_bytes(FRAME)
    return str(tmp_path / "store.db.pictures")


def long_ago(result):
    """Nobody waits any longer for the picture of what happened then."""
    info = result.info._replace(t_capture_ns=time.monotonic_ns() - 10 * SECOND)
    return replace(result, info=info)


def told(tmp_path, pictures, *results, answers=lambda n: 204, **fields):
    """Bodies that a webhook got."""
    with Receiver(answers) as receiver:
        stage = alarms(
            tmp_path / "o.db", [webhook(receiver.url, **fields)], [alert(kinds=["entered", "crowded"])],
            pictures=pictures,
        )  # fmt: skip
        for one in results:
            stage.process(one)
        until(stage, lambda: account(stage) == (len(results), len(results), 0))
        stage.close()
    return receiver


@pytest.mark.parametrize(("kind", "jpeg"), [("object", OBJECT), ("frame", FRAME)])
def test_a_webhook_gets_it_signed(tmp_path, pictures, monkeypatch, kind, jpeg):
    monkeypatch.setenv("OPS_SECRET", KEY)
    got = told(tmp_path, pictures, seen(0, happening()), picture=kind, credentials="OPS")
    alarm = Oracle(KEY).verify(got.bodies[0], got.headers[0])
    assert alarm["picture"]["media_type"] == "image/jpeg"
    assert base64.b64decode(alarm["picture"]["base64"]) == jpeg
    assert alarm["id"] == "5f3a-gate-0-0:visitor"


def test_a_webhook_gets_a_link(tmp_path, pictures):
    url = "https://nvr.example/pictures/"
    got = told(tmp_path, pictures, seen(0, happening()), picture="frame", picture_url=url)
    assert json.loads(got.bodies[0])["picture"] == {
        "media_type": "image/jpeg", "url": "https://nvr.example/pictures/5f3a/gate/7.frame.jpg",
    }  # fmt: skip


def test_a_webhook_that_wants_less_gets_the_alarm(tmp_path, pictures):
    moods = [413, 204]
    got = told(
        tmp_path, pictures, seen(0, happening()), answers=moods.__getitem__, picture="object"
    )
    assert "picture" not in json.loads(got.bodies[0])
    assert got.asked == 2


def test_what_has_no_picture_comes_without(tmp_path, pictures):
    crowd = happening("crowded", -1, "", total=4)  # by nobody alone
    unknown = long_ago(seen(1, happening(track=8)))
    got = told(tmp_path, pictures, seen(0, crowd), unknown, picture="object")
    assert not any("picture" in json.loads(body) for body in got.bodies)


def test_a_picture_that_comes_a_moment_later_is_waited_for(tmp_path, pictures):
    def write():
        (tmp_path / "store.db.pictures/5f3a/gate/9.jpg").write_bytes(OBJECT)

    writer = threading.Timer(0.2, write)
    writer.start()
    got = told(tmp_path, pictures, seen(0, happening(track=9)), picture="object")
    writer.join()
    assert "picture" in json.loads(got.bodies[0])


@needs_broker
def test_a_broker_has_it_before_its_alarm_and_none_of_another_alarm(tmp_path, pictures):
    with (
        Broker(tmp_path / "broker") as broker,
        Listener(broker.port, "manyeyes/+/visitor") as listener,
    ):
        stage = alarms(tmp_path / "o.db", [mqtt(broker, picture="object")], pictures=pictures)
        stage.process(seen(0, happening()))
        stage.process(long_ago(seen(1, happening(track=8))))
        until(stage, lambda: account(stage) == (2, 2, 0) and len(listener.heard) == 4)
        stage.close()
    topics = [topic.split("/")[1] for topic, _, _ in listener.heard]
    assert topics == ["pictures", "alarms"] * 2
    assert [payload for _, payload, _ in listener.heard[::2]] == [OBJECT.decode(), ""]


@needs_broker
@pytest.mark.parametrize("lines", [
    ("max_packet_size 2000",), ("acl_file {}",),
])  # fmt: skip
def test_a_broker_that_takes_no_picture_gets_the_alarm(tmp_path, pictures, lines, caplog):
    rights = tmp_path / "rights"
    topics = ("manyeyes/status", "manyeyes/alarms/#", "homeassistant/#")
    rights.write_text("topic read #\n" + "".join(f"topic write {topic}\n" for topic in topics))
    (tmp_path / "store.db.pictures/5f3a/gate/7.jpg").write_bytes(b"j" * 3000)
    lines = [line.format(rights) for line in lines]
    with Broker(tmp_path / "broker", "allow_anonymous true", *lines) as broker:
        stage = alarms(tmp_path / "o.db", [mqtt(broker, picture="object")], pictures=pictures)
        stage.process(seen(0, happening()))
        until(stage, lambda: account(stage) == (1, 1, 0))
        stage.close()
    assert ("does not take pictures: Not authorized" in caplog.text) == ("acl" in lines[0])


def test_mistakes_are_one_sentence(tmp_path, pictures):
    def refused(words, folder, **fields):
        with pytest.raises(ConfigError, match=words):
            alarms(tmp_path / "o.db", [webhook("http://127.0.0.1:9/x", **fields)], pictures=folder)

    refused("target 'ops': picture: nobody keeps pictures; add", None, picture="object")
    refused("picture_url must be http:// or https://", pictures, picture="frame", picture_url="x")
    refused('add picture = "object" or', pictures, picture_url="https://nvr.example")
