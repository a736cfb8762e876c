"""What benchmarks/fleet.py measures is a fleet, and its figures are of it."""

import cv2

from benchmarks.fleet import figures_of, fleet
from benchmarks.rig.measure import Machine, report


def test_a_small_fleet_has_every_figure():
    found = figures_of(10, 3, end=0.0)
    assert [figure.id for figure in found] == ["p", "m", "u", "g", "c", "c"]
    gap = found[3]
    assert 6 < gap.value < 15, "its lease, and some seconds"


def test_sizes_are_drawn_as_curves(tmp_path, capsys):
    found = figures_of(4, 2, end=0.0) + figures_of(8, 2, end=0.0)
    report("fleet", found, Machine(), tmp_path / "fleet.json")
    picture = cv2.imread(str(tmp_path / "fleet.png"))
    assert picture.shape[0] > 1000, "three rows of curves"
    assert picture.std() > 1


def test_a_fleet_is_the_same_for_the_same_seed():
    assert fleet(20, 4, 7) == fleet(20, 4, 7)
    assert fleet(20, 4, 7) != fleet(20, 4, 8)
