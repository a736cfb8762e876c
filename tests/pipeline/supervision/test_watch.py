"""Whether a file was edited."""

import os

from pipeline.supervision.watch import Watch


def at(watch, *times_s):
    return [watch.edited(t) for t in times_s]


def test_an_edit_counts_once_and_when_it_has_come_to_rest(tmp_path):
    file = tmp_path / "street.toml"
    file.write_text("a = 1\n")
    watch = Watch(file)
    assert at(watch, 1, 2, 3) == [False, False, False]
    file.write_text("a = 1\nb")
    assert at(watch, 4) == [False]
    file.write_text("a = 1\nb = 2\n")  # it was half written
    assert at(watch, 5, 6, 7) == [False, True, False]


def test_a_file_that_another_takes_the_place_of_is_edited_and_one_that_is_gone_is_not(tmp_path):
    file, new = tmp_path / "street.toml", tmp_path / "new"
    file.write_text("a = 1\n")
    watch = Watch(file)
    file.unlink()
    assert at(watch, 1, 2) == [False, False]
    new.write_text("a = 2\n")
    os.replace(new, file)
    assert at(watch, 3, 4, 5) == [False, True, False]


def test_it_is_not_looked_at_in_every_turn(tmp_path):
    file = tmp_path / "street.toml"
    file.write_text("a = 1\n")
    watch = Watch(file)
    assert at(watch, 1.0) == [False]
    file.write_text("a = 22\n")
    assert at(watch, 1.1, 1.2, 1.6, 1.7, 2.2) == [False, False, False, False, True]
