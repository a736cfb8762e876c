"""What the console command does with bad input, signals and its own help, in processes of its own."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import sys
import time
import zipfile
from pathlib import Path

import pytest
import tiny_models
import typer
from patience import BOUND_S

from pipeline.face import cli
from pipeline.plan.model_path import demo_model

CAMERA = '[[camera]]\nname = "gate"\nsource = "synthetic://?seed=1&size=320x180"\n'
ZONE = '[[zone]]\nname = "door"\ncamera = "gate"\npolygon = [[0.1, 0.1], [0.5, 0.1], [0.1, 0.5]]\n'
QUIET = "[metrics]\nenabled = false\n"


def assert_refused(manyeyes, arguments, *words):
    """One sentence with all these words, exit code 78, and nothing else happened."""
    before = manyeyes.files()
    code, _, err = manyeyes(*arguments)
    assert code == 78, err
    assert err.count("\n") == 1, err
    assert err.startswith("manyeyes: ")
    for word in words:
        assert word in err
    assert manyeyes.files() == before
    manyeyes.assert_nothing_left()
    return err


# -- configuration ---------------------------------------------------------------------------------

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


# -- models ----------------------------------------------------------------------------------------


def bad_models(folder):
    (folder / "text.bundle").write_text("hello\n")
    (folder / "empty.bundle").touch()
    with zipfile.ZipFile(folder / "zip.bundle", "w") as file:
        file.writestr("a.txt", "x")
    whole = demo_model().read_bytes()
    (folder / "cut.bundle").write_bytes(whole[: len(whole) // 2])
    tiny_models.save(tiny_models.Candidates(), folder / "foreign.bundle")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("text", ["wanted a TorchScript archive", "got neither"]),
        ("empty", ["empty.bundle"]),
        ("zip", ["wanted a TorchScript archive", "got another zip file"]),
        ("cut", ["cut.bundle"]),
        ("foreign", ["foreign.bundle", "manyeyes model import"]),
        ("missing", ["missing.bundle", "there is no file"]),
    ],
)
def test_a_file_that_is_no_bundle(manyeyes, name, words):
    bad_models(manyeyes.folder)
    model = f"{name}.bundle"
    sources = ["synthetic://", "--model", model, "--events", "e.jsonl"]
    assert_refused(manyeyes, ["run", *sources], *words)
    if name != "missing":
        assert_refused(manyeyes, ["model", "inspect", model], *words)


def test_a_layout_that_does_not_fit_is_not_imported(manyeyes):
    tiny_models.save(tiny_models.Candidates(), manyeyes.folder / "tiny.pt")
    facts = ["--classes", "a,b", "--size", "64", "--color", "rgb", "-o", "tiny.bundle"]
    for layout in ("yolox", "ultralytics", "torchvision"):
        arguments = ["model", "import", "tiny.pt", "--layout", layout, *facts]
        assert_refused(manyeyes, arguments, "tiny.pt: ", "layout", "size")
    arguments = ["model", "import", "tiny.pt", "--layout", "candidates", *facts]
    code, out, err = manyeyes(*arguments)
    assert (code, err) == (0, "as models of candidates have it: dtype uint8\n")
    assert "tiny.bundle: tiny, 2 classes, 64x64" in out


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--layout", "yolo", ["layout must be one of", "yolox", "'yolo'"]),
        ("--size", "wide", ["size must be like 416 or 640x384", "'wide'"]),
        ("--classes", "names.txt", ["names.txt: no such file of class names"]),
        ("--color", "cmyk", ["color must be one of 'rgb', 'bgr'", "cmyk"]),
        ("--mean", "0.5", ["--mean: wanted three numbers", "'0.5'"]),
        ("--pad", "300", ["pad", "300"]),
    ],
)
def test_a_bad_option_of_an_import(manyeyes, option, value, words):
    tiny_models.save(tiny_models.Candidates(), manyeyes.folder / "tiny.pt")
    facts = {
        "--layout": "candidates", "--classes": "a,b", "--size": "64", "--color": "rgb",
        option: value,
    }  # fmt: skip
    options = [word for pair in facts.items() for word in pair]
    assert_refused(manyeyes, ["model", "import", "tiny.pt", *options, "-o", "tiny.bundle"], *words)


def test_a_model_by_name_is_fetched_or_says_where_its_file_belongs(manyeyes, tmp_path):
    """Nobody answers here; the file that the sentence asks for is tried by tests of `published`."""
    manyeyes.environment |= {"XDG_CACHE_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:1"}
    words = [
        "model 'yolox-nano': https://github.com/Megvii-BaseDetection/",
        f"put it at {tmp_path}/manyeyes/downloads/yolox_nano.onnx",
    ]
    for command in (
        ["run", "synthetic://", "--model", "yolox-nano"],
        ["model", "get", "yolox-nano"],
    ):
        code, _, err = manyeyes(*command)
        assert code == 78, err
        assert all(word in err for word in words), err
        assert "Traceback" not in err
    manyeyes.write(
        '[model]\nname = "yolox-nano"\n[[camera]]\nname = "a"\nsource = "synthetic://"\n'
    )
    assert_refused(manyeyes, ["check", "run.toml"], "`manyeyes model get yolox-nano` fetches it")
    assert_refused(
        manyeyes, ["run", "synthetic://", "--model", "yolox_nano"], "did you mean 'yolox-nano'"
    )
    code, out, _ = manyeyes("model", "list", "--json")
    assert (code, {row["name"] for row in json.loads(out)} > {"yolox-nano", "ssd300_vgg16"}) == (
        0,
        True,
    )
    code, out, _ = manyeyes("run", "synthetic://?frames=3", "--model", "demo", "--policy", "every")
    assert code == 0


def test_a_bundle_whose_facts_lie_ends_the_run_before_a_frame(manyeyes):
    facts = json.loads(cli.load("stages.detector.bundle:read_facts")(demo_model()).to_json())
    facts["layout"], facts["golden"] = "yolox", None
    with (
        zipfile.ZipFile(demo_model()) as true,
        zipfile.ZipFile(manyeyes.folder / "lie.bundle", "w") as lie,
    ):
        for item in true.infolist():
            is_facts = item.filename.endswith("manyeyes.json")
            lie.writestr(item, json.dumps(facts) if is_facts else true.read(item))
    code, _, err = manyeyes("run", "synthetic://", "--model", "lie.bundle", "--seconds", "3")
    assert code == 78, err
    assert err.count("\n") == 1, err
    assert "lie.bundle" in err
    assert "yolox" in err
    manyeyes.assert_nothing_left()


# -- runs ------------------------------------------------------------------------------------------


def test_a_source_that_does_not_open_is_tried_again_while_the_others_run(manyeyes):
    manyeyes.write(f'{QUIET}{CAMERA}[[camera]]\nname = "away"\nsource = "rtsp://127.0.0.1:1/x"\n')
    code, out, err = manyeyes("run", "run.toml", "--seconds", "3")
    assert code == 0
    assert err.count("camera 'away': source rtsp://127.0.0.1:1/…: can't be opened") >= 2
    assert "Traceback" not in err
    served = {row[0]: int(row[1]) for row in re.findall(r"^ (gate|away) +\d+ +(\d+)", out, re.M)}
    assert served["gate"] > 0
    assert served["away"] == 0
    manyeyes.assert_nothing_left()


def test_strict_ends_the_run_for_a_source_that_does_not_open(manyeyes):
    manyeyes.write(f'{QUIET}{CAMERA}[[camera]]\nname = "away"\nsource = "rtsp://127.0.0.1:1/x"\n')
    code, _, err = manyeyes("run", "run.toml", "--strict")
    assert code == 78, err
    assert err.count("\n") == 1, err
    assert "camera 'away': source rtsp://127.0.0.1:1/…: can't be opened" in err
    manyeyes.assert_nothing_left()


def wait_for(process, text):
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(process.stderr.read())


def test_the_second_run_on_a_directory_says_so_and_leaves_the_first_alone(manyeyes):
    manyeyes.write(f'[metrics]\nport = 0\n[run]\ndirectory = "here"\n{CAMERA}')
    first = manyeyes.start("run", "run.toml")
    line = wait_for(first, "metrics on")
    code, _, err = manyeyes("run", "run.toml")
    assert code == 75, err
    assert err.count("\n") == 1, err
    assert "here: another run holds it" in err
    port = int(re.search(r":(\d+)/", line)[1])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=BOUND_S)
    assert first.returncode == 0, err
    manyeyes.assert_nothing_left()


def test_ctrl_c_ends_a_run_in_order(manyeyes):
    process = manyeyes.start(
        "run", "synthetic://?seed=1", "synthetic://?seed=2", "--events", "e.jsonl", "--video", "v",
        process_group=0,
    )  # fmt: skip
    events = manyeyes.folder / "e.jsonl"
    end = time.monotonic() + BOUND_S
    while not (events.exists() and events.stat().st_size):
        assert time.monotonic() < end
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    out, err = process.communicate(timeout=BOUND_S)
    assert process.returncode == 0
    worse = [line for line in err.splitlines() if not line.startswith("INFO ")]
    assert worse == []  # INFO: the engine that it took, where this is the first run on the host
    for camera in ("cam0", "cam1"):
        assert re.search(rf"^ {camera} +detect +\d+ +\d+ +0 +0 ", out, re.M), out
        assert (manyeyes.folder / "v" / f"{camera}.mp4").stat().st_size > 0
    assert [json.loads(line) for line in events.read_text().splitlines()]
    manyeyes.assert_nothing_left()


def test_ctrl_c_while_it_starts_is_no_traceback(manyeyes):
    process = manyeyes.start("run", "synthetic://", process_group=0)
    wait_for(process, "inference in")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=BOUND_S)
    assert "Traceback" not in err
    assert process.returncode in (0, 130)
    manyeyes.assert_nothing_left()


def test_check_says_what_a_run_would_take(manyeyes):
    manyeyes.write(QUIET + CAMERA)
    code, out, err = manyeyes("check", "run.toml")
    assert (code, err) == (0, "")
    assert re.match(
        r"run\.toml: fine\. \d+ processes, \d+ MiB of shared memory and about \d+ MiB of their own\n",
        out,
    )
    assert manyeyes.files() == {Path("run.toml")}


def test_graph_names_every_process_and_draws_it(manyeyes):
    manyeyes.write(f'{QUIET}{CAMERA}[[sink]]\ntype = "snapshot"\npath = "s"\n')
    code, out, err = manyeyes("graph", "run.toml", "--svg", "wiring.svg")
    assert (code, err) == (0, "")
    svg = (manyeyes.folder / "wiring.svg").read_text()
    for name in (
        "capture.gate", "preprocess", "batcher", "inference", "postprocess", "render",
        "sink.snapshot",
    ):  # fmt: skip
        assert re.search(rf"^{re.escape(name)} ", out, re.M)
        assert name in svg


# -- help ------------------------------------------------------------------------------------------


def commands(group, words=("manyeyes",)):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name), command


COMMANDS = list(commands(typer.main.get_command(cli.app)))


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=[" ".join(w) for w, _ in COMMANDS])
def test_the_help_of_every_command_has_an_example_of_itself(words, command):
    assert f"Example: {' '.join(words)} " in command.help
    for parameter in command.params:
        assert parameter.help or parameter.name in ("file", "output"), parameter.name


def test_help_lists_every_command(manyeyes):
    code, out, err = manyeyes("--help")
    assert (code, err) == (0, "")
    for name in ("demo", "run", "check", "graph", "model", "data", "train", "evaluate", "export"):
        assert re.search(rf"^│ {name} ", out, re.M)
    assert shutil.which(Path(sys.executable).with_name("manyeyes"))


def test_help_has_nothing_that_a_terminal_takes_for_a_style():
    """rich leaves `[model]` out of what it prints."""
    swallowed = []

    def look(command, path):
        texts = [command.help, *(getattr(one, "help", None) for one in command.params)]
        found = [re.findall(r"\[/?[a-z#@\[][^\]]*\]+", text or "") for text in texts]
        swallowed.extend((path, words) for words in found if words)
        for name, one in getattr(command, "commands", {}).items():
            look(one, f"{path} {name}")

    look(typer.main.get_command(cli.app), "manyeyes")
    assert swallowed == []
