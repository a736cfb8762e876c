"""docs/sources.md says what is read, and each of its rows is a test."""

from __future__ import annotations

import ast
import os
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import moving_square

from pipeline.errors import EndOfStream
from pipeline.runtime import LocalRuntime
from stages.capture.av import AvConfig, AvSource

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
ENCODERS = {
    "h264": "libx264", "hevc": "libx265", "vp8": "libvpx", "vp9": "libvpx-vp9", "av1": "libsvtav1",
    "prores": "prores_ks",
}  # fmt: skip
STREAMS = {  # by the words of the table: where it is tried
    "rtsp:// over TCP": "stages/capture/test_capture_rtsp.py::test_a_healthy_camera",
    "rtsp:// over UDP": "stages/capture/test_capture_rtsp.py::test_gstreamer_stops_and_comes_back",
    "rtsps://": "stages/capture/test_capture_rtsp.py::test_rtsps",
    "MJPEG": "stages/capture/test_capture_http.py::test_times_that_ffmpeg_makes_up_are_nobodys",
    "FLV": "stages/capture/test_capture_http.py::test_opening_takes_no_more_than_a_second_of_a_stream",
    "MPEG-TS without an end":
        "stages/capture/test_capture_http.py::test_a_stream_that_ends_is_a_camera_that_is_lost",
    "live HLS": "stages/capture/test_capture_http.py::"
        "test_a_live_playlist_is_not_lost_between_its_parts_and_comes_in_its_own_time",
    "complete, also AES-128": "stages/capture/test_capture_http.py::test_an_encrypted_playlist_is_read",
    "other films": "stages/capture/test_capture_http.py::test_a_film_that_ends_has_ended",
    "a picture a request": "stages/capture/test_snapshots.py::test_each_request_is_a_picture",
    "udp://": "stages/capture/test_capture_av.py::test_mpeg_ts_over_udp",
    "stdin": "processes/test_sources.py::test_stdin_is_a_recording",
    "/dev/video0": "stages/capture/test_choose.py::test_each_kind_has_its_reader",
    "a folder of pictures": "stages/capture/test_capture_pictures.py::test_a_folder_in_order_of_names",
}  # fmt: skip


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    text = DOCS.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("row", rows("Cameras and streams"), ids=lambda row: row[0])
def test_each_stream_is_tried_somewhere(row):
    source = row[0].replace("`", "")
    (where,) = [test for words, test in STREAMS.items() if words in source]
    path, _, name = where.partition("::")
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", rows("Films"), ids="-".join)
def test_each_kind_of_film_comes_whole_and_in_time(tmp_path, row):
    suffix, codec, pixels = row
    if ENCODERS.get(codec, codec) not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder of {codec}")
    images, path = moving_square(8, (96, 64)), tmp_path / f"film{suffix}"
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(ENCODERS.get(codec, codec), rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format=pixels)
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    # SVT-AV1 makes who calls it, and so all that is started from there, a thread of real time (SCHED_FIFO)
    os.sched_setscheduler(0, *before)
    source = AvSource(AvConfig(url=str(path)))
    source.runtime = LocalRuntime(["gate"])
    source.open()
    times, centres, buffer = [], [], np.empty(1 << 16, np.uint8)
    for _ in images:
        picture = source.read(buffer)
        times.append(picture.pts_ns)
        luma = buffer[: 96 * 64].reshape(64, 96)[8:24]
        centres.append(np.nonzero(luma > 168)[1].mean())  # of the bright square, in px
    with pytest.raises(EndOfStream):
        source.read(buffer)
    source.close()
    assert times == pytest.approx([i * 40_000_000 for i in range(8)], abs=1_000_000)
    assert centres == pytest.approx([10 * i + 7.5 for i in range(8)], abs=2)


def test_every_option_of_a_source_is_in_the_table():
    from stages.capture.opencv import OpenCvConfig
    from stages.capture.pictures import PicturesConfig
    from stages.capture.snapshots import SnapshotsConfig

    told = set(re.findall(r"`(\w+)`", " ".join(row[0] for row in rows("Options"))))
    configs = (AvConfig, OpenCvConfig, PicturesConfig, SnapshotsConfig)
    fields = {name for config in configs for name in config.__dataclass_fields__}
    assert told == fields - {"url", "device", "path"}
