"""AvSource against cameras with faults, and against GStreamer's RTSP server."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess

import numpy as np
import pytest
from cameras import Camera
from rtsp_server import GstCamera, missing

from pipeline.errors import ConfigError, FrameError, SourceError
from pipeline.redaction import shown
from pipeline.stage import Picture
from stages.capture.av import AvConfig, AvSource

ROOM = 1 << 20  # bytes


@pytest.fixture
def watch():
    """Open a source on a camera; closed at the end."""
    sources = []

    def opened(url: str, **options: object) -> AvSource:
        config = AvConfig(url=url, **{"open_timeout_s": 1.5, "read_timeout_s": 0.5} | options)
        AvSource.check(config)
        source = AvSource(config)
        sources.append(source)
        source.setup()
        source.open()
        return source

    yield opened
    for source in sources:
        source.close()


def take(source: AvSource, count: int) -> list[Picture]:
    """The next `count` pictures."""
    buffer = np.empty(ROOM, np.uint8)
    pictures: list[Picture] = []
    while len(pictures) < count:
        try:
            picture = source.read(buffer)
        except FrameError:
            continue
        if picture is not None:
            pictures.append(picture)
    return pictures


def take_until_lost(source: AvSource) -> tuple[list[Picture], str]:
    """All pictures until SourceError, and its text."""
    pictures: list[Picture] = []
    while True:
        try:
            pictures += take(source, 1)
        except SourceError as error:
            return pictures, str(error)


def test_a_healthy_camera(watch):
    with Camera() as camera:
        source = watch(camera.url)
        pictures = take(source, 30)
        assert pictures[0].keyframe
        assert {(p.width, p.height, p.corrupt) for p in pictures} == {(320, 240, False)}
        # FFmpeg gives no time to the first picture of a camera that sends no RTP-Info.
        assert [p.pts_ns for p in pictures[:4]] == [None, 0, 40_000_000, 80_000_000]
        assert source.skip()
        assert camera.connections == 1


@pytest.mark.parametrize("fault", ["mute", "mute_describe", "huge_length"])
def test_a_camera_that_does_not_answer_is_given_up(watch, fault):
    with Camera(fault=fault) as camera, pytest.raises(SourceError, match=r"no answer in 1\.5 s"):
        watch(camera.url)


@pytest.mark.parametrize("fault", ["stall", "trickle", "half"])
def test_a_camera_that_falls_silent_is_lost(watch, fault):
    with Camera(fault=fault, after=20) as camera:
        pictures, why = take_until_lost(watch(camera.url))
        # `half` may cost the picture before it: its last packet only ends with the next.
        assert len(pictures) in (19, 20)
        assert why == f"source {shown(camera.url)}: lost: sent nothing for 0.5 s"


def test_packets_without_pictures_are_no_life(watch):
    with Camera(fault="nonsense", after=20) as camera:
        pictures, why = take_until_lost(watch(camera.url))
        assert len(pictures) == 20
        assert why == f"source {shown(camera.url)}: lost: packets, but no picture for 0.5 s"


def test_a_camera_may_take_its_time_until_the_first_keyframe(watch):
    with Camera(fault="nonsense", after=0) as camera:
        source = watch(camera.url, read_timeout_s=0.2)
        buffer = np.empty(ROOM, np.uint8)
        assert [source.read(buffer) for _ in range(3)] == [None] * 3


@pytest.mark.parametrize("fault", ["close", "reset"])
def test_a_closed_connection_is_lost_at_once(watch, fault):
    with Camera(fault=fault, after=20) as camera:
        pictures, why = take_until_lost(watch(camera.url, read_timeout_s=60.0))
        assert len(pictures) <= 20
        assert "lost" in why


def test_a_change_of_resolution(watch):
    with Camera(fault="reschange", after=20) as camera:
        pictures = take(watch(camera.url), 40)
        assert [(p.width, p.height) for p in pictures] == [(320, 240)] * 20 + [(160, 120)] * 20


def test_damage_is_flagged(watch):
    with Camera(fault="garble", after=20) as camera:
        pictures = take(watch(camera.url), 60)
        assert not any(p.corrupt for p in pictures[:20])
        assert sum(p.corrupt for p in pictures[20:]) >= 5


def test_close_does_not_wait_for_the_camera(watch):
    with Camera(fault="mute_teardown") as camera:
        source = watch(camera.url, open_timeout_s=60.0, read_timeout_s=60.0)
        take(source, 3)
        source.close()
        with pytest.raises(SourceError):
            source.read(np.empty(ROOM, np.uint8))


def test_the_same_source_opens_again_when_the_camera_is_back(watch):
    camera = Camera().start()
    source = watch(camera.url)
    take(source, 5)
    camera.stop()
    take_until_lost(source)
    with pytest.raises(SourceError, match="Connection refused"):
        source.open()
    with camera:
        source.open()
        assert len(take(source, 5)) == 5


def test_opening_again_and_again_leaks_nothing(watch):
    with Camera() as camera:
        source = watch(camera.url)
        counts = set()
        for _ in range(6):
            source.open()
            take(source, 1)
            counts.add((len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))))
            source.close()
        # The camera's own thread and socket of the connection before may still be there.
        assert max(counts)[1] - min(counts)[1] <= 2


@pytest.fixture(scope="module")
def own_certificate(tmp_path_factory):
    """A camera's own: its key, and the certificate for 127.0.0.1 that it made itself."""
    if shutil.which("openssl") is None:
        pytest.skip("no certificate for rtsps: apt-get install openssl")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
         "-subj", "/CN=camera", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    return tls, str(certificate)


