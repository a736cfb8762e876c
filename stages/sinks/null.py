"""Null: takes every result and forgets it, for measuring what stands before it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.messages import Result
from pipeline.stage import Sink


@dataclass(frozen=True, kw_only=True)
class NullConfig:
    """Nothing to say."""


class Null(Sink):
    """The end of a run that nobody watches."""

    Config = NullConfig
    config: NullConfig

    def process(self, result: Result) -> None:
        """Forget it."""
