"""What was measured, and what is made of it: processes, threads, cameras."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.host import cgroup
from pipeline.host import machine as host
from pipeline.host import speed as speed_module
from pipeline.host.speed import Speed, Timing, fit, recall, remember
from pipeline.plan import config as configuration
from pipeline.plan import sizing
from pipeline.plan.model_path import demo_model
from pipeline.plan.standard import make
from stages.inference import Inference, InferenceConfig


def timing(model="m.bundle", threads=1, beta_s=0.020, **fields):
    seconds = {b: 0.002 + beta_s * b for b in (1, 2, 4, 8)}
    known = {
        "engine": "torchscript", "device": "cpu fp32", "alpha_s": 0.002, "beta_s": beta_s,
        "seconds": seconds, "cpu_s": beta_s, "capture_s": 0.003, "preprocess_s": 0.0005,
        "postprocess_s": 0.0005,
    }  # fmt: skip
    return Timing(model=os.path.realpath(model), threads=threads, **{**known, **fields})


@given(st.floats(0, 0.1), st.floats(1e-5, 0.1))
def test_a_line_is_found_again(alpha, beta):
    found = fit({b: alpha + beta * b for b in (1, 2, 4, 8)})
    assert found == pytest.approx((alpha, beta), rel=1e-3, abs=1e-7)


@pytest.mark.parametrize(
    "seconds",
    [{1: 0.01}, {1: 0.010, 2: 0.030, 4: 0.090}, {1: 0.02, 2: 0.015, 4: 0.01}],
)
def test_neither_part_is_ever_negative(seconds):
    alpha, beta = fit(seconds)
    assert alpha >= 0
    assert beta >= 0
    assert alpha + beta > 0


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "m.bundle"
    path.write_bytes(b"model")
    return path


def test_it_is_remembered_for_this_file_and_its_sibling_until_they_change(model):
    other = model.with_suffix(".onnx")
    other.write_bytes(b"the same network")
    assert recall(model) is None
    speed = Speed(source="clip", timings=(timing(str(model)), timing(str(other), beta_s=0.01)))
    remember(speed)
    assert recall(model) == recall(other) == speed
    assert speed.best.model == str(other)
    assert [t.model for t in speed.of(str(model))] == [str(model)]
    half = timing(str(model), device="cpu bf16")
    both = Speed(source="clip", timings=(*speed.timings, half))
    assert both.of(str(model), "bf16") == (half,)
    assert both.of(str(model)) == both.of(str(model), "fp32") == speed.of(str(model))
    model.write_bytes(b"another one")
    assert recall(model) is None
    assert recall(other) == speed


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"source": "x", "timings": [{}]}', "null"])
def test_a_damaged_memory_is_none(model, text, tmp_path):
    remember(Speed(source="clip", timings=(timing(str(model)),)))
    (file,) = (tmp_path / "cache").rglob("*.json")
    assert json.loads(file.read_text())["source"] == "clip"
    file.write_text(text)
    assert recall(model) is None


def test_a_cache_that_cannot_be_written_is_no_error(model, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(model))  # a file
    remember(Speed(source="clip", timings=(timing(str(model)),)))
    assert recall(model) is None


@pytest.fixture
def a_host(monkeypatch):
    """A host of so many cores, and of so much free memory; else what others take would be in the answer."""

    def of(cores, gib=1024):
        monkeypatch.setattr(sizing, "cores", lambda: float(cores))
        monkeypatch.setattr(sizing, "available_bytes", lambda: gib << 30)

    return of


def cameras(n, policy="newest", **model):
    config = configuration.from_sources(["synthetic://"] * n, policy=policy)
    return config.model_copy(update={"model": config.model.model_copy(update=model)})


@pytest.mark.parametrize(
    ("cores", "n", "policy", "beta_s", "wanted"),
    [
        (2, 1, "newest", 0.020, (1, 2)),  # one picture at a time: faster with both cores
        (2, 8, "newest", 0.020, (2, 1)),  # 5/6 of two cores
        (2, 8, "newest", 0.001, (1, 1)),  # a light model leaves the cores to the decoders
        (16, 64, "newest", 0.020, (13, 1)),
        (16, 2, "newest", 0.020, (2, 7)),
        (16, 1, "every", 0.020, (13, 1)),  # a file: as many pictures at once as there are cores
        (1, 4, "newest", 0.020, (1, 1)),
        (0.5, 4, "newest", 0.020, (1, 1)),
    ],
)
def test_workers_follow_the_share_of_the_model(a_host, cores, n, policy, beta_s, wanted):
    a_host(cores)
    measured = (timing(beta_s=beta_s), timing(threads=16, beta_s=beta_s / 4))
    workers, threads, why = sizing.workers_for(cameras(n, policy), measured)
    assert (workers, threads) == wanted
    assert f"{workers} × {threads} threads" in why
    assert "measured: " in why


def test_tiles_are_pictures_that_a_frame_costs(a_host):
    a_host(8)
    light = timing(beta_s=0.001)
    assert sizing.workers_for(cameras(8), (light,))[:2] == (2, 1)  # 1 of 5 ms
    tiled = light.seeing(7)  # 3x2 and the whole, 7 of 14 ms: preprocess resizes seven times, too
    workers, _, why = sizing.workers_for(cameras(8), (tiled,))
    assert workers == 4
    assert "7.0 ms of a core the 7 pictures of a frame, 7.0 ms to decode" in why
    assert tiled.seeing(1).cpu_s == pytest.approx(light.cpu_s)
    assert sizing.cameras_at(tiled, 5)[0] < sizing.cameras_at(light, 5)[0] / 2


def test_what_was_measured_is_read_for_the_tiles_that_are_asked_for(model):
    from pipeline.plan.chains import speed_of

    bundle = model.with_name("demo.bundle")
    bundle.write_bytes(Path(demo_model()).read_bytes())
    measured = timing(str(bundle))
    remember(Speed(source="clip", timings=(measured,)))
    plain = configuration.from_sources(["synthetic://"], model=bundle).model
    assert speed_of(plain).best == measured
    tiles = plain.model_copy(update={"tiles": (3, 2)})
    assert speed_of(tiles).best == measured.seeing(7)


def test_threads_that_gain_nothing_are_not_taken(a_host):
    a_host(8)
    measured = (timing(), timing(threads=8, beta_s=0.018))
    assert sizing.workers_for(cameras(1), measured)[:2] == (1, 1)


def test_what_the_configuration_says_stands(a_host):
    a_host(8)
    for measured in ((), (timing(),)):
        assert sizing.workers_for(cameras(4, workers=3, threads=5), measured)[:2] == (3, 5)
    assert "not measured" in sizing.workers_for(cameras(4))[2]


@pytest.mark.parametrize(
    ("cores", "n", "policy", "wanted"),
    [
        (1, 3, "newest", (1, 1)),
        (2, 1, "newest", (1, 2)),
        (2, 4, "newest", (2, 1)),
        (16, 64, "newest", (14, 1)),
        (2, 1, "every", (2, 1)),
    ],
)
def test_unmeasured_it_is_a_usual_model(a_host, cores, n, policy, wanted):
    a_host(cores)
    assert sizing.workers_for(cameras(n, policy))[:2] == wanted


def test_there_are_no_more_workers_than_memory_for_them(a_host):
    a_host(16, gib=3)
    assert sizing.workers_for(cameras(64))[:2] == (3, 5)
    a_host(16, gib=0)
    assert sizing.workers_for(cameras(64))[0] == 1


def test_a_gpu_has_one_worker(a_host):
    a_host(8)
    on_gpu = timing(device="cuda:0 fp16")
    assert sizing.workers_for(cameras(4), (on_gpu,))[:2] == (1, 1)
    assert sizing.workers_for(cameras(4, device="cuda"))[:2] == (1, 1)


def test_cameras_end_at_the_cores_or_at_the_gpu(a_host):
    a_host(2)
    assert sizing.cameras_at(timing(), 5) == (15, "its cores")  # 0.9 * 2 / (5 * 0.024)
    slow = timing(device="cuda:0 fp16", beta_s=0.040)
    assert sizing.cameras_at(slow, 5) == (4, "its GPU")  # 8 pictures in 0.322 s
    fast = timing(device="cuda:0 fp16", beta_s=0.0001)
    assert sizing.cameras_at(fast, 25) == (18, "its cores")  # 0.9 * 2 / (25 * 0.004)


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
    ],
)
def test_a_container_s_quota(tmp_path, monkeypatch, files, wanted):
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(cgroup, "_CGROUP", tmp_path)
    own = "0::/\n1:cpu:/\n"
    (tmp_path / "self").write_text(own)
    monkeypatch.setattr(cgroup, "_OF_THIS_PROCESS", tmp_path / "self")
    assert host.quota_cores() == wanted
    assert host.cores() == min(host.visible_cores(), wanted or 1e9)


def planned(**model):
    """The inference's configuration and the note on its engine, of a run of the demo model."""
    plan = make(cameras(1, **model))
    config = next(spec.config for spec in plan.processes if spec.name == "inference")
    return config, plan.notes[0]


