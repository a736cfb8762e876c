"""The order of pictures is a function of the seed; ranks share one batch; rare classes are drawn more."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import tiny_runs
import torch

from pipeline.errors import DataError
from stages.training.batches import Pictures, Steps, balance, in_one_sentence, loader, order
from stages.training.transforms import Augment, AugmentConfig
from stages.training.validation import facts_of


def batches(steps: Steps) -> list[list[int]]:
    return [[index for _, index in keys] for keys in steps]


def joined(lists: Iterable[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


def test_each_picture_once_an_epoch_and_every_batch_full() -> None:
    steps = Steps(10, 4, seed=1)
    found = batches(steps)
    assert [len(b) for b in found] == [4, 4, 4]
    assert sorted(joined(found)[:10]) == list(range(10))
    assert joined(found)[10:] == found[0][:2]
    assert batches(steps) == found
    steps.epoch = 1
    assert batches(steps) != found


def test_fewer_pictures_than_a_batch() -> None:
    [batch] = batches(Steps(3, 8, seed=0))
    assert len(batch) == 8
    assert set(batch) == {0, 1, 2}


def test_an_epoch_goes_on_where_it_stopped() -> None:
    steps = Steps(10, 2, seed=4)
    whole = batches(steps)
    steps.first = 3
    assert batches(steps) == whole[3:]


def test_ranks_share_the_batch_of_one_process() -> None:
    whole = batches(Steps(12, 6, seed=2))
    parts = [batches(Steps(12, 6, seed=2, rank=r, world=3)) for r in range(3)]
    for step, batch in enumerate(whole):
        assert sorted(joined(part[step] for part in parts)) == sorted(batch)


def test_rare_classes_are_drawn_more_often(tmp_path: Path) -> None:
    data = tiny_runs.draw(tmp_path, "train", 10)
    rare = data.samples[3]
    samples = [rare if i == 3 else s for i, s in enumerate(data.samples)]
    for sample in samples:
        sample.labels[:] = 0
    rare.labels[:] = 1
    weights = balance(samples, 2)
    drawn = np.concatenate([order(10, epoch, 0, weights) for epoch in range(200)])
    counts = np.bincount(drawn, minlength=10)
    assert weights.shape == (10,)
    assert counts[3] > 1.5 * np.median(counts)
    assert (counts > 0).all()


def test_workers_change_nothing(tmp_path: Path) -> None:
    data = tiny_runs.draw(tmp_path, "train", 5)
    plan = tiny_runs.plan()
    facts = facts_of(plan.model, plan.resize)
    augment = Augment(AugmentConfig(mosaic=0.5), facts.input, facts.resize)
    pictures = Pictures(data, augment, seed=9, cache_bytes=1 << 20)
    found = [list(loader(pictures, Steps(5, 2, seed=9), workers)) for workers in (0, 1)]
    for (images, targets, indices), (images1, targets1, indices1) in zip(*found, strict=True):
        assert indices == indices1
        assert torch.equal(torch.stack(images), torch.stack(images1))
        for one, other in zip(targets, targets1, strict=True):
            assert torch.equal(one["boxes"], other["boxes"])
            assert torch.equal(one["labels"], other["labels"])


def test_the_last_epochs_are_plain(tmp_path: Path) -> None:
    data = tiny_runs.draw(tmp_path, "train", 4)
    plan = tiny_runs.plan()
    facts = facts_of(plan.model, plan.resize)
    config = AugmentConfig(mosaic=1, flip=0, photometric=0, iou_crop=0, zoom_out=0)
    pictures = Pictures(
        data, Augment(config, facts.input, facts.resize), seed=0, cache_bytes=0, plain_from=3
    )
    plain = Pictures(
        data, Augment(AugmentConfig.off(), facts.input, facts.resize), seed=0, cache_bytes=0
    )
    assert torch.equal(pictures[3, 1][0], plain[3, 1][0])
    assert not torch.equal(pictures[2, 1][0], plain[2, 1][0])


def test_crowds_and_difficult_objects_are_no_examples(tmp_path: Path) -> None:
    data = tiny_runs.draw(tmp_path, "train", 3)
    sample = data.samples[0]
    sample.crowd[0] = True
    plan = tiny_runs.plan()
    facts = facts_of(plan.model, plan.resize)
    augment = Augment(AugmentConfig.off(), facts.input, facts.resize)
    _, boxes, labels, _ = Pictures(data, augment, seed=0, cache_bytes=0)[0, 0]
    assert len(boxes) == len(sample.labels) - 1
    assert labels.tolist() == [1]


def test_a_picture_that_a_worker_cannot_read_is_one_sentence(tmp_path: Path) -> None:
    data = tiny_runs.draw(tmp_path, "train", 2)
    data.samples[0].path.write_bytes(b"gone bad")
    plan = tiny_runs.plan()
    facts = facts_of(plan.model, plan.resize)
    augment = Augment(AugmentConfig.off(), facts.input, facts.resize)
    pictures = Pictures(data, augment, seed=0, cache_bytes=0)
    with pytest.raises(DataError) as raised:
        list(in_one_sentence(loader(pictures, Steps(2, 2, seed=0), workers=1)))
    assert str(raised.value).startswith(f"{data.samples[0].path}: no readable picture")
    assert "\n" not in str(raised.value)
