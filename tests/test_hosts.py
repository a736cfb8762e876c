"""Hosts that refuse something, and words that no host can take: one sentence, and nothing is left."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import zipfile

import pytest

from pipeline.plan.loading import load
from pipeline.plan.model_path import demo_model

RUN = ("run", "synthetic://?size=64x64", "--seconds", "1")
CAMERA = '[[camera]]\nname = "gate"\nsource = "synthetic://?seed=1&size=64x64"\n'
QUIET = "[metrics]\nenabled = false\n"
FOLDERS = "/tmp /var/tmp /dev/shm /run"


def assert_sentence(manyeyes, arguments, *words, **options):
    code, _, err = manyeyes(*arguments, **options)
    assert code == 78, err
    assert err.startswith("manyeyes: ")
    assert err.count("\n") == 1, err
    for word in words:
        assert word in err
    manyeyes.assert_nothing_left()


def mounts(command):
    """A prefix that runs it in a mount namespace of its own first."""
    prefix = ("unshare", "--mount", "sh", "-c", f'{command} && exec "$@"', "sh")
    if (
        not shutil.which("unshare")
        or subprocess.run([*prefix, "true"], capture_output=True).returncode
    ):
        pytest.skip("no new mount namespace is to be had here: it takes root")
    return prefix


def nobody():
    """A prefix that runs it as a user of no other process, who may read everything and write nothing."""
    reading = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    prefix = ("setpriv", "--reuid=65533", "--clear-groups", *reading)
    if (
        not shutil.which("setpriv")
        or subprocess.run([*prefix, "true"], capture_output=True).returncode
    ):
        pytest.skip("only root can become a user that has no processes yet")
    return prefix


def over(options):
    return f"for d in {FOLDERS}; do mount -t tmpfs -o {options} none $d; done"


@pytest.fixture
def elsewhere(manyeyes):
    """Its folder for temporary files lies where other file systems are mounted."""
    manyeyes.environment["TMPDIR"] = "/tmp"
    del manyeyes.environment["XDG_RUNTIME_DIR"]
    return manyeyes


@pytest.mark.parametrize(
    ("options", "why"),
    [("ro", "Read-only file system"), ("nr_inodes=1", "No space left on device")],
)
def test_no_folder_for_sockets(elsewhere, tmp_path, options, why):
    if tmp_path.is_relative_to("/tmp"):  # keep the test's own in sight
        elsewhere.environment["PWD"] = "/"
    prefix = ("sh", "-c", 'cd / && exec "$@"', "sh")
    before = (*mounts(over(options)), *prefix)
    assert_sentence(
        elsewhere, RUN, "a folder for the sockets", f"/tmp: {why}", "TMPDIR", before=before
    )


def test_no_dev_shm_is_needed(manyeyes):
    before = mounts(
        "mount -t tmpfs none /dev/shm && umount -l /dev/shm && mount -t tmpfs -o ro none /dev/shm"
    )
    code, _, err = manyeyes(*RUN, before=before)
    assert code == 0, err
    assert "Traceback" not in err
    manyeyes.assert_nothing_left()


def test_too_few_descriptors(manyeyes):
    cameras = ["synthetic://?size=64x64"] * 24
    before = ("prlimit", "--nofile=64:64")
    arguments = ("run", *cameras, "--seconds", "1")
    assert_sentence(manyeyes, arguments, "open files: wanted", "ulimit -n", before=before)


def test_a_low_soft_limit_of_descriptors_is_raised(manyeyes):
    cameras = ["synthetic://?size=64x64"] * 12
    code, _, err = manyeyes(
        "run", *cameras, "--seconds", "1", before=("prlimit", "--nofile=40:4096")
    )
    assert code == 0, err
    assert "Traceback" not in err


def test_too_little_address_space_for_the_model(manyeyes):
    before = ("prlimit", "--as=500000000")
    manyeyes.write(QUIET + CAMERA + '[model]\nname = "demo"\nengine = "torchscript"\n')
    code, _, err = manyeyes("run", "run.toml", "--seconds", "1", before=before)
    assert code == 78, err
    assert err.count("Traceback") == 0, err
    assert re.search(r"^manyeyes: stage '.+' can't be set up: ", err, re.M), err
    manyeyes.assert_nothing_left()


def test_too_few_processes(manyeyes):
    prefix = (*nobody(), "prlimit", "--nproc=4:4")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o777)
        manyeyes.environment |= {
            "TMPDIR": folder,
            "XDG_RUNTIME_DIR": folder,
            "OPENBLAS_NUM_THREADS": "1",
        }
        code, _, err = manyeyes(*RUN, before=prefix)
        assert code == 78, err
        assert "ulimit -u" in err
        assert "Traceback" not in err
        assert os.listdir(folder) == []


def test_a_current_folder_that_is_gone(manyeyes):
    before = ("sh", "-c", 'mkdir gone && cd gone && rmdir ../gone && exec "$@"', "sh")
    assert_sentence(manyeyes, RUN, "No such file or directory", before=before)


@pytest.mark.parametrize("length", [60, 200])
def test_a_long_path_for_temporary_files_and_the_longest_name(manyeyes, length):
    long = manyeyes.temporary / ("t" * length)
    long.mkdir()
    manyeyes.environment |= {"TMPDIR": str(long), "XDG_RUNTIME_DIR": str(long)}
    manyeyes.write(QUIET + CAMERA.replace("gate", "g" * 64))
    code, _, err = manyeyes("run", "run.toml", "--seconds", "1")
    assert code == 0, err
    assert "Traceback" not in err
    assert list(long.iterdir()) == []


# -- words -------------------------------------------------------------------------------------------

BAD = {
    "nested": ("x = " + "[" * 100_000 + "]" * 100_000, "run.toml: is nested too deep"),
    "nested tables": ("[" + ".".join("a" * 5_000) + "]\nb = 1\n", "run.toml: ", "nested too deep"),
    "a long number": (f"[run]\nseconds = {'9' * 5_000}\n" + CAMERA, "run.toml: is no TOML: ", "4300"),
    "NUL in a path": (CAMERA.replace("synthetic://?", "a\\u0000b"), "run.toml: ", "NUL"),
    "NUL in a key": (CAMERA + '"a\\u0000b" = 1\n', "run.toml: ", "NUL"),
    "a long model": (CAMERA + f'[model]\npath = "{"m" * 300}"\n', "File name too long"),
    "a long sink": (
        CAMERA + f'[[sink]]\ntype = "events"\npath = "{"e" * 300}/e.jsonl"\n', "File name too long",
    ),
    "a long directory": (CAMERA + f'[run]\ndirectory = "{"d" * 300}"\n', "File name too long"),
    "no sink": (
        CAMERA + '[[sink]]\ntype = "custom"\nname = "x"\nrun = "os:system"\n',
        "sink 'x': 'os:system' is no stage; wanted a class",
    ),
    "no class": (
        CAMERA + '[[stage]]\nname = "x"\nrun = "pathlib:Path"\n', "stage 'x': ", "is no stage",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_configuration_that_no_host_can_take(manyeyes, case):
    text, *words = BAD[case]
    manyeyes.write(text if "run" in text.partition("\n")[0] else text + QUIET)
    for command in (["check", "run.toml"], ["run", "run.toml", "--seconds", "1"]):
        if command[0] == "run" or case != "a long directory":
            assert_sentence(manyeyes, command, *words)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", b"gate\xff.mp4"],
        ["run", b"rtsp://gate\xff/"],
        ["run", "x" * 300],
        ["run", "synthetic://", "--model", b"m\xff.bundle"],
        ["run", "synthetic://", "--model", "m" * 300],
        ["run", "synthetic://", "--events", b"e\xff.jsonl"],
        ["check", b"c\xff.toml"],
        ["check", "c" * 300],
        ["model", "inspect", "m" * 300],
        ["model", "inspect", b"m\xff"],
    ],
    ids=lambda arguments: " ".join(map(repr, arguments))[:40],
)
def test_names_that_are_none(manyeyes, arguments):
    assert_sentence(manyeyes, [os.fsdecode(word) for word in arguments])


def with_provenance(folder, text):
    """The demo model whose facts carry this, as JSON text."""
    facts = json.loads(load("stages.detector.bundle:read_facts")(demo_model()).to_json())
    facts["provenance"] = "HERE"
    with (
        zipfile.ZipFile(demo_model()) as true,
        zipfile.ZipFile(folder / "odd.bundle", "w") as odd,
    ):
        for item in true.infolist():
            is_facts = item.filename.endswith("manyeyes.json")
            data = json.dumps(facts).replace('"HERE"', text) if is_facts else true.read(item)
            odd.writestr(item, data)


@pytest.mark.parametrize("value", ["NaN", "Infinity", '"\\ud800"'])
def test_facts_that_can_not_travel(manyeyes, value):
    with_provenance(manyeyes.folder, f'{{"x": {value}}}')
    for arguments in (
        ["run", "synthetic://", "--model", "odd.bundle"],
        ["model", "inspect", "odd.bundle"],
    ):
        assert_sentence(manyeyes, arguments, "odd.bundle: wanted JSON")


def test_facts_may_have_a_long_history(manyeyes):
    with_provenance(manyeyes.folder, json.dumps({"log": "x" * 900_000}))
    code, out, err = manyeyes(*RUN, "--model", "odd.bundle")
    assert code == 0, err
    assert "Traceback" not in err
    assert re.search(r"^ cam0 +[1-9]", out, re.M), out
