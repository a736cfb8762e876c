"""The faster ways to a device: each is taken where it works, and left out with a line where it does not."""

import logging

import numpy as np
import pytest
import tiny_models
import torch

from stages.detector import cuda, golden
from stages.detector.bundle import Facts, InputFacts
from stages.detector.engines import load
from stages.detector.outputs import per_picture
from stages.detector.ways import OF_MODEL, STEPS, Ways

FACTS = Facts(
    name="m", architecture="a", classes=("cat", "dog"), layout="candidates",
    input=InputFacts(width=64, height=32), batch_sizes=(1, 2, 4),
)  # fmt: skip


class Device:
    """A device in numpy: one box a picture, whose score is how bright it is.

    fails: steps that raise when they are taken; breaks: those that raise when they run; differs: those
    that find something else.
    """

    def __init__(self, fails=(), breaks=(), differs=()):
        self.fails, self.breaks, self.differs = fails, breaks, differs
        self.dead = False  # from now on every step but the plain ones fails
        self.lost = False  # … and those, too
        self.loaded = []

    def _step(self, name):
        if name in self.fails:
            raise RuntimeError(f"CUDA error: {name} is not supported\nCompile with DSA")

        def work(value):
            if name in self.breaks or self.dead:
                raise RuntimeError(f"CUDA error: {name}: an illegal memory access")
            return value

        return work

    def _alive(self):
        if self.lost:
            raise RuntimeError("CUDA error: unspecified launch failure")

    def model(self, steps):
        self._alive()
        self.loaded.append(tuple(steps))
        works = [self._step(name) for name in steps]

        def run(batch):
            self._alive()
            for work in works:
                work(batch)
            n, h, w = batch.shape[:3]
            boxes = np.tile(np.float32([[[0, 0, w / 2, h / 2]]]), (n, 1, 1))
            scores = batch.reshape(n, -1).mean(axis=1, dtype=np.float32)[:, None] / 255
            wrong = len(set(steps) & set(self.differs))
            return [boxes + 20 * wrong, scores, np.ones((n, 1), np.int64)]

        return run

    def upload(self, pictures):
        self._alive()
        return np.stack(list(pictures))

    def download(self, tensors):
        self._alive()
        return list(tensors)

    def uploads(self):
        work = self._step("uploads")
        return lambda pictures: work(np.stack(list(pictures)) ^ (255 * ("uploads" in self.differs)))

    def downloads(self):
        work = self._step("downloads")
        return lambda tensors: work([tensors[0] + 20 * ("downloads" in self.differs), *tensors[1:]])

    def graphs(self, run):
        work = self._step("graphs")
        return lambda batch: [t + 20 * ("graphs" in self.differs) for t in work(run(batch))]


def ways(device, max_batch=4):
    return Ways(device, lambda arrays, n: per_picture(arrays, n, FACTS, "m"), max_batch)


def finds(way):
    grey = np.full((2, 32, 64, 3), 102, np.uint8)
    return [arrays[1].tolist() for arrays in way.infer(grey)] == [[pytest.approx(0.4)]] * 2


def test_all_that_work_are_taken(caplog):
    way = ways(Device())
    way.climb(STEPS, FACTS, "cuda:0")
    assert way.taken == STEPS
    assert finds(way)
    assert not caplog.records


@pytest.mark.parametrize("how", ["fails", "breaks", "differs"])
@pytest.mark.parametrize("step", STEPS)
def test_one_that_does_not_is_left_out_with_a_line(step, how, caplog):
    way = ways(Device(**{how: (step,)}))
    way.climb(STEPS, FACTS, "cuda:0")
    assert way.taken == tuple(name for name in STEPS if name != step)
    assert finds(way)
    [record] = caplog.records
    assert record.getMessage().startswith(f"cuda:0: without '{step}': ")
    assert "\n" not in record.getMessage()
    words = {"fails": "not supported", "breaks": "illegal", "differs": "fails its golden test"}
    assert words[how] in record.getMessage()


def test_none_that_works_leaves_the_plain_way(caplog):
    way = ways(Device(fails=STEPS))
    way.climb(STEPS, FACTS, "cuda:0")
    assert (way.taken, len(caplog.records)) == ((), len(STEPS))
    assert finds(way)


def test_a_model_for_one_picture_is_tried_with_one():
    device = Device()
    way = ways(device, max_batch=1)
    way.climb(STEPS, FACTS, "cuda:0")
    assert way.taken == STEPS


def test_what_fails_later_ends_on_the_plain_way(caplog):
    device = Device()
    way = ways(device)
    way.climb(STEPS, FACTS, "cuda:0")
    device.dead = True
    assert finds(way)
    assert way.taken == ()
    assert "goes on the plain way, without frozen, channels_last, fp16" in caplog.text
    caplog.clear()
    assert finds(way)
    assert not caplog.records


def test_a_device_that_is_lost_is_lost():
    device = Device()
    way = ways(device)
    way.climb(STEPS, FACTS, "cuda:0")
    device.dead = device.lost = True
    with pytest.raises(RuntimeError, match="unspecified launch failure"):
        finds(way)


def test_a_batch_that_is_too_large_changes_nothing():
    device = Device()
    way = ways(device)
    way.climb(STEPS, FACTS, "cuda:0")

    def full(pictures):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    way._upload = full
    with pytest.raises(RuntimeError, match="out of memory"):
        finds(way)
    assert way.taken == STEPS


def test_a_model_that_finds_nothing_takes_what_runs():
    class Blind(Device):
        def download(self, tensors):
            return [tensors[0], 0 * tensors[1], tensors[2]]

    way = ways(Blind(fails=("graphs",)))
    way.climb([step for step in STEPS if step != "downloads"], FACTS, "cuda:0")
    assert way.taken == (*OF_MODEL, "uploads")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_parts_for_cuda_on_a_host_without(tmp_path, caplog):
    """Page-locked memory and graphs fail here for real; what is done to the model works everywhere."""
    path = tiny_models.save(tiny_models.Candidates(), tmp_path / "m.pt")
    engine = load(path, FACTS, device="cpu")
    parts = cuda.Parts(engine, torch.device("cpu"), (4, 32, 64, 3), "fp32")
    way = Ways(parts, engine._split, 4)
    with torch.inference_mode():
        way.climb(STEPS, FACTS, "cpu")
        assert way.taken == OF_MODEL
        batch = golden.pattern(3, 32, 64)
        for ours, theirs in zip(way.infer(batch), engine.infer(batch), strict=True):
            assert all(np.allclose(a, b, atol=1e-3) for a, b in zip(ours, theirs, strict=True))
    left_out = [record.getMessage().split("'")[1] for record in caplog.records]
    assert left_out == ["uploads", "downloads", "graphs"]
    assert logging.getLevelName(caplog.records[0].levelno) == "WARNING"
