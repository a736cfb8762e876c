"""Every document draws a picture, whatever its numbers are; names are shown as they are."""

import math

import cv2
import pytest

from benchmarks.rig import plots
from benchmarks.rig.measure import Figure, Machine, Target, report
from pipeline.errors import ResourceError


def figure(value, low, high, target=None, what="ours / <theirs> & $x^2$ of a very long name " * 3):
    return Figure(id="a1", what=what, value=value, low=low, high=high, n=5, target=target)


@pytest.mark.parametrize(
    "figures",
    [
        [],
        [figure(0.0, 0.0, 0.0)],
        [figure(1e-9, 0.0, math.inf, Target(sign="≤", limit=1))],
        [
            figure(0.5, 0.4, 0.6, Target(sign="≤", limit=1)),
            figure(12, 8, 15, Target(sign="≥", limit=10)),
            figure(3, 2, 4, Target(sign="≤", limit=1)),
        ],
    ],
)
def test_a_report_draws_its_figures_beside_its_json(tmp_path, figures, capsys):
    report("hops", figures, Machine(), tmp_path / "hops.json")
    picture = cv2.imread(str(tmp_path / "hops.png"))
    assert picture.shape[1] > 1000
    assert picture.std() > 1


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path):
    document = {
        "benchmark": "hops", "figures": [],
        "machine": {"cpu": "c", "cores": 2, "date": "d", "commit": "abc"},
    }  # fmt: skip
    with pytest.raises(ResourceError, match="can't be written"):
        plots.write(document, tmp_path / "none" / "hops.png")
