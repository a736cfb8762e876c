"""`manyeyes doctor` in processes of its own: a healthy host, a sick one, and what later runs make of it."""

import json
import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_models
from patience import BOUND_S

from pipeline.doctor import checks as doctor
from pipeline.doctor import timing as timing_module
from pipeline.host.speed import Speed, Timing
from pipeline.plan import config as configuration
from stages.detector import archive, importing
from stages.detector.bundle import Facts, InputFacts

pytestmark = pytest.mark.timeout(300)  # torch is imported some times over
MANYEYES = Path(sys.executable).with_name("manyeyes")


@pytest.fixture
def manyeyes(tmp_path):
    """Runs it in `tmp_path`, with a cache of its own and without a display."""
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "COLUMNS": "200"}

    def run(*arguments, **options):
        return subprocess.run(
            [MANYEYES, *map(str, arguments)], cwd=tmp_path, env=environment, text=True,
            capture_output=True, timeout=BOUND_S, **options,
        )  # fmt: skip

    return run


def test_libraries_that_do_not_load_in_time_are_rows_and_no_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_PROBE_S", 0.01)
    rows = doctor._libraries(tmp_path)
    assert {row.verdict for row in rows} == {"fails", "note"}
    assert all("they were not loaded after 0 s" in row.found for row in rows)


def test_what_was_measured_is_said_by_check_and_decides(manyeyes, tmp_path):
    script = tiny_models.save(tiny_models.Candidates(), tmp_path / "tiny.pt")
    importing.import_model(
        script, str(tmp_path / "tiny.bundle"), layout="candidates", classes="cat,dog", size="64x32",
        color="rgb",
    )  # fmt: skip
    (tmp_path / "run.toml").write_text(
        '[model]\npath = "tiny.bundle"\n[[camera]]\nname = "a"\nsource = "synthetic://"\n'
    )
    before = manyeyes("check", "run.toml")
    assert "not measured here" in before.stdout
    assert f"`manyeyes doctor --model {tmp_path}/tiny.bundle`" in before.stdout

    source = "synthetic://?size=160x90&realtime=false"
    found = manyeyes("doctor", "--model", "tiny.bundle", "--source", source, "--json")
    assert found.returncode == 0, found.stderr
    document = json.loads(found.stdout)
    assert document["healthy"]
    rows = {row["what"]: row for row in document["rows"]}
    assert rows["live window"]["verdict"] == "note"
    assert rows["shared memory (memfd)"]["verdict"] == "ok"
    assert {t["device"] for t in document["speed"]["timings"]} >= {"cpu fp32"}
    assert document["best"]["beta_s"] >= 0
    assert document["cameras"]["5"] >= document["cameras"]["25"] > 0

    after = manyeyes("check", "run.toml")
    assert "threads (measured: " in after.stdout
    assert "fastest here: " in after.stdout
    assert "cameras: " in after.stdout


def facts(*classes):
    size = InputFacts(width=64, height=32)
    return Facts(name="m", architecture="a", classes=classes, input=size, layout="candidates")


@pytest.fixture
def street(tmp_path):
    """street.bundle, the same as street.onnx, and files beside them that are something else."""
    onnx = pytest.importorskip("onnx")
    script = tiny_models.save(tiny_models.Candidates(), tmp_path / "raw.pt")
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, ["b", 3, 32, 64])
    graph = onnx.helper.make_graph([], "g", [x], [x])
    raw = tmp_path / "raw.onnx"
    raw.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    for name, source, classes in (
        ("street.bundle", script, ("cat", "dog")),
        ("street.onnx", raw, ("cat", "dog")),
        ("street.pt", script, ("cat", "dog")),  # of the same kind: nothing to compare
        ("yard.bundle", script, ("cat", "dog")),
        ("yard.onnx", raw, ("cat",)),
    ):
        archive.write_text(source, tmp_path / name, facts(*classes).to_json())
    (tmp_path / "street.torchscript").write_text("no model")
    return tmp_path


def test_the_same_network_in_another_format_is_found(street):
    bundle, onnx = street / "street.bundle", street / "street.onnx"
    assert doctor.siblings(bundle) == [onnx]
    assert doctor.siblings(onnx) == [bundle, street / "street.pt"]
    assert doctor.siblings(street / "yard.bundle") == []  # other classes


