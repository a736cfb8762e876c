"""Hung, or only waiting for a core?"""

import os
import subprocess
import sys
from functools import partial

import pytest

from pipeline.host import waited_s
from pipeline.silence import Silence

LIMIT_S = 1.0


@pytest.mark.parametrize(
    ("had_core", "beats", "hang"),
    [
        (1.0, False, True),  # it sleeps or spins, and turns no more
        (0.6, False, True),  # so it does, beside others
        (0.02, False, False),  # it gets next to nothing of a core
        (1.0, True, False),
    ],
)
def test_who_lacks_a_core_does_not_hang(had_core, beats, hang):
    silence, waited, silent = Silence(), 7.0, 0.0
    for _ in range(40):  # twice the limit, asked each 50 ms
        waited += 0.05 * (1 - had_core)
        silent = 0.0 if beats and silent > 0.8 else silent + 0.05
        if silence.is_hang(silent, LIMIT_S, partial(float, waited)):
            assert hang
            assert silent > LIMIT_S
            return
    assert not hang


def test_what_was_waited_before_it_fell_silent_is_no_excuse():
    silence = Silence()
    assert not silence.is_hang(0.9, LIMIT_S, lambda: 50.0)
    assert not silence.is_hang(0.7, LIMIT_S, lambda: 51.0)  # it turned in between
    assert silence.is_hang(1.1, LIMIT_S, lambda: 51.0)


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="this kernel does not tell")
def test_the_kernel_tells_how_long_a_process_waited_for_its_core():
    core = str(min(os.sched_getaffinity(0)))
    loop = f"import os\nos.sched_setaffinity(0, [{core}])\nprint(flush=True)\nwhile True: pass"
    busy = [
        subprocess.Popen([sys.executable, "-c", loop], stdout=subprocess.PIPE) for _ in range(2)
    ]
    try:
        for process in busy:
            process.stdout.readline()
        before = [waited_s(process.pid) for process in busy]
        while min(w - b for w, b in zip(map(waited_s, pids(busy)), before, strict=True)) < 0.05:
            pass  # each waits while the other runs, or this test hangs
    finally:
        for process in busy:
            process.kill()
            process.wait()
            process.stdout.close()
    assert waited_s(busy[0].pid) == 0.0  # nobody is there to wait


def pids(processes):
    return [process.pid for process in processes]
