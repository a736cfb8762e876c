"""A run whose plan changes all the time: nothing is lost, nobody else notices, nothing is left.

By hand: `pytest tests/processes/test_edits.py --edits 200 --seeds 50`.
"""

import contextlib
import os
import signal
from collections import Counter
from dataclasses import replace

import edits
import patterns
import pytest
from patience import BOUND_S

from pipeline.supervision.supervisor import Options, Supervisor


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
    assert [child and child.incarnation for child in run.steady] == [0], run.log
    ids = [row[1] for row in patterns.rows(tmp_path, "results") if row[0] == "steady"]
    assert ids == sorted({*ids})
    steady = run.totals["steady", "detect"]
    if not kills:
        assert steady.dropped["stage_died"] == 0
    if policy == "every" and not kills:
        assert ids == list(range(steady.captured))
    # a sink that came has what it was offered, and nothing else
    for name in patterns.MORE:
        account = run.sink_totals.get(("steady", name))
        written = [r[1] for r in patterns.rows(tmp_path, name[5:]) if r[0] == "steady"]
        assert written == sorted({*written}), run.log
        if not kills:
            assert len(written) == (0 if account is None else account.delivered), run.log
            assert account is None or account.lost == 0, run.log

    layout = run.accounts.layout
    assert layout.cameras.keys() == {*run.plan.cameras}
    assert layout.processes.keys() == run.plan.by_name.keys() == run.children.keys()
    assert not any(child.alive or child.pools for child in run.children.values())
    assert not open_files() - before
    assert not [name for name in os.listdir(tmp_path / "t") if name.startswith("manyeyes")]


def test_settings_that_a_sink_dies_of_are_withdrawn_and_it_has_missed_nothing(tmp_path):
    first = patterns.plan(tmp_path, policy="every", cameras=1, rate_hz=20.0)
    sink = first.by_name["sink.results"]
    bad = replace(sink, config={"path": str(tmp_path / "results.txt" / "in-a-file.txt")})
    processes = tuple(bad if spec is sink else spec for spec in first.processes)
    enough = None

    def tick(run):
        nonlocal enough
        if run.live and enough is None:
            assert run.apply(replace(first, processes=processes)).renews == ("sink.results",)
            enough = 1
        elif run.changes.withdrawn and run.changes.settled:
            taken = run.sink_totals["c0", "sink.results"].delivered
            enough = taken + 10 if enough == 1 else enough
            if taken >= enough:
                run.stop()

    run = Supervisor(first, Options(to_bgr=None, seconds=60.0), tick)
    run.run()
    assert "goes on as before: stage 'sink.results' died: exit code" in run.changes.withdrawn
    assert run.children["sink.results"].restarts.count == 0
    ids = [row[1] for row in patterns.rows(tmp_path, "results")]
    assert ids == list(range(run.totals["c0", "detect"].captured))
    assert run.sink_totals["c0", "sink.results"].lost == 0


def test_who_is_renewed_finishes_what_a_camera_had_sent_that_died(tmp_path):
    """Its results are yet to come, and nobody else says that it is under way."""
    options = {"policy": "every", "cameras": ["steady"], "rate_hz": 40.0, "alpha_ms": 200.0}
    first = patterns.plan(tmp_path, **options)
    other = patterns.plan(tmp_path, turns=[("render", 1)], **options)

    def tick(run):
        if run.stopping or not run.live:
            return
        render = run.children["render"]
        if run.plan is first and run.totals["steady", "view"].in_flight > 2:
            run.children["capture.steady"].signal(signal.SIGKILL)
            run.apply(other)
        elif run.changes.settled and render.incarnation and render.state == "ready":
            run.stop()

    run = Supervisor(first, Options(to_bgr=None, seconds=BOUND_S), tick)
    run.run()
    assert run.children["render"].incarnation == 1
    assert [totals.error for totals in run.totals.values()] == [0, 0]


def test_what_is_wanted_again_while_another_still_ends_keeps_its_cameras(tmp_path):
    options = {"policy": "every", "cameras": ["steady"], "rate_hz": 40.0, "spare": edits.SPARE}
    every = {**options, "between": True, "more": ["sink.more"]}
    bare, staged = (
        patterns.plan(tmp_path, **options),
        patterns.plan(tmp_path, between=True, **options),
    )
    enough, readers = 0, set()

    def tick(run):
        nonlocal enough
        readers.add(run.children.get("capture.steady"))
        if run.stopping or not run.live:
            return
        if run.changes.is_ending("sink.more") and not enough:
            # the stage has its camera until who draws has other settings; the sink is on its way out
            run.apply(patterns.plan(tmp_path, turns=[("render", 1)], **options))
            run.apply(patterns.plan(tmp_path, turns=[("render", 1)], **every))
            enough = run.totals["steady", "detect"].delivered + 10
        elif not run.changes.settled:
            return
        elif run.plan.by_name.keys() == bare.by_name.keys():
            run.apply(patterns.plan(tmp_path, **every))
        elif not enough:
            run.apply(staged)
        elif run.totals["steady", "detect"].delivered >= enough:
            run.stop()

    run = Supervisor(bare, Options(to_bgr=None, seconds=BOUND_S), tick)
    run.run()
    assert enough
    assert [child and child.incarnation for child in readers] == [0]
    ids = [row[1] for row in patterns.rows(tmp_path, "results")]
    assert ids == list(range(run.totals["steady", "detect"].captured))
