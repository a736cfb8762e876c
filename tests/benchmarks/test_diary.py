"""What benchmarks/rig/fleets.py reads out of events: who had a camera, and whether two had it at once."""

import json
from datetime import UTC, datetime

import pytest

from benchmarks.rig.fleets import Diary


@pytest.fixture
def diary(tmp_path):
    return Diary(tmp_path)


def write(diary, machine, *frames, camera="c0"):
    """frames: (seconds, frame_id)."""
    with (diary.folder / f"{machine}.jsonl").open("a") as file:
        for second, frame in frames:
            moment = datetime.fromtimestamp(1e9 + second, UTC).isoformat()
            file.write(json.dumps({"camera": camera, "time": moment, "frame_id": frame}) + "\n")


def machines(diary):
    return [stay.machine for stay in diary.stays["c0"]]


def test_a_camera_that_moves_has_one_owner_at_a_time(diary):
    write(diary, "a", (0, 0), (1, 1), (2, 2))
    write(diary, "b", (9, 0), (10, 1))
    diary.look()
    assert (machines(diary), diary.double, diary.lost) == (["a", "b"], [], 0)
    assert diary.gaps_s(1e9 + 5) == [7]
    assert diary.of("b") == ["c0"]


def test_one_that_comes_back_to_a_run_goes_on_with_its_numbers(diary):
    write(diary, "a", (0, 0), (1, 1))
    write(diary, "b", (6, 0), (7, 1))
    write(diary, "a", (12, 2), (13, 3))
    diary.look()
    assert (machines(diary), diary.double, diary.lost) == (["a", "b", "a"], [], 0)


@pytest.mark.parametrize("looks", [False, True])
def test_two_that_have_it_at_once_are_seen(diary, looks):
    for second in range(6):
        write(diary, "a", (second, second))
        if second > 2:
            write(diary, "b", (second + 0.5, second - 3))
        if looks:
            diary.look()
    diary.look()
    assert len(diary.double) == 1


def test_a_machine_that_goes_on_after_a_pause_beside_the_one_that_took_over_is_seen(diary):
    write(diary, "a", (0, 0), (20, 1))
    write(diary, "b", *((second, second) for second in range(8, 30)))
    diary.look()
    assert diary.double


def test_a_run_that_began_anew_is_another_stay(diary):
    write(diary, "a", (0, 0), (1, 1), (5, 0), (6, 1))
    diary.look()
    assert machines(diary) == ["a", "a"]


def test_frames_that_are_missing_are_counted(diary):
    write(diary, "a", (0, 0), (1, 1), (3, 3), (4, 4))
    diary.look()
    assert diary.lost == 1


def test_a_line_that_is_not_whole_yet_is_read_later(diary):
    write(diary, "a", (0, 0), (1, 1))
    path = diary.folder / "a.jsonl"
    text = path.read_text()
    path.write_text(text[:-9])
    diary.look()
    assert diary.stays["c0"][0].frames == [0]
    path.write_text(text)
    diary.look()
    assert diary.stays["c0"][0].frames == [0, 1]
