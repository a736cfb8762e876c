import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from hypothesis import given
from hypothesis import strategies as st

from pipeline.messages import Frame, FrameInfo
from stages.imaging.pixels import to_bgr, to_i420
from stages.imaging.swscale import ToBgr


def frame_of(pixels, **colour):
    height, width = pixels.shape[0] * 2 // 3, pixels.shape[1]
    pixels.flags.writeable = False
    info = FrameInfo(
        camera="a", frame_id=0, t_capture_ns=0, t_wall_ns=0, width=width, height=height
    )
    return Frame(info=info, format="i420", pixels=pixels, **colour)


def smooth(height, width):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, 255 - x * 255 // width], 2).astype(
        np.uint8
    )


@pytest.mark.parametrize("size", [(48, 64), (50, 62), (2, 2)])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("full_range", [False, True])
def test_close_to_the_exact_formula(size, matrix, full_range):
    frame = frame_of(
        to_i420(smooth(*size), matrix, full_range), matrix=matrix, full_range=full_range
    )
    got = ToBgr()(frame)
    assert (got.shape, got.dtype) == ((*size, 3), np.uint8)
    away = got.astype(int) - to_bgr(frame)
    assert abs(away.mean()) <= 2
    assert size == (2, 2) or abs(away[2:-2, 2:-2]).max() <= 6


@given(
    width=st.integers(1, 40).map(lambda half: 2 * half),
    height=st.integers(1, 24).map(lambda half: 2 * half),
    matrix=st.sampled_from(["bt601", "bt709"]),
    full_range=st.booleans(),
    seed=st.integers(0, 99),
)
def test_planes_that_are_read_in_their_slot_give_the_pixels_of_a_copy(
    width, height, matrix, full_range, seed
):
    pixels = np.random.default_rng(seed).integers(0, 256, (height * 3 // 2, width), np.uint8)
    frame = frame_of(pixels, matrix=matrix, full_range=full_range)
    copy = av.VideoFrame.from_ndarray(pixels, format="yuv420p")
    wanted = copy.reformat(
        format="bgr24",
        src_colorspace=Colorspace.ITU601 if matrix == "bt601" else Colorspace.ITU709,
        src_color_range=ColorRange.JPEG if full_range else ColorRange.MPEG,
    ).to_ndarray()
    assert np.array_equal(ToBgr()(frame), wanted)


def test_the_pixels_that_opencv_gives(tmp_path):
    path = str(tmp_path / "clip.mp4")
    rng = np.random.default_rng(0)
    blobs = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (160, 120))
    with av.open(path, "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for _ in range(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(blobs, format="bgr24")))
        out.mux(stream.encode())
    capture = cv2.VideoCapture(path)
    convert = ToBgr()
    with av.open(path) as clip:
        for decoded in clip.decode(video=0):
            there, wanted = capture.read()
            assert there
            got = convert(frame_of(decoded.to_ndarray(format="yuv420p")))
            assert np.array_equal(got, wanted)
    capture.release()
