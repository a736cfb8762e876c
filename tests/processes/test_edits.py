"""A run whose plan changes all the time: nothing is lost, nobody else notices, nothing is left.

By hand: `pytest tests/processes/test_edits.py --edits 200 --seeds 50`.
"""

import contextlib
import os
from collections import Counter

import edits
import patterns
import pytest


@pytest.fixture(autouse=True)
def _a_place_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", patterns.PATH)
    (tmp_path / "t").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(metafunc.config.getoption("seeds")))


def open_files():
    """Their names; the ledgers stay readable as long as there are their supervisors."""
    names = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the list itself
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
    return Counter(name for name in names if "manyeyes-ledger" not in name)


def test_whatever_is_edited_the_accounts_close_and_nothing_is_left(tmp_path, seed, request):
    before = open_files()
    policy, kills = ("newest", "every")[seed % 2], seed % 5 != 1
    run = edits.play(tmp_path, seed, request.config.getoption("edits"), policy, kills=kills)

    for account in (*run.totals.values(), *run.sink_totals.values()):
        assert (account.error, account.in_flight) == (0, 0), run.log
        assert account.captured == account.delivered + sum(account.dropped.values()), run.log
    assert int(run.ledger["torn"].sum()) == 0
    if not kills:
        assert int(run.ledger["garbage"].sum()) == 0
    # the one that was in every plan was read by one process, without a gap
    assert run.children["capture.steady"].incarnation == 0
    ids = [row[1] for row in patterns.rows(tmp_path, "results") if row[0] == "steady"]
    assert ids == sorted({*ids})
    steady = run.totals["steady", "detect"]
    if not kills:
        assert steady.dropped["stage_died"] == 0
    if policy == "every" and not kills:
        assert ids == list(range(steady.captured))

    layout = run.accounts.layout
    assert layout.cameras.keys() == {*run.plan.cameras}
    assert layout.processes.keys() == run.plan.by_name.keys() == run.children.keys()
    assert not any(child.alive or child.pools for child in run.children.values())
    assert not open_files() - before
    assert not [name for name in os.listdir(tmp_path / "t") if name.startswith("manyeyes")]
