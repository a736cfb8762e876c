"""The loop: schedule, freezing, accumulation, and the sentences when something goes wrong."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, DataError
from stages.training import checkpoint
from stages.training.batches import Batch
from stages.training.models import build
from stages.training.runs import train
from stages.training.train import (
    TrainConfig,
    dtype_of,
    freeze,
    lr_factor,
    new_state,
    split,
    train_one_epoch,
)
from stages.training.transforms import AugmentConfig

CPU = torch.device("cpu")


class Line(nn.Module):
    """A model with the interface of a detector: its loss is how far `w` is from the mean pixel."""

    def __init__(self, limit: int = 99) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, 1))
        self.limit = limit

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        if len(images) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return {
            "distance": torch.stack([(self.w - x.mean()).square().sum() for x in images]).mean()
        }


def batch_of(values: list[int]) -> Batch:
    images = [torch.full((3, 4, 4), value, dtype=torch.uint8) for value in values]
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return images, [dict(empty) for _ in values], list(range(len(values)))


def run(model: nn.Module, batches: list[Batch], **changes: Any) -> Any:
    plain = {"ema": 0.0, "schedule": "constant", "warmup_steps": 0, "lr": 0.01}
    config = TrainConfig(**{**plain, **changes}).settled(1, "")
    state = new_state(model, config, CPU)
    train_one_epoch(
        state, batches, config, total=len(batches), device=CPU, label_offset=0,
        name_of=lambda i: f"{i}.jpg",
    )  # fmt: skip
    return state


def test_schedule() -> None:
    cosine = TrainConfig(warmup_steps=10)
    factors = [lr_factor(step, 1000, cosine) for step in range(1000)]
    assert factors[0] == pytest.approx(1 / 11)
    assert max(factors) == factors[10] == 1.0
    assert factors[505] == pytest.approx(0.5)
    assert all(0 < f <= 1 for f in factors)
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))
    step = TrainConfig(schedule="step", warmup_steps=0)
    assert [lr_factor(s, 100, step) for s in (0, 69, 70, 89, 90)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01]
    )
    assert lr_factor(0, 1, cosine) == 1.0  # a run of one step has no warm-up


def test_what_is_left_open_suits_the_number_of_pictures() -> None:
    small, large = TrainConfig().settled(70, "ssd"), TrainConfig().settled(50_000, "ssd")
    assert (small.epochs, small.evaluate_every) == (150, 5)
    assert (large.epochs, large.evaluate_every) == (12, 1)
    chosen = TrainConfig(epochs=7, evaluate_every=7).settled(70, "ssd")
    assert (chosen.epochs, chosen.evaluate_every) == (7, 7)
    assert small.settled(70, "ssd") == small


def test_what_is_left_open_suits_the_architecture() -> None:
    def recipe(config: TrainConfig, architecture: str) -> tuple[str, float, float | None]:
        settled = config.settled(70, architecture)
        return settled.optimizer, settled.lr, settled.weight_decay

    assert recipe(TrainConfig(), "ssdlite320_mobilenet_v3_large") == ("sgd", 0.01, 1e-4)
    assert recipe(TrainConfig(), "fcos_tiny") == ("adamw", 0.002, 0.02)
    assert recipe(TrainConfig(optimizer="sgd", lr=0.3), "fcos_tiny") == ("sgd", 0.3, 1e-4)
    assert recipe(TrainConfig(weight_decay=0.0), "fcos_tiny") == ("adamw", 0.002, 0.0)


def test_bf16_is_chosen_where_the_processor_computes_it() -> None:
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    known = set(flags[1].split()) if flags else set()  # other processors than x86 name "Features"
    wanted = torch.bfloat16 if known & {"avx512_bf16", "amx_bf16"} else torch.float32
    assert dtype_of(TrainConfig(), CPU) is wanted
    assert dtype_of(TrainConfig(precision="fp32"), CPU) is torch.float32


def test_accumulation_gives_the_same_weights() -> None:
    batches = [batch_of([0, 50, 100, 200, 255]) for _ in range(4)]
    whole, parts = Line(), Line()
    run(whole, batches, accumulate=1)
    state = run(parts, batches, accumulate=2)
    torch.testing.assert_close(whole.w, parts.w)
    assert whole.w.item() != 0
    assert state.step == 4
    assert [len(part[0]) for part in split(*batches[0][:2], 2)] == [2, 3]
    assert [len(part[0]) for part in split(*batches[0][:2], 9)] == [1] * 5


def test_clipping_bounds_the_step() -> None:
    model = Line()
    run(model, [batch_of([255])], clip_norm=0.01, lr=1.0, momentum=0.0, weight_decay=0.0)
    assert abs(model.w.item()) <= 0.01 + 1e-6


def test_a_loss_that_is_not_finite_names_the_pictures() -> None:
    model = Line()
    with torch.no_grad():
        model.w.fill_(math.nan)
    with pytest.raises(ConfigError, match=r"step 0: distance is nan.*held 0\.jpg, 1\.jpg"):
        run(model, [batch_of([1, 2])])


def test_a_batch_that_does_not_fit_into_memory_is_computed_in_parts(caplog: Any) -> None:
    batches = [batch_of([10 * i for i in range(8)]), batch_of([5] * 8)]
    small, large = Line(limit=3), Line()
    state = run(small, batches)
    run(large, batches)
    assert state.parts == 4
    torch.testing.assert_close(small.w, large.w)
    assert "in 4 parts from now on" in caplog.text
    with pytest.raises(ConfigError, match="1 pictures at a time do not fit into memory"):
        run(Line(limit=0), [batch_of([1] * 2)])


def test_freezing() -> None:
    model = build(tiny_runs.plan().model)
    freeze(model, ["backbone.body"])
    assert not any(p.requires_grad for p in model.backbone.body.parameters())
    assert all(p.requires_grad for p in model.head.parameters())
    with pytest.raises(ConfigError, match="freeze 'bakbone' matches no parameter; the model has"):
        freeze(model, ["bakbone"])
    with pytest.raises(ConfigError, match="nothing is left to learn"):
        new_state(model, TrainConfig(freeze=("",)).settled(1, ""), CPU)


def test_frozen_norms_keep_their_statistics(tmp_path: Path) -> None:
    data = tiny_runs.draw(tmp_path / "data", "train", 3)
    outcome = train(
        tiny_runs.plan(epochs=1, freeze=("backbone.body.0",)), data, data, tmp_path / "run"
    )
    weights = checkpoint.load(outcome.folder / "last.pt")["model"]
    frozen, free = (weights[f"backbone.body.{i}.1.running_mean"] for i in (0, 1))
    assert (frozen == 0).all()  # as they began
    assert (free != 0).any()


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", -1), ("batch", 0), ("lr", math.nan), ("ema", 1.0), ("accumulate", 0)],
)
def test_values_that_cannot_be(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{field}"):
        TrainConfig(**{field: value})


def test_two_pictures_are_learnt_by_heart(tmp_path: Path) -> None:
    data = tiny_runs.draw(tmp_path / "data", "train", 3)
    plan = tiny_runs.plan(
        epochs=40, batch=3, lr=4e-3, evaluate_every=40, augment=AugmentConfig.off(), warmup_steps=5
    )
    outcome = train(plan, data, data, tmp_path / "run")
    assert outcome.epochs == 40
    assert outcome.best["map_50"] > 0.9
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 41))
    assert sum(lines[-1]["losses"].values()) < 0.5 * sum(lines[0]["losses"].values())
    assert (tmp_path / "run/augmented.jpg").stat().st_size > 0
    best = checkpoint.load(tmp_path / "run/best.pt")
    assert best["config"] == plan.model.to_json()
    assert best["metrics"]["map_50"] == outcome.best["map_50"]


def test_it_stops_when_nothing_gets_better(tmp_path: Path) -> None:
    data = tiny_runs.draw(tmp_path / "data", "train", 3)
    slow = tiny_runs.plan(epochs=50, lr=1e-9, ema=0.0, patience=2, evaluate_every=1)
    empty = tiny_runs.draw(tmp_path / "data", "val", 1)  # nothing to find: AP is -1, never better
    outcome = train(slow, data, empty, tmp_path / "run")
    assert outcome.epochs <= 4


def test_an_empty_split_and_other_classes(tmp_path: Path) -> None:
    data = tiny_runs.draw(tmp_path / "data", "train", 3)
    nothing = tiny_runs.draw(tmp_path / "data", "val", 1)
    with pytest.raises(DataError, match="has a box to learn from"):
        train(tiny_runs.plan(), nothing, data, tmp_path / "run")
    with pytest.raises(DataError, match="validation split holds no picture"):
        train(tiny_runs.plan(), data, dataclasses.replace(data, samples=()), tmp_path / "run")
    swapped = dataclasses.replace(data, classes=("bar", "disc"))
    with pytest.raises(DataError, match=r"wanted the classes disc, bar .*, got bar, disc"):
        train(tiny_runs.plan(), swapped, swapped, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_large_canvas_is_learnt_in_parts_and_validation_costs_its_share():
    hd = {"canvas_wh_px": (1280, 704), "validated": 40}
    chosen = TrainConfig().settled(200, "fcos_tiny", **hd)
    assert (chosen.epochs, chosen.part_px, chosen.evaluate_every) == (60, 320, 6)
    assert (chosen.augment.mosaic, chosen.augment.zoom_out) == (
        0,
        0,
    )  # they would shrink small objects
    assert chosen.settled(200, "fcos_tiny", **hd) == chosen
    assert TrainConfig(part_px=0).settled(200, "fcos_tiny", **hd).part_px == 0
    for architecture in (
        "ssd300_vgg16",
        "ssdlite",
        "rtdetr_v2_r18",
    ):  # know their place in the canvas
        assert TrainConfig().settled(200, architecture, **hd).part_px == 0
    small = TrainConfig().settled(200, "fcos_tiny", canvas_wh_px=(416, 224), validated=40)
    assert (small.part_px, small.evaluate_every) == (0, 2)
    assert (small.augment.mosaic, small.augment.zoom_out) == (0.5, 0.3)
    many = TrainConfig().settled(200, "fcos_tiny", canvas_wh_px=(416, 224), validated=4000)
    assert many.evaluate_every == 15  # four times, however much it costs
    for bad in (32, 100, -32):
        with pytest.raises(ConfigError, match="part_px must be 0, or 64 or more and divide by 32"):
            TrainConfig(part_px=bad)
