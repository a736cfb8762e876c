"""The certificate says what the trials say, on one page that needs nothing beside it; and one real run."""

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from patience import BOUND_S

from benchmarks.tool.capacity import document, summary
from benchmarks.tool.certificate import page
from benchmarks.tool.copies import Clip, clips_of, copied, harmless, is_live
from benchmarks.tool.limits import Limits
from benchmarks.tool.search import SERVED, Trial, find
from pipeline.errors import ConfigError
from pipeline.plan import config as configuration

MANYEYES = Path(sys.executable).with_name("manyeyes")
MACHINE = {
    "cpu": "A <fast> CPU & more", "cores": 2, "gpu": "", "system": "Linux", "python": "3.11",
    "versions": {"numpy": "2.0", "torch": ""}, "load_before": 0.1, "load_after": 1.2,
    "steal_share": 0.01, "commit": "abc", "date": "2026-11-22",
}  # fmt: skip
CLIPS = [
    Clip(camera=camera, run="", config={}, width=640, height=360, frame_bytes=1, rate_hz=5)
    for camera in configuration.from_sources(["synthetic://"]).camera
]
HARDWARE = [
    Limits(decode_fps=200, model_fps=100, how="2 × 1", shared=True),
    Limits(decode_fps=210, model_fps=110, how="2 × 1", shared=True),
]


def trial(n, seconds, border):
    late = n > border
    return Trial(
        cameras=n, seconds=seconds, p50_ms=20 + n, p99_ms=400.0 if late else 60.0 + n,
        served=0.9 if late else 1.0, fps=5.0 * n, cores=min(2.0, 0.15 * n), memory_bytes=n << 27,
        cpu_ms={"capture": 3.0, "inference": 20.0}, busy={"inference": min(1.0, 0.08 * n)},
    )  # fmt: skip


def certificate(border, most=64):
    question = {
        "p99_ms": 100.0, "served": 0.99, "seconds": 60.0, "policy": "newest", "engine": "auto",
        "model": "a <model>.bundle",
        "clips": [{"source": "<clip>.mp4", "width": 640, "height": 360, "rate_hz": 5.0}],
    }  # fmt: skip
    found = find(lambda n, s: trial(n, s, border), p99_ms=100, short_s=5, full_s=60, most=most)
    return document(question, found, HARDWARE, MACHINE, CLIPS, "manyeyes bench '<clip>.mp4'")


