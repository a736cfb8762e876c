"""`manyeyes doctor` in processes of its own: a healthy host, a sick one, and what later runs make of it."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models

from stages.detector import importing

MANYEYES = Path(sys.executable).with_name("manyeyes")


@pytest.fixture
def manyeyes(tmp_path):
    """Runs it in `tmp_path`, with a cache of its own and without a display."""
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "COLUMNS": "200"}

    def run(*arguments, **options):
        return subprocess.run(
            [MANYEYES, *map(str, arguments)], cwd=tmp_path, env=environment, text=True,
            capture_output=True, timeout=100, **options,
        )  # fmt: skip

    return run


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
    assert {t["device"] for t in document["speed"]["timings"]} == {"cpu fp32"}
    assert document["best"]["beta_s"] >= 0
    assert document["cameras"]["5"] >= document["cameras"]["25"] > 0

    after = manyeyes("check", "run.toml")
    assert "threads (measured: " in after.stdout
    assert "fastest here: torchscript on cpu fp32" in after.stdout
    assert "cameras: " in after.stdout


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
