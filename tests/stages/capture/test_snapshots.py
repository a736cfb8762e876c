"""Cameras that give one picture for each request."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping

import cv2
import numpy as np
import pytest
from web_camera import Answer, WebCamera

from pipeline.errors import ConfigError, FrameError, SourceError
from pipeline.runtime import LocalRuntime
from pipeline.stage import Picture
from stages.capture.snapshots import SnapshotsConfig, SnapshotsSource

JPEG = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
PLAIN = {"Content-Type": "image/jpeg"}


def opened(camera: WebCamera, path: str = "/snap.jpg", **options: object) -> SnapshotsSource:
    config = SnapshotsConfig(url=camera.url(path), **{"rate_hz": 50.0, **options})
    SnapshotsSource.check(config)
    source = SnapshotsSource(config)
    source.runtime = LocalRuntime(["gate"])
    source.setup()
    source.open()
    return source


def next_picture(source: SnapshotsSource, tries: int = 500) -> Picture:
    buffer = np.empty(1 << 16, np.uint8)
    for _ in range(tries):
        if (picture := source.read(buffer)) is not None:
            return picture
    raise AssertionError(f"no picture in {tries} turns")


def test_each_request_is_a_picture():
    with WebCamera(answers={"/snap.jpg": lambda _: (200, PLAIN, JPEG)}) as camera:
        source = opened(camera)
        for _ in range(3):
            picture = next_picture(source)
            assert (picture.width, picture.height, picture.format) == (64, 48, "bgr24")
            assert picture.pts_ns is None
        assert len(camera.seen) == 3
        assert not source.skip()
        assert len(camera.seen) == 3, "what nobody wants is not asked for"


def test_a_large_picture_fits_its_slot():
    with WebCamera(answers={"/snap.jpg": lambda _: (200, PLAIN, JPEG)}) as camera:
        source = opened(camera, max_size=(32, 24))
        buffer = np.empty(SnapshotsSource.slot_bytes(source.config, 0), np.uint8)
        picture = source.read(buffer)
    assert (picture.width, picture.height) == (32, 24)
    assert picture.source_size == (64, 48)


@pytest.mark.parametrize(
    ("says", "asks", "value"),
    [
        ("ETag", "If-None-Match", '"a1"'),
        ("Last-Modified", "If-Modified-Since", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ],
)
def test_a_camera_that_can_tell_is_asked_for_newer_pictures_only(says, asks, value):
    answered: list[int] = []

    def snap(headers: Mapping[str, str]) -> Answer:
        answered.append(304 if headers.get(asks) == value and len(answered) % 3 else 200)
        return answered[-1], PLAIN | {says: value}, JPEG if answered[-1] == 200 else b""

    with WebCamera(answers={"/snap.jpg": snap}) as camera:
        source = opened(camera)
        for _ in range(3):
            next_picture(source)
    assert answered == [200, 304, 304, 200, 304, 304, 200]
    assert source.runtime.counts["unchanged", "gate"] == 4


def login(kind: str) -> Callable[[Mapping[str, str]], Answer]:
    """A camera that asks for me:p@ss."""

    def snap(headers: Mapping[str, str]) -> Answer:
        sent = headers.get("Authorization", "")
        basic = "Basic " + base64.b64encode(b"me:p@ss").decode()
        fields = dict(re.findall(r'(\w+)="?([^",]*)', sent))

        def md5(text: str) -> str:
            return hashlib.md5(text.encode()).hexdigest()

        wanted = md5(f"{md5('me:camera:p@ss')}:n0:{md5('GET:' + fields.get('uri', ''))}")
        if (sent == basic) if kind == "Basic" else (fields.get("response") == wanted):
            return 200, PLAIN, JPEG
        nonce = ', nonce="n0"' if kind == "Digest" else ""
        return 401, {"WWW-Authenticate": f'{kind} realm="camera"{nonce}'}, b""

    return snap


@pytest.mark.parametrize("kind", ["Basic", "Digest"])
def test_a_login_is_answered(monkeypatch, kind):
    monkeypatch.setenv("GATE_USER", "me")
    monkeypatch.setenv("GATE_PASSWORD", "p@ss")
    with WebCamera(answers={"/snap.jpg": login(kind)}) as camera:
        next_picture(opened(camera, credentials="GATE"))
        with pytest.raises(SourceError, match="lost: answered 401"):
            next_picture(opened(camera))


def test_a_redirect_to_another_host_takes_no_credentials_along(monkeypatch):
    monkeypatch.setenv("GATE_USER", "me")
    monkeypatch.setenv("GATE_PASSWORD", "p@ss")
    with WebCamera(answers={"/snap.jpg": login("Basic")}) as other:

        def away(headers: Mapping[str, str]) -> Answer:
            answer = login("Basic")(headers)
            return answer if answer[0] == 401 else (302, {"Location": other.url("/snap.jpg")}, b"")

        with (
            WebCamera(answers={"/snap.jpg": away}) as camera,
            pytest.raises(SourceError, match="answered 401"),
        ):
            next_picture(opened(camera, credentials="GATE"))
    assert other.seen
    assert not any("Authorization" in headers for _, headers in other.seen)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((503, {}, b""), "lost: answered 503"),
        ((404, {}, b""), "lost: answered 404"),
        ((302, {"Location": "file:///etc/passwd"}, b""), "lost: "),
        ((200, {"Content-Type": "multipart/x-mixed-replace; boundary=x"}, b""), "reader = 'av'"),
        ((200, {"Content-Type": "image/jpeg", "Content-Length": "99"}, b"short"), "lost: "),
    ],
)
def test_what_is_no_answer_is_a_loss(answer, words):
    with (
        WebCamera(answers={"/snap.jpg": lambda _: answer}) as camera,
        pytest.raises(SourceError, match=words),
    ):
        next_picture(opened(camera))


@pytest.mark.parametrize("body", [b"", b"no picture", JPEG[:40]])
def test_what_is_no_picture_is_one_lost_frame(body):
    with (
        WebCamera(answers={"/snap.jpg": lambda _: (200, PLAIN, body)}) as camera,
        pytest.raises(FrameError),
    ):
        next_picture(opened(camera))


@pytest.mark.parametrize(
    "options",
    [
        {"url": "rtsp://host/snap.jpg"},
        {"url": "http://me:secret@host/snap.jpg"},
        {"url": "http://host/snap.jpg", "rate_hz": 0.0},
        {"url": "http://host/snap.jpg", "read_timeout_s": -1.0},
        {"url": "http://host/snap.jpg", "credentials": "NOBODY_SET_THIS"},
    ],
)
def test_check_refuses(options):
    with pytest.raises(ConfigError):
        SnapshotsSource.check(SnapshotsConfig(**options))
