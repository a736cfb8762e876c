"""A real run looked at from outside: what it says must add up."""

import math
import time
from functools import partial

import numpy as np
import pytest

from benchmarks.rig.probes import ROW, TIMES, Rows
from benchmarks.rig.replay import Pace, Replay, ReplayConfig, render_stills
from benchmarks.rig.runs import Look, Rig, between, cameras, changed
from pipeline.messages import FrameInfo


def look(t_ns, **more):
    facts = {
        "offered": {"a": 0}, "served": {"a": 0}, "dropped": {"a": {"superseded": 0}},
        "latency": np.zeros(3, int), "service": {"p": np.zeros(3, int)},
        "wait": {"p": np.zeros(3, int)}, "cpu_ns": {"p": 0},
    }  # fmt: skip
    return Look(t_ns=t_ns, **{**facts, **more})


def test_a_window_is_what_two_looks_differ_by():
    a = look(5_000_000_000, offered={"a": 7}, latency=np.array([1, 2, 3]), cpu_ns={"p": 100})
    b = look(
        7_000_000_000, offered={"a": 17}, served={"a": 6}, dropped={"a": {"superseded": 3}},
        latency=np.array([1, 4, 3]), cpu_ns={"p": 500_000_100},
    )  # fmt: skip
    window = between(a, b, {"p": 4096})
    assert (window.seconds, window.begun_ns, window.ended_ns) == (2.0, a.t_ns, b.t_ns)
    assert window.offered == {"a": 10}
    assert window.fps == 3.0
    assert window.dropped == {"a": {"superseded": 3}}
    assert window.latency.tolist() == [0, 2, 0]
    assert window.cpu_s == {"p": 0.5}
    assert window.pss_bytes == {"p": 4096}


def test_a_window_in_which_nothing_happened_is_all_zeros():
    window = between(look(0), look(10**9), {})
    assert window.fps == 0
    assert not window.latency.any()


def test_rows_are_those_of_frames_of_which_all_is_noted(tmp_path):
    rows = Rows(tmp_path / "rows", ["a", "b"])
    assert rows.table(10).shape == (0,)
    other = Rows(tmp_path / "rows", ["a", "b"])  # as another process has them
    for camera, frame_id, t_ns, times in (
        ("b", 3, 200, TIMES), ("a", 0, 100, TIMES), ("a", 1, 300, TIMES[:-1]), ("a", 2, 400, TIMES[-1:]),
    ):  # fmt: skip
        info = FrameInfo(
            camera=camera, frame_id=frame_id, t_capture_ns=0, t_wall_ns=0, width=2, height=2
        )
        for place, name in enumerate(times):
            other.note(name, t_ns + place, info)
    table = rows.table(10)
    assert table.dtype == ROW
    assert table[["camera", "frame_id", "t_in_ns"]].tolist() == [(0, 0, 102), (1, 3, 202)]
    assert len(TIMES) == len(ROW.names) - 2


@pytest.fixture
def replay(tmp_path):
    render_stills(tmp_path / "stills", (32, 16), 3)
    pace = Pace(tmp_path / "pace", 2)
    source = Replay(
        ReplayConfig(
            stills=str(tmp_path / "stills"), pace=str(tmp_path / "pace"), cameras=2, camera=1,
            width=32, height=16,
        )
    )  # fmt: skip
    source.setup()
    source.open()
    return source, pace


def test_a_camera_without_a_rate_is_silent(replay):
    source, _ = replay
    assert source.read(np.zeros(32 * 24, np.uint8)) is None
    assert source.skip() is False


def test_the_stills_go_round(replay, tmp_path):
    source, pace = replay
    pace.set(1, math.inf, 0.0, time.monotonic())
    stills = np.fromfile(tmp_path / "stills", np.uint8).reshape(3, -1)
    buffer = np.zeros(4096, np.uint8)
    for index in (1, 2, 0, 1):  # a camera begins with the still of its own number
        picture = source.read(buffer)
        assert (picture.width, picture.height, picture.format) == (32, 16, "i420")
        np.testing.assert_array_equal(buffer[: 32 * 24], stills[index])


def test_frames_are_due_at_their_rate_from_the_last_change_on(replay):
    source, pace = replay
    start_s = time.monotonic()
    pace.set(1, 50.0, 0.5, start_s)
    for k in range(3):
        assert source.skip()
        assert time.monotonic() >= start_s + (k + 0.5) / 50
    pace.set(1, 50.0, 0.0, start_s - 1.0)  # a second of frames is late: none of them is left out
    passed = 0
    while time.monotonic() < start_s - 1.0 + (passed + 1) / 50 or passed < 50:
        assert source.skip()
        passed += 1
    assert passed >= 50


def test_a_run_adds_up_seen_from_outside():
    config = cameras(2, 20, size="64x48", model={"engine": "stub", "workers": 1})
    edit = partial(changed, stage="inference", stub_alpha_ms=2.0, stub_beta_ms=0.0)
    with Rig(config, probes=True, edit=edit) as rig:
        silent = rig.plan.cameras[1]
        rig.window(0.2)
        rig.pace(0, silent)
        rig.pace(50, rig.plan.cameras[0])
        rig.window(0.6)  # the silent one may be waiting for a frame that is due
        window = rig.window(1.0)
        rig.pace(0)
        end = time.monotonic() + 20
        while len(rows := rig.frames()) < rig.ledger["processed"][-1].sum():
            assert time.monotonic() < end
    assert window.offered[silent] == window.served[silent] == 0
    assert window.offered["cam0"] > 10
    assert abs(window.offered["cam0"] - window.served["cam0"] - dropped(window)) <= 5  # in flight
    assert (
        set(window.cpu_s)
        == set(window.pss_bytes)
        == {p.name for p in rig.plan.processes} | {"supervisor"}
    )
    assert all(n > 1 << 20 for n in window.pss_bytes.values())
    assert window.service["inference"].sum() > 0
    times = np.array([rows[name] for name in TIMES])
    assert (np.diff(times, axis=0) >= 0).all()
    assert (rows["t_out_ns"] - rows["t_engine_ns"] >= 2_000_000).all()  # what the stub declares
    assert len(np.unique(rows[["camera", "frame_id"]])) == len(rows)


def dropped(window):
    return sum(window.dropped["cam0"].values())