def test_the_engine_is_tried_at_the_start_and_then_known(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config, note = planned()
    assert config["engine"] == "auto"
    assert note.startswith("engine: the fastest of torchscript, onnx")  # and what else is installed
    assert note.endswith(", tried at the start")
    memory = Path(config["memory"])
    memory.parent.mkdir(parents=True)
    memory.write_text('{"engine": "onnx", "picture_ms": {"torchscript": 19.4, "onnx": 7.1}}')
    again, note = planned()
    assert again == config
    untried = {**config, "memory": str(tmp_path / "none")}  # may have to load all engines
    of = [Inference.memory_bytes(InferenceConfig(**fields)) for fields in (config, untried)]
    assert of[1] - of[0] == 250 << 20
    assert note == "engine: onnx, the fastest here (ms a picture: torchscript 19.4, onnx 7.1)"
    assert planned(threads=5)[0]["memory"] != config["memory"]


def test_what_doctor_found_needs_no_trial(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = str(demo_model())
    slow, fast = timing(model), timing(model, beta_s=0.010, engine="onnx")
    remember(Speed(source="clip", timings=(slow, fast)))
    config, note = planned()
    assert (config["fastest"], note) == ("onnx", "engine: onnx, the fastest that doctor found")
    assert "measured: 10.0 ms of a core a picture" in make(cameras(1)).notes[1]
    assert (
        "measured: 20.0 ms of a core a picture" in make(cameras(1, engine="torchscript")).notes[1]
    )


def test_other_versions_ask_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = str(demo_model())
    remember(Speed(source="clip", timings=(timing(model),)))
    assert recall(model) is not None
    monkeypatch.setattr(speed_module, "version", lambda library: "99")
    assert recall(model) is None


def test_an_engine_that_is_named_is_taken():
    assert planned(engine="onnx") == (planned(engine="onnx")[0], "engine: onnx")
    assert planned(engine="onnx")[0]["engine"] == "onnx"
    assert planned(precision="fp16")[1] == "engine: torchscript"
