"""An agent: when it starts its run, starts it again, changes it, and leaves it alone."""

import pytest

from pipeline.errors import ConfigError
from pipeline.fleet.agent import Agent
from pipeline.fleet.leases import Orders, Tenant


class ScriptedRun:
    """Does what the test says, and remembers what it was told."""

    def __init__(self):
        self.calls, self.code, self.changes, self.cameras = [], None, False, {}

    def start(self, cameras, tables, until_s):
        if "bad" in cameras:
            raise ConfigError("fleet.toml: camera 'bad': no such file")
        self.calls.append(("start", *cameras))
        self.code = None

    def extend(self, until_s):
        self.until_s = until_s

    def change(self, cameras, tables):
        self.calls.append(("change", *cameras))
        return self.changes

    def stop(self):
        self.calls.append(("stop",))

    def poll(self):
        return self.code

    def told(self):
        return {"cameras": self.cameras, "sentence": "it was the model"}


@pytest.fixture
def run():
    return ScriptedRun()


@pytest.fixture
def agent(run):
    return Agent(Tenant("a", "1"), run, "0.1")


def order(agent, now_s, number, *cameras, revision="1", refused=""):
    agent.take(
        Orders(
            term=1, number=number, cameras=dict.fromkeys(cameras, 7), lease_s=6.0,
            revision=revision, tables={"revision": revision}, refused=refused,
        ),
        now_s,
    )  # fmt: skip
    agent.turn(now_s)


def test_nothing_runs_without_orders(agent, run):
    agent.turn(0.0)
    assert run.calls == []
    assert agent.is_idle


def test_it_starts_what_it_may_run_and_lets_it_live_as_long(agent, run):
    order(agent, 10.0, 1, "gate")
    order(agent, 11.0, 1, "gate")
    assert run.calls == [("start", "gate")]
    assert run.until_s == 17.0
    assert agent.report(12.0).held == {"gate": 7}


def test_it_stops_when_the_lease_is_over_and_holds_the_camera_until_it_has_stopped(agent, run):
    order(agent, 10.0, 1, "gate")
    agent.turn(16.0)
    assert run.calls[-1] == ("stop",)
    assert agent.report(16.0).held == {"gate": 7}
    run.code = 0
    agent.turn(17.0)
    assert agent.report(17.0).held == {}
    assert run.calls.count(("start", "gate")) == 1


@pytest.mark.parametrize("code", [1, 70, 75, 137])
def test_a_run_that_died_is_started_again_later_and_later(agent, run, code):
    now_s = 10.0
    order(agent, now_s, 1, "gate")
    for delay_s in (1.0, 2.0, 4.0):
        run.code = code
        order(agent, now_s, 1, "gate")
        starts = run.calls.count(("start", "gate"))
        told = agent.report(now_s).told["failure"]
        assert told == f"its run ended with {code}: it was the model"
        order(agent, now_s + delay_s - 0.1, 1, "gate")
        assert run.calls.count(("start", "gate")) == starts
        now_s += delay_s
        order(agent, now_s, 1, "gate")
        assert run.calls.count(("start", "gate")) == starts + 1
    run.cameras = {"gate": {"state": "up", "captured": 1, "delivered": 1}}
    assert agent.report(now_s).told["failure"] == "", "it runs again"


@pytest.mark.parametrize("code", [0, 78])
def test_a_run_that_is_through_or_refused_is_left_alone_until_it_gets_other_cameras(
    agent, run, code
):
    order(agent, 10.0, 1, "gate")
    run.code = code
    for now_s in range(11, 60):
        order(agent, now_s, 1, "gate")
    assert run.calls == [("start", "gate")]
    order(agent, 60.0, 2, "yard")
    assert run.calls == [("start", "gate"), ("start", "yard")]


def test_one_that_can_not_even_be_written_says_why(agent, run):
    order(agent, 10.0, 1, "bad")
    assert agent.report(10.0).told["failure"] == "fleet.toml: camera 'bad': no such file"
    assert agent.report(10.0).held == {}


def test_other_cameras_start_it_anew_where_it_can_not_change(agent, run):
    order(agent, 10.0, 1, "gate", "yard")
    order(agent, 11.0, 2, "gate")
    assert run.calls[1:] == [("change", "gate"), ("stop",)]
    run.code = 0
    order(agent, 12.0, 2, "gate")
    assert run.calls[-1] == ("start", "gate")


def test_where_it_can_change_a_camera_is_held_until_the_run_has_let_go_of_it(agent, run):
    run.changes = True
    order(agent, 10.0, 1, "gate", "yard")
    order(agent, 11.0, 2, "gate", "door")
    assert run.calls[1:] == [("change", "gate", "door")]
    row = {"captured": 0, "delivered": 0}
    run.cameras = {name: {"state": "up", **row} for name in ("gate", "door")}
    run.cameras["yard"] = {"state": "leaving", **row}
    assert set(agent.report(12.0).held) == {"gate", "yard", "door"}
    run.cameras["yard"] = {"state": "left", **row}
    assert set(agent.report(13.0).held) == {"gate", "door"}


def test_another_file_for_the_same_cameras_is_a_change(agent, run):
    run.changes = True
    order(agent, 10.0, 1, "gate")
    order(agent, 11.0, 1, "gate", revision="2")
    order(agent, 12.0, 1, "gate", revision="2")
    assert run.calls[1:] == [("change", "gate")]


def test_a_refusal_is_told_and_ends_with_the_lease(agent, run):
    order(agent, 10.0, 1, "gate")
    order(agent, 12.0, 1, refused="machine 'a' is not in the file")
    assert agent.report(12.0).told["failure"] == "machine 'a' is not in the file"
    agent.turn(16.1)
    assert run.calls[-1] == ("stop",)


def test_it_is_overloaded_after_half_a_minute_of_too_few_results(agent, run):
    order(agent, 0.0, 1, "gate")
    for now_s in range(1, 40):
        run.cameras = {"gate": {"state": "up", "captured": 100 * now_s, "delivered": 80 * now_s}}
        assert agent.report(now_s).overloaded == (now_s > 30)


def test_it_is_not_overloaded_while_nothing_comes(agent, run):
    order(agent, 0.0, 1, "gate")
    run.cameras = {"gate": {"state": "down", "captured": 0, "delivered": 0}}
    assert not any(agent.report(now_s).overloaded for now_s in range(60))


def test_leaving_ends_the_run(agent, run):
    order(agent, 10.0, 1, "gate")
    agent.leave()
    agent.turn(10.1)
    assert run.calls[-1] == ("stop",)
    run.code = 0
    agent.turn(10.2)
    assert agent.is_idle
