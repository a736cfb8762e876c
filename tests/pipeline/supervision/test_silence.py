"""Hung, or only waiting for a core?"""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from patience import BOUND_S

from pipeline.host.machine import core_wants
from pipeline.supervision.silence import Silence, Start

LIMIT_S = 1.0


@pytest.mark.parametrize(
    ("wants_core", "share", "beats", "hang"),
    [
        (False, 0.0, False, True),  # it sleeps, and turns no more
        (True, 1.0, False, True),  # it runs in circles
        (True, 0.6, False, True),  # so it does, beside others
        (True, 0.02, False, False),  # it gets next to nothing of a core
        (False, 0.0, True, False),
    ],
)
def test_who_lacks_a_core_does_not_hang(wants_core, share, beats, hang):
    silence, cpu, silent = Silence(), 7.0, 0.0
    for _ in range(40):  # twice the limit, asked each 50 ms
        cpu += 0.05 * share
        silent = 0.0 if beats and silent > 0.8 else silent + 0.05
        if silence.is_hang(silent, LIMIT_S, partial(tuple, [(wants_core, cpu)])):
            assert hang
            assert silent > LIMIT_S
            return
    assert not hang


def test_what_it_had_before_a_sign_of_life_is_not_held_against_it():
    silence = Silence()
    assert not silence.is_hang(0.6, LIMIT_S, lambda: [(False, 0.0)])
    assert not silence.is_hang(0.79, LIMIT_S, lambda: [(False, 0.0)])
    assert not silence.is_hang(0.7, LIMIT_S, lambda: [(False, 0.0)])  # it turned in between
    assert not silence.is_hang(1.1, LIMIT_S, lambda: [(False, 0.0)])
    assert silence.is_hang(1.2, LIMIT_S, lambda: [(False, 0.0)])


def test_one_who_looks_late_does_not_blame_others():
    silence = Silence()
    assert not silence.is_hang(0.6, LIMIT_S, lambda: [(True, 0.0)])
    assert not silence.is_hang(5.0, LIMIT_S, lambda: [(False, 0.0)])  # nobody had a core meanwhile
    assert silence.is_hang(5.2, LIMIT_S, lambda: [(False, 0.0)])


@pytest.mark.parametrize(("share", "hang"), [(0.02, False), (0.6, True)])
def test_who_waits_for_a_thread_that_lacks_a_core_does_not_hang(share, hang):
    silence, cpu, silent = Silence(), 7.0, 0.0
    looks = []
    for _ in range(40):
        cpu, silent = cpu + 0.05 * share, silent + 0.05
        looks.append(silence.is_hang(silent, LIMIT_S, partial(tuple, [(False, 7.0), (True, cpu)])))
    assert any(looks) == hang


SPIN = "while True: pass"
WAIT = """
import threading
thread = threading.Thread(target=exec, args=("while True: pass",), daemon=True)
thread.start()
thread.join()
"""


@pytest.mark.parametrize(
    ("code", "wanted"),
    [(SPIN, (True, True)), ("input()", (False, False)), (WAIT, (False, True))],
)
def test_the_kernel_tells_whether_a_process_wants_a_core(code, wanted):
    ends = f"import signal\nsignal.alarm({int(2 * BOUND_S)})"  # also if this process is killed
    process = subprocess.Popen(
        [sys.executable, "-c", f"{ends}\nprint(flush=True)\n{code}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        process.stdout.readline()
        # before it comes to its code it may do the other
        until(process.pid, lambda found: tuple(wants for wants, _ in found) == wanted)
        before = [cpu_s for _, cpu_s in core_wants(process.pid)]
        for who in range(2):
            if wanted[who]:
                until(process.pid, lambda found, who=who: found[who][1] > before[who])
    finally:
        process.kill()
        process.communicate()
    assert core_wants(process.pid) == ((False, 0.0), (False, 0.0))
    assert core_wants(os.getpid())[0][0]


def until(pid, holds):
    give_up = time.monotonic() + BOUND_S
    while not holds(found := core_wants(pid)):
        if time.monotonic() > give_up:
            threads = [(one / "stat").read_text() for one in Path(f"/proc/{pid}/task").iterdir()]
            pytest.fail(f"{found}; {threads}")


def test_a_start_is_silent_since_it_last_did_its_share():
    start, share_s = Start(), 0.1
    assert start.silent_s(lived_s=1.0, cpu_s=0.05, share_s=share_s) == 1.0
    assert start.silent_s(lived_s=2.0, cpu_s=0.10, share_s=share_s) == 0.0  # it works
    assert start.silent_s(lived_s=3.0, cpu_s=0.15, share_s=share_s) == 1.0
    # a look now and then is no work
    assert start.silent_s(lived_s=9.0, cpu_s=0.19, share_s=share_s) == 7.0
    assert start.silent_s(lived_s=9.5, cpu_s=0.20, share_s=share_s) == 0.0
