"""How do planner and controller do with many cameras on many machines? Figures p, m, u and c.

    python -m benchmarks.fleet [--seconds 60] [--json FILE]

No camera and no network: the real planner, controller and agents in fast time, see
`pipeline/fleet/simulation.py`. A camera weighs half to two, every fifth needs a label that every third
machine has, and hangs near to a tenth of the machines; 85 % of the capacity is wanted.
"""

from __future__ import annotations

import random
import time
import tracemalloc
from pathlib import Path

from benchmarks.rig.measure import Figure, Target, command, median
from pipeline.fleet.config import Fleet, FleetConfig
from pipeline.fleet.controller import Controller
from pipeline.fleet.leases import Report
from pipeline.fleet.placement import Placed
from pipeline.fleet.planner import Camera, Machine, place
from pipeline.fleet.simulation import World

SECONDS = 60
SIZES = ((10, 2), (30, 3), (100, 10), (300, 30), (600, 60), (1000, 100))  # cameras, machines
_WANTED = 0.85  # of the capacity
_WEIGHTS = (0.5, 1.0, 1.0, 1.0, 2.0)
GAP = Target(sign="≤", limit=15)
_SETTLED_S, _WATCHED_S = 30, 60


def fleet(cameras: int, machines: int, seed: int, *, wanted: float = _WANTED) -> Fleet:
    """A fleet as a large site might have it."""
    rng = random.Random(seed)
    places = max(1, machines // 10)
    weights = [rng.choice(_WEIGHTS) for _ in range(cameras)]
    capacity = sum(weights) / machines / wanted
    return Fleet(
        file=Path("fleet.toml"), settings=FleetConfig(), tables={}, addresses={}, raw={}, revision="1",
        cameras=tuple(
            Camera(
                name=f"c{i}", weight=weight, near=f"hall-{rng.randrange(places)}",
                needs=frozenset({"gpu"} if rng.random() < 0.2 else ()),
                overlaps=frozenset({f"c{i - 1}"} if i % 4 else ()),
            )
            for i, weight in enumerate(weights)
        ),
        machines=tuple(
            Machine(
                name=f"m{i}", capacity=capacity * rng.uniform(0.7, 1.3), near=f"hall-{i % places}",
                labels=frozenset({"gpu"} if i % 3 == 0 else ()),
            )
            for i in range(machines)
        ),
    )  # fmt: skip


def figures(seconds: float) -> list[Figure]:
    """Every size, the larger ones for most of the time."""
    found: list[Figure] = []
    for cameras, machines in SIZES:
        end = time.monotonic() + seconds * cameras / sum(n for n, _ in SIZES) / 2
        found += figures_of(cameras, machines, end)
    return found


def figures_of(cameras: int, machines: int, end: float) -> list[Figure]:
    """Of one size, with as many fleets as there are until `end`, and five at least."""
    who = f"{cameras} cameras, {machines} machines"
    return _planned(who, cameras, machines, end) + _carried_out(who, cameras, machines)


def _planned(who: str, cameras: int, machines: int, end: float) -> list[Figure]:
    placed_s, moves, used = [], [], []
    seed = 0
    while seed < 5 or time.monotonic() < end:
        one = fleet(cameras, machines, seed)
        begun = time.process_time()  # one thread that waits for nothing
        first = place(one.cameras, one.machines)
        placed_s.append(time.process_time() - begun)
        lost = one.machines[seed % machines].name
        left = [machine for machine in one.machines if machine.name != lost]
        moved = place(one.cameras, left, first.where, improve=False).moves
        moves.append(len(moved) / max(1, len(first.on(lost))))
        used.append(_used(fleet(cameras, machines, seed, wanted=1.1)))
        seed += 1
    return [
        median("p", f"{who}: place all (s)", placed_s, Target(sign="≤", limit=1)),
        median("m", f"{who}: moves at the loss of one / its cameras", moves, Target(sign="≤", limit=1.05)),
        median("u", f"{who}: share of capacity used, if a tenth too much is wanted", used),
    ]  # fmt: skip


def _used(one: Fleet) -> float:
    weights = {camera.name: camera.weight for camera in one.cameras}
    found = place(one.cameras, one.machines)
    return sum(weights[name] for name in found.where) / sum(m.capacity for m in one.machines)


def _carried_out(who: str, cameras: int, machines: int) -> list[Figure]:
    """A machine is killed in a fleet that runs, in simulated time."""
    world = World(fleet(cameras, machines, 0))
    world.begin()
    world.go(_SETTLED_S)
    world.machines["m0"].kill()
    killed_s = world.now_s
    while not _is_whole(world, without="m0") and world.now_s < killed_s + _WATCHED_S:
        world.go(0.25)
    gap_s = world.now_s - killed_s
    if world.double:
        raise RuntimeError(f"two owners: {world.double[0]}")
    cpu_s, held_mb = _cost(world.fleet)
    return [
        median("g", f"{who}: until its cameras are served, simulated (s)", [gap_s], GAP),
        median("c", f"{who}: CPU of the controller (cores)", [cpu_s]),
        median("c", f"{who}: memory of the controller (MB)", [held_mb]),
    ]  # fmt: skip


def _is_whole(world: World, *, without: str) -> bool:
    """Every camera that has a machine is served by it."""
    owners = world.controller.owners if world.controller else {}
    return without not in owners.values() and world.served() == owners


def _cost(one: Fleet) -> tuple[float, float]:
    """CPU seconds a second and memory of a controller to which every machine reports once a second."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    controller = Controller(one, Placed(), term=1, now_s=0.0)
    numbers = dict.fromkeys(one.names, 0)
    held: dict[str, dict[str, int]] = {name: {} for name in one.names}

    def report(name: str, now_s: float) -> None:
        told = {"cameras": {c: {"state": "up", "captured": 1, "delivered": 1} for c in held[name]}}
        orders = controller.report(
            Report(
                machine=name, session="1", version="", term=1, number=numbers[name],
                held=held[name], told=told,
            ),
            now_s,
        )  # fmt: skip
        numbers[name], held[name] = orders.number, dict(orders.cameras)

    for second in range(_SETTLED_S):
        for name in one.names:
            report(name, second)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    begun = time.process_time()
    for second in range(_SETTLED_S, 2 * _SETTLED_S):
        for name in one.names:
            report(name, second)
    return (time.process_time() - begun) / _SETTLED_S, (after - before) / 1e6


def main() -> None:
    """See the module."""
    command("fleet", __doc__, figures, SECONDS)


if __name__ == "__main__":
    main()
