"""Alarms: judges what happened by rules, keeps what is to be told in an outbox, and has it delivered."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections import ChainMap, Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from pipeline import happenings
from pipeline.errors import ConfigError, FrameError
from pipeline.messages import Result
from pipeline.stage import Sink
from stages.sinks.alarms import check
from stages.sinks.alarms.age import boot_id
from stages.sinks.alarms.courier import PAUSES_S, Attempt, Courier
from stages.sinks.alarms.outbox import Message, Outbox
from stages.sinks.alarms.rules import Key, Rule, judge, to_json
from stages.sinks.files import DISK_TURN_S
from stages.sinks.lines import utc

log = logging.getLogger("manyeyes")

_SWEEP_S = 60.0  # how often what is too old or too much is looked for
_FLUSH_S = 0.8  # at the end, for what was said in the last moment
_LOOK_S = 1.0  # between two looks at whether the file is still there


@dataclass(frozen=True, kw_only=True)
class AlarmsConfig:
    """What is an alarm, who is told, and how long that is tried."""

    path: str  # of the outbox; made if missing, with its folder
    alerts: tuple[dict[str, Any], ...]  # as `[[alert]]` has them
    targets: tuple[dict[str, Any], ...]  # name, type, and the fields of its class
    classes: tuple[str, ...]  # of the models
    pictures: str | None = None  # the folder in which a store keeps those of objects
    max_age_h: float = 72.0  # what waits for longer is given up
    max_mb: float = 64.0  # what waits beyond it, the oldest first
    keep_days: float = 30.0  # that what was delivered is remembered


class Alarms(Sink):
    """One transaction a result in which there is an alarm; deliveries have threads of their own.

    A full disk costs the alarms that it does not take, and the next is tried again.
    """

    Config = AlarmsConfig
    config: AlarmsConfig
    turn_s = DISK_TURN_S
    takes_health = True
    pauses_s = PAUSES_S

    def __init__(self, config: AlarmsConfig) -> None:
        super().__init__(config)
        self._rules: list[Rule] = []
        self._cooling: dict[Key, int] = {}
        self._couriers: dict[str, Courier] = {}
        self._attempts: SimpleQueue[Attempt] = SimpleQueue()
        self._taken: dict[int, Attempt] = {}  # by place, until the outbox knows it
        self._waiting: Counter[str] = Counter()  # by target
        self._new_bytes = 0  # since the last sweep
        self._sweep_at_s = self._look_at_s = 0.0

    @classmethod
    def check(cls, config: AlarmsConfig) -> None:
        """Raises ConfigError for a rule or a target that can't be, or for a file that is no outbox."""
        check.check_rules(config.alerts, config.classes)
        check.check_targets(config.targets, has_pictures=config.pictures is not None)
        check.check_file(config.path)
        for name in ("max_age_h", "max_mb", "keep_days"):
            if not getattr(config, name) > 0:
                raise ConfigError(f"[outbox]: {name} must be > 0, got {getattr(config, name)}")

    @classmethod
    def counters(cls, config: AlarmsConfig) -> tuple[str, ...]:
        """`alarm:<alert>:<verdict>`, and of each target what was queued and what came of it."""
        alerts = [
            f"alarm:{alert['name']}:{verdict}"
            for alert in config.alerts
            for verdict in ("alarm", "disarmed", "not now", "cool-down")
        ]
        outcomes = ("queued", "delivered", "given up", "failed")
        return (
            *alerts,
            *(f"delivery:{t['name']}:{outcome}" for t in config.targets for outcome in outcomes),
        )

    @classmethod
    def histograms(cls, config: AlarmsConfig) -> tuple[str, ...]:
        """`lateness:<target>`: from the picture to the answer."""
        return tuple(f"lateness:{target['name']}" for target in config.targets)

    @classmethod
    def secrets(cls, config: AlarmsConfig) -> tuple[str, ...]:
        """Those of all targets."""
        targets = map(check.target_of, config.targets)
        return tuple(name for target in targets for name in target.secrets(target.config))

    def setup(self) -> None:
        """Open the outbox and begin to deliver what is still in it."""
        self._rules = [check.rule_of(alert) for alert in self.config.alerts]
        self._outbox = Outbox(self.config.path)
        self._cooling = self._outbox.cooling()
        for name, n in self._outbox.abandon([t["name"] for t in self.config.targets]).items():
            log.warning("%d alarms waited for target %r, which there is no more", n, name)
        if self.runtime.cameras:
            self._begin()

    def add(self, camera: str) -> None:
        """See pipeline.stage. One that comes while a run goes on has no camera before it is ready."""
        if not self._couriers:
            self._begin()

    def _begin(self) -> None:
        """Deliver what is in the outbox."""
        self._account()
        for fields in self.config.targets:
            target = check.target_of(fields)
            courier = Courier(
                target, self._rules, self.config.path, self._attempts, self.config.pictures,
                self.pauses_s,
            )  # fmt: skip
            self._couriers[target.name] = courier
            courier.start()

    def process(self, result: Result) -> None:
        """Raises FrameError if the disk does not take an alarm; the next may be taken."""
        if not result.happenings:
            return
        info, new = result.info, dict[Key, int]()
        documents = [
            happenings.to_json(
                one, n, camera=info.camera, frame_id=info.frame_id, time=utc(info.t_wall_ns)
            )
            for n, one in enumerate(result.happenings)
        ]
        verdicts: list[str] = []
        messages: list[Message] = []
        known = ChainMap(new, self._cooling)
        for rule, document, verdict in judge(
            self._rules, ((document, info.t_wall_ns) for document in documents), known
        ):
            verdicts.append(f"alarm:{rule.name}:{verdict}")
            if verdict == "alarm":
                messages += _messages(rule, document, result)
        if messages:
            self._keep(messages, new)
        for name in verdicts:
            self.runtime.count(name, info.camera)

    def idle(self) -> None:
        """Note what was delivered. Raises RuntimeError where only a new process helps."""
        self._note_attempts()
        now_s = time.monotonic()
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + _LOOK_S
            if dead := [c.name for c in self._couriers.values() if not c.is_alive()]:
                raise RuntimeError(f"{dead[0]} has ended")
            if not self._outbox.is_there():
                raise RuntimeError(f"the outbox {self.config.path} was moved away")
        if now_s >= self._sweep_at_s or self._new_bytes > self._max_bytes / 8:
            self._sweep_at_s, self._new_bytes = now_s + _SWEEP_S, 0
            self._sweep()

    def close(self) -> None:
        """Give what was said last a moment to arrive; what does not waits for the next run."""
        end_s = time.monotonic() + _FLUSH_S
        while +self._waiting and self._couriers and (left_s := end_s - time.monotonic()) > 0:
            self._note_attempts(wait_s=left_s)
        for courier in self._couriers.values():
            courier.end()
        self._outbox.close()

    @property
    def _max_bytes(self) -> int:
        return int(self.config.max_mb * 1e6)

    def _account(self) -> None:
        """queued = delivered + given up + waiting, also for what earlier runs left, and what this one's
        process did before it was killed."""
        waiting = self._outbox.waiting()
        for name in (fields["name"] for fields in self.config.targets):
            self._waiting[name] = waiting.get(name, 0)
            queued, delivered, given_up = (
                self.runtime.counted_in_all(f"delivery:{name}:{outcome}")
                for outcome in ("queued", "delivered", "given up")
            )
            missing = waiting.get(name, 0) + delivered + given_up - queued
            outcome = "queued" if missing > 0 else "delivered"
            camera = self.runtime.cameras[-1]
            self.runtime.count(f"delivery:{name}:{outcome}", camera, abs(missing))

    def _keep(self, messages: Sequence[Message], cooling: dict[Key, int]) -> None:
        try:
            new = self._outbox.add(messages, cooling)
        except sqlite3.Error as error:
            raise FrameError(
                f"sink alarms: {self.config.path} can't be written ({error}); make room"
            ) from error
        self._cooling |= cooling
        for message in new:
            self._count("queued", message)
            self._waiting[message.target] += 1
            self._new_bytes += len(message.document)
        for target in {message.target for message in new}:
            self._couriers[target].wake()

    def _note_attempts(self, wait_s: float = 0.0) -> None:
        try:
            while True:
                attempt = self._attempts.get(wait_s > 0, wait_s or None)
                wait_s = 0.0
                if attempt.taken:
                    self._taken[attempt.message.seq] = attempt
                else:
                    self._count("failed", attempt.message)
        except Empty:
            pass
        if not self._taken:
            return
        try:
            ended = self._outbox.delivered(self._taken)
        except (
            sqlite3.Error
        ) as error:  # they are not forgotten, and should we die meanwhile, sent again
            log.warning("sink alarms: %s can't be written (%s)", self.config.path, error)
            return
        for seq in ended:
            attempt = self._taken[seq]
            self._count("delivered", attempt.message)
            self.runtime.measure(f"lateness:{attempt.message.target}", attempt.seconds)
            self._waiting[attempt.message.target] -= 1
        self._taken.clear()

    def _sweep(self) -> None:
        keep_s = self.config.keep_days * 86_400
        try:
            given_up = self._outbox.give_up(self.config.max_age_h * 3600, self._max_bytes)
            self._outbox.forget(keep_s, max(rule.cooldown_s for rule in self._rules))
            self._cooling = self._outbox.cooling()
        except sqlite3.Error as error:
            log.warning("sink alarms: %s can't be written (%s)", self.config.path, error)
            return
        for message in given_up:
            log.warning(
                "target %r: alarm %s is given up: it is too old, or there are too many",
                message.target, message.id,
            )  # fmt: skip
            self._count("given up", message)
            self._waiting[message.target] -= 1

    def _count(self, outcome: str, message: Message) -> None:
        cameras = self.runtime.cameras  # its own may have left
        if not cameras:  # nor does anybody read it: the sink is on its way out of the run
            return
        camera = message.camera if message.camera in cameras else cameras[-1]
        self.runtime.count(f"delivery:{message.target}:{outcome}", camera)


def _messages(rule: Rule, happening: dict[str, Any], result: Result) -> Iterable[Message]:
    info, alarm = result.info, to_json(rule, happening)
    document = json.dumps(alarm, ensure_ascii=False)
    return (
        Message(
            0, alarm["id"], target, info.camera, info.t_wall_ns, info.t_capture_ns, boot_id(), document
        )
        for target in rule.to
    )  # fmt: skip
