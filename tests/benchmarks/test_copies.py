"""Clips become cameras that never end, each picture as its reader gives it; live cameras do not."""

import numpy as np
import pytest
from clips import moving_square, write_clip

from benchmarks.rig.runs import Window
from benchmarks.tool.copies import Paced, PacedConfig, clips_of, copied, paced
from benchmarks.tool.stage_times import Look, Spent
from benchmarks.tool.trials import trial_of
from pipeline.accounts.layout import EDGES_S
from pipeline.errors import ConfigError
from pipeline.plan import config as configuration
from pipeline.plan.loading import build
from pipeline.plan.standard import make


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.mp4", moving_square(10), fps=20)


def test_a_clip_says_its_size_and_rate(clip, tmp_path):
    (found,) = clips_of(configuration.from_sources([str(clip)]))
    assert (found.width, found.height, found.frame_bytes) == (96, 64, 96 * 64 * 3 // 2)
    assert found.rate_hz == pytest.approx(20)
    assert not found.is_scene
    (faster,) = clips_of(configuration.from_sources([str(clip)]), 50)
    assert faster.rate_hz == 50
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    with pytest.raises(ConfigError, match="camera 'broken'"):
        clips_of(configuration.from_sources([str(broken)]))


def test_a_plan_of_copies_plays_each_clip_with_a_phase_of_its_own(clip, tmp_path):
    config = configuration.from_sources([str(clip), "synthetic://?size=96x64&rate=5"])
    clips = clips_of(config)
    plan = paced(make(copied(config, clips, 5, tmp_path)), clips)
    plan.check()
    sources = [spec for spec in plan.processes if spec.role == "source"]
    assert [spec.run.rpartition(":")[2] for spec in sources] == [
        "Paced", "Synthetic", "Paced", "Synthetic", "Paced",
    ]  # fmt: skip
    films = [spec.config for spec in sources[::2]]
    assert {film["rate_hz"] for film in films} == {clips[0].rate_hz}
    assert len({film["phase"] for film in films}) == 3
    assert all(0 <= film["phase"] < 1 for film in films)
    assert sources[0].slot_bytes == Paced.slot_bytes(PacedConfig(**films[0]), 0)


def test_the_clip_begins_again_at_its_end_with_the_same_pictures(clip):
    (found,) = clips_of(configuration.from_sources([str(clip)]), 1000)
    source = Paced(PacedConfig(run=found.run, config=found.config, rate_hz=1000))
    buffer = np.empty(source.slot_bytes(source.config, 0), np.uint8)
    source.setup()
    source.open()
    pictures = []
    while len(pictures) < 25:
        if (picture := source.read(buffer)) is not None:
            pictures.append((picture.width, picture.height, bytes(buffer[: found.frame_bytes])))
    source.close()
    assert pictures[10:20] == pictures[:10]
    assert len(set(pictures[:10])) == 10


def test_what_is_not_due_for_long_is_not_waited_for(clip):
    (found,) = clips_of(configuration.from_sources([str(clip)]))
    config = {"run": found.run, "config": found.config, "rate_hz": 0.01, "phase": 0.9}
    source = build("benchmarks.tool.copies:Paced", config)
    source.setup()
    source.open()
    assert source.read(np.empty(1 << 20, np.uint8)) is None
    assert source.skip() is False
    source.close()


# -- what a window says ----------------------------------------------------------------------------


def look(served, offered, dropped):
    cells = np.zeros(len(EDGES_S) + 1, np.int64)
    cells[np.searchsorted(EDGES_S, 0.05)] = sum(served)
    names = [f"c{i}" for i in range(len(served))]
    window = Window(
        begun_ns=0, seconds=10.0, served=dict(zip(names, served, strict=True)),
        offered=dict(zip(names, offered, strict=True)), dropped=dict(zip(names, dropped, strict=True)),
        latency=cells, service={}, wait={}, cpu_s={"capture.c0": 3.0, "supervisor": 1.0},
        pss_bytes={"supervisor": 7},
    )  # fmt: skip
    spent = Spent(
        processes=1, calls=0, frames=0, service_s=0, waits=0, wait_s=0, cpu_s=3.0, busiest=0.3,
        pss_bytes=7,
    )  # fmt: skip
    return Look(window, {"capture": spent}, 0.1)


def test_every_frame_that_a_camera_should_have_sent_counts():
    fine = trial_of(look([50, 50], [50, 49], [{}, {"unwanted": 5}]), [5, 5])
    assert (fine.cameras, fine.served, fine.fps, fine.cores) == (2, 1.0, 10.0, 0.4)
    assert 40 < fine.p99_ms < 60
    assert fine.cpu_ms["capture"] == pytest.approx(30)
    dropped = trial_of(look([50, 40], [50, 50], [{}, {"superseded": 10}]), [5, 5])
    assert dropped.served == pytest.approx(0.9)
    late = trial_of(look([50, 30], [50, 30], [{}, {}]), [5, 5])  # its own process could not keep up
    assert late.served == pytest.approx(80 / (80 + 19))


def test_a_window_without_frames_is_an_answer_too():
    nothing = trial_of(look([0], [0], [{}]), [5])
    assert (nothing.served, nothing.passes(1e9), nothing.why(100)) == (
        0.0,
        False,
        "no frame was served",
    )
