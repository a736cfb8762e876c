from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipeline.errors import FrameError
from pipeline.messages import Frame, FrameInfo
from stages.imaging.pixels import bgr_of_yuv, to_bgr, to_i420, yuv_of_bgr

WAYS = list(itertools.product(["bt601", "bt709"], [False, True]))


def frame_of(pixels, width, height, **facts) -> Frame:
    info = FrameInfo(
        camera="a", frame_id=0, t_capture_ns=0, t_wall_ns=0, width=width, height=height
    )
    return Frame(info=info, pixels=pixels, to_bgr=to_bgr, **facts)


@pytest.mark.parametrize(("matrix", "full_range"), WAYS)
def test_flat_colours_survive_there_and_back(matrix, full_range):
    for bgr in itertools.product([0, 60, 128, 255], repeat=3):
        image = np.full((6, 8, 3), bgr, np.uint8)
        planes = to_i420(image, matrix, full_range)
        assert planes.shape == (9, 8)
        frame = frame_of(planes, 8, 6, format="i420", matrix=matrix, full_range=full_range)
        assert abs(frame.image.astype(int) - bgr).max() <= 3
        assert not frame.image.flags.writeable
        out = np.empty((6, 8, 3), np.uint8)
        assert to_bgr(frame, out) is out
        np.testing.assert_array_equal(out, frame.image)


@pytest.mark.parametrize(("matrix", "full_range"), WAYS)
def test_white_black_and_red_are_where_the_standard_puts_them(matrix, full_range):
    m = yuv_of_bgr(matrix, full_range)
    yuv = [m[:, :3] @ bgr + m[:, 3] for bgr in ([0, 0, 0], [255, 255, 255], [0, 0, 255])]
    low, high = (0, 255) if full_range else (16, 235)
    np.testing.assert_allclose(yuv[0], [low, 128, 128])
    np.testing.assert_allclose(yuv[1], [high, 128, 128])
    assert yuv[2][0] == pytest.approx(low + (0.299 if matrix == "bt601" else 0.2126) * (high - low))
    assert yuv[2][2] == pytest.approx(255.5 if full_range else 240)
    back = bgr_of_yuv(matrix, full_range)
    np.testing.assert_allclose(back[:, :3] @ yuv[2] + back[:, 3], [0, 0, 255], atol=1e-9)


def test_a_bgr_frame_is_not_copied_unless_asked():
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    frame = frame_of(pixels, 7, 5, format="bgr24")
    assert np.shares_memory(to_bgr(frame), pixels)
    assert not to_bgr(frame).flags.writeable
    assert pixels.flags.writeable
    out = np.empty_like(pixels)
    to_bgr(frame, out)
    np.testing.assert_array_equal(out, pixels)


def test_what_cannot_be_converted_is_refused():
    with pytest.raises(FrameError, match="even sides, got 7x6"):
        to_i420(np.zeros((6, 7, 3), np.uint8))
    with pytest.raises(FrameError, match="bt2020"):
        yuv_of_bgr("bt2020", False)
    frame = frame_of(np.zeros((9, 8), np.uint8), 8, 6, format="i420")
    with pytest.raises(FrameError, match="out: wanted uint8"):
        to_bgr(frame, np.empty((6, 6, 3), np.uint8))
