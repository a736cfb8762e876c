"""What benchmarks/many.py counts."""

import json

from benchmarks.many import configuration, counts
from pipeline.plan import config


def test_who_was_not_served_counts_as_well():
    lines = "".join(json.dumps({"camera": name}) + "\n" for name in ("c0", "c1", "c1", "c0"))
    assert counts(lines.encode(), 3) == [0, 2, 0]


def test_its_configuration_is_one(tmp_path):
    (tmp_path / "many.toml").write_text(configuration(3, 1.0))
    assert len(config.load(tmp_path / "many.toml").camera) == 3
