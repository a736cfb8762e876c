"""File: an alarm is a line of JSON, for programs that read along, and for a first look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.errors import FrameError, ResourceError
from stages.sinks.alarms.pictures import Picture
from stages.sinks.alarms.rules import Rule
from stages.sinks.alarms.target import NotDelivered, Target
from stages.sinks.lines import LinesFile


@dataclass(frozen=True, kw_only=True)
class LinesConfig:
    """Which file."""

    path: str  # appended to; its folder is made if missing


class Lines(Target):
    """Appends each alarm in one write; whoever is killed meanwhile writes it again, to the byte."""

    Config = LinesConfig
    config: LinesConfig

    @classmethod
    def check(cls, config: LinesConfig) -> None:
        """Raises ResourceError if the file can't be written."""
        LinesFile("alarms", config.path).check()

    def open(self, rules: Sequence[Rule], wake: Callable[[], None]) -> None:
        """Nothing yet: the first message opens it."""
        self._file = LinesFile("alarms", self.config.path)

    def deliver(self, message_id: str, document: str, picture: Picture | None) -> None:
        """One line."""
        try:
            self._file.follow()
            self._file.append(f"{document}\n".encode())
        except (FrameError, ResourceError) as error:
            raise NotDelivered(str(error)) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()
