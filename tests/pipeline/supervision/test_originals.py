"""What a run began with stays as it was, whatever is done to the file."""

import os
import shutil

import pytest

from pipeline.errors import ResourceError
from pipeline.supervision.originals import Originals, nbytes


def replaced(path):
    other = path.with_name("other")
    other.write_bytes(b"another")
    other.replace(path)


def overwritten(path):
    other = path.with_name("other")
    other.write_bytes(b"another")
    shutil.copyfile(other, path)  # as `cp` does it: into the same inode


CHANGES = {
    "replaced": replaced,
    "overwritten": overwritten,
    "cut": lambda path: os.truncate(path, 3),
    "removed": lambda path: path.unlink(),
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "street.bundle"
    path.write_bytes(b"what it was" * 200_000)
    return path


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_file_is_kept_and_its_change_is_told_once(file, change, caplog):
    before = file.read_bytes()
    originals = Originals([str(file), str(file)])
    try:
        (fd,) = originals.fds([str(file)])
        originals.tell_changes([str(file)])
        assert not caplog.records
        change(file)
        for _ in range(2):
            originals.tell_changes([str(file)])
        (record,) = caplog.records
        assert str(file) in record.getMessage()
        with open(f"/proc/self/fd/{fd}", "rb") as kept:
            assert kept.read() == before
        with pytest.raises(OSError, match=r"\[Errno 1\]"):
            os.pwrite(fd, b"x", 0)
    finally:
        originals.close()
    with pytest.raises(OSError, match=r"\[Errno 9\]"):
        os.fstat(fd)


def test_what_is_not_there_is_said_in_a_sentence(tmp_path, file):
    with pytest.raises(ResourceError, match=r"none\.bundle: can't be read at the start of the run"):
        Originals([str(file), str(tmp_path / "none.bundle")])
    assert nbytes([str(file), str(file)]) == file.stat().st_size
    empty = tmp_path / "empty"
    empty.touch()
    originals = Originals([str(empty)])
    assert os.fstat(originals.fds([str(empty)])[0]).st_size == 0
    originals.close()
