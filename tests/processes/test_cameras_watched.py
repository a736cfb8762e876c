"""A run whose cameras are looked after: one of them is not there, health itself is killed, and of
objects the best picture is kept."""

import base64
import json
import signal
import socket
import time

import cv2
import patterns
import pytest
from receiver import Receiver
from seeing import all_seeing

from pipeline.plan import config
from pipeline.plan.standard import make
from pipeline.supervision.supervisor import Options, Supervisor
from stages.sinks.store import query

PLACE = """
[run]
seconds = 60
[model]
engine = "stub"
[health]
down_s = 0
[[camera]]
name = "gate"
source = "synthetic://?seed=1&size=320x180&rate=10"
[[camera]]
name = "dead"
source = "synthetic://?seed=2&size=320x180&rate=10"
[[camera]]
name = "away"
source = "rtsp://127.0.0.1:{port}/x"
[[sink]]
type = "happenings"
path = "happenings.jsonl"
[[sink]]
type = "store"
path = "store.db"
[[alert]]
name = "who"
kinds = ["appeared"]
cameras = ["gate"]
to = ["ops"]
[[target]]
name = "ops"
type = "webhook"
url = "{url}"
picture = "object"
"""


@pytest.fixture(autouse=True)
def _parts_on_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", patterns.PATH)


def test_a_camera_that_is_not_there_is_told_to_every_sink_and_no_account_knows_of_it(tmp_path):
    """Nor of one whose process dies again and again."""
    log = tmp_path / "happenings.jsonl"
    killed = []

    def downs(camera):
        lines = log.read_text().splitlines() if log.exists() else []
        told = [line for line in map(json.loads, lines) if line["kind"] == "down"]
        return [line for line in told if line["camera"] == camera]

    def kill(supervisor):
        if not killed and downs("away"):
            killed.append(supervisor.children["health"])
            killed[0].signal(signal.SIGKILL)
        if supervisor.live and supervisor.children["capture.dead"].alive:
            supervisor.children["capture.dead"].signal(signal.SIGKILL)
        came = list((tmp_path / "store.db.pictures").glob("*/gate/*.frame.jpg"))
        if len(downs("away")) == 2 and downs("dead") and came and receiver.ids:
            supervisor.stop()

    with Receiver() as receiver, socket.socket() as closed:  # bound for nobody, and not listening
        closed.bind(("127.0.0.1", 0))
        (tmp_path / "place.toml").write_text(
            PLACE.format(port=closed.getsockname()[1], url=receiver.url)
        )
        settings = config.load(tmp_path / "place.toml")
        metrics = settings.metrics.model_copy(update={"port": None})
        plan = all_seeing(make(settings.model_copy(update={"metrics": metrics})))
        supervisor = Supervisor(plan, Options(seconds=60), kill)
        supervisor.run()
    first, second = downs("away")  # the one that was killed forgot that it had said so
    assert {(one["camera"], one["cause"], one["frame_id"]) for one in (first, second)} == {
        ("away", "network", None)
    }
    assert {one["cause"] for one in downs("dead")} == {"process"}
    alarm = json.loads(receiver.bodies[0])  # with the picture that the store has by then
    assert base64.b64decode(alarm["picture"]["base64"]).startswith(b"\xff\xd8")
    kept = list(query.happenings(str(tmp_path / "store.db"), camera="away", kind="down"))
    assert {one["id"] for one in kept} == {first["id"], second["id"]}
    assert all(totals.error == 0 for totals in supervisor.totals.values())
    assert max(totals.captured for totals in supervisor.totals.values()) > 0
    assert not list(query.incidents(str(tmp_path / "store.db"), camera="away"))
    now_ns = time.time_ns()
    for camera, came in (("gate", True), ("away", False)):
        rows = query.minutes(str(tmp_path / "store.db"), camera, now_ns - 10**11, now_ns)
        assert rows
        assert all(row["dropped"] == {} or camera == "gate" for row in rows)
        assert (sum(row["served"] for row in rows) > 0) == came
    pictures = [one["picture"] for one in query.incidents(str(tmp_path / "store.db"))]
    shown = [cv2.imread(path) for path in pictures if path is not None]
    assert shown
    assert all(picture is not None for picture in shown)
