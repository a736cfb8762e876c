"""What is said over and over."""

import logging

import pytest

from pipeline.process.logs import Sparingly


@pytest.fixture
def said():
    """(say, lines, clock): what is logged, what is shown, and the time in seconds."""
    lines, clock = [], [0.0]
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    handler.addFilter(Sparingly(lambda: clock[0]))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    return logger.warning, lines, clock


def test_alike_messages_are_counted_and_not_all_shown(said):
    say, lines, clock = said
    for n in range(1000):
        clock[0] = n / 16
        say("camera %r frame %d: the disk is full", "gate", n)
    assert lines[:3] == [f"camera 'gate' frame {n}: the disk is full" for n in range(3)]
    assert lines[3:] == [
        f"camera 'gate' frame {n}: the disk is full (and 159 more like it)"
        for n in range(162, 1000, 160)  # one in ten seconds
    ]


def test_one_camera_does_not_silence_another(said):
    say, lines, _ = said
    for n in range(50):
        say("camera 'cam0' frame %d: torn", n)
    say("camera 'cam1' frame %d: torn", 1)
    assert lines[-1] == "camera 'cam1' frame 1: torn"
    assert len(lines) == 4


def test_what_is_remembered_is_bounded(said):
    say, lines, _ = said
    for n in range(2000):
        say("message %s", "x" * n)
    assert len(lines) == 2000
