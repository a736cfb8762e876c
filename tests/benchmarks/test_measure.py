"""Verdicts, intervals, turns, and the table in the README of the benchmarks."""

import json

import numpy as np
import pytest

from benchmarks.__main__ import BEGIN, END, write_table
from benchmarks.rig.measure import (
    Machine,
    Target,
    interleaved,
    median,
    ratio,
    report,
    resampled_medians,
)


@pytest.mark.parametrize(
    ("sign", "limit", "low", "high", "verdict"),
    [
        ("≤", 1.0, 0.5, 0.9, "met"),
        ("≤", 1.0, 0.5, 1.0, "met"),
        ("≤", 1.0, 0.9, 1.1, "undecided"),
        ("≤", 1.0, 1.1, 1.2, "missed"),
        ("≥", 10.0, 11.0, 12.0, "met"),
        ("≥", 10.0, 9.0, 11.0, "undecided"),
        ("≥", 10.0, 8.0, 9.0, "missed"),
    ],
)
def test_a_target_inside_the_interval_is_undecided(sign, limit, low, high, verdict):
    assert Target(sign=sign, limit=limit).verdict(low, high) == verdict


def test_a_ratio_is_the_median_of_the_pairs_and_not_of_the_sides():
    # the machine was twice as slow in every second round: both sides saw it
    slow = [1, 2, 1, 2, 1, 2, 1]
    figure = ratio("x", "a / b", [3 * s for s in slow], [4 * s for s in slow])
    assert (figure.value, figure.low, figure.high, figure.n) == (0.75, 0.75, 0.75, 7)
    assert figure.verdict == "report"


def test_few_or_uneven_pairs_are_refused():
    with pytest.raises(ValueError, match="at least 5 pairs, got 4 and 4"):
        ratio("x", "a / b", [1.0] * 4, [1.0] * 4)
    with pytest.raises(ValueError, match="got 6 and 5"):
        ratio("x", "a / b", [1.0] * 6, [1.0] * 5)


def test_the_interval_holds_the_truth_about_19_times_in_20():
    rng = np.random.default_rng(1)
    figures = [median("x", "n", rng.normal(10, 1, 21)) for _ in range(60)]
    assert 0.8 <= np.mean([f.low <= 10 <= f.high for f in figures]) <= 1.0
    assert all(f.low <= f.value <= f.high for f in figures)


def test_medians_of_few_starts_scatter_as_the_starts_do():
    alike = resampled_medians([[1.0, 1.0], [1.0], [1.0] * 9])
    assert (alike == 1).all()
    apart = resampled_medians([[1.0] * 20, [2.0] * 20, [3.0] * 20])
    assert set(np.unique(apart)) == {1, 2, 3}
    assert np.mean(apart == 2) > 0.4


def test_contenders_take_turns_and_the_first_round_is_forgotten():
    order = []
    samples = interleaved(
        2, {name: lambda name=name: order.append(name) or len(order) for name in "ab"}
    )
    assert order in (list("abbaab"), list("baabba"))
    assert sorted(samples["a"] + samples["b"]) == [3, 4, 5, 6]


def test_the_table_is_written_between_its_markers_and_nowhere_else(tmp_path, capsys):
    figure = median("a1", "a / b", [1.0] * 5, Target(sign="≤", limit=2), detail="1 : 1")
    report("fairness", [figure], Machine(), tmp_path / "out.json")
    assert "met" in capsys.readouterr().out
    document = json.loads((tmp_path / "out.json").read_text())
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_table(readme, [document])
    write_table(readme, [document])
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.count("| a1 | a / b | 1 | 1 – 1 | ≤ 2 | met | 5 | 1 : 1 |") == 1
    assert document["machine"]["commit"] in text


def test_what_was_not_run_again_keeps_its_figures(tmp_path):
    readme, documents = tmp_path / "README.md", []
    for name, value in [
        ("transport", 1.0),
        ("fairness", 2.0),
        ("latency-long", 3.0),
        ("fairness", 4.0),
    ]:
        report(name, [median("a1", "a", [value] * 5)], Machine(), tmp_path / "out.json")
        documents.append(json.loads((tmp_path / "out.json").read_text()))
    readme.write_text(f"{BEGIN}\n{END}\n")
    write_table(readme, documents[2:0:-1])
    write_table(readme, [documents[0]])
    write_table(readme, [documents[3]])
    at = [
        readme.read_text().index(f"**{name}**")
        for name in ("transport", "fairness", "latency-long")
    ]
    assert at == sorted(at)
    assert [
        line.split("|")[3].strip()
        for line in readme.read_text().splitlines()
        if line.startswith("| a1")
    ] == ["1", "4", "3"]


def test_a_readme_without_markers_is_left_alone(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("nothing\n")
    with pytest.raises(ValueError, match="wanted the lines"):
        write_table(readme, [])
    assert readme.read_text() == "nothing\n"