class Page(HTMLParser):
    """Texts, tags and sources of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.sources = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data):
        self.texts.append(data)


def test_the_document_says_how_many_and_what_share_of_the_hardware_that_is():
    found = json.loads(json.dumps(certificate(13), allow_nan=False))
    assert found["cameras"] == 13
    assert {(t["cameras"], t["passed"]) for t in found["trials"] if t["confirmed"]} == {
        (13, True), (14, False),
    }  # fmt: skip
    figures = {row["id"]: row for row in found["figures"]}
    assert figures["e"]["value"] == pytest.approx(65 / 105)
    assert figures["e, shared"]["value"] == pytest.approx(
        65 / ((200 * 100 / 300 + 210 * 110 / 320) / 2)
    )
    assert figures["e"]["low"] <= figures["e"]["value"] <= figures["e"]["high"]
    assert found["limited_by"]["resource"] == "host CPU"
    assert "inference 87%" in found["limited_by"]["words"]
    assert str(summary(found)).startswith("13 cameras at 5 frames a second")


def test_a_device_beside_the_cores_is_limited_by_the_slower_of_the_two():
    limit = Limits(decode_fps=200, model_fps=100, how="", shared=False)
    assert (limit.fps, limit.shared_fps) == (100, 100)
    memory = Limits(decode_fps=math.inf, model_fps=100, how="", shared=True)
    assert (memory.fps, memory.shared_fps) == (100, 100)
    assert memory.to_json()["decode_fps"] is None


@pytest.mark.parametrize(("border", "most"), [(13, 64), (0, 64), (100, 8)])
def test_the_page_is_whole_and_names_are_only_text(border, most):
    found = certificate(border, most)
    text = page(found)
    shown = Page(text)
    assert str(min(border, most)) in shown.texts
    assert "svg" in shown.tags
    assert "script" not in shown.tags
    assert "fast" not in shown.tags
    assert "clip" not in shown.tags
    assert all(source.startswith("#") for source in shown.sources)
    assert not re.search(r"url\((?!#)|@import|src=", text)
    assert any("A <fast> CPU & more" in one for one in shown.texts)
    assert "manyeyes bench '<clip>.mp4'" in shown.texts
    assert text.count("<tr>") >= len(found["trials"])


# -- cameras made of what there is -----------------------------------------------------------------


def test_each_clip_in_turn_and_nothing_is_written_where_the_user_writes(tmp_path):
    config = configuration.from_sources(
        ["synthetic://?rate=5&size=320x180", "synthetic://?rate=8"],
        events=tmp_path / "mine.jsonl", window=True,
    )  # fmt: skip
    clips = clips_of(config)
    assert [(c.width, c.height, c.rate_hz, c.frame_bytes) for c in clips] == [
        (320, 180, 5, 86400), (640, 360, 8, 345600),
    ]  # fmt: skip
    three = copied(config, clips, 3, tmp_path / "other")
    assert [camera.source.partition("size=")[2] for camera in three.camera] == [
        "320x180&rate=5", "640x360&rate=8", "320x180&rate=5",
    ]  # fmt: skip
    assert len({camera.name for camera in three.camera}) == 3
    (sink,) = three.sink
    assert sink.options["path"] == str(tmp_path / "other" / "events-mine.jsonl")
    assert [clip.rate_hz for clip in clips_of(config, 12)] == [12, 12]
    assert harmless((), tmp_path) == ()


@pytest.mark.parametrize("source", [0, "0", "/dev/video1", "rtsp://10.0.0.7/a", "http://a/b"])
def test_a_live_camera_is_not_copied(source):
    assert is_live(source)
    with pytest.raises(ConfigError, match="record a minute of it"):
        clips_of(
            configuration.from_sources([source]) if "dev" not in str(source) else _named(source)
        )
    assert not is_live("synthetic://?rate=5")
    assert not is_live("street.mp4")


def _named(source):
    config = configuration.from_sources(["synthetic://"])
    (camera,) = config.camera
    return config.model_copy(update={"camera": (camera.model_copy(update={"source": source}),)})


# -- the command -----------------------------------------------------------------------------------


@pytest.mark.parametrize("p99_ms", [5000, 1])
def test_a_single_number_is_tried_and_answered_by_the_exit_code(tmp_path, p99_ms):
    """Whether it serves them is the machine's affair, within 1 ms none does."""
    (tmp_path / "run.toml").write_text(
        '[metrics]\nenabled = false\n[model]\nengine = "stub"\n'
        '[[camera]]\nname = "gate"\nsource = "synthetic://?size=160x96"\n'
    )
    done = subprocess.run(
        [MANYEYES, "bench", "capacity", "run.toml", "--p99-ms", str(p99_ms), "--fps", "5",
         "--seconds", "2", "--cameras", "2", "--json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=BOUND_S,
    )  # fmt: skip
    row = json.loads(done.stdout)
    serves = row["p99_ms"] <= p99_ms and row["served"] >= SERVED
    assert (done.returncode, row["passed"], row["cameras"]) == (not serves, serves, 2), done.stderr
    assert row["failure"] == ""
    assert (row["why"] == "") == serves
    assert p99_ms > 1 or not serves
    assert not (tmp_path / "out").exists()


def test_a_real_search_for_at_most_two_cameras(tmp_path):
    """How many it finds is the machine's, none where others take it; that it tried and wrote is ours."""
    (tmp_path / "run.toml").write_text(
        '[metrics]\nenabled = false\n[model]\nengine = "stub"\n'
        '[[camera]]\nname = "gate"\nsource = "synthetic://?size=160x96"\n'
    )
    done = subprocess.run(
        [MANYEYES, "bench", "capacity", "run.toml", "--p99-ms", "2000", "--fps", "4", "--seconds", "2",
         "--most", "2", "-o", "found", "--json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=BOUND_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "found" / "capacity.json").read_text())
    tried = [trial["cameras"] for trial in found["trials"]]
    assert tried[0] == 1
    assert {*tried} <= {1, 2}
    assert found["cameras"] in (0, *tried)
    assert all(t["fps"] > 0 for t in found["trials"])
    assert found["command"].startswith("manyeyes bench capacity run.toml")
    assert Page((tmp_path / "found" / "capacity.html").read_text()).tags.count("svg") == 1