def test_rtsps(watch, own_certificate, monkeypatch):
    tls, certificate = own_certificate
    monkeypatch.setenv("GATE_USER", "me")
    monkeypatch.setenv("GATE_PASSWORD", "p/w")
    with Camera(tls=tls, login="me:p/w", fault="stall", after=20) as camera:
        assert camera.url.startswith("rtsps://")
        source = watch(camera.url, credentials="GATE", ca_file=certificate)
        pictures, why = take_until_lost(source)
        assert len(pictures) == 20
        assert "lost: " in why  # TLS calls silence an input/output error


def test_a_certificate_that_nobody_knows_is_refused_unless_that_is_wanted(watch, own_certificate):
    tls, certificate = own_certificate
    with Camera(tls=tls) as camera:
        with pytest.raises(
            SourceError, match=r"name that with ca_file, or write tls_verify = false"
        ):
            watch(camera.url)
        with pytest.raises(SourceError, match="can't be opened"):  # of another name
            watch(camera.url.replace("127.0.0.1", "localhost"), ca_file=certificate)
        assert len(take(watch(camera.url, tls_verify=False), 3)) == 3


def test_a_file_without_certificates_is_refused_before_the_start(tmp_path):
    (tmp_path / "no.pem").write_text("no certificate")
    for path in (tmp_path / "no.pem", tmp_path / "away.pem"):
        with pytest.raises(ConfigError, match="no certificates can be read there"):
            AvSource.check(AvConfig(url="rtsps://host/1", ca_file=str(path)))


def test_a_camera_that_speaks_one_transport_is_told_from_others(watch):
    with Camera() as camera, pytest.raises(SourceError, match="over UDP; write transport = 'tcp'"):
        watch(camera.url, transport="udp")  # answered with 461 Unsupported Transport
    with (
        Camera(fault="udp_only") as camera,
        pytest.raises(SourceError, match="over TCP; write transport = 'udp'"),
    ):
        watch(camera.url)


def test_a_scheme_in_capitals(watch):
    with Camera() as camera:
        assert len(take(watch(camera.url.replace("rtsp", "RTSP")), 3)) == 3


