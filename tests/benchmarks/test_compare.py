"""Two documents side by side: unlike machines are refused, and a change is one only beyond its noise."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.tool.compare import changes, notes, read
from pipeline.errors import ConfigError

MANYEYES = Path(sys.executable).with_name("manyeyes")
MACHINE = {
    "cpu": "Some CPU", "cores": 2, "gpu": "", "system": "Linux 6.1", "python": "3.11.2",
    "versions": {"numpy": "2.0", "torch": "2.14", "av": "18.1"}, "load_before": 0.3,
}  # fmt: skip


def row(id, value, *, spread=0.01, **more):
    samples = (value * np.random.default_rng(len(id)).normal(1, spread, 20)).tolist()
    low, high = (float(np.quantile(samples, q)) for q in (0.025, 0.975))
    return {
        "id": id, "what": f"of {id}", "value": value, "low": low, "high": high, "unit": "ms",
        "better": "lower", "target": None, "samples": [samples[:9], samples[9:]],
    } | more  # fmt: skip


def document(*rows, **machine):
    return {"benchmark": "stages", "machine": {**MACHINE, **machine}, "figures": list(rows)}


A = document(row("preprocess", 2.0), row("inference", 20.0), row("render", 5.0))


def words(a, b, margin=0.1):
    return {change.id: change.word for change in changes(a, b, margin)}


def test_the_slower_stage_is_named_and_no_other():
    b = document(row("preprocess", 2.02), row("inference", 24.0), row("render", 4.0))
    assert words(A, b) == {"preprocess": "same", "inference": "slower", "render": "faster"}
    assert words(b, A) == {"preprocess": "same", "inference": "faster", "render": "slower"}
    assert set(words(A, A).values()) == {"same"}
    assert set(words(A, b, margin=0.3).values()) == {"same"}


def test_noise_as_large_as_the_change_is_no_change():
    a, b = (document(row("render", value, spread=1.0)) for value in (5.0, 6.0))
    assert words(a, b) == {"render": "same"}


def test_what_differs_from_start_to_start_counts_as_noise():
    """Many values of few starts, which differ by more than the change."""
    a = document(row("render", 5.0, samples=[[4.0] * 20, [5.0] * 20, [6.0] * 20]))
    b = document(row("render", 5.6, samples=[[4.6] * 20, [5.6] * 20, [6.6] * 20]))
    assert words(a, b) == {"render": "same"}
    steady = document(row("render", 5.6, samples=[[5.6] * 20] * 3))
    assert words(document(row("render", 5.0, samples=[[5.0] * 20] * 3)), steady) == {
        "render": "slower"
    }


def test_higher_may_be_better_or_neither():
    a = document(
        row("fps", 100, unit="", better="higher"), row("n", 5, unit="", better=""),
        row("e", 0.9, unit="", better=None, target={"sign": "≥", "limit": 0.9}, samples=None),
    )  # fmt: skip
    b = copy.deepcopy(a)
    for one in b["figures"]:
        for key in ("value", "low", "high"):
            one[key] *= 0.5
        if one["samples"]:
            one["samples"] = [[0.5 * value for value in part] for part in one["samples"]]
    assert words(a, b) == {"fps": "worse", "n": "changed", "e": "worse"}


def test_a_figure_of_zero_and_one_that_only_one_side_has():
    a, b = document(row("wait", 0.0), row("old", 1.0)), document(row("wait", 0.0), row("new", 1.0))
    (change,) = changes(a, b, 0.1)
    assert (change.id, change.ratio, change.word) == ("wait", 1.0, "same")
    with pytest.raises(ConfigError, match="no figure in common"):
        changes(document(), document(), 0.1)


@pytest.mark.parametrize(
    ("machine", "named"),
    [
        ({"cpu": "Another"}, r"cpu \(Some CPU and Another\)"),
        ({"cores": 8, "gpu": "H100"}, r"cores \(2 and 8\), gpu \(none and H100\)"),
        ({"versions": {**MACHINE["versions"], "torch": "2.11"}}, r"torch \(2.14 and 2.11\)"),
    ],
)
def test_unlike_machines_are_refused_and_what_differs_is_named(machine, named):
    with pytest.raises(ConfigError, match=named):
        changes(A, document(row("render", 5.0), **machine), 0.1)
    quieter = document(row("render", 5.0), load_before=9.9)
    assert words(A, quieter) == {"render": "same"}


def test_other_programs_at_work_are_worth_a_word():
    quiet, busy = ({**A, "conditions": {"others_cores": cores}} for cores in (0.01, 0.7))
    assert notes(A, A) == notes(quiet, quiet) == []
    assert "0.0 cores in A and 0.7 in B" in notes(quiet, busy)[0]


def test_slower_cores_are_worth_a_word():
    fast, alike, slow = ({**A, "conditions": {"core_ms": ms}} for ms in (0.20, 0.205, 0.25))
    assert notes(fast, alike) == notes(A, slow) == []
    assert "slower in B: the same small piece of work took 0.20 ms in A" in notes(fast, slow)[0]
    assert "slower in A" in notes(slow, fast)[0]


def test_other_benchmarks_and_other_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="'stages' and 'capacity'"):
        changes(A, {**A, "benchmark": "capacity"}, 0.1)
    for name, text, message in (
        ("none.json", None, "can't be read"),
        ("text.json", "hello", "is no JSON"),
        ("other.json", "[1]", "a file that a benchmark wrote"),
    ):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match=message):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("b", "options", "code"),
    [
        (document(row("inference", 24.0)), [], 1),
        (document(row("inference", 24.0)), ["--fail-above", "0.3"], 0),
        (document(row("inference", 16.0)), ["--json"], 0),
        (document(row("inference", 20.0), cpu="Another"), [], 78),
    ],
)
def test_the_command_answers_with_its_exit_code(tmp_path, b, options, code):
    for name, content in (("a.json", A), ("b.json", b)):
        (tmp_path / name).write_text(json.dumps(content))
    done = subprocess.run(
        [MANYEYES, "bench", "compare", "a.json", "b.json", *options],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    if code == 78:
        assert done.stderr.count("\n") == 1
        assert "differ in cpu (Some CPU and Another)" in done.stderr
    elif options == ["--json"]:
        (change,) = json.loads(done.stdout)["changes"]
        assert (change["id"], change["word"]) == ("inference", "faster")
    else:
        assert "slower" in done.stdout or code == 0
