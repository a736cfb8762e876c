"""Polygons and lines, with shapely as the oracle."""

import math

import numpy as np
import pytest
import shapely
from hypothesis import assume, given
from hypothesis import strategies as st

from stages.scene.geometry import anchors, area, beside, crosses_itself, depth, inside, perimeter

NUMBER = st.integers(0, 1000).map(lambda n: n / 10)
POINT = st.tuples(NUMBER, NUMBER)
POINTS = st.lists(POINT, min_size=1, max_size=20)


@st.composite
def stars(draw):
    """Polygons that do not cross themselves: corners around (50, 50), by angle."""
    corners = draw(st.integers(3, 9))
    radii = draw(st.lists(st.integers(5, 50), min_size=corners, max_size=corners))
    angles = [2 * math.pi * k / corners for k in range(corners)]
    return np.array(
        [(50 + r * math.cos(a), 50 + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]
    )


@given(stars(), POINTS)
def test_depth_and_inside_are_those_of_shapely(polygon, points):
    found, oracle = depth(polygon, np.array(points)), shapely.Polygon(polygon)
    for point, deep, is_in in zip(points, found, inside(polygon, np.array(points)), strict=True):
        distance = oracle.exterior.distance(shapely.Point(point))
        assert abs(deep) == pytest.approx(distance, abs=1e-6)
        if distance > 1e-6:
            assert is_in == (deep > 0) == oracle.contains(shapely.Point(point))


@given(stars())
def test_area_and_perimeter_are_those_of_shapely(polygon):
    oracle = shapely.Polygon(polygon)
    assert area(polygon) == pytest.approx(oracle.area)
    assert perimeter(polygon) == pytest.approx(oracle.length)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=7))
def test_what_shapely_calls_invalid_crosses_itself(points):
    polygon = np.array(points, float)
    assume(len(set(points)) == len(points))
    assert crosses_itself(polygon) == (not shapely.LinearRing(polygon).is_simple)


@given(POINT, POINT, POINTS)
def test_beside_a_line(start, end, points):
    assume(math.dist(start, end) > 1)
    line, oracle = np.array([start, end]), shapely.LineString([start, end])
    for point, right, along in zip(points, *beside(line, np.array(points)), strict=True):
        if 0 <= along <= 1:
            assert abs(right) == pytest.approx(oracle.distance(shapely.Point(point)), abs=1e-6)
        foot = np.array(start) + along * (np.array(end) - start)
        assert abs(right) == pytest.approx(math.dist(foot, point), abs=1e-6)


def test_right_is_right_of_who_looks_along_the_line():
    to_right, along = beside(np.array([[50.0, 100], [50, 0]]), np.array([[60.0, 50], [30, 150]]))
    assert to_right.tolist() == [10, -20]
    assert along.tolist() == [0.5, -0.5]


def test_anchors():
    boxes = np.float32([[10, 20, 30, 80]])
    assert anchors(boxes, "feet").tolist() == [[20, 80]]
    assert anchors(boxes, "center").tolist() == [[20, 50]]
    assert anchors(np.zeros((0, 4), np.float32), "feet").shape == (0, 2)
