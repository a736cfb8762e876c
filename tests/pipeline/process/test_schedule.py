"""The batch policy against its bounds, by simulation: time passes in a heap of events."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.rig.shares import jain
from pipeline.errors import Full
from pipeline.process.schedule import Batcher

EPS = 1e-9


@dataclass
class Outcome:
    """What a simulated run delivered after its warm-up."""

    seconds: float
    served: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    age_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    order: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def rate_hz(self, camera: str) -> float:
        return self.served[camera] / self.seconds

    @property
    def oldest_s(self) -> float:
        return max((max(ages) for ages in self.age_s.values()), default=0.0)


def simulate(
    periods_s: dict[str, float],
    *,
    alpha_s: float,
    beta_s: float,
    max_batch: int,
    speeds: tuple[float, ...] = (1.0,),
    turns: int = 60,
    seed: int = 0,
    stops: dict[str, float] | None = None,
    jitter: float = 0.0,
) -> Outcome:
    """Cameras of random phases, a worker per entry of `speeds`; half of `turns` rounds is warm-up.

    An item is the time at which its frame arrived. Cameras in `stops` fall silent at that time.
    Service takes up to `jitter` of its time longer.
    """
    rng = random.Random(seed)
    batcher: Batcher[float] = Batcher(list(periods_s), max_batch=max_batch, policy="newest")
    rounds = math.ceil(len(periods_s) / max_batch)
    service_s = rounds * (alpha_s + beta_s * min(max_batch, len(periods_s))) / min(speeds)
    warm_s = turns / 2 * max(service_s, *periods_s.values())
    outcome = Outcome(seconds=warm_s)
    events: list[tuple[float, int, str]] = []  # (time, 0: arrival | 1: finished, who)
    for camera, period in periods_s.items():
        heapq.heappush(events, (rng.uniform(0, period), 0, camera))
    free = {f"worker{i}": speed for i, speed in enumerate(speeds)}
    speed_of, doing = dict(free), {}
    while events:
        now, kind, who = heapq.heappop(events)
        if now > 2 * warm_s:
            break
        if kind == 0:
            if stops and now >= stops.get(who, math.inf):
                continue
            if batcher.offer(who, now) is not None and now > warm_s:
                outcome.dropped[who] += 1
            heapq.heappush(events, (now + periods_s[who], 0, who))
        else:
            batcher.finished(who)
            free[who] = speed_of[who]
            for camera, arrived in doing.pop(who):
                outcome.order[camera].append(arrived)
                if now > warm_s:
                    outcome.served[camera] += 1
                    outcome.age_s[camera].append(now - arrived)
        if events and events[0][0] == now:
            continue  # drain what happens at the same moment, then act once
        for worker in list(free):
            if batch := batcher.take(worker):
                assert len(batch) <= max_batch
                doing[worker] = batch
                seconds = (alpha_s + beta_s * len(batch)) / free.pop(worker)
                seconds *= 1 + jitter * rng.random()
                heapq.heappush(events, (now + seconds, 1, worker))
    return outcome


def cameras(n: int, period_s: float) -> dict[str, float]:
    return {f"cam{i}": period_s for i in range(n)}


shapes = st.tuples(
    st.integers(1, 64),  # cameras
    st.sampled_from([1, 2, 3, 4, 8, 16, 64]),  # max_batch
    st.floats(0.0, 1.0),  # share of α in S(max_batch)
    st.integers(0, 1 << 30),  # seed of the phases
)


def costs(n: int, max_batch: int, alpha_share: float) -> tuple[float, float, float]:
    """α and β such that S = ⌈n/Bmax⌉(α + β·min(n, Bmax)) is 1 s, and the time of one full batch."""
    batch_s = 1 / math.ceil(n / max_batch)
    return alpha_share * batch_s, (1 - alpha_share) * batch_s / min(n, max_batch), batch_s


@given(shapes, st.floats(1.0 + 1e-6, 5.0))
@example((5, 4, 0.5, 0), 1.001)
@example((64, 64, 0.0, 0), 1.001)
@settings(deadline=None, max_examples=60)
def test_below_saturation_nothing_is_dropped_and_latency_is_at_most_2s(shape, period_s):
    n, max_batch, alpha_share, seed = shape
    alpha, beta, _ = costs(n, max_batch, alpha_share)
    outcome = simulate(
        cameras(n, period_s), alpha_s=alpha, beta_s=beta, max_batch=max_batch, seed=seed
    )
    assert not outcome.dropped
    assert outcome.oldest_s <= 2 + EPS
    assert len(outcome.served) == n


@given(shapes, st.floats(0.05, 0.9))
@example((6, 4, 0.5, 0), 0.5)
@settings(deadline=None, max_examples=60)
def test_above_saturation_every_camera_gets_its_share_and_frames_do_not_age(shape, period_s):
    n, max_batch, alpha_share, seed = shape
    alpha, beta, _ = costs(n, max_batch, alpha_share)
    outcome = simulate(
        cameras(n, period_s), alpha_s=alpha, beta_s=beta, max_batch=max_batch, seed=seed
    )
    rates = [outcome.rate_hz(f"cam{i}") for i in range(n)]
    assert min(rates) >= 1 - 2 / outcome.seconds  # 1/S, but for the batches cut off at both ends
    if max_batch >= n:
        assert max(rates) <= 1 + 2 / outcome.seconds
    assert jain(rates) >= 0.99
    assert outcome.oldest_s <= period_s + 2 + EPS


@given(
    st.integers(1, 24),
    st.integers(1, 24),
    st.sampled_from([1, 4, 8, 64]),
    st.floats(0, 1),
    st.integers(0, 1 << 30),
)
@settings(deadline=None, max_examples=60)
def test_slow_cameras_keep_their_rate_among_fast_ones(fast, slow, max_batch, alpha_share, seed):
    alpha, beta, _ = costs(fast + slow, max_batch, alpha_share)
    periods = {f"fast{i}": 0.2 for i in range(fast)} | {f"slow{i}": 1.5 + i for i in range(slow)}
    outcome = simulate(
        periods, alpha_s=alpha, beta_s=beta, max_batch=max_batch, seed=seed, turns=20
    )
    assert not [camera for camera in outcome.dropped if camera.startswith("slow")]
    for camera in periods:
        offered_hz = 1 / periods[camera]
        assert outcome.rate_hz(camera) >= min(offered_hz, 1.0) - 2 / outcome.seconds
    assert jain([outcome.rate_hz(f"fast{i}") for i in range(fast)]) >= 0.99


@given(shapes, st.floats(0.1, 3.0))
@settings(deadline=None, max_examples=40)
def test_a_stopped_camera_slows_nobody(shape, period_s):
    n, max_batch, alpha_share, seed = shape
    alpha, beta, _ = costs(n, max_batch, alpha_share)
    periods = cameras(n, period_s) | {"stopped": period_s, "never": period_s}
    outcome = simulate(
        periods,
        alpha_s=alpha,
        beta_s=beta,
        max_batch=max_batch,
        seed=seed,
        stops={"stopped": 3.0, "never": 0.0},
    )
    assert outcome.served["stopped"] == outcome.served["never"] == 0
    fair_hz = min(1.0, 1 / period_s)
    assert min(outcome.rate_hz(f"cam{i}") for i in range(n)) >= fair_hz - 2 / outcome.seconds


@given(
    st.integers(3, 64),
    st.sampled_from([1, 2, 4, 8, 64]),
    st.one_of(
        st.lists(st.just(1.0), min_size=2, max_size=4),
        st.lists(st.floats(0.4, 1.0), min_size=2, max_size=4),
    ),
    st.floats(0, 1),
    st.integers(0, 1 << 30),
)
@example(5, 4, [1.0, 1.0], 0.0, 0)
@example(4, 4, [1.0, 1.0], 0.0, 0)
@example(3, 4, [1.0, 0.4], 0.5, 0)
@example(4, 64, [1.0, 0.4], 0.5, 0)
@settings(deadline=None, max_examples=25)
def test_several_workers_are_fair_too_even_if_one_is_slow(n, max_batch, speeds, alpha_share, seed):
    speeds = speeds[: n - 1]  # with a worker for every camera, each has its own and keeps it
    alpha, beta, _ = costs(n, max_batch, alpha_share)
    outcome = simulate(
        cameras(n, 0.05),
        alpha_s=alpha,
        beta_s=beta,
        max_batch=max_batch,
        speeds=tuple(speeds),
        seed=seed,
        turns=200,
        jitter=0.1,  # exact ratios of speed can keep a camera in step with one worker
    )
    wanted = 0.99 if min(speeds) == 1.0 else 0.98
    assert jain([outcome.rate_hz(f"cam{i}") for i in range(n)]) >= wanted


def test_workers_as_fast_as_each_other_share_the_cameras_equally():
    batcher: Batcher[int] = Batcher("abcd", max_batch=4, policy="newest")
    assert batcher.take("v") == batcher.take("w") == []  # both are known and free
    sizes = []
    for _ in range(3):
        for worker in "vw":
            batcher.finished(worker)
            for camera in "abcd":
                batcher.offer(camera, 0)
            sizes.append(len(batcher.take(worker)))
    assert sizes == [2] * 6


def test_a_worker_that_laps_another_leaves_it_a_camera_of_its_own():
    batcher: Batcher[int] = Batcher("abcd", max_batch=4, policy="newest")
    turns = []

    def turn(worker: str) -> None:
        batcher.finished(worker)
        for camera in "abcd":
            batcher.offer(camera, 0)
        turns.append("".join(camera for camera, _ in batcher.take(worker)))

    batcher.take("slow")
    batcher.take("fast")
    for worker in ("slow", "fast", "fast", "fast", "slow"):
        turn(worker)
    assert turns == ["ab", "cd", "c", "d", "ca"]


@given(shapes, st.lists(st.floats(0.2, 1.0), min_size=1, max_size=4), st.floats(0.05, 3.0))
@settings(deadline=None, max_examples=40)
def test_newest_keeps_the_order_of_every_camera(shape, speeds, period_s):
    n, max_batch, alpha_share, seed = shape
    alpha, beta, _ = costs(n, max_batch, alpha_share)
    outcome = simulate(
        cameras(n, period_s),
        alpha_s=alpha,
        beta_s=beta,
        max_batch=max_batch,
        speeds=tuple(speeds),
        seed=seed,
        turns=20,
    )
    for arrived in outcome.order.values():
        assert arrived == sorted(set(arrived))


@pytest.mark.parametrize("policy", ["newest", "every"])
def test_nothing_waits_nothing_is_given(policy):
    batcher: Batcher[int] = Batcher(["a"], max_batch=4, policy=policy)
    assert batcher.take("w") == []
    assert batcher.take("w") == []  # a free worker may ask again
    assert batcher.waiting == 0
    assert batcher.idle
    assert Batcher([], max_batch=1, policy=policy).take("w") == []


def test_no_camera_starves_when_there_are_more_cameras_than_max_batch():
    batcher: Batcher[int] = Batcher("abcdef", max_batch=4, policy="newest")
    turns = []
    for _ in range(3):
        for camera in "abcdef":
            batcher.offer(camera, 0)
        turns.append("".join(camera for camera, _ in batcher.take("w")))
        batcher.finished("w")
    assert turns == ["abcd", "efab", "cdef"]


def test_newest_gives_back_what_a_newer_item_replaces():
    batcher: Batcher[int] = Batcher(["a", "b"], max_batch=4, policy="newest")
    assert batcher.offer("a", 1) is None
    assert batcher.offer("a", 2) == 1
    assert batcher.take("w") == [("a", 2)]
    assert batcher.offer("a", 3) is None
    assert batcher.take("v") == []  # a is in service
    batcher.finished("w")
    assert batcher.take("v") == [("a", 3)]


def test_a_lost_worker_gives_back_what_it_held_and_frees_its_cameras():
    batcher: Batcher[int] = Batcher(["a"], max_batch=4, policy="newest")
    batcher.offer("a", 1)
    batcher.take("w")
    batcher.offer("a", 2)
    assert (batcher.waiting, batcher.in_service, batcher.idle) == (1, 1, False)
    assert batcher.lost("w") == [("a", 1)]
    assert batcher.lost("w") == []
    batcher.finished("w")  # its last word may come late
    assert batcher.take("v") == [("a", 2)]
    batcher.finished("v")
    assert batcher.idle


def test_every_refuses_what_it_has_no_room_for_and_keeps_what_it_has():
    batcher: Batcher[int] = Batcher(["a", "b"], max_batch=8, policy="every", depth=2)
    for item in (1, 2):
        assert batcher.offer("a", item) is None
    with pytest.raises(Full, match="camera 'a': 2 frames wait already"):
        batcher.offer("a", 3)
    batcher.offer("b", 10)
    assert batcher.take("w") == [("a", 1), ("b", 10), ("a", 2)]
    batcher.offer("a", 3)  # there is room again, though 1 and 2 are in service
    assert batcher.in_service == 3
    assert batcher.take("v") == [("a", 3)]


def test_every_feeds_one_camera_to_all_workers_and_shares_the_last_frames():
    batcher: Batcher[int] = Batcher(["a"], max_batch=8, policy="every", depth=8)
    assert batcher.take("v") == batcher.take("w") == []  # both are known and free
    for item in range(8):
        batcher.offer("a", item)
    assert batcher.take("v") == [("a", item) for item in (0, 1, 2, 3)]
    assert batcher.take("w") == [("a", item) for item in (4, 5, 6, 7)]


@given(
    st.integers(1, 8),
    st.integers(1, 8),
    st.integers(1, 4),
    st.lists(st.integers(0, 40), max_size=300),
)
def test_every_loses_nothing_and_serves_cameras_in_turn(n, max_batch, workers, steps):
    names = [f"cam{i}" for i in range(n)]
    batcher: Batcher[int] = Batcher(names, max_batch=max_batch, policy="every", depth=4)
    offered, taken = Counter[str](), defaultdict(list)
    for step in steps:
        if step < 30:
            camera = names[step % n]
            try:
                batcher.offer(camera, offered[camera])
                offered[camera] += 1
            except Full:
                assert batcher.waiting >= 4
        else:
            worker = f"worker{step % workers}"
            batcher.finished(worker)
            batch = batcher.take(worker)
            assert len(batch) <= max_batch
            for camera, item in batch:
                taken[camera].append(item)
            given_each = Counter(camera for camera, _ in batch)
            if step == 40:
                while rest := batcher.take("rest"):
                    batcher.finished("rest")
                    for camera, _ in rest:  # who still waited got as many as anybody, but for one
                        assert given_each[camera] >= max(given_each.values()) - 1
                return
    for items in taken.values():
        assert items == list(range(len(items)))
    assert batcher.waiting == sum(offered.values()) - sum(map(len, taken.values()))


def test_misuse_is_told():
    batcher: Batcher[int] = Batcher(["a"], max_batch=1, policy="newest")
    batcher.offer("a", 1)
    batcher.take("w")
    with pytest.raises(ValueError, match="'w' asked for a batch before it finished"):
        batcher.take("w")
    with pytest.raises(KeyError):
        batcher.offer("b", 1)
    with pytest.raises(ValueError, match="max_batch"):
        Batcher(["a"], max_batch=0, policy="newest")


def test_a_camera_that_joins_is_served_next_and_one_that_left_is_unknown():
    batcher = Batcher(["a", "b"], max_batch=1, policy="newest")
    for camera in "ab":
        batcher.offer(camera, 1)
        assert batcher.take("w") == [(camera, 1)]
        batcher.finished("w")
    batcher.add("c")
    for camera in "abc":
        batcher.offer(camera, 2)
    assert batcher.take("w") == [("c", 2)]
    batcher.finished("w")
    batcher.remove("c")
    with pytest.raises(KeyError):
        batcher.offer("c", 3)
    assert batcher.take("w") == [("a", 2)]
