"""The graph is checked before anything starts."""

import dataclasses
import json

import patterns
import pytest

from pipeline.errors import ConfigError
from pipeline.plan.graph import EdgeSpec, Plan, ProcessSpec
from pipeline.plan.loading import load, signature


def changed(plan, name, **fields):
    processes = [dataclasses.replace(p, **fields) if p.name == name else p for p in plan.processes]
    return Plan(cameras=plan.cameras, policy=plan.policy, processes=tuple(processes))


def edge(consumer):
    return EdgeSpec(
        consumer=consumer, cameras=("c0",), paths=(), credits=1, depth=1, overflow="drop"
    )


@pytest.fixture
def plan(tmp_path):
    return patterns.plan(tmp_path, cameras=1)


def test_a_sound_plan_passes_and_orders_producers_first(plan):
    plan.check()
    order = plan.order()
    for process in plan.processes:
        for out in process.outputs:
            assert order.index(process.name) < order.index(out.consumer)


@pytest.mark.parametrize(
    ("name", "fields", "sentence"),
    [
        ("postprocess", {"outputs": (edge("nobody"),)}, "feeds 'nobody', which does not exist"),
        ("postprocess", {"outputs": ()}, "nothing takes what 'postprocess' gives"),
        ("preprocess", {"outputs": (edge("preprocess"),)}, "a circle"),
        (
            "preprocess",
            {"outputs": (edge("sink.results"),)},
            "'preprocess' gives Tensor, but 'sink.results' takes Result",
        ),
        (
            "preprocess",
            {"slot_bytes": 0, "slots": 0},
            "'preprocess' gives Tensor, whose pixels travel in shared memory, but its slot_bytes() is 0",
        ),
        (
            "capture.c0",
            {"slot_bytes": 0},
            "slot_bytes() is 0; return the bytes of its largest result",
        ),
        ("preprocess", {"run": "parts:Nothing"}, "'parts:Nothing' can't be loaded"),
        ("preprocess", {"run": "no_such_package:X"}, "can't be loaded: No module named"),
        ("preprocess", {"run": "Shrink"}, "can't be loaded"),
        ("render", {"run": "parts:WriteFrames"}, "'render' gives nothing"),
    ],
)
def test_a_graph_that_can_not_run_is_refused(plan, name, fields, sentence):
    with pytest.raises(ConfigError) as caught:
        changed(plan, name, **fields).check()
    assert sentence in str(caught.value)


def test_two_processes_of_one_name_are_refused(plan):
    twice = Plan(cameras=plan.cameras, policy=plan.policy, processes=plan.processes * 2)
    with pytest.raises(ConfigError, match="two processes have the name"):
        twice.check()


def test_a_process_survives_json(plan):
    for process in plan.processes:
        text = json.dumps(dataclasses.asdict(process))
        assert ProcessSpec.from_json(json.loads(text)) == process


def test_types_are_read_from_annotations():
    assert [kind.__name__ for kind in signature("parts:Shrink")[0]] == ["Frame"]
    assert signature("parts:Shrink")[1].__name__ == "Tensor"
    assert signature("parts:WriteResults")[1] is None
    assert signature("parts:Model")[1].__name__ == "Output"
    assert load("parts:Shrink").__name__ == "Shrink"


def test_the_text_names_every_process_and_edge(plan):
    text = plan.text()
    for process in plan.processes:
        assert process.name in text
        for out in process.outputs:
            assert f"─► {out.consumer}" in text
