import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import batched_nms as oracle

from stages.detector.nms import MAX_CANDIDATES, batched_nms, top_candidates


@st.composite
def boxes(draw):
    """Up to 80 boxes that overlap a lot, on a coarse grid or not, with tied scores among them."""
    n = draw(st.integers(0, 80))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([20, 100, 600]))
    corners = rng.uniform(0, spread, (n, 2))
    sizes = rng.uniform(0, spread, (n, 2))
    xyxy = np.concatenate([corners, corners + sizes], axis=1)
    if draw(st.booleans()):
        xyxy = (
            np.round(xyxy / 5) * 5
        )  # equal boxes, boxes without area, IoU exactly at the threshold
    scores = rng.integers(1, draw(st.sampled_from([4, 10**6])), n) / 10**6
    labels = rng.integers(0, draw(st.sampled_from([1, 3, 80])), n)
    return xyxy.astype(np.float32), scores.astype(np.float32), labels


@given(boxes(), st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
def test_equal_to_torchvision(found, threshold):
    xyxy, scores, labels = found
    wanted = oracle(*map(torch.from_numpy, (xyxy, scores, labels)), threshold)
    got = batched_nms(xyxy, scores, labels, threshold)
    assert got.tolist() == wanted.tolist()


def test_equal_to_torchvision_for_as_many_as_enter():
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 300, (MAX_CANDIDATES, 2))
    xyxy = np.concatenate([corners, corners + rng.uniform(5, 90, (MAX_CANDIDATES, 2))], axis=1)
    xyxy, scores = xyxy.astype(np.float32), rng.random(MAX_CANDIDATES, np.float32)
    labels = rng.integers(0, 5, MAX_CANDIDATES)
    wanted = oracle(*map(torch.from_numpy, (xyxy, scores, labels)), 0.5)
    assert batched_nms(xyxy, scores, labels, 0.5).tolist() == wanted.tolist()
    assert len(wanted) < MAX_CANDIDATES


@given(boxes(), st.integers(0, 10))
def test_limit_is_a_prefix(found, limit):
    everything = batched_nms(*found, 0.5)
    assert batched_nms(*found, 0.5, limit).tolist() == everything[:limit].tolist()


def test_nothing_in_nothing_out():
    kept = batched_nms(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int), 0.5)
    assert kept.tolist() == []
    assert np.zeros(0)[kept].shape == (0,)


def test_ties_keep_their_order():
    assert top_candidates(np.float32([0.5, 0.9, 0.5, 0.9])).tolist() == [1, 3, 0, 2]
