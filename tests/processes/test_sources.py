"""What people have as sources, in whole runs of the command."""

from __future__ import annotations

import json
import struct
import zlib

import cv2
import numpy as np
import pytest
from clips import moving_square, write_clip
from patience import BOUND_S
from web_camera import WebCamera

RUN = '[metrics]\nenabled = false\n[run]\npolicy = "every"\n[model]\nengine = "stub"\n'
EVENTS = '[[sink]]\ntype = "events"\npath = "events.jsonl"\n'


def camera(name: str, source: object, **options: object) -> str:
    lines = [f'[[camera]]\nname = "{name}"', f"source = {json.dumps(str(source))}"]
    return "\n".join([*lines, *(f"{key} = {json.dumps(v)}" for key, v in options.items()), ""])


def events(manyeyes, name: str) -> list[dict]:
    rows = map(json.loads, (manyeyes.folder / "events.jsonl").read_text().splitlines())
    return [row for row in rows if row["camera"] == name]


def png(side: int) -> bytes:
    """Black, gray: a million pixels in a kilobyte."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(side * (side + 1)), 1)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def test_a_recording_that_can_not_be_read_ends_and_the_run_fails_at_its_end(manyeyes):
    folder = manyeyes.folder
    write_clip(folder / "good.mp4", moving_square(10))
    whole = write_clip(folder / "whole.mp4", moving_square(10)).read_bytes()
    (folder / "no_moov.mp4").write_bytes(whole[: whole.index(b"moov") - 4])
    (folder / "empty.mp4").touch()
    (folder / "nothing").mkdir()
    bad = ("no_moov", "empty", "away")
    cameras = [camera(name, f"{name}.mp4") for name in (*bad, "good")]
    manyeyes.write("".join([RUN, *cameras, camera("folder", "nothing"), EVENTS]))
    code, _, err = manyeyes("run", "run.toml")
    assert code == 1, err
    for name in (*bad, "folder"):
        assert err.count(f"camera '{name}': source {folder}/") == 2, err  # at once, and at the end
    found = events(manyeyes, "good")
    assert [event["media_time"] for event in found] == [i / 25 for i in range(10)]
    manyeyes.assert_nothing_left()


def test_a_film_over_http_is_read_once(manyeyes, tmp_path):
    data = write_clip(tmp_path / "film.mp4", moving_square(10)).read_bytes()
    with WebCamera({"/film.mp4": data}) as site:
        manyeyes.write(RUN + camera("film", site.url("/film.mp4")) + EVENTS)
        code, _, err = manyeyes("run", "run.toml")
    assert code == 0, err
    assert len(events(manyeyes, "film")) == 10


def test_a_picture_bomb_is_refused_in_a_run_and_a_telephones_picture_is_not(manyeyes):
    folder = manyeyes.folder / "pictures"
    folder.mkdir()
    (folder / "bomb.png").write_bytes(png(8200))
    cv2.imwrite(str(folder / "phone.png"), np.zeros((6144, 8192), np.uint8))
    manyeyes.write(RUN + camera("folder", folder, max_size=[640, 480]) + EVENTS)
    code, _, err = manyeyes("run", "run.toml")
    assert code == 1, err
    assert "bomb.png: " in err
    assert "frames could not be used: 1 of 2 of camera 'folder'; see above why" in err
    [event] = events(manyeyes, "folder")
    assert (event["name"], event["width"], event["height"]) == ("phone.png", 8192, 6144)


def test_stdin_is_a_recording(manyeyes, tmp_path):
    path = write_clip(tmp_path / "a.ts", moving_square(10))
    manyeyes.write(RUN + camera("pipe", "-") + EVENTS)
    with path.open("rb") as film:
        process = manyeyes.start("run", "run.toml", stdin=film)
        try:
            _, err = process.communicate(timeout=BOUND_S)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert len(events(manyeyes, "pipe")) == 10


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"read_timeout": 3.0}, "unknown key 'read_timeout'; did you mean 'read_timeout_s'?"),
        ({"read_timeout_s": "3"}, "read_timeout_s must be float | None, got '3'"),
        ({"read_timeout_s": -3.0}, "read_timeout_s must be above 0"),
        ({"fourcc": "MJPG"}, "unknown key 'fourcc'"),
        ({"url": "x.mp4"}, "unknown key 'url'"),
        ({"max_size": [0, 4]}, "max_size must be [width, height]"),
    ],
)
def test_the_options_of_a_camera_are_those_of_its_class(manyeyes, options, words):
    manyeyes.write(RUN + camera("gate", "rtsp://host/1", **options))
    code, _, err = manyeyes("check", "run.toml")
    assert code == 78
    assert f"camera 'gate': {words}" in err.replace("source rtsp://…: ", "")
    assert err.count("\n") == 1


def test_what_the_class_of_a_camera_knows_the_toml_takes(manyeyes):
    manyeyes.write(
        RUN
        + camera("gate", "rtsp://host/1", read_timeout_s=30.0, open_timeout_s=9.5, transport="udp")
        + camera("desk", "/dev/v4l/by-id/usb", size=[640, 480], fps=15.0, fourcc="MJPG")
        + camera("snap", "http://host/snap.jpg", rate_hz=0.2)
    )
    code, _, err = manyeyes("check", "run.toml")
    assert code == 0, err
