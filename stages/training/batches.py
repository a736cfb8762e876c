"""The order of the pictures and the batches made of them: functions of the seed, never of a history.

Nothing here has a state worth saving: which pictures batch n of epoch e holds, and how they are
varied, follow from (seed, e, n). So a run that is killed at any moment goes on exactly, with any
number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.errors import DataError
from stages.training.datasets import DataSet, Sample, read_image
from stages.training.transforms import Augment, Boxed

Batch = tuple[list[Tensor], list[dict[str, Tensor]], list[int]]
"""Images uint8 (3, H, W), targets (`boxes` (N, 4) canvas px, `labels` 0-based), indices of samples."""
Key = tuple[int, int]  # epoch, index of the sample


def seed_of(*numbers: int) -> int:
    """A well mixed seed, 0..2**32 - 1, of any non-negative numbers (SeedSequence, O'Neill 2015)."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def order(
    count: int, epoch: int, seed: int, weights: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.int64]:
    """The indices 0..count-1 in the order of this epoch; with weights, drawn with replacement."""
    rng = np.random.default_rng([seed, epoch])
    if weights is None:
        return rng.permutation(count)
    return rng.choice(count, size=count, p=weights / weights.sum())


def balance(samples: Sequence[Sample], classes: int) -> npt.NDArray[np.float64]:
    """Weight of each picture so that rare classes are seen more often; (len(samples),), > 0.

    A picture counts as its rarest class, a class as 1/√(share of pictures that hold it): the square
    root of LVIS's repeat factors (Gupta et al. 2019), which lifts rare classes without drowning the rest.
    """
    holds = np.zeros((len(samples), classes), bool)
    for row, sample in zip(holds, samples, strict=True):
        row[sample.labels] = True
    share = np.maximum(holds.mean(axis=0), 1 / len(samples))  # (classes,)
    factor = np.where(holds, 1 / np.sqrt(share), 1.0)
    weights: npt.NDArray[np.float64] = factor.max(axis=1)
    return weights


class Steps:
    """The batches of one epoch as lists of keys: a batch sampler for a DataLoader.

    Every batch is full: the last one is filled up from the epoch's beginning. With several ranks each
    takes its share of the same global batch, so the sum over ranks does not depend on their number.
    """

    def __init__(
        self,
        count: int,
        batch: int,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        weights: npt.NDArray[np.float64] | None = None,
    ) -> None:
        """batch: pictures of one step over all ranks together."""
        self.count, self.batch, self.seed = count, batch, seed
        self.rank, self.world, self.weights = rank, world, weights
        self.epoch = 0
        self.first = 0  # steps of this epoch that are done already

    def __len__(self) -> int:
        """Steps of a whole epoch."""
        return math.ceil(self.count / self.batch)

    def __iter__(self) -> Iterator[list[Key]]:
        indices = order(self.count, self.epoch, self.seed, self.weights)
        for step in range(self.first, len(self)):
            chosen = np.take(
                indices, range(step * self.batch, (step + 1) * self.batch), mode="wrap"
            )
            yield [(self.epoch, int(i)) for i in chosen[self.rank :: self.world]]


class Pictures(Dataset[tuple[Tensor, Tensor, Tensor, int]]):
    """The augmented pictures of a data set by (epoch, index)."""

    def __init__(
        self,
        data: DataSet,
        augment: Augment,
        *,
        seed: int,
        cache_bytes: int,
        read: Callable[[Sample], npt.NDArray[np.uint8]] = read_image,
        plain_from: float = math.inf,
    ) -> None:
        """cache_bytes: decoded pictures kept in memory by each worker; read: decodes one, BGR.

        plain_from: the epoch from which on mosaic, zoom-out and scale jitter are off, so that the
        run ends on pictures as they will come (YOLOX, Ge et al. 2021).
        """
        self.samples = data.samples
        self.augment = augment
        self.plain = augment.plain()
        self.plain_from = plain_from
        self.seed = seed
        self.cache_bytes = cache_bytes
        self.read = read
        self.cache: dict[int, Boxed] = {}

    def __len__(self) -> int:
        """Pictures of the data set."""
        return len(self.samples)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor, Tensor, int]:
        """Image, boxes, labels as `Augment` gives them, and the index."""
        epoch, index = key
        seed = seed_of(self.seed, epoch, index)
        augment = self.plain if epoch >= self.plain_from else self.augment
        return (*augment(self._load, index, len(self.samples), seed), index)

    def _load(self, index: int) -> Boxed:
        if index in self.cache:
            return self.cache[index]
        sample = self.samples[index]
        image = self.read(sample)
        learn = ~(sample.crowd | sample.difficult)  # a crowd is no example of an object
        xyxy = sample.xyxy[learn]
        # twice the canvas is as much detail as a crop can show; 4K pictures would cost 50 ms each
        limit = 2 * max(self.augment.canvas.width, self.augment.canvas.height)
        shrink = limit / max(image.shape[:2])
        if shrink < 1:
            width, height = round(image.shape[1] * shrink), round(image.shape[0] * shrink)
            ratio = np.array([width / image.shape[1], height / image.shape[0]] * 2, np.float32)
            small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            image = small.astype(np.uint8, copy=False)
            xyxy = xyxy * ratio
        loaded = (image, xyxy, sample.labels[learn])
        if self.cache_bytes >= image.nbytes:
            self.cache[index] = loaded
            self.cache_bytes -= image.nbytes
        return loaded


def collate(items: Sequence[tuple[Tensor, Tensor, Tensor, int]]) -> Batch:
    """Pictures of one step, as the models take them."""
    images = [item[0] for item in items]
    targets = [{"boxes": item[1], "labels": item[2]} for item in items]
    return images, targets, [item[3] for item in items]


def loader(pictures: Pictures, steps: Steps, workers: int) -> DataLoader[Any]:
    """`Batch`es in the order of `steps`; workers: processes that decode and augment, 0: this one."""
    return DataLoader(
        pictures,
        batch_sampler=steps,
        num_workers=workers,
        # forked children inherit the locks of OpenCV's and OpenMP's threads, and hang
        multiprocessing_context="forkserver" if workers else None,
        collate_fn=collate,
        worker_init_fn=_one_thread,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def in_one_sentence(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same batches; a picture that cannot be read is told without the worker's traceback."""
    try:
        yield from batches
    except DataError as error:
        # torch puts the traceback of the worker before the text: "…\npipeline.errors.DataError: text"
        text = str(error).rstrip().rpartition(f"{DataError.__name__}: ")[2]
        raise DataError(text) from None


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
