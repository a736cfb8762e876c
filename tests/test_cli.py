"""What the console command says to a bad configuration: one sentence, exit code 78."""

import socket

import pytest
from refusing import assert_refused

CAMERA = '[[camera]]\nname = "gate"\nsource = "synthetic://?seed=1&size=320x180"\n'
ZONE = '[[zone]]\nname = "door"\ncamera = "gate"\npolygon = [[0.1, 0.1], [0.5, 0.1], [0.1, 0.5]]\n'
QUIET = "[metrics]\nenabled = false\n"


BAD = {
    "unknown key": (
        CAMERA.replace("source", "sorce"),
        "run.toml: camera 'gate': unknown key 'sorce'; did you mean 'source'?",
    ),
    "unknown section": (CAMERA + "[modell]\n", "run.toml: unknown key 'modell'", "'model'"),
    "wrong type": (
        '[[camera]]\nname = "gate"\nsource = "rtsp://10.0.0.7/1"\nloop = "yes"\n',
        "camera 'gate': loop must be bool, got 'yes'",
    ),
    "password in a key of its own": (
        CAMERA + 'password = "s3cret"\n', "camera 'gate': unknown key 'password'; known: ",
    ),
    "out of range": (
        CAMERA + "[model]\nscore_threshold = 40\n",
        "run.toml: [model]: score_threshold must be within 0..1, got 40; write 0.4 for 40 %",
    ),
    "policy": (CAMERA + '[run]\npolicy = "newst"\n', "[run]: policy must be 'newest' or", "'newst'"),
    "no camera": (QUIET, "run.toml: there is no camera; add a [[camera]]"),
    "same name twice": (CAMERA + CAMERA, "run.toml: camera 'gate': the name is used twice"),
    "no TOML": ("cameras: [gate]\n", "run.toml: is no TOML", "line 3"),
    "missing model": (
        CAMERA + '[model]\npath = "there.bundle"\n',
        "run.toml: [model]: path: there is no file", "there.bundle", "correct the path",
    ),
    "unknown scheme": (
        CAMERA.replace("synthetic", "gopher"), "camera 'gate': source gopher://…: unknown scheme",
    ),
    "no such file": (
        CAMERA.replace("synthetic://?seed=1&size=320x180", "street.webp9"),
        "camera 'gate': source", "no such file or folder",
    ),
    "option of another source": (
        CAMERA + "loop = true\n", "camera 'gate': unknown key 'loop'; known: ",
    ),
    "option of a scene": (
        CAMERA.replace("seed", "sead"), "camera 'gate': ", "unknown key 'sead'", "it knows seed",
    ),
    "credentials that are not there": (
        CAMERA.replace("synthetic://?seed=1&size=320x180", "rtsp://10.0.0.7/1")
        + 'credentials = "GATE"\n',
        "camera 'gate': credentials 'GATE'", "GATE_USER and GATE_PASSWORD", "found neither",
    ),
    "unknown tracker": (
        CAMERA + '[track]\ntype = "sort"\n',
        "run.toml: [track]: type must be 'bytetrack' or 'ocsort', got 'sort'",
    ),
    "unknown key of the tracker": (
        CAMERA + "[track]\nlost = 3\n", "run.toml: [track]: unknown key 'lost'; did you mean 'lost_s'?",
    ),
    "objects that are lost for too long": (
        CAMERA + "[track]\nlost_s = 900\n",
        "[track]: lost_s must be a number of seconds within 0.1..60, got 900",
    ),
    "zone of no camera": (
        CAMERA + ZONE.replace('"gate"', '"gaet"'),
        "run.toml: zone 'door': there is no camera 'gaet'; did you mean 'gate'?",
    ),
    "zone twice": (CAMERA + ZONE + ZONE, "run.toml: zone 'door': the name is used twice for"),
    "zone of two points": (
        CAMERA + ZONE.replace(", [0.1, 0.5]", ""), "zone 'door': polygon must have 3 points or more",
    ),
    "zone that is no polygon": (
        CAMERA + ZONE.replace("[0.1, 0.5]", "0.5"), "zone 'door': polygon", "a list of points [x, y]",
    ),
    "zone of an unknown class": (
        CAMERA + ZONE + 'classes = ["persons"]\n',
        "zone 'door': classes: the model has no class 'persons'; did you mean 'person'?",
    ),
    "line through one point": (
        CAMERA + '[[line]]\nname = "kerb"\ncamera = "gate"\npoints = [[0.5, 0.5]]\n',
        "line 'kerb': points must be two, got 1",
    ),
    "unknown sink": (
        CAMERA + '[[sink]]\ntype = "event"\n', "run.toml: sink 'event': type must be 'events'",
    ),
    "unknown option of a sink": (
        CAMERA + '[[sink]]\ntype = "events"\npath = "e.jsonl"\nonly_hit = true\n',
        "sink 'events': unknown key 'only_hit'; did you mean 'only_hits'?",
    ),
    "missing option of a sink": (
        CAMERA + '[[sink]]\ntype = "events"\n', "sink 'events': 'path' is missing; it must be str",
    ),
    "wrong type of an option of a sink": (
        CAMERA + '[[sink]]\ntype = "window"\nwidth = "wide"\n',
        "sink 'window': width must be int, got 'wide'",
    ),
    "unknown stage": (
        CAMERA + '[[stage]]\nname = "blur"\nrun = "mypkg.blur:Blur"\n',
        "stage 'blur': 'mypkg.blur:Blur' can't be loaded", "PYTHONPATH",
    ),
    "stage in a wrong place": (
        CAMERA + '[[stage]]\nname = "blur"\nrun = "stages.sinks.events:Events"\n'
        'config = { path = "e.jsonl" }\n',
        "stage 'blur': after = 'capture' wants process(Frame) -> Frame, got Result -> None",
    ),
    "folder below a file": (
        CAMERA + '[[sink]]\ntype = "events"\npath = "run.toml/e.jsonl"\n',
        "sink events: wanted a folder at", "run.toml, got a file",
    ),
    "folder that can't be written": (
        CAMERA + '[[sink]]\ntype = "events"\npath = "e.jsonl"\n'
        '[[sink]]\ntype = "video"\npath = "/proc/found"\n',
        "sink video: the folder /proc is not writable", "choose another",
    ),
    "window without a display": (
        CAMERA + '[[sink]]\ntype = "window"\n', "sink window: there is no display", "DISPLAY",
    ),
    "run directory below a file": (
        CAMERA + '[run]\ndirectory = "run.toml/here"\n', "run directory", "run.toml/here",
    ),
    "an address of another machine": (
        CAMERA + '[metrics]\nhost = "192.0.2.1"\n', "[metrics]: 192.0.2.1:9108 can't be bound",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_configuration_is_one_sentence(manyeyes, case):
    text, *words = BAD[case]
    manyeyes.write(text if "[metrics]" in text else QUIET + text)
    assert_refused(manyeyes, ["run", "run.toml"], *words)


def test_a_password_in_a_url_is_not_repeated(manyeyes):
    for url in ("rtsp://admin:hunter2@10.0.0.7/1", "rtsp://10.0.0.7/1?user=admin&password=hunter2"):
        manyeyes.write(QUIET + f'[[camera]]\nname = "gate"\nsource = "{url}"\n')
        for arguments in (["run", "run.toml"], ["check", "run.toml"], ["run", url]):
            err = assert_refused(manyeyes, arguments, "credentials = ", "camera '")
            assert "hunter2" not in err
            assert "admin" not in err


def test_a_missing_configuration_is_named(manyeyes):
    assert_refused(manyeyes, ["run", "there.toml"], "there.toml: can't be read")


def test_files_and_sources_are_not_mixed(manyeyes):
    manyeyes.write(QUIET + CAMERA)
    for sources in (["run.toml", "run.toml"], ["run.toml", "synthetic://"]):
        assert_refused(manyeyes, ["run", *sources], "wanted one TOML file", "run.toml")


def test_zones_are_drawn_on_a_picture_of_their_camera(manyeyes):
    manyeyes.write(QUIET + CAMERA + ZONE)
    code, out, err = manyeyes("zones", "run.toml", "-o", "zones.png")
    assert (code, err) == (0, "")
    assert out == "zones.png: camera 'gate', zones: 1, lines: 0\n"
    assert (manyeyes.folder / "zones.png").read_bytes().startswith(b"\x89PNG")
    for arguments, words in (
        (["--camera", "gaet", "-o", "z.png"], ["no camera 'gaet'; did you mean 'gate'?"]),
        (["-o", "run.toml/z.png"], ["run.toml/z.png: can't be written", "name another file"]),
    ):
        assert_refused(manyeyes, ["zones", "run.toml", *arguments], *words)
    (manyeyes.folder / "empty").mkdir()
    manyeyes.write(QUIET + '[[camera]]\nname = "gate"\nsource = "rtsp://127.0.0.1:1/x"\n')
    assert_refused(
        manyeyes, ["zones", "run.toml", "-o", "z.png"], "camera 'gate': no picture could"
    )


def test_events_of_what_is_no_store(manyeyes):
    manyeyes.write(QUIET + CAMERA)
    (manyeyes.folder / "text.db").write_text("hello\n" * 100)
    for arguments, words in (
        (["run.toml"], ["run.toml: there is no store; add a [[sink]] with type = 'store'"]),
        (["nowhere.db"], ["store nowhere.db: there is no such file"]),
        (["text.db"], ["store text.db: the file is broken or no store", "move it away"]),
        (["text.db", "--since", "then"], ["--since: wanted a moment like 2h", "'then'"]),
    ):
        assert_refused(manyeyes, ["events", *arguments], *words)


def test_who_only_looks_needs_no_model(manyeyes):
    """It may have been removed since, or never have been on the machine at which somebody asks."""
    store = '[[sink]]\ntype = "store"\npath = "s.db"\n'
    model = '[model]\npath = "gone.bundle"\nengine = "stub"\n'
    manyeyes.write("[metrics]\nenabled = false\n" + model + CAMERA + ZONE + store)
    assert_refused(
        manyeyes, ["check", "run.toml"], "[model]: path: there is no file", "gone.bundle"
    )
    code, out, err = manyeyes("zones", "run.toml", "-o", "zones.png")
    assert (code, out, err) == (0, "zones.png: camera 'gate', zones: 1, lines: 0\n", "")
    for command in (["events", "run.toml"], ["explain", "run.toml", "--at", "03:12"]):
        assert_refused(manyeyes, command, "s.db: there is no such file")


def test_a_drawing_that_can_not_be_written(manyeyes):
    manyeyes.write(QUIET + CAMERA)
    for path in (".", "run.toml/x.svg"):
        assert_refused(manyeyes, ["graph", "run.toml", "--svg", path], f"--svg {path}", "another")


def test_more_memory_than_there_is(manyeyes):
    cameras = "".join(
        f'[[camera]]\nname = "c{i}"\nsource = "clip{i}.mp4"\nmax_size = [32768, 32768]\n'
        for i in range(1000)
    )
    manyeyes.write(QUIET + cameras)
    for command in ("run", "check"):
        assert_refused(manyeyes, [command, "run.toml"], "shared memory", "wanted", "max_size")


def test_a_port_in_use(manyeyes):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        manyeyes.write(f"[metrics]\nport = {port}\n{CAMERA}")
        assert_refused(
            manyeyes, ["run", "run.toml"], f"[metrics]: 127.0.0.1:{port} can't be bound", "another"
        )
