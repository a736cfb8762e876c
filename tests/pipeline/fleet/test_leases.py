"""Never two owners, whatever becomes of machines, messages and the controller; in fast time."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.fleet.config import Fleet, FleetConfig
from pipeline.fleet.controller import CALM_S, Controller
from pipeline.fleet.leases import GRACE_S, Orders, Report, Tenant
from pipeline.fleet.placement import Placed
from pipeline.fleet.planner import Camera, Machine
from pipeline.fleet.simulation import World

LEASE_S = 6.0


def fleet_of(cameras=12, machines=3, capacity=8, **fields):
    return Fleet(
        file=Path("fleet.toml"), settings=FleetConfig(lease_s=LEASE_S), tables={}, addresses={},
        machines=tuple(Machine(name=f"m{i}", capacity=capacity) for i in range(machines)),
        cameras=tuple(Camera(name=f"c{i}") for i in range(cameras)), raw={}, revision="1",
    )  # fmt: skip


@pytest.fixture
def world():
    world = World(fleet_of())
    world.begin()
    world.go(20)
    assert len(world.served()) == 12
    yield world
    assert world.double == []


def test_all_are_served_and_evenly(world):
    counts = [list(world.served().values()).count(name) for name in world.machines]
    assert counts == [4, 4, 4]


def test_what_a_killed_machine_ran_is_served_elsewhere_when_its_lease_is_over(world):
    before = world.served()
    world.machines["m1"].kill()
    world.go(LEASE_S - 1)
    others = {camera: name for camera, name in before.items() if name != "m1"}
    assert world.served() == others, "the lease may still be held, and the others notice nothing"
    world.go(GRACE_S + 2 + 4)
    served = world.served()
    assert len(served) == 12
    assert "m1" not in served.values()


def test_a_machine_that_comes_back_takes_some_back(world):
    world.machines["m1"].kill()
    world.go(30)
    world.machines["m1"].begin()
    world.go(30)
    counts = sorted(list(world.served().values()).count(name) for name in world.machines)
    assert len(world.served()) == 12
    assert counts[0] >= 2


@pytest.mark.parametrize("seed", range(20))
def test_a_machine_that_is_cut_off_has_stopped_before_another_starts(seed):
    """The partition, twenty times: the cable is pulled at any moment and put back at any other."""
    world = World(fleet_of(), seed)
    world.begin()
    world.go(world.random.uniform(5, 20))
    cut = world.machines[f"m{seed % 3}"]
    cut.is_cut = True
    world.go(LEASE_S + 1)
    assert not cut.run.is_running, "it has stopped by itself"
    world.go(world.random.uniform(0, 30))
    cut.is_cut = False
    world.go(40)
    assert len(world.served()) == 12
    assert world.double == []


def test_the_controller_is_killed_and_nobody_notices(world):
    before = world.served()
    starts = [machine.run.starts for machine in world.machines.values()]
    world.kill_controller()
    world.go(3)
    world.begin_controller()
    world.go(60)
    assert world.served() == before
    assert [machine.run.starts for machine in world.machines.values()] == starts


def test_without_a_controller_everything_ends_with_the_leases_and_comes_back_with_it(world):
    world.kill_controller()
    world.go(LEASE_S + 2)
    assert world.served() == {}
    world.begin_controller()
    world.go(20)
    assert len(world.served()) == 12


def test_a_controller_that_has_lost_its_file_begins_above_the_term_of_the_others(world):
    before = world.served()
    world.kill_controller()
    world._term = 0
    world._kept = type(world._kept)()
    world.begin_controller()
    world.go(20)
    assert world.controller.term > 1
    assert world.served() == before


def test_a_drained_machine_hands_over_what_it_has(world):
    world.controller.apply(world.fleet, {"m0"}, world.now_s)
    world.go(15)
    assert len(world.served()) == 12
    assert "m0" not in world.served().values()


def test_a_camera_that_is_taken_out_of_the_file_is_stopped(world):
    world.fleet = fleet_of(cameras=11)
    world.controller.apply(world.fleet, set(), world.now_s)
    world.go(15)
    assert sorted(world.served()) == sorted(f"c{i}" for i in range(11))


def test_an_overloaded_machine_loses_one_where_there_is_room(world):
    world.machines["m0"].serves = False
    world.go(60)
    counts = [list(world.served().values()).count(name) for name in world.machines]
    assert 2 <= counts[0] <= 3
    assert sum(counts) == 12


def test_an_overloaded_fleet_serves_all_the_same():
    world = World(fleet_of(cameras=24))
    world.begin()
    for machine in world.machines.values():
        machine.serves = False
    world.go(120)
    assert len(world.served()) == 24


def test_machines_that_were_overloaded_take_what_nobody_else_takes(world):
    for name in ("m0", "m2"):
        world.machines[name].serves = False
        world.go(60)
    world.machines["m1"].kill()
    world.go(LEASE_S + 15)
    assert len(world.served()) == 12, "better served late than not at all"


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["kill", "cut", "begin", "join", "controller", "drain", "undrain", "nothing"]),
        st.integers(0, 2),
        st.floats(0, 12),
    ),
    max_size=12,
)  # fmt: skip


@settings(max_examples=60)
@given(STEPS, st.integers(0, 1 << 16))
def test_never_two_owners(steps, seed):
    """Machines are killed, cut off, come back; the controller is killed and drains come and go."""
    world = World(fleet_of(cameras=9, capacity=9), seed)
    world.begin()
    world.go(8)
    for what, number, seconds in steps:
        machine = world.machines[f"m{number}"]
        if what == "kill":
            machine.kill()
        elif what == "cut":
            machine.is_cut = True
        elif what == "join":
            machine.is_cut = False
        elif what == "begin":
            machine.kill()
            machine.begin()
        elif what == "controller":
            if world.controller is None:
                world.begin_controller()
            else:
                world.kill_controller()
        elif world.controller is not None and what in ("drain", "undrain"):
            drained = {machine.name} if what == "drain" else set()
            world.controller.apply(world.fleet, drained, world.now_s)
        world.go(seconds)
        assert world.double == []
    for machine in world.machines.values():
        machine.is_cut = False
        if not machine.is_up:
            machine.begin()
    if world.controller is None:
        world.begin_controller()
    world.controller.apply(world.fleet, set(), world.now_s)
    world.go(2 * LEASE_S + 10 * CALM_S)
    assert len(world.served()) == 9, "and in the end all are served again"
    assert world.double == []


# -- the side of who runs --------------------------------------------------------------------------


def orders(number, cameras, term=1, **fields):
    return Orders(term=term, number=number, cameras=cameras, lease_s=LEASE_S, **fields)


def test_a_lease_counts_from_the_question_not_from_the_answer():
    tenant = Tenant("a", "1")
    assert tenant.due(0.0) == {}
    assert tenant.take(orders(1, {"gate": 7}), asked_s=10.0)
    assert tenant.due(10.0 + LEASE_S - 0.01) == {"gate": 7}
    assert tenant.due(10.0 + LEASE_S) == {}


@pytest.mark.parametrize(
    "old", [orders(4, {"gate": 9}), orders(9, {"gate": 9}, term=0), orders(9, {}, refused="no")]
)
def test_orders_of_the_past_and_refusals_change_nothing(old):
    tenant = Tenant("a", "1")
    tenant.take(orders(5, {"yard": 8}), asked_s=10.0)
    assert not tenant.take(old, asked_s=12.0)
    assert tenant.due(15.0) == {"yard": 8}
    assert tenant.due(16.5) == {}, "and the lease is no longer for it"


def test_what_was_begun_anew_is_still_held_when_the_old_one_has_stopped():
    tenant = Tenant("a", "1")
    tenant.begins({"gate": 1, "yard": 2})
    tenant.begins({"gate": 5})
    tenant.has_stopped({"gate": 1, "yard": 2})
    assert tenant.held == {"gate": 5}


# -- who gets nothing ------------------------------------------------------------------------------


def report_of(machine, session="1", **fields):
    return Report(
        machine=machine, session=session, version="0.1", term=0, number=0, held={}, **fields
    )  # fmt: skip


def test_two_agents_with_one_name_are_not_both_heard_until_the_lease_of_one_is_over():
    controller = Controller(fleet_of(), Placed(), term=1, now_s=0.0)
    assert controller.report(report_of("m0"), 0.0).refused == ""
    words = "machine 'm0' is still held by another agent; it is tried again"
    assert controller.report(report_of("m0", "2"), 1.0).refused == words
    assert controller.refused == [words]
    assert controller.report(report_of("m0", "2"), LEASE_S + GRACE_S).refused == ""
    assert controller.refused == []


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (
            report_of("m7"),
            "fleet.toml: a machine 'm7' has come that is not in it, so its capacity is unknown; add",
        ),
        (
            report_of("m0", protocol=0),
            "machine 'm0' has manyeyes 0.1, which this controller does not understand; install",
        ),
    ],
)  # fmt: skip
def test_who_is_not_known_is_told_why_it_gets_nothing(report, words):
    controller = Controller(fleet_of(), Placed(), term=1, now_s=0.0)
    orders = controller.report(report, 0.0)
    assert orders.refused.startswith(words)
    assert orders.cameras == {}
    assert controller.reports == {}


def test_a_machine_that_is_measured_when_it_joins_gets_cameras_when_that_is_known():
    fleet = replace(fleet_of(machines=1, capacity=math.inf), measured_hz={"m0": 5.0})
    controller = Controller(fleet, Placed(), term=1, now_s=0.0)
    assert controller.report(report_of("m0"), 0.0).cameras == {}
    assert controller.capacities == {}
    assert set(controller.report(report_of("m0", capacity=2.0), 1.0).cameras) == {"c0", "c1"}
    assert controller.capacities == {"m0": 2.0}
    assert len(controller.unplaced) == 10
