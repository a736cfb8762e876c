"""Parts of others that are not what a part must be: a sentence, and no traceback."""

import pytest

from pipeline.errors import ConfigError
from pipeline.plan.loading import signature

PARTS = """
from __future__ import annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING
from pipeline.messages import Result
from pipeline.stage import Stage
if TYPE_CHECKING:
    from pipeline.messages import Frame

class Bare(Stage):
    def process(self, item: Result) -> Result: ...

class Untold(Bare):
    @dataclass(frozen=True)
    class Config: ...
    def process(self, item): ...

class Hidden(Untold):
    def process(self, item: Frame) -> Frame: ...
"""
WRONG = {
    "Nothing": "can't be loaded: module 'odd_parts' has no attribute 'Nothing'",
    "dataclass": "is no stage; wanted a class that inherits from Stage",
    "Bare": "has no Config; wanted a dataclass of its keys",
    "Untold": "must say what it takes, one of Frame",
    "Hidden": "an annotation of process\\(\\) can't be read: name 'Frame' is not defined",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_part_that_is_none_is_one_sentence(tmp_path, monkeypatch, name):
    (tmp_path / "odd_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=WRONG[name]):
        signature(f"odd_parts:{name}")
