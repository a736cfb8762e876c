"""Settings of all tests."""

import os
import signal

import pytest
from command import Command
from hypothesis import settings

# how long an example takes is the machine's affair; what hangs is pytest-timeout's
settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def manyeyes(tmp_path):
    command = Command(tmp_path)
    yield command
    for pid in command.processes():
        os.kill(int(pid), signal.SIGKILL)