def test_a_slow_camera_is_lost_once_and_then_known(watch):
    with Camera(fps=1 / 2.5) as camera:
        source = watch(camera.url, read_timeout_s=None)
        _, why = take_until_lost(source)
        assert "sent nothing for 2 s" in why
        source.open()
        assert len(take(source, 3)) == 3


def test_a_camera_of_one_picture_a_second_is_open_with_the_first(watch):
    with Camera(fps=1) as camera:
        take(watch(camera.url, open_timeout_s=20.0), 1)
        assert camera.frames_sent < 6  # FFmpeg by itself looks at eight


@pytest.fixture
def login(monkeypatch):
    """`credentials = "GATE"`."""
    monkeypatch.setenv("GATE_USER", "me")
    monkeypatch.setenv("GATE_PASSWORD", "secret")
    return "me:secret"


@pytest.mark.parametrize("digest", [None, "MD5", "SHA-256"])
@pytest.mark.parametrize("asks", [True, False])
def test_a_redirect_to_another_host_takes_no_credentials_along(watch, login, asks, digest):
    with Camera() as there:
        there.login = "you:other" if asks else None
        url = there.url.replace("127.0.0.1", "localhost")
        with Camera(fault="redirect", redirect_to=url, login=login, digest=digest) as here:
            if asks:
                with pytest.raises(SourceError, match=r"401.*; it sends on to rtsp://localhost:"):
                    watch(here.url, credentials="GATE")
            else:
                assert len(take(watch(here.url, credentials="GATE"), 3)) == 3
            assert here.logins
            assert there.logins == []


def test_a_redirect_on_the_same_host_takes_them_along(watch, login):
    with (
        Camera(login=login) as there,
        Camera(fault="redirect", redirect_to=there.url, login=login) as here,
    ):
        assert len(take(watch(here.url, credentials="GATE"), 3)) == 3
        assert there.logins


@pytest.mark.parametrize("to", ["http://127.0.0.1:1/", "file:///etc/passwd", "concat:a|b"])
def test_a_redirect_leads_to_rtsp_alone(watch, login, to):
    with (
        Camera(fault="redirect", redirect_to=to, login=login) as camera,
        pytest.raises(SourceError, match=r"sends on to .*; wanted rtsp"),
    ):
        watch(camera.url, credentials="GATE")


def test_cameras_that_send_in_circles_are_given_up(watch, login):
    with Camera(fault="redirect", login=login) as camera:
        camera.redirect_to = camera.url
        with pytest.raises(SourceError, match="can't be opened"):
            watch(camera.url, credentials="GATE")


@pytest.fixture
def gst_camera():
    """GStreamer's RTSP server, not started yet."""
    if why := missing():
        pytest.skip(why)
    cameras = []

    def make(**options: object) -> GstCamera:
        cameras.append(GstCamera(**options).start())
        return cameras[-1]

    yield make
    for camera in cameras:
        camera.stop()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_gstreamer_stops_and_comes_back(watch, gst_camera, transport):
    camera = gst_camera()
    source = watch(camera.url, transport=transport, open_timeout_s=10.0, read_timeout_s=5.0)
    pictures = take(source, 30)
    assert {(p.width, p.height, p.format) for p in pictures} == {(320, 240, "i420")}
    camera.stop()
    take_until_lost(source)
    with pytest.raises(SourceError):
        source.open()
    with camera:
        source.open()
        assert len(take(source, 5)) == 5


def test_gstreamer_digest_login(watch, gst_camera, monkeypatch):
    camera = gst_camera(login="me:a:b@c/d?#%&ü x")
    with pytest.raises(SourceError, match="401"):
        watch(camera.url, open_timeout_s=10.0)
    monkeypatch.setenv("GATE_USER", "me")
    monkeypatch.setenv("GATE_PASSWORD", "a:b@c/d?#%&ü x")
    source = watch(camera.url, credentials="GATE", open_timeout_s=10.0, read_timeout_s=5.0)
    assert len(take(source, 5)) == 5
