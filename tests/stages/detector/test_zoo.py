"""The table of models: what it says is what the makers say, and names lead to files."""

import re
import tomllib
from pathlib import Path

import pytest
import torchvision
from torchvision.models import detection

from pipeline.errors import ConfigError
from stages.detector import zoo
from stages.detector.importing import COCO80

ENTRIES = list(zoo.entries().values())
TORCHVISION = {e.recipe["torchvision"]: e for e in ENTRIES if "torchvision" in e.recipe}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_is_whole(entry):
    assert re.fullmatch(r"https://[\w./%-]+\.(onnx|pth)", entry.url)
    assert re.fullmatch(r"[0-9a-f]{8,64}|", entry.sha256)
    assert entry.licence in ("Apache-2.0", "BSD-3-Clause", "MIT")
    assert entry.ap is None or 0 < entry.ap < 60
    assert (entry.ap is None) == (entry.name == "yunet")


def test_no_name_and_no_file_is_there_twice():
    table = tomllib.loads(Path(zoo.__file__).with_suffix(".toml").read_text())["model"]
    assert len({fields["name"] for fields in table}) == len(table) == len(ENTRIES)
    assert len({entry.download for entry in ENTRIES}) == len(table)


def test_torchvision_s_are_all_there_as_torchvision_has_them():
    with_more = ("maskrcnn", "keypointrcnn")  # than boxes
    offered = [n for n in torchvision.models.list_models(detection) if not n.startswith(with_more)]
    assert sorted(TORCHVISION) == sorted(offered)
    for name, entry in TORCHVISION.items():
        known = torchvision.models.get_model_weights(name).COCO_V1
        assert entry.name == name
        assert entry.url == known.url
        assert f"-{entry.sha256}.pth" in known.url
        assert entry.ap == known.meta["_metrics"]["COCO-val2017"]["box_map"]
        assert entry.megabytes == pytest.approx(known.meta["_file_size"], abs=0.01)
        assert set(COCO80) <= set(known.meta["categories"])


def test_a_name_leads_to_a_file_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    entry = zoo.entry(zoo.DEFAULT)
    assert (
        entry.bundle == zoo.bundle_of(zoo.DEFAULT) == tmp_path / "manyeyes/models/yolox-nano.bundle"
    )
    assert entry.download == tmp_path / "manyeyes/downloads/yolox_nano.onnx"
    assert zoo.bundle_of("demo").is_file()


def test_a_name_that_nobody_knows():
    with pytest.raises(ConfigError, match="did you mean 'yolox-nano'"):
        zoo.bundle_of("yolox_nano")
    with pytest.raises(ConfigError, match="`manyeyes model list` names them"):
        zoo.bundle_of("zzz")
