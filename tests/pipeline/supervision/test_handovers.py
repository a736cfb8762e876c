"""Who is told what, while sinks come and go and consumers are replaced, and messages are slow."""

from types import SimpleNamespace

import patterns

from pipeline.plan.difference import joined, moved, moving
from pipeline.plan.offers import is_offered, lingering, offering, with_sinks
from pipeline.supervision.introductions import Introductions
from pipeline.supervision.offers import Offers

PLACE = patterns.HERE


def plan(*cameras, **options):
    return patterns.plan(PLACE, cameras=cameras, **options)


class Someone(SimpleNamespace):
    """A child as the supervisor knows it, and what it was told."""

    alive, behind, is_closing, incarnation, pools, code = True, False, False, 0, (), 7
    restarts = SimpleNamespace(breaker_open=False)

    def __init__(self, spec, **facts):
        super().__init__(spec=spec, name=spec.name, identity=spec.name, state="ready", **facts)
        self.told = []

    def send(self, command, _fds=(), **_facts):
        self.told.append(command)


def test_an_answer_to_what_was_said_before_is_none_to_what_was_said_last():
    """On edges on which nothing travels yet one may be told again before it has answered."""
    more, other = (plan("a", between=True, more={name}) for name in ("sink.more", "sink.other"))
    crew = SimpleNamespace(plan=joined(plan("a"), more, set()))
    crew.children = {spec.name: Someone(spec) for spec in crew.plan.processes}
    accounts = SimpleNamespace(layout=SimpleNamespace(sinks={}))
    offers, ends = (
        Offers(SimpleNamespace(crew=crew, accounts=accounts)),
        crew.children["postprocess"],
    )
    for target in (more, other, more, other):
        offers.step(target, all_are_there=False)
    n = ends.told.count("offer")
    assert n > 1
    for _ in range(n):
        assert offers.pending(crew.plan)
        offers.said(ends)
    assert not offers.pending(crew.plan)


def test_a_sink_that_goes_gets_frames_of_cameras_that_go_over_only_now():
    """Who feeds it is told of its way for all cameras."""
    old, new = plan("a", "b"), plan("a", "b", between=True, more={"sink.more"})
    running = joined(old, new, set())
    running = moved(moving(running, new, "a"), new, "a")
    assert running.by_name["sink.more"].cameras == ("a",)
    aim = with_sinks(plan("a", "b", between=True), running, {"sink.more"})
    (edge,) = (e for e in aim.by_name["between"].outputs if e.consumer == "sink.more")
    assert edge.cameras == aim.by_name["sink.more"].cameras == ("a", "b")


def test_a_sink_that_goes_while_a_stage_comes_before_it_is_let_go():
    """It is fed by both, and would be kept for what is offered to it for as long as it is kept."""
    old, new = (plan("a", between=between, more={"sink.other"}) for between in (False, True))
    running = moving(joined(old, new, set()), new, "a")
    target, way = plan("a", between=True), patterns.MORE["sink.other"]
    assert lingering(running, target) == {"sink.other": way}
    aim = with_sinks(target, running, {"sink.other"})
    running = offering(moved(moving(running, aim, "a"), aim, "a"), target)
    assert not is_offered(running, way)
    edges = [
        (s.name, e.cameras)
        for s in running.processes
        for e in s.outputs
        if e.consumer == "sink.other"
    ]
    assert edges == [("postprocess", ()), ("between", ("a",))]  # for what was offered before


def test_who_is_ready_only_now_sends_nothing_to_one_that_is_to_be_replaced():
    """It may have ended in order before that arrives. What only helps it still comes."""
    running = plan("a")
    children = {spec.name: Someone(spec) for spec in running.processes}
    run = SimpleNamespace(plan=running, children=children)
    introductions = Introductions(run, lambda child: "ipc://there")
    capture, results = children["capture.a"], children["postprocess"]
    children["render"].is_closing = True
    for child in (capture, results):
        introductions.introduce(child)
    helps = [e for e in results.spec.outputs if e.consumer == "render"]
    assert [edge.paths for edge in helps] == [()]
    assert results.told.count("connect") == len(results.spec.outputs)
    assert capture.told.count("connect") == len(capture.spec.outputs) - 1
    children["render"].is_closing = False  # its successor
    introductions.introduce(children["render"])
    assert capture.told.count("connect") == len(capture.spec.outputs)
