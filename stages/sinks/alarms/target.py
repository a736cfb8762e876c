"""The contract of a target: something outside that is told of alarms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from stages.sinks.alarms.pictures import Kind, Picture
from stages.sinks.alarms.rules import Rule


class NotDelivered(Exception):
    """Not now; the same message is tried again. The text says why, in a sentence without secrets."""


class Target:
    """One `[[target]]`. It has a thread to itself, so it may wait; whoever else is told does not notice."""

    Config: ClassVar[type]
    """A frozen dataclass; its fields are the keys of the `[[target]]` beside `name` and `type`."""

    needs: ClassVar[tuple[str, str]] = ("", "")
    """The library that it imports in `open`, and the extra of manyeyes that brings it."""

    def __init__(self, name: str, config: Any) -> None:
        self.name, self.config = name, config

    @classmethod
    def check(cls, config: Any) -> None:
        """Called in the supervisor, before anything starts; asks no network. Raises ConfigError."""

    @property
    def picture(self) -> Kind:
        """Which picture of an object it wants with its alarms."""
        wanted: Kind = getattr(self.config, "picture", "")
        return wanted

    @classmethod
    def secrets(cls, config: Any) -> tuple[str, ...]:
        """Names of environment variables, as `Stage.secrets`."""
        return ()

    def open(self, rules: Sequence[Rule], wake: Callable[[], None]) -> None:
        """Called in the target's thread, before the first message. Connects to nothing yet, or in
        the background. Should it raise, it is called again, later and later.

        rules: those that tell this target. wake: to be called, from any thread, when it can be reached
        again, so that what waits need not wait for its next attempt.
        """

    def deliver(self, message_id: str, document: str, picture: Picture | None) -> None:
        """Returns when the other side has said that it has the message; raises NotDelivered, in some
        seconds, if it has not. The same message then comes again, and again after a restart.

        message_id: the same whenever the message comes. document: JSON, as `rules.to_json` has it.
        picture: the best that there is by now, if it wants one and there is one; an alarm that can't be
        delivered with it is delivered without.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Called once, in the target's thread."""
