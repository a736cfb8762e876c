"""The planner: what always holds, and what it decides where it has a choice."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.fleet.planner import EVEN_GAP, Camera, Machine, place

LABELS = st.frozensets(st.sampled_from(["gpu", "webcam"]), max_size=2)
NEAR = st.sampled_from([None, "hall-a", "hall-b"])


def cameras_of(weights):
    return st.lists(
        st.builds(
            dict, weight=weights, needs=LABELS, near=NEAR,
            overlaps=st.frozensets(st.sampled_from([f"c{i}" for i in range(6)]), max_size=2),
            together=st.frozensets(st.sampled_from([f"c{i}" for i in range(6)]), max_size=2),
        ),
        max_size=14,
    ).map(lambda rows: [Camera(name=f"c{i}", **row) for i, row in enumerate(rows)])  # fmt: skip


MACHINES = st.lists(
    st.builds(
        dict, capacity=st.integers(0, 6).map(float), labels=LABELS, near=NEAR,
        drained=st.sampled_from([False, False, False, True]),
    ),
    max_size=5,
).map(lambda rows: [Machine(name=f"m{i}", **row) for i, row in enumerate(rows)])  # fmt: skip
BEFORE = st.dictionaries(
    st.sampled_from([f"c{i}" for i in range(16)]), st.sampled_from([f"m{i}" for i in range(7)])
)
ANY_WEIGHT = st.sampled_from([0.5, 1.0, 1.5, 2.0])
ONE = st.just(1.0)


def loads(cameras, assignment):
    weights = {camera.name: camera.weight for camera in cameras}
    sums = dict.fromkeys(assignment.where.values(), 0.0)
    for camera, machine in assignment.where.items():
        sums[machine] += weights[camera]
    return sums


def most_placeable(cameras, machines):
    """How many cameras of weight 1 fit at most: bipartite matching with capacities, by brute force."""
    slots = [m for m in machines if not m.drained for _ in range(int(m.capacity))]
    taken = {}

    def find(camera, seen):
        for number, machine in enumerate(slots):
            if camera.needs <= machine.labels and number not in seen:
                seen.add(number)
                if number not in taken or find(taken[number], seen):
                    taken[number] = camera
                    return True
        return False

    return sum(find(camera, set()) for camera in cameras)


@given(cameras_of(ANY_WEIGHT), MACHINES, BEFORE, st.booleans())
def test_what_always_holds(cameras, machines, before, improve):
    found = place(cameras, machines, before, improve=improve)
    by_name = {machine.name: machine for machine in machines}
    assert found.where.keys() | found.unplaced.keys() == {camera.name for camera in cameras}
    assert not found.where.keys() & found.unplaced.keys()
    for camera in cameras:
        if camera.name in found.where:
            machine = by_name[found.where[camera.name]]
            assert camera.needs <= machine.labels
            assert not machine.drained
    for name, load in loads(cameras, found).items():
        assert load <= by_name[name].capacity + 1e-6
    moved = {move.camera: move for move in found.moves}
    for camera in cameras:
        source, target = before.get(camera.name), found.where.get(camera.name)
        assert (camera.name in moved) == (source != target)
        if camera.name in moved:
            move = moved[camera.name]
            assert (move.source, move.target) == (source, target)
            assert move.why


@given(cameras_of(ONE), MACHINES, BEFORE)
def test_as_many_are_placed_as_fit(cameras, machines, before):
    found = place(cameras, machines, before)
    assert len(found.where) == most_placeable(cameras, machines)


@given(cameras_of(ANY_WEIGHT), MACHINES)
def test_it_comes_to_rest(cameras, machines):
    """Twice: who had to move has moved; then what could be better is; then nothing moves any more."""
    where = {}
    for _ in range(2):
        where = place(cameras, machines, where).where
    again = place(cameras, machines, where)
    assert [move for move in again.moves if move.target] == []
    assert again.where == where


@given(cameras_of(ANY_WEIGHT), MACHINES, st.integers(0, 4))
def test_a_lost_machine_moves_its_own_cameras_and_who_makes_room(cameras, machines, lost):
    where = place(cameras, machines).where
    left = [machine for number, machine in enumerate(machines) if number != lost]
    found = place(cameras, left, where)
    for move in found.moves:
        lost_its_machine = move.source in (f"m{lost}", None)
        assert lost_its_machine or move.why.startswith("it makes room for ")


@given(st.lists(st.integers(1, 8), min_size=2, max_size=8), st.data())
def test_where_all_may_go_anywhere_and_there_is_room_only_the_lost_ones_move(sizes, data):
    machines = [Machine(name=f"m{i}", capacity=float(n)) for i, n in enumerate(sizes)]
    lost = data.draw(st.integers(0, len(machines) - 1))
    room = sum(sizes) - sizes[lost]
    cameras = [Camera(name=f"c{i}") for i in range(data.draw(st.integers(0, room)))]
    before = place(cameras, machines)
    found = place(cameras, [m for i, m in enumerate(machines) if i != lost], before.where)
    assert not found.unplaced
    assert {move.camera for move in found.moves} == set(before.on(f"m{lost}"))


def test_the_same_arguments_give_the_same_result():
    cameras = [Camera(name=f"c{i}", weight=1 + i % 3) for i in range(20)]
    machines = [Machine(name=f"m{i}", capacity=9) for i in range(5)]
    assert place(cameras, machines) == place(cameras, machines)


def test_nothing_on_nothing():
    found = place([], [])
    assert (found.where, found.moves, found.unplaced) == ({}, (), {})


# -- choices ---------------------------------------------------------------------------------------

A, B, C = (Machine(name=name, capacity=4, near=f"hall-{name}") for name in "abc")


def names(number, **fields):
    return [Camera(name=f"c{i}", **fields) for i in range(number)]


def test_cameras_are_spread_evenly():
    assert sorted(loads(names(9), place(names(9), [A, B, C])).values()) == [3, 3, 3]


def test_a_camera_goes_near():
    cameras = [Camera(name="gate", near="hall-b"), Camera(name="yard", near="hall-c")]
    assert place(cameras, [A, B, C]).where == {"gate": "b", "yard": "c"}


def test_cameras_that_see_the_same_go_apart_whoever_says_so():
    cameras = [Camera(name="gate", overlaps=frozenset({"yard"})), Camera(name="yard")]
    where = place(cameras, [A, replace(B, capacity=1)]).where
    assert where["gate"] != where["yard"]


def test_cameras_whose_objects_are_compared_stay_together():
    cameras = [Camera(name="gate", together=frozenset({"yard"})), Camera(name="yard"), *names(3)]
    where = place(cameras, [A, B]).where
    assert where["gate"] == where["yard"]
    assert place(cameras, [A, B, C], where).where["gate"] == where["gate"]


def test_a_machine_with_a_rare_label_is_kept_for_those_who_need_it():
    gpu = replace(B, labels=frozenset({"gpu"}))
    cameras = [*names(2), Camera(name="fast", needs=frozenset({"gpu"}))]
    where = place(cameras, [A, gpu]).where
    assert [where["c0"], where["c1"]] == ["a", "a"]
    assert where["fast"] == "b"


def test_others_make_room_over_several_machines():
    x, y, z = (frozenset({label}) for label in "xyz")
    machines = [
        Machine(name="a", capacity=1, labels=x), Machine(name="b", capacity=1, labels=x | y),
        Machine(name="c", capacity=1, labels=y | z),
    ]  # fmt: skip
    before = {"px": "b", "py": "c"}
    cameras = [
        Camera(name="px", needs=x), Camera(name="py", needs=y), Camera(name="pz", needs=z),
    ]  # fmt: skip
    found = place(cameras, machines, before)
    assert found.where == {"px": "a", "py": "b", "pz": "c"}
    whys = {move.camera: move.why for move in found.moves}
    assert whys == {
        "px": "it makes room for 'pz'", "py": "it makes room for 'pz'", "pz": "it is new",
    }  # fmt: skip


def test_a_machine_that_comes_back_gets_some():
    where = place(names(8), [A, B]).where
    found = place(names(8), [A, B, C], where)
    assert 2 <= len(found.on("c")) <= 3
    assert {move.target for move in found.moves} == {"c"}
    shares = [len(found.on(name)) / 4 for name in "abc"]
    assert max(shares) - min(shares) <= EVEN_GAP


def test_a_machine_that_comes_back_gets_back_what_is_near_to_it():
    cameras = names(3, near="hall-b")
    away = place(cameras, [A]).where
    found = place(cameras, [A, B], away)
    assert found.on("b") == ("c0", "c1", "c2")
    assert {move.why for move in found.moves} == {"b is near hall-b"}


def test_a_drained_machine_keeps_nothing_and_says_why():
    where = place(names(4), [A, B]).where
    found = place(names(4), [A, replace(B, drained=True)], where)
    assert found.on("b") == ()
    assert {move.why for move in found.moves} == {"b is drained"}


def test_of_a_machine_that_takes_less_than_it_has_as_few_leave_as_possible():
    cameras = [Camera(name="large", weight=2), Camera(name="small"), Camera(name="last")]
    before = dict.fromkeys(["large", "small", "last"], "a")
    found = place(cameras, [replace(A, capacity=3), B], before)
    assert [(move.camera, move.target) for move in found.moves] == [("last", "b")]
    assert found.moves[0].why == "a takes 3 cameras, and has more"


def test_the_last_go_without_where_there_is_no_room():
    found = place(names(6), [replace(A, capacity=4)])
    assert list(found.unplaced) == ["c4", "c5"]


@pytest.mark.parametrize(
    ("camera", "machines", "words"),
    [
        (Camera(name="gate"), [], "there is no machine that takes cameras; add a [[machine]]"),
        (
            Camera(name="gate", needs=frozenset({"gpu"})), [A, B],
            "no machine has 'gpu'; add it to the labels of one, or take it out of needs",
        ),
        (
            Camera(name="gate", weight=5), [A, B],
            "it weighs 5, and all machines (a, b) take 4 at most; name a larger one",
        ),
        (
            Camera(name="gate", needs=frozenset({"gpu"})),
            [A, replace(B, capacity=0.5, labels=frozenset({"gpu"}))],
            "it weighs 1, and the machines with 'gpu' (b) take 0.5 at most; name a larger one",
        ),
    ],
    ids=["no machine", "no label", "too heavy", "too heavy for its label"],
)  # fmt: skip
def test_a_camera_that_no_machine_takes_is_told_why_and_what_helps(camera, machines, words):
    assert place([camera], machines).unplaced["gate"].startswith(words)


def test_a_full_fleet_says_how_full():
    found = place(names(9), [A, B])
    assert found.unplaced["c8"] == (
        "all machines (a, b) are full, with 8 of 8 cameras, and it weighs 1; add a machine, or "
        "measure their capacity again"
    )