def timing(model, beta_s):
    return Timing(
        model=os.path.realpath(model), engine=archive.kind_of(model), device="cpu fp32", threads=1,
        alpha_s=0.001, beta_s=beta_s, seconds={1: 0.001 + beta_s}, cpu_s=beta_s, capture_s=0.003,
        preprocess_s=0.0005, postprocess_s=0.0005,
    )  # fmt: skip


def test_a_faster_engine_is_named_with_its_file(street):
    bundle, onnx = str(street / "street.bundle"), str(street / "street.onnx")
    config = configuration.from_sources(["synthetic://"], model=bundle)
    speed = Speed(source="clip", timings=(timing(bundle, 0.024), timing(onnx, 0.012)))
    fastest, cameras = doctor.sentences(speed, config)
    assert fastest == (
        f"fastest here: {onnx} (onnx, cpu fp32), 2.0 × as fast as now; name it as path in [model]"
    )
    assert "cameras: " in cameras
    fastest, _ = doctor.sentences(Speed(source="clip", timings=speed.timings[:1]), config)
    assert fastest == "fastest here: torchscript on cpu fp32, S(b) = 1.0 + 24.0 b ms"
    half = replace(timing(bundle, 0.016), device="cpu bf16")
    fastest, _ = doctor.sentences(Speed(source="clip", timings=(*speed.timings[:1], half)), config)
    assert "cpu bf16), 1.5 × as fast as now; write precision" in fastest
    (unknown,) = doctor.sentences(None, config)
    assert unknown.endswith(f"`manyeyes doctor --model {bundle}` does")


def test_check_says_what_the_cameras_want_of_the_cores(street, monkeypatch):
    monkeypatch.setattr(doctor, "cores", lambda: 2.0)
    bundle = str(street / "street.bundle")
    config = configuration.from_sources(["synthetic://"] * 3, model=bundle)
    speed = Speed(source="clip", timings=(timing(bundle, 0.016),))  # 20 ms of a core a frame
    said = doctor.cores_wanted(speed, config)
    assert said.startswith("CPU: 0.06 of 2 cores for each frame a second of 3 cameras whose rate")
    limited = [camera.model_copy(update={"max_fps": 5.0}) for camera in config.camera]
    config = config.model_copy(update={"camera": limited})
    assert doctor.cores_wanted(speed, config) == "CPU: 0.3 of 2 cores for 15 frames a second"
    assert "not known" in doctor.cores_wanted(None, config)


def test_a_host_without_what_a_run_needs_is_78_and_nothing_is_measured(manyeyes, tmp_path):
    def few_files():
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))

    found = manyeyes("doctor", preexec_fn=few_files)
    assert found.returncode == 78
    (row,) = (line for line in found.stdout.splitlines() if line.strip().startswith("open files"))
    assert "fails" in row
    assert "200" in row
    assert "ulimit -n 4096" in row
    assert "measuring" not in found.stderr
    assert not (tmp_path / "cache" / "manyeyes").exists()


def test_a_model_that_is_none_is_one_sentence(manyeyes, tmp_path):
    (tmp_path / "text.bundle").write_text("hello")
    found = manyeyes("doctor", "--model", "text.bundle", "--json")
    assert found.returncode == 78
    assert found.stderr.startswith("manyeyes: ")
    assert found.stderr.count("\n") == 1
    assert "text.bundle" in found.stderr


def test_a_source_shorter_than_what_is_measured_is_read_again(tmp_path):
    script = tiny_models.save(tiny_models.Candidates(), tmp_path / "tiny.pt")
    importing.import_model(
        script, str(tmp_path / "tiny.bundle"), layout="candidates", classes="cat,dog", size="64x32",
        color="rgb",
    )  # fmt: skip
    source = "synthetic://?size=160x90&realtime=false&frames=5"
    plan = doctor.plan_of(tmp_path / "tiny.bundle", source)
    timed, *_ = timing_module.measure([plan], source, threads=(1,)).timings
    assert timed.capture_s > 0
    assert timed.seconds.keys() == {1, 2, 4, 8}
