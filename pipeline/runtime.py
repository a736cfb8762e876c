"""What a stage may ask of the process around it, and the same in memory for a test.

The other half of the contract in `stage.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.messages import copies, lay_out

Array = npt.NDArray[Any]


class CameraState(NamedTuple):
    """How it is with a camera, whatever becomes of its frames."""

    is_up: bool = True
    cause: str = ""  # of errors.CAUSES, why it is not
    frames: int = 0  # that came of it so far
    last_frame_ns: int = 0  # monotonic; 0: none came yet


class Fates(NamedTuple):
    """Of the frames from one id to another."""

    below: int  # the first that has not met its fate, or has not come
    served: int = 0  # frames
    dropped: Mapping[str, int] = MappingProxyType({})  # reason → frames


class Runtime(Protocol):
    """What the process around a stage offers to it, from `setup` on, in the thread that calls the stage.

    Nothing here waits. A camera that is not in `cameras`, and a name that the class did not declare, raises
    KeyError: a bug of the stage, which ends its process. Nothing else is raised but where it is said.
    """

    @property
    def cameras(self) -> tuple[str, ...]:
        """Whose frames come here now."""

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Memory for one array of a result: a view of a shared slot, so that nothing is copied later.

        shape: as numpy has it. Uninitialised, C-contiguous. To be filled and returned inside a message by
        the same call of `process`; afterwards it belongs to the readers. Raises FrameError if the slot is
        too small.
        """

    def pack(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        """Copies of all arrays of a result (at least one) in one shared slot, as `empty` has it for one.

        Each begins on a cache line, ALIGN_BYTES, of its own. Raises FrameError if the slot is too small.
        """

    def original(self, path: str) -> str:
        """Where to open a file that the class named in `files`: it is there as it was at the start.

        Any other path is returned as it is.
        """

    def alive(self) -> None:
        """Say in `setup` that it goes on, some times a minute, while it waits for others.

        A setup may take as long as it works: one that for two minutes neither uses a core nor says this
        counts as hung, and its process is started again.
        """

    def count(self, name: str, camera: str, n: int = 1) -> None:
        """Add n >= 0 to one of the counters that the class declared in `counters`."""

    def counted(self, name: str, camera: str) -> int:
        """What one of the counters of this stage has come to, in this process and those before it."""

    def camera(self, camera: str) -> CameraState:
        """How it is with a camera now."""

    def measure(self, name: str, seconds: float) -> None:
        """Put a duration in seconds into one of the histograms that the class declared."""

    def fates(self, camera: str, since: int) -> Fates:
        """What became of a camera's frames on their way to detection, from the id `since` on.

        Of those that are more than some thousands of frames old nothing is known any more.
        """

    def counted_in_all(self, name: str) -> int:
        """The same for all cameras of the run together, those among them that have left."""

    def settle(self, camera: str, frames: int, *, taken: bool) -> None:
        """Say what became of so many frames: the oldest that `process` was given and are not settled.

        For a sink with `settles`, which has a frame later than `process` returns; to be called in
        `process`, `idle`, `remove` and `close`. A frame that `process` raised for is none of them.
        taken: they are where they were to go; else they are lost, as by a FrameError.
        """

    def quit(self) -> None:
        """Ask for an orderly end of the whole run (a viewer pressed `q`); items may still come."""


class LocalRuntime:
    """The runtime of a unit test: plain memory, a Counter, and `quit` that is remembered.

    Parameters and units are those of Runtime (shape, n, seconds, since, frames). Nothing here waits, and it
    raises nothing: it takes any camera and any name.
    """

    def __init__(self, cameras: Sequence[str] = ("test",)) -> None:
        self.cameras = tuple(cameras)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.durations: dict[str, list[float]] = {}
        self.wants_quit = False
        self.settled: Counter[tuple[str, bool]] = Counter()
        self.states: dict[str, CameraState] = {}

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Fresh memory."""
        return np.empty(shape, dtype)

    def pack(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        """Copies in one piece of it."""
        specs = lay_out(arrays)
        buffer = self.empty((specs[-1].end,), np.uint8)
        return copies(arrays, specs, buffer)

    def original(self, path: str) -> str:
        """The file itself."""
        return path

    def alive(self) -> None:
        """Nothing: nobody watches."""

    def count(self, name: str, camera: str, n: int = 1) -> None:
        """Kept in `counts[name, camera]`."""
        self.counts[name, camera] += n

    def counted(self, name: str, camera: str) -> int:
        """From `counts`."""
        return self.counts[name, camera]

    def camera(self, camera: str) -> CameraState:
        """From `states`; one that is not there is up."""
        return self.states.get(camera, CameraState())

    def measure(self, name: str, seconds: float) -> None:
        """Kept in `durations[name]`."""
        self.durations.setdefault(name, []).append(seconds)

    def fates(self, camera: str, since: int) -> Fates:
        """From `states`: all were served."""
        frames = self.states.get(camera, CameraState()).frames
        return Fates(max(since, frames), max(0, frames - since))

    def counted_in_all(self, name: str) -> int:
        """From `counts`."""
        return sum(n for (one, _), n in self.counts.items() if one == name)

    def settle(self, camera: str, frames: int, *, taken: bool) -> None:
        """Kept in `settled[camera, taken]`."""
        self.settled[camera, taken] += frames

    def quit(self) -> None:
        """Kept in `wants_quit`."""
        self.wants_quit = True
