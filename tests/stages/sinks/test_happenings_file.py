"""What happened, as lines."""

import json
from dataclasses import replace

import pytest
from sink_frames import result

from pipeline.errors import ConfigError, ResourceError
from pipeline.happenings import Happening
from stages.sinks.happenings import Happenings, HappeningsConfig

ENTERED = Happening("entered", "5f3a", 7, "car", 0.66, (1.0, 2.0, 3.0, 4.0), "door")
GONE = Happening("gone", "5f3a", 7, "car", 0.66, (1.0, 2.0, 3.0, 4.0), seconds=2.0)


def write(path, *results, **config):
    sink = Happenings(HappeningsConfig(path=str(path), **config))
    sink.check(sink.config)
    sink.setup()
    for one in results:
        sink.process(one)
    sink.close()
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_for_each(tmp_path):
    results = [replace(result(3), happenings=(ENTERED, GONE)), result(4)]
    lines = write(tmp_path / "new" / "h.jsonl", *results)
    assert [(one["id"], one["kind"]) for one in lines] == [
        ("5f3a-gate-3-0", "entered"), ("5f3a-gate-3-1", "gone"),
    ]  # fmt: skip
    assert lines[0]["time"].endswith("Z")
    assert lines[0]["place"] == "door"


def test_only_kinds_that_are_asked_for_with_the_ids_that_they_have_anyway(tmp_path):
    one = replace(result(3), happenings=(ENTERED, GONE))
    lines = write(tmp_path / "h.jsonl", one, kinds=("gone",))
    assert [line["id"] for line in lines] == ["5f3a-gate-3-1"]


def test_an_unknown_kind_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="unknown kind 'enter'; wanted some of appeared"):
        Happenings.check(HappeningsConfig(path=str(tmp_path / "h"), kinds=("enter",)))
    with pytest.raises(ResourceError, match="sink happenings: wanted a file"):
        Happenings.check(HappeningsConfig(path=str(tmp_path)))
