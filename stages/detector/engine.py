"""The interface of everything that runs a model, what the engines share, and the stub."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError, ManyeyesError
from stages.detector.bundle import Facts, InputFacts

Array = npt.NDArray[Any]
Image = npt.NDArray[np.uint8]
Outputs = tuple[Array, ...]

PRECISIONS = ("auto", "fp32", "fp16", "bf16")
WARM_UP_CALLS = (
    3  # at most: the first two of a batch size may be slow, while TorchScript profiles them
)


class OutOfMemory(ManyeyesError):
    """This batch did not fit into the memory of the device; a smaller one may."""


class Engine(Protocol):
    """A model, loaded. Used from one thread."""

    device: str
    precision: str

    def buffer(self, n: int) -> Image:
        """uint8 (n, H, W, 3): the same memory each time, to be filled before `infer`."""

    def infer(self, batch: Image) -> list[Outputs]:
        """Run the model on uint8 (B, H, W, 3) in the bundle's colour order; blocks until it is done.

        Any B; above the largest batch in parts.
        Returns B tuples of arrays, as `outputs.per_picture` takes them from what the model returns,
        C-contiguous, valid until the next call. Raises OutOfMemory; DeviceLost
        when the device is unusable from now on; ModelError when the model itself fails.
        """

    def infer_pictures(self, pictures: Sequence[Image]) -> list[Outputs]:
        """As `infer`, of pictures uint8 (H, W, 3) wherever they lie; read-only will do."""

    def warm_up(self, sizes: Sequence[int]) -> float:
        """Run each batch size until it is fast; returns the seconds of the slowest batch when warm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to run a model."""

    device: str = "auto"  # auto | cpu | cuda | cuda:N
    precision: str = "auto"  # one of PRECISIONS; auto: fp16 on CUDA, fp32 elsewhere
    threads: int = 1  # of one inference on the CPU; 0: the library's choice
    max_batch: int = 0  # pictures; 0: the largest batch size of the facts
    cuda_graphs: bool = False  # record each batch size once, then replay it


@dataclass(frozen=True, slots=True, kw_only=True)
class StubTiming:
    """The stub takes alpha_ms + beta_ms * B for a batch of B."""

    alpha_ms: float = 1.0
    beta_ms: float = 1.0
    burn: bool = False  # True: keep the core busy meanwhile, False: sleep


class BaseEngine:
    """What the engines share: the batch buffer, batches of any size, and the warm-up."""

    device = "cpu"
    precision = "fp32"

    def __init__(self, facts: Facts, settings: Settings) -> None:
        largest = max(facts.batch_sizes)
        self._facts = facts
        self._max_batch = min(settings.max_batch or largest, largest)
        self._shape = (self._max_batch, facts.input.height, facts.input.width, 3)
        self._buffer: Image = np.zeros(self._shape, np.uint8)

    def buffer(self, n: int) -> Image:
        """See Engine."""
        return self._buffer[:n]

    def infer(self, batch: Image) -> list[Outputs]:
        """See Engine."""
        if len(batch) <= self._max_batch:
            return self._infer(batch)
        parts = [batch[i : i + self._max_batch] for i in range(0, len(batch), self._max_batch)]
        return [tuple(a.copy() for a in arrays) for part in parts for arrays in self._infer(part)]

    def infer_pictures(self, pictures: Sequence[Image]) -> list[Outputs]:
        """See Engine."""
        if len(pictures) > self._max_batch:
            return self.infer(np.stack(pictures))
        batch = self.buffer(len(pictures))
        for place, picture in zip(batch, pictures, strict=True):
            np.copyto(place, picture)
        return self.infer(batch)

    def _infer(self, batch: Image) -> list[Outputs]:
        """Of at most max_batch pictures."""
        raise NotImplementedError

    def warm_up(self, sizes: Sequence[int]) -> float:
        """See Engine."""
        slowest_s = 0.0
        for size in sizes:
            seconds = float("inf")
            for _ in range(WARM_UP_CALLS):
                before, start = seconds, time.perf_counter()
                self.infer(self.buffer(size))
                seconds = time.perf_counter() - start
                if seconds > 0.8 * before:
                    break
            slowest_s = max(slowest_s, seconds)
        return slowest_s


class StubEngine(BaseEngine):
    """No model, layout `candidates`: one box around the pixels whose channels are all above 200.

    Score 0.9, label 0; a picture without such pixels gives one padding row of score 0.
    """

    def __init__(self, facts: Facts, settings: Settings, timing: StubTiming) -> None:
        if facts.layout != "candidates":
            raise ConfigError(
                f"engine 'stub' returns the layout 'candidates', the facts say {facts.layout!r}"
            )
        super().__init__(facts, settings)
        self._timing = timing

    def _infer(self, batch: Image) -> list[Outputs]:
        end = (
            time.perf_counter() + (self._timing.alpha_ms + self._timing.beta_ms * len(batch)) / 1e3
        )
        outputs = [self._box(pixels) for pixels in batch]
        while (left := end - time.perf_counter()) > 0:
            if not self._timing.burn:
                time.sleep(left)
        return outputs

    def _box(self, pixels: Image) -> Outputs:
        bright = pixels.min(axis=2) > 200  # (H, W)
        rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
        found = len(rows) > 0
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if found else (0, 0, 0, 0)
        score = np.array([0.9 if found else 0.0], np.float32)
        return np.array([box], np.float32), score, np.zeros(1, np.int64)


def precision_of(precision: str, *, cuda: bool) -> str:
    """The precision to run in; raises ConfigError for one that is none."""
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    return ("fp16" if cuda else "fp32") if precision == "auto" else precision


def per_channel(facts: InputFacts) -> tuple[int, ...]:
    """The shape in which three numbers fit a batch, or a picture, of the order of the facts."""
    return {"nchw": (1, 3, 1, 1), "nhwc": (1, 1, 1, 3), "chw": (3, 1, 1)}[facts.order]


def first_line(error: Exception) -> str:
    """What a library's error says, without its traceback, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return repr(error)
    return lines[-1 if "Traceback" in str(error) else 0][:300]
