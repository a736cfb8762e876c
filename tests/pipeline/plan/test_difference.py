"""What makes one plan of another while it runs, and what is refused."""

from dataclasses import replace

import patterns
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.plan.difference import Difference, between, joined, renewed, without

PLACE = patterns.HERE
CAMERAS = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True)


@pytest.fixture(autouse=True, scope="module")
def _parts_on_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PLACE))
        yield


def plan(*cameras, **options):
    return patterns.plan(PLACE, cameras=cameras, **options)


def with_process(made, name, **changes):
    specs = tuple(replace(s, **changes) if s.name == name else s for s in made.processes)
    return replace(made, processes=specs)


def facts(made):
    """A plan without the order in which its cameras came."""
    specs = {}
    for spec in made.processes:
        outputs = {e.consumer: replace(e, cameras=tuple(sorted(e.cameras))) for e in spec.outputs}
        cameras, reads = tuple(sorted(spec.cameras)), tuple(sorted(spec.reads))
        same = replace(spec, outputs=(), cameras=cameras, reads=reads)
        specs[spec.name] = same, outputs
    return {*made.cameras}, specs


@given(CAMERAS, CAMERAS)
def test_leaving_and_joining_make_one_plan_of_the_other(old, new):
    running, target = plan(*old), plan(*new)
    difference = between(running, target)
    assert {*difference.leaves} == {*old} - {*new}
    assert {*difference.joins} == {*new} - {*old}
    assert difference.changes == ()
    running = joined(running, target, {*difference.joins})
    for camera in difference.leaves:
        running = without(running, camera, [f"capture.{camera}"])
    assert facts(running) == facts(target)
    assert joined(running, target, set()) == running
    running.check()


def test_a_camera_that_is_read_in_another_way_leaves_and_joins():
    fast = plan("a", "b", rates_hz=[("b", 7.0)])
    assert between(plan("a", "b"), fast) == Difference(changes=("b",))
    assert not between(fast, fast)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("sink.results", {"paths": ()}, r"'sink.results'.*\(paths\)"),
        ("inference.0", {"config": {"new": 1}}, r"'inference.0'.*\(alpha_ms, new\)"),
        ("inference.0", {"counters": ("hits",)}, r"'inference.0'.*\(counters\)"),
        ("render", {"outputs": ()}, r"'render'.*\(edges\)"),
        ("preprocess", {"environment": {"OMP_NUM_THREADS": "2"}}, r"\(OMP_NUM_THREADS\)"),
    ],
)
def test_what_only_a_new_start_can_do_is_refused_by_name(name, changes, said):
    with pytest.raises(ConfigError, match=said + ".*start it again"):
        between(plan("a"), with_process(plan("a"), name, **changes))


def test_a_stage_or_sink_with_other_settings_is_started_anew_and_stays_where_it_is():
    running = plan("a", "b")
    target = with_process(plan("b", "c"), "render", config={"turn": 1}, options={"max_age_ms": 9})
    difference = between(running, target)
    assert (difference.renews, difference.starts) == (("render",), ("capture.c",))
    assert difference.lines()[-1] == "started anew, with other settings: render"
    after = renewed(running, target.by_name["render"])
    same = with_process(running, "render", config={"turn": 1}, options={"max_age_ms": 9})
    assert after == same
    assert not between(after, same)


def test_another_policy_and_other_sinks_are_refused():
    with pytest.raises(ConfigError, match="the policy would be 'every' and not 'newest'"):
        between(plan("a"), plan("a", policy="every"))
    more = replace(plan("a").by_name["sink.results"], name="sink.more")
    with pytest.raises(ConfigError, match=r"'sink.more' would be new"):
        between(plan("a"), replace(plan("a"), processes=(*plan("a").processes, more)))
    with pytest.raises(ConfigError, match=r"'sink.more' would be gone"):
        between(replace(plan("a"), processes=(*plan("a").processes, more)), plan("a"))


def test_processes_that_work_for_a_new_camera_alone_start_with_it():
    """As the chain of another model does."""
    both = plan("a", "b")
    extra = replace(both.by_name["sink.results"], name="extra", role="stage", cameras=("b",))
    target = replace(both, processes=(*both.processes, extra))
    difference = between(plan("a"), target)
    assert difference.starts == ("capture.b", "extra")
    assert difference.lines() == ["camera 'b' joins", "started: capture.b, extra"]
    assert between(target, plan("a")).stops == ("capture.b", "extra")
