"""docs/own-parts.md as a stranger follows it: its three files and its TOML, in a folder of their own."""

import csv
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.plan.config import load
from pipeline.plan.standard import make
from stages.capture.synthetic import Synthetic, SyntheticConfig

PAGE = (Path(__file__).parent.parent / "docs" / "own-parts.md").read_text()
FRAMES = 12


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def rendered(frames):
    """A scene, as somebody's camera would have written it."""
    source = Synthetic(SyntheticConfig(url="synthetic://?seed=3&size=320x192&realtime=false"))
    buffer = np.empty(320 * 192 * 3, np.uint8)
    source.setup()
    source.open()
    pictures = [source.read(buffer).frame(buffer).image.copy() for _ in range(frames)]
    source.close()
    return np.stack(pictures)


@pytest.fixture
def mine(manyeyes):
    (manyeyes.folder / "mine").mkdir()
    files = re.findall(r"`(mine/\w+\.py)`", PAGE)
    for path, text in zip(files, blocks("python"), strict=True):
        manyeyes.write(text, path)
    (toml,) = blocks("toml")
    manyeyes.write(toml, "mine.toml")
    np.save(manyeyes.folder / "frames.npy", rendered(FRAMES))
    return manyeyes


def test_a_strangers_source_stage_and_sink_run_and_are_accounted_for(mine):
    for line in blocks("sh")[0].splitlines():
        code, out, err = mine(*line.split()[1:])
        assert code == 0, err
    assert re.search(rf"^ bench +detect +{FRAMES} +{FRAMES} ", out, re.MULTILINE), out
    rows = list(csv.reader((mine.folder / "counts.csv").read_text().splitlines()))
    assert [row[:2] for row in rows] == [["bench", str(n)] for n in range(FRAMES)]
    assert sum(int(n) for row in rows for n in row[2:]) > 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("rate_hz = 25.0", "rate_hz = 0.0"), "camera 'bench': rate_hz must be > 0, got 0.0"),
        (("rate_hz = 25.0", "rate = 25.0"), "unknown key 'rate'; did you mean 'rate_hz'?"),
        (("mine.array:Array", "mine.table:Table"), "'mine.table:Table' is no source"),
        (("mine.array:Array", "mine.nothing:Array"), "can't be loaded"),
        (('run = "mine.array:Array"', 'source = "0"\nrun = "mine.array:Array"'), "remove either"),
        (('run = "mine.array:Array"\n', ""), "'source' is missing"),
        (('run = "mine.array:Array"', 'run = "mine.array:Array"\nreader = "av"'), "remove reader"),
    ],
)
def test_mistakes_are_one_sentence_before_anything_starts(mine, monkeypatch, change, sentence):
    (toml,) = blocks("toml")
    mine.write(toml.replace(*change), "mine.toml")
    monkeypatch.syspath_prepend(mine.folder)
    monkeypatch.chdir(mine.folder)
    with pytest.raises(ConfigError) as refusal:
        make(load(mine.folder / "mine.toml"))
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]
    assert sentence in str(refusal.value)
