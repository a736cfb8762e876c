"""A configuration is right, or it gets one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.errors import ConfigError, ModelNotHere
from pipeline.plan import config as configuration
from pipeline.plan import fields, model_path
from pipeline.plan.model_path import demo_model

GATE = '[[camera]]\nname = "gate"\nsource = 0\n'


@pytest.fixture
def street(tmp_path):
    """Load a text as street.toml."""

    def load(text: str, **overrides):
        path = tmp_path / "street.toml"
        path.write_text(text, encoding="utf-8")
        return configuration.load(path, **overrides)

    return load


def test_objects_are_followed_where_it_is_asked_for(street):
    assert street(GATE).track is None
    assert street(GATE, track=True).track == configuration.TrackConfig()
    given = street(GATE + '[track]\ntype = "ocsort"\nlost_s = 5\n', track=True).track
    assert (given.type, given.lost_s, given.new_score) == ("ocsort", 5.0, None)


def test_two_cameras(street, tmp_path):
    (tmp_path / "street.bundle").write_bytes(b"")
    config = street("""
        [run]
        policy = "every"
        directory = "state"
        [model]
        path = "street.bundle"
        score_threshold = 0.4
        per_class = { car = 0.5, person = 1 }
        classes = ["car", "person"]
        [[camera]]
        name = "gate"
        source = "rtsp://10.0.0.7/stream1"
        credentials = "GATE"
        max_size = [1280, 720]
        [[camera]]
        name = "yard"
        source = "clips/yard.mp4"
        loop = true
        [[camera]]
        name = "door"
        source = 0
        [[sink]]
        type = "events"
        path = "events.jsonl"
        only_hits = true
        [[sink]]
        type = "custom"
        name = "mail"
        run = "mypkg.mail:Mail"
        path = "as it is"
        [[stage]]
        name = "blur"
        run = "mypkg.blur:Blur"
        path = "view"
        config = { radius_px = 3 }
    """)
    gate, yard, door = config.camera
    assert (gate.source, gate.credentials) == ("rtsp://10.0.0.7/stream1", "GATE")
    assert gate.options == {"max_size": [1280, 720]}
    assert (yard.source, yard.options) == (str(tmp_path / "clips/yard.mp4"), {"loop": True})
    assert door.source == 0
    assert config.model.path == tmp_path / "street.bundle"
    assert config.model.per_class == {"car": 0.5, "person": 1.0}
    assert config.model.classes == ("car", "person")
    assert config.run.directory == tmp_path / "state"
    events, mail = config.sink
    assert events.options == {"path": str(tmp_path / "events.jsonl"), "only_hits": True}
    assert mail.options == {"path": "as it is"}
    assert config.stage[0].config == {"radius_px": 3}
    with pytest.raises(ValidationError, match="frozen"):
        gate.name = "other"


def test_the_smallest_configuration_has_metrics_on_this_host(street):
    config = street(GATE)
    assert config.run.policy == "newest"
    assert (config.metrics.host, config.metrics.port) == ("127.0.0.1", 9108)
    assert config.sink == config.stage == ()
    assert street(GATE + "[metrics]\nenabled = false").metrics.port is None


def test_real_cameras_do_not_get_the_demo_model_by_accident(street, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rendered = '[[camera]]\nname = "r"\nsource = "synthetic://"\n'
    assert street(rendered).model.path == demo_model()
    for text in (GATE, rendered + GATE):
        with pytest.raises(
            ModelNotHere, match=r"`manyeyes model get yolox-nano` fetches it .*'demo'"
        ):
            street(text)
    assert street('[model]\nengine = "stub"\n' + GATE).model.path == demo_model()
    assert street('[model]\nname = "demo"\n' + GATE).model.path == demo_model()
    bundle = tmp_path / "manyeyes" / "models" / "yolox-nano.bundle"
    bundle.parent.mkdir(parents=True)
    bundle.write_bytes(b"")
    assert street(GATE).model.path == bundle


def test_a_model_without_facts_is_imported_once(street, tmp_path, monkeypatch):
    tiny_models = pytest.importorskip("tiny_models", reason="it scripts a model with PyTorch")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    raw = tiny_models.save(tiny_models.Candidates(), tmp_path / "tiny.pt")
    text = f'[model]\npath = "{raw}"\n' + GATE
    with pytest.raises(ModelNotHere, match=r"tiny\.pt: it carries no facts") as missing:
        street(text)
    verb, file, _, bundle = missing.value.command
    assert (verb, file) == ("import", raw)
    Path(bundle).write_bytes(b"")
    assert street(text).model.path == Path(bundle)
    tiny_models.save(tiny_models.Yolox(), tmp_path / "tiny.pt")  # another file: another bundle
    with pytest.raises(ModelNotHere):
        street(text)


def test_a_model_by_its_name(street, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert street('[model]\nname = "demo"\n' + GATE).model.path == demo_model()
    with pytest.raises(ModelNotHere) as missing:
        street('[model]\nname = "yolox-tiny"\n' + GATE)
    assert missing.value.command == ("get", "yolox-tiny")
    bundle = tmp_path / "manyeyes" / "models" / "yolox-tiny.bundle"
    bundle.parent.mkdir(parents=True)
    bundle.write_bytes(b"")
    assert street('[model]\nname = "yolox-tiny"\n' + GATE).model.path == bundle
    with pytest.raises(ConfigError, match="path and name are both there"):
        street('[model]\nname = "demo"\npath = "x.bundle"\n' + GATE)


@pytest.mark.parametrize(
    ("model", "table"),
    [
        ("yolox-nano", {"name": "yolox-nano"}),
        ("street.bundle", {"path": "street.bundle"}),  # is not there, and looks like a file
        ("models/street", {"path": "models/street"}),
        ("here", {"path": "here"}),
    ],
)
def test_what_a_model_on_the_command_line_means(model, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").write_text("a file without a suffix")
    if "path" in table:
        table = {"path": str(tmp_path / table["path"])}
    assert model_path.given(model) == table


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "there is no camera; add a [[camera]] with a name and a source"),
        ("[modle]\n" + GATE, "unknown key 'modle'; did you mean 'model'?"),
        (
            '[[camera]]\nname = "gate"\nsorce = 1',
            "camera 'gate': unknown key 'sorce'; did you mean 'source'?",
        ),
        ("model = 3\n" + GATE, "model must be a table, got 3"),
        (
            GATE + "[preprocess]\nzzz = 1",
            "[preprocess]: unknown key 'zzz'; known: workers",
        ),
        (
            GATE + "[model]\nscore_threshold = 40",
            "[model]: score_threshold must be within 0..1, got 40; write 0.4 for 40 %",
        ),
        (
            GATE + "[model]\nscore_threshold = nan",
            "[model]: score_threshold must be within 0..1, got nan",
        ),
        (
            GATE + "[model]\nper_class = { car = -1 }",
            "[model]: per_class.car must be within 0..1, got -1",
        ),
        (GATE + "[model]\nclasses = []", "[model]: classes must be a list of class names, got []"),
        (
            GATE + '[model]\ndevice = "gpu"',
            "[model]: device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'gpu'",
        ),
        (GATE + '[run]\nstrict = "yes"', "[run]: strict must be true or false, got 'yes'"),
        (GATE + "[run]\nseconds = inf", "[run]: seconds must be a number of seconds > 0, got inf"),
        (GATE + '[run]\npolicy = "all"', "[run]: policy must be 'newest' or 'every', got 'all'"),
        (GATE + GATE, "camera 'gate': the name is used twice; give one another"),
        (
            GATE + 'max_fps = 5\n[run]\npolicy = "every"',
            "camera 'gate': max_fps leaves frames out, 'every' none; remove either",
        ),
        (
            '[camera]\nname = "gate"\nsource = 0',
            "camera must be tables, each under [[camera]], got a table",
        ),
        ("camera = [1]", "camera must be tables, each under [[camera]], got [1]"),
        (
            "[[camera]]\nsource = 0",
            "[[camera]] number 1: 'name' is missing; "
            "it must be 1 to 64 of the characters A-Z a-z 0-9 _ -",
        ),
        (
            '[[camera]]\nname = "a/b"\nsource = 0',
            "camera 'a/b': name must be 1 to 64 of the characters A-Z a-z 0-9 _ -, got 'a/b'",
        ),
        (
            '[[camera]]\nname = "gate"',
            "camera 'gate': 'source' is missing; it must be a URL, a path, or the index of a webcam "
            "(run = 'package.module:Class' for a class of your own)",
        ),
        (
            '[[camera]]\nname = "gate"\nsource = 2020-01-01',
            "camera 'gate': source must be a URL, a path, or the index of a webcam, got 2020-01-01",
        ),
        (
            '[[camera]]\nname = "gate"\nsource = -1',
            "camera 'gate': source must be the index of a webcam, 0 or more, got -1",
        ),
        (
            '[[camera]]\nname = "gate"\nsource = ""',
            "camera 'gate': source is empty; wanted a URL, a path, or the index of a webcam",
        ),
        (
            GATE + "max_fps = 0",
            "camera 'gate': max_fps must be a number of frames a second > 0, got 0",
        ),
        (
            GATE + '[[sink]]\ntype = "evnts"',
            "sink 'evnts': type must be 'events', 'happenings', 'store', 'video', 'snapshot', "
            "'window', 'null' or 'custom', got 'evnts'",
        ),
        (
            GATE + '[[sink]]\ntype = "custom"',
            "sink 'custom': type 'custom' and run = 'package.module:Class' go together; "
            "write both or neither",
        ),
        (
            GATE + '[[sink]]\ntype = "events"\n' * 2,
            "sink 'events': the name is used twice; give one another",
        ),
        (
            GATE + '[[stage]]\nname = "blur"\nrun = "blur"',
            "stage 'blur': run must be 'package.module:Class', got 'blur'",
        ),
        (
            GATE + '[[stage]]\nname = "blur"\nrun = "m:C"\nconfig = 3',
            "stage 'blur': config must be a table, got 3",
        ),
    ],
)
def test_a_mistake_gets_one_sentence(street, text, sentence):
    with pytest.raises(ConfigError) as error:
        street(text)
    assert str(error.value) == f"street.toml: {sentence}"
    assert error.value.exit_code == 78


@pytest.mark.parametrize(
    "camera",
    [
        'source = "rtsp://admin:s3cret@10.0.0.7/1"',
        'source = "rtsp://admin:s3/cret@10.0.0.7/1"',
        'source = 0\ncredentials = "admin:s3cret"',
    ],
)
def test_a_password_is_refused_and_never_repeated(street, camera):
    with pytest.raises(ConfigError, match="camera 'gate'") as error:
        street(f'[[camera]]\nname = "gate"\n{camera}')
    assert "s3" not in str(error.value)
    assert error.value.__cause__ is None


def test_files_that_are_not_there_or_no_toml(street, tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: can't be read: No such file"):
        configuration.load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"^street\.toml: is no TOML: .*line 1"):
        street("x 3")
    (tmp_path / "latin.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is no UTF-8 text"):
        configuration.load(tmp_path / "latin.toml")
    with pytest.raises(ConfigError, match=r"^street\.toml: \[model\]: path: there is no file"):
        street(GATE + '[model]\npath = "none.bundle"')


def test_the_command_line_overrides_a_file(street, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "my.bundle").write_bytes(b"")
    monkeypatch.chdir(elsewhere)
    config = street(
        GATE + '[[sink]]\ntype = "events"\npath = "a.jsonl"\n[[sink]]\ntype = "null"',
        events="b.jsonl",
        model="my.bundle",
        window=True,
        policy="every",
        seconds=3,
    )
    assert [sink.type for sink in config.sink] == ["null", "events", "window"]
    assert config.sink[1].options == {"path": str(elsewhere / "b.jsonl")}
    assert config.model.path == elsewhere / "my.bundle"
    assert (config.run.policy, config.run.seconds) == ("every", 3)
    with pytest.raises(
        ConfigError, match=r"\[run\]: seconds must be a number of seconds > 0, got -1"
    ):
        street(GATE, seconds=-1)


def test_sources_alone_get_names_and_no_metrics(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("clips/a b.mp4", "more/a b.mkv", "cam1.mp4", "…"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    config = configuration.from_sources(
        ["clips/a b.mp4", "more/a b.mkv", 0, "1", "rtsp://10.0.0.7/x", "synthetic://?seed=1", "…"]
    )
    assert [camera.name for camera in config.camera] == [
        "a_b", "a_b-2", "cam2", "cam3", "cam4", "cam5", "cam6",
    ]  # fmt: skip
    assert config.camera[0].source == str(tmp_path / "clips/a b.mp4")
    assert [camera.source for camera in config.camera[2:4]] == [0, "1"]
    assert config.metrics.port is None
    assert configuration.from_sources(["cam1.mp4", "0"]).camera[1].name == "cam1-2"
    with pytest.raises(ConfigError, match=r"^command line: there is no camera"):
        configuration.from_sources([])
    with pytest.raises(ConfigError, match=r"^command line: camera 'cam0': a user or a password"):
        configuration.from_sources(["rtsp://a:b@c/d"])
    with pytest.raises(ConfigError, match=r"^command line: source 'no.mp4': there is no such file"):
        configuration.from_sources(["no.mp4"])


def test_keys_of_others_get_the_same_sentence():
    fields.check_keys("sink 'events'", [], ["path"])
    with pytest.raises(
        ConfigError, match=r"^sink 'events': unknown key 'paht'; did you mean 'path'"
    ):
        fields.check_keys("sink 'events'", ["path", "paht"], ["path", "only_hits"])


def test_the_schema_is_json_and_says_what_each_field_must_be():
    schema = json.loads(json.dumps(configuration.schema()))
    assert "camera" in schema["properties"]
    for section in schema["$defs"].values():
        for name, field in section["properties"].items():
            assert field.get("description") or name == "options"


def test_a_key_that_a_table_has_not_is_no_change_of_it():
    """Films of a benchmark ended, since `loop` had become an option and nobody heard of it."""
    (camera,) = configuration.from_sources(["synthetic://"]).camera
    with pytest.raises(TypeError, match="CameraConfig has no loop"):
        camera.model_copy(update={"loop": True})
    assert camera.with_options(loop=True).with_options(realtime=False).options == {
        "loop": True,
        "realtime": False,
    }
