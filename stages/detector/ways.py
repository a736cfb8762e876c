"""How a batch goes through a device: the plain way, and every faster one that was found to be right.

The plain way is what everybody writes, `model(batch.to(device))`. Each faster way is a step, tried at the
start on the golden pictures, one after the other; one that fails or finds something else is left out with a
line, and the rest goes on. If anything fails later, the plain way has the last word.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pipeline.errors import DeviceLost, ModelError
from stages.detector import golden
from stages.detector.bundle import Facts
from stages.detector.engine import Array, Image, OutOfMemory, Outputs, first_line

log = logging.getLogger(__name__)

OF_MODEL = ("frozen", "channels_last", "fp16")  # what is done to the model itself, once
STEPS = (*OF_MODEL, "uploads", "downloads", "graphs")  # in the order in which they are tried

Run = Callable[[Any], list[Any]]  # a batch on the device → tensors there
Pictures = Image | Sequence[Image]


class Parts(Protocol):
    """What a way is made of. Anything here may raise whatever the device's library raises."""

    def model(self, steps: Sequence[str]) -> Run:
        """Loaded anew, with those of OF_MODEL that are among the steps."""

    def upload(self, pictures: Pictures) -> Any:
        """The plain one: a batch on the device, waited for."""

    def download(self, tensors: Sequence[Any]) -> list[Array]:
        """The plain one: arrays in memory of their own."""

    def uploads(self) -> Callable[[Pictures], Any]:
        """The one that does not wait, from where pictures lie."""

    def downloads(self) -> Callable[[Sequence[Any]], list[Array]]:
        """The one into page-locked memory."""

    def graphs(self, run: Run) -> Run:
        """The same as `run`, recorded once a batch size; its input is what `uploads` gives."""


class Ways:
    """The way that is taken. Used from one thread."""

    def __init__(
        self, parts: Parts, split: Callable[[list[Array], int], list[Outputs]], max_batch: int
    ) -> None:
        """Takes the plain way. split: arrays of a batch of n, and n → those of each picture."""
        self._parts = parts
        self._split = split
        self.max_batch = max_batch
        self.taken: tuple[str, ...] = ()
        self._take(())

    def climb(self, steps: Sequence[str], facts: Facts, where: str) -> None:
        """Take those of the steps that work, and find what the plain way finds.

        Raises what the plain way raises.
        """
        trial = _Trial(self)
        record = golden.record(facts, trial)
        found = [*record["pattern"], record["picture"]]
        wanted = dataclasses.replace(facts, golden=record) if all(found) else None
        for step in steps:
            before = self.taken
            try:
                self._take((*before, step))
                for _ in range(2):  # a second batch shows memory that is used again too early
                    if wanted is None:  # a threshold inside hides all: that it runs can be seen
                        golden.record(facts, trial)
                    else:
                        golden.check(wanted, trial)
            except Exception as error:  # of the driver, of torch, of the model: all mean the same
                log.warning("%s: without '%s': %s", where, step, first_line(error))
                self._take(before)

    def infer(self, pictures: Pictures) -> list[Outputs]:
        """Blocks until it is done; the results are valid until the next call.

        Raises what the plain way raises, if that fails, too.
        """
        try:
            return self.strictly(pictures)
        except (OutOfMemory, DeviceLost, ModelError):
            raise
        except Exception as error:
            if not self.taken or _is_memory(error):
                raise
            lost = ", ".join(self.taken)
            log.warning("%s; goes on the plain way, without %s", first_line(error), lost)
            self._take(())
            return self.strictly(pictures)

    def strictly(self, pictures: Pictures) -> list[Outputs]:
        """The way that is taken, and no other: raises what goes wrong there."""
        arrays = self._download(self._run(self._upload(pictures)))
        return self._split(arrays, len(pictures))

    def _take(self, steps: tuple[str, ...]) -> None:
        """Change to these steps, or stay as it was and raise."""
        of_model = tuple(step for step in steps if step in OF_MODEL)
        parts, model = self._parts, getattr(self, "_model", None)
        if model is None or model[0] != of_model:
            model = (of_model, parts.model(of_model))
        upload = parts.uploads() if "uploads" in steps else parts.upload
        download = parts.downloads() if "downloads" in steps else parts.download
        run = parts.graphs(model[1]) if "graphs" in steps else model[1]
        self._model, self._upload, self._run, self._download = model, upload, run, download
        self.taken = steps


class _Trial:
    """The way that is taken, as the golden test wants to see it."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways

    @property
    def precision(self) -> str:
        return "fp16" if "fp16" in self._ways.taken else "fp32"

    def infer(self, batch: Image) -> list[Outputs]:
        n, found = self._ways.max_batch, []
        for start in range(0, len(batch), n):
            part = self._ways.strictly(batch[start : start + n])
            found += [tuple(array.copy() for array in arrays) for arrays in part]
        return found


def _is_memory(error: Exception) -> bool:
    """A batch that is too large is nobody's fault; a smaller one comes next."""
    return "out of memory" in str(error) or "can't allocate memory" in str(error)
