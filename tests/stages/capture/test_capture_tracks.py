"""Which track is read, and tracks that come late."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import moving_square, write_clip

from pipeline.errors import EndOfStream, SourceError
from pipeline.runtime import LocalRuntime
from stages.capture.av import AvConfig, AvSource

pytestmark = pytest.mark.skipif(
    not hasattr(av.stream, "Disposition"), reason="this PyAV can't say which track is a cover"
)
DEFAULT, ATTACHED = 0x0001, 0x0400
SMALL, FILM, COVER = (48, 32), (96, 64), (320, 240)


def sizes(path: Path) -> list[tuple[int, int]]:
    """Of all pictures that the reader gives, until the end of the file."""
    source = AvSource(AvConfig(url=str(path)))
    source.runtime = LocalRuntime(["gate"])
    source.setup()
    source.open()
    out, buffer = [], np.empty(1 << 20, np.uint8)
    try:
        while True:
            picture = source.read(buffer)
            out.append((picture.width, picture.height))
    except EndOfStream:
        return out
    finally:
        source.close()


def mux(path: Path, tracks: list[tuple[str, tuple[int, int], int, int]]) -> Path:
    """A file with these video tracks: codec, size, pictures, disposition."""
    with av.open(str(path), "w") as container:
        streams = []
        for codec, size, _, disposition in tracks:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height = size
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.disposition = disposition
            streams.append(stream)
        for stream, (_, size, count, _) in zip(streams, tracks, strict=True):
            for i, image in enumerate(moving_square(count, size)):
                frame = av.VideoFrame.from_ndarray(image, format="bgr24")
                frame = frame.reformat(format=stream.pix_fmt)
                frame.pts, frame.time_base = i, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "tracks", "wanted"),
    [
        ("a.mp4", [("mjpeg", COVER, 1, ATTACHED), ("libx264", FILM, 5, 0)], FILM),
        ("a.ts", [("libx264", SMALL, 5, 0), ("libx264", FILM, 5, 0)], FILM),
        ("a.ts", [("libx264", FILM, 5, 0), ("libx264", SMALL, 5, 0)], FILM),
        ("a.mp4", [("libx264", FILM, 5, 0), ("libx264", SMALL, 5, DEFAULT)], SMALL),
    ],
)
def test_the_film_is_read_and_not_its_cover(tmp_path, name, tracks, wanted):
    path = mux(tmp_path / name, tracks)
    assert sizes(path) == [wanted] * 5


def test_a_cover_in_front_of_the_film(tmp_path):
    path = mux(tmp_path / "a.mp4", [("libx264", FILM, 5, 0), ("mjpeg", COVER, 1, ATTACHED)])
    data = path.read_bytes()
    track, cover = data.index(b"trak") - 4, data.index(b"udta") - 4
    end = cover + int.from_bytes(data[cover : cover + 4], "big")
    path.write_bytes(data[:track] + data[cover:end] + data[track:cover] + data[end:])
    with av.open(str(path)) as container:
        assert [s.codec_context.name for s in container.streams] == ["mjpeg", "h264"]
    assert sizes(path) == [FILM] * 5


def test_a_song_with_a_cover_has_no_video(tmp_path):
    path = mux(tmp_path / "a.mp4", [("mjpeg", COVER, 1, ATTACHED)])
    with pytest.raises(SourceError, match="has no video"):
        sizes(path)


@pytest.mark.parametrize("film_first", [True, False])
def test_a_track_that_appears_late_changes_nothing(tmp_path, film_first):
    plain = write_clip(tmp_path / "plain.ts", moving_square(200, SMALL)).read_bytes()
    with av.open(str(tmp_path / "late.ts"), "w") as container:
        film = container.add_stream("libx264", rate=25)
        film.width, film.height = SMALL
        sound = container.add_stream("mp2", rate=48_000)
        for i, image in enumerate(moving_square(10, SMALL)):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")
            frame.pts, frame.time_base = 200 + i, Fraction(1, 25)
            container.mux(film.encode(frame))
            silence = np.zeros((1, 1920 * 2), np.int16)
            samples = av.AudioFrame.from_ndarray(silence, format="s16", layout="stereo")
            samples.pts, samples.rate = (200 + i) * 1920, 48_000
            container.mux(sound.encode(samples))
        container.mux(film.encode(None))
        container.mux(sound.encode(None))
    both = tmp_path / "both.ts"
    late = (tmp_path / "late.ts").read_bytes()
    both.write_bytes(plain + late if film_first else late + plain + late)
    assert sizes(both) == [SMALL] * (210 if film_first else 220)
