"""The sink of alarms, inline and as a process that is killed, for tests of what is delivered."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from patience import BOUND_S
from walks import result

from pipeline.happenings import Happening
from pipeline.runtime import LocalRuntime
from stages.sinks.alarms.stage import Alarms, AlarmsConfig

SECOND, HOUR = 10**9, 3600 * 10**9
T0 = 1_763_805_600 * SECOND  # 2025-11-22T10:00:00Z, a Saturday
CLASSES = ("person", "car")
WEBHOOK = "stages.sinks.alarms.webhook:Webhook"


def happening(kind="entered", track=7, label="person", score=0.5, **fields):
    place = {"appeared": "", "gone": ""}.get(kind, "yard")
    fields = {"place": place} | fields
    return Happening(
        kind, fields.pop("run", "5f3a"), track, label, score, (1.0, 2.0, 3.0, 4.0), **fields
    )


def seen(n, *happenings, t_s=None, camera="gate"):
    """The result of frame n, a second after the one before, and just now by the monotonic clock."""
    t_wall_ns = T0 + round((n if t_s is None else t_s) * SECOND)
    one = result(n, {})
    info = one.info._replace(t_wall_ns=t_wall_ns, camera=camera, t_capture_ns=time.monotonic_ns())
    return replace(one, info=info, happenings=happenings)


def alert(**fields):
    return {"name": "visitor", "kinds": ["entered"], "to": ["ops"], "cooldown_s": 60.0, **fields}


def webhook(url, name="ops", **fields):
    return {"name": name, "run": WEBHOOK, "url": url, **fields}


def mqtt(broker, *, tls=False, **fields):
    """broker: one of `broker.py`, or None where fields have the url."""
    url = f"mqtt{'s' * tls}://127.0.0.1:{broker.port if broker else 1883}"
    fields = {"url": url, "timeout_s": 2.0} | fields
    return {"name": "ops", "run": "stages.sinks.alarms.mqtt:Mqtt", **fields}


def alarms(path, targets, alerts=None, *, runtime=None, **fields):
    """Checked and set up."""
    stage = Alarms(
        AlarmsConfig(
            path=str(path), alerts=tuple(alerts or [alert()]), targets=tuple(targets),
            classes=CLASSES, **fields,
        )
    )  # fmt: skip
    stage.pauses_s = (0.001, 0.01)
    stage.check(stage.config)
    stage.runtime = runtime or LocalRuntime(("gate", "yard"))
    stage.setup()
    return stage


def until(stage, condition):
    """Idle as in a run, until something is so."""
    end_s = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < end_s
        stage.idle()
        time.sleep(0.005)
    stage.idle()


def account(stage, target="ops"):
    """(queued, delivered, given up)."""
    names = ("queued", "delivered", "given up")
    return tuple(stage.runtime.counted_in_all(f"delivery:{target}:{name}") for name in names)


def start(path, url, first):
    """A process that raises alarm after alarm, from the number `first` on, and says each that was taken."""
    tests = Path(__file__).parent
    return subprocess.Popen(
        [sys.executable, __file__, str(path), url, str(first)],
        env=os.environ | {"PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def main() -> None:
    path, url, first = sys.argv[1:]
    target = mqtt(None, url=url) if url.startswith("mqtt") else webhook(url)
    stage = alarms(path, [target])
    for n in range(int(first), 10**6):
        stage.process(seen(n, happening(track=n)))
        stage.idle()
        print(n, flush=True)


if __name__ == "__main__":
    main()
