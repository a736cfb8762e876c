"""A password in a URL, however that is misspelt, is in nothing that anybody can read."""

import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from patience import BOUND_S

from pipeline import redaction
from pipeline.errors import ManyeyesError
from pipeline.plan import config
from pipeline.plan.loading import build
from pipeline.plan.standard import make
from pipeline.redaction import shown

MANYEYES = Path(sys.executable).with_name("manyeyes")
HEAD, TAIL = "hunter22", "qwerty77"  # of every secret; between them is what a URL may stumble over
KEYS = ("password", "pwd", "passwd", "token", "access_token", "api_key", "APIKEY", "auth", "user",
        "loginpas", "secret", "X-Signature")  # fmt: skip
SCHEMES = ("rtsp://", "rtsps://", "http://", "https://", "rtsp:/", "rtsp:", "rtsp//", "rtsp;//", "rtsp",
           "rtsp:///", "RTSP://", "htpp://", "http:/", " rtsp://", "synthetic://", "://", "//", "",
           "file:", "rtsp://rtsp://", "me@rtsp://", "rtsp://[", "./", "/")  # fmt: skip
HOSTS = ("127.0.0.1:9", "127.0.0.1:9/stream1", "127.0.0.1:9/a/b.mp4", "127.0.0.1:9/x.jpg", "[::1]:9/1",
         "", "127.0.0.1:nine/1", "127.0.0.1:9/x*.jpg", "127.0.0.1:9/live@1", "*")  # fmt: skip

secrets = st.text(st.sampled_from("ab/\\:@?#&=%;*[]{}., '\"ü"), max_size=6).map(
    lambda middle: f"{HEAD}{middle}{TAIL}"
)


@st.composite
def urls(draw):
    scheme, host, secret = (
        draw(st.sampled_from(SCHEMES)),
        draw(st.sampled_from(HOSTS)),
        draw(secrets),
    )
    if draw(st.booleans()):
        form = draw(st.sampled_from(("me:{}@", "{}@", ":{}@", "me:{}%40", "me@home:{}@")))
        return scheme + form.format(secret) + host
    key = draw(st.sampled_from(KEYS))
    begin = draw(st.sampled_from(("?", "?channel=1&", "/", ";", "&")))
    end = draw(st.sampled_from(("", "&channel=1", "/live", ".jpg", ".mp4")))
    return f"{scheme}{host}{begin}{key}={secret}{end}"


def said(source):
    """All that is said of a source until it is open, by whoever says anything."""
    texts = []
    for camera in ({"source": source}, {"source": [source]}, {"name": source, "source": 0},
                   {"source": source, "reader": "opencv"}, {"source": source, "loop": 7},
                   {"source": source, "credentials": "NOBODY"}):  # fmt: skip
        table = {"name": "gate", **camera}
        raw = {"camera": [table], "model": {"engine": "stub"}, "metrics": {"enabled": False}}
        try:
            plan = make(config.validate(raw, "run.toml", Path.cwd()))
            texts.append(plan.text())
            texts += _opened(plan.processes[0])
        except ManyeyesError as error:
            texts.append(str(error))
    for call in (lambda: config.from_sources([source]), lambda: config.load(source)):
        try:
            texts += [camera.name for camera in call().camera]
        except ManyeyesError as error:
            texts.append(str(error))
        except ValueError:  # a path that holds a NUL
            continue
    return texts


def _opened(spec):
    if not spec.run.endswith(("AvSource", "PicturesSource", "OpenCvSource")):
        return
    if spec.config.get("url", "").startswith("http"):
        return  # waits for its time limit, see below
    source = build(spec.run, spec.config)
    yield repr(source)
    try:
        source.setup()
        source.open()
        source.read(np.empty(1 << 20, np.uint8))
    except ManyeyesError as error:
        yield str(error)
    finally:
        source.close()


@pytest.fixture(scope="module", autouse=True)
def _elsewhere(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("empty"))
        yield


@settings(max_examples=150)
@given(urls())
@example(f"rtsp:/me:{HEAD}{TAIL}@10.0.0.7")
@example(f"me:{HEAD}{TAIL}@10.0.0.7/1")
@example(f"me:{HEAD}*{TAIL}@10.0.0.7?channel=1")
@example(f"rtsp//me:{HEAD}{TAIL}@10.0.0.7/1")
@example(f"me:{HEAD}{TAIL}@127.0.0.1/clip.mp4")
@example(f"rtsp://127.0.0.1:9/{HEAD}{TAIL}/live")
@example(f"rtsp:/127.0.0.1:9/{HEAD}{TAIL}/live")
@example(f"synthetic://127.0.0.1:9;password={HEAD}[{TAIL}")
@example(f"http://127.0.0.1:9;password={HEAD}]{TAIL}.jpg")
def test_no_sentence_and_no_name_holds_a_secret(source):
    texts = said(source)
    assert len(texts) >= 4
    for text in (*texts, shown(source)):
        assert HEAD not in text
        assert TAIL not in text


@pytest.mark.parametrize(
    "source",
    [
        f"rtsp://127.0.0.1:9/{HEAD}/live?token={TAIL}",
        f"http://127.0.0.1:9/video?token={HEAD}{TAIL}",
    ],
)
def test_a_run_that_can_not_open_a_camera_tells_nobody_its_token(source, tmp_path):
    toml = tmp_path / "run.toml"
    camera = f'[[camera]]\nname = "gate"\nsource = "{source}"\n'
    toml.write_text(f'[model]\nengine = "stub"\n[metrics]\nport = 0\n{camera}')
    said = ""
    for command in (["check"], ["graph"], ["run", "--seconds", "1"]):
        done = subprocess.run(
            [MANYEYES, *command, str(toml)],
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
    assert "127.0.0.1:9/…: can't be opened" in said.replace("\n", " ")
    assert HEAD not in said
    assert TAIL not in said


def test_what_is_no_secret_is_shown():
    for plain in (
        "clips/street.mp4",
        "in/*.jpg",
        "0",
        "a?b.mp4",
        "file.mp4",
        "http.mp4",
        "sig nal.png",
    ):
        assert shown(plain) == plain
    assert shown("rtsp://[fe80::1]:554") == "rtsp://[fe80::1]:554"
    assert shown("rtsp://cam:554/x?token=c") == "rtsp://cam:554/…"
    assert shown("clips/a@2x/b.mp4") == "***@2x…"
    assert doctest.testmod(redaction).failed == 0


def test_a_misspelt_url_is_called_one():
    for source in ("rtsp:/10.0.0.7/1", "rtsp//10.0.0.7/1", "RTSP:10.0.0.7", "http;//10.0.0.7"):
        raw = {"camera": [{"name": "gate", "source": source}]}
        with pytest.raises(ManyeyesError, match="a URL has :// behind its scheme"):
            config.validate(raw, "run.toml", Path.cwd())
