"""Between a shared slot and a CUDA device: uploads without a copy, results back, graphs.

NOT RUN ON A GPU so far: written after the documentation of CUDA and torch; `benchmarks/gpu.py` is the
first thing to be run on one. So each of these is a step of `ways`, tried at the start and left out where it
does not work.

One batch goes: each picture to its place on the device, uint8 and as it lies, all uploads and kernels on
one stream without a wait; results into page-locked memory; one wait, which lets the core go. While the
device fetches one picture the next is being prepared; the batch before is done by then, since the batcher
hands out a batch only to a worker that asks, so that the pictures in it are the newest.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from stages.detector.engine import Array, Image

log = logging.getLogger(__name__)

Run = Callable[[torch.Tensor], list[torch.Tensor]]

# cudaHostRegisterPortable | cudaHostRegisterReadOnly, which memory needs that is mapped read-only
_PORTABLE_READ_ONLY = 0x01 | 0x08
_IDLE_S = 10.0  # a pool that gave no picture for so long may be one whose writer died
_WARM_UPS = 3  # before a capture, as torch.cuda.graph asks for


def memory_of(picture: Image) -> tuple[Any, int, int] | None:
    """The mapping in which a picture lies: its owner, first address and bytes.

    None for any other memory, which is not worth page-locking and may be gone soon.
    """
    owner: Any = picture
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if not isinstance(owner, mmap.mmap):
        return None
    whole = np.frombuffer(owner, np.uint8)
    return owner, whole.__array_interface__["data"][0], whole.nbytes


class Engine(Protocol):
    """What the parts need of the engine that they serve."""

    precision: str

    def prepared(self, precision: str, *, channels_last: bool, frozen: bool) -> Any:
        """The model, loaded anew, in this precision."""

    def run(self, model: Any, batch: torch.Tensor) -> list[torch.Tensor]:
        """Uint8 (B, H, W, 3) on the device → tensors there."""

    def travelling(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The same in dtypes that a message carries."""


class Parts:
    """What `ways` puts together: see `ways.Parts`."""

    def __init__(
        self, engine: Engine, device: torch.device, shape: tuple[int, ...], precision: str
    ) -> None:
        """shape: (max_batch, H, W, 3); precision: of the plain way, which is no step."""
        self._engine, self._device, self._shape = engine, device, shape
        self._precision = precision
        self._kept: dict[str, Any] = {}  # a step that is taken again goes on with what it has
        self.buffer: Image | None = None  # page-locked: what is written there needs no copy

    def model(self, steps: Sequence[str]) -> Run:
        """See `ways.Parts`."""
        precision = "fp16" if "fp16" in steps else self._precision
        model = self._engine.prepared(
            precision, channels_last="channels_last" in steps, frozen="frozen" in steps
        )
        return lambda batch: self._engine.travelling(self._engine.run(model, batch))

    def upload(self, pictures: Image | Sequence[Image]) -> torch.Tensor:
        """See `ways.Parts`."""
        return torch.from_numpy(np.stack(list(pictures))).to(self._device)

    def download(self, tensors: Sequence[torch.Tensor]) -> list[Array]:
        """See `ways.Parts`."""
        return [tensor.cpu().contiguous().numpy() for tensor in tensors]

    def uploads(self) -> Uploads:
        """See `ways.Parts`."""
        if "uploads" not in self._kept:
            with torch.cuda.device(self._device):
                self._kept["uploads"] = Uploads(self._device, self._shape)
            self.buffer = self._kept["uploads"].buffer
        kept: Uploads = self._kept["uploads"]
        return kept

    def downloads(self) -> Downloads:
        """See `ways.Parts`."""
        if "downloads" not in self._kept:
            self._kept["downloads"] = Downloads(self._device)
        kept: Downloads = self._kept["downloads"]
        return kept

    def graphs(self, run: Run) -> Graphs:
        """See `ways.Parts`."""
        return Graphs(run)


class Uploads:
    """Pictures from anywhere, side by side on the device.

    Slots are mapped read-only. Where the driver can register such memory (cudaHostRegister, once for
    each pool), the device reads the slots itself; elsewhere a picture is first copied into a
    page-locked buffer.
    """

    def __init__(self, device: torch.device, shape: tuple[int, ...]) -> None:
        """shape: (max_batch, H, W, 3)."""
        self._device = device
        self._batch = torch.zeros(shape, dtype=torch.uint8, device=device)
        self._locked = torch.zeros(shape, dtype=torch.uint8, pin_memory=True)
        self.buffer: Image = self._locked.numpy()  # what is written here needs no copy
        self._pools: dict[int, tuple[Any, torch.Tensor | None, float]] = {}  # by first address

    def __call__(self, pictures: Image | Sequence[Image]) -> torch.Tensor:
        """Uint8 (n, H, W, 3) on the device, the same memory each time; does not wait."""
        for i, picture in enumerate(pictures):
            source = self._registered(picture)
            if source is None:
                if picture.ctypes.data != self.buffer[i].ctypes.data:
                    np.copyto(self.buffer[i], picture)
                source = self._locked[i]
            self._batch[i].copy_(source, non_blocking=True)
        return self._batch[: len(pictures)]

    def _registered(self, picture: Image) -> torch.Tensor | None:
        """The picture as a tensor that the device can read by itself."""
        memory = memory_of(picture) if picture.flags.c_contiguous else None
        if memory is None:
            return None
        owner, address, n_bytes = memory
        now = time.monotonic()
        if address not in self._pools:
            self._forget_idle(now)
            self._pools[address] = owner, self._register(owner, address, n_bytes), now
        whole = self._pools[address][1]
        self._pools[address] = owner, whole, now
        if whole is None:
            return None
        start = picture.ctypes.data - address
        return whole[start : start + picture.nbytes].view(picture.shape)

    def _register(self, owner: Any, address: int, n_bytes: int) -> torch.Tensor | None:
        cudart: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        error = int(cudart.cudaHostRegister(address, n_bytes, _PORTABLE_READ_ONLY))
        if error:
            log.info("%s: slots cannot be registered (CUDA error %d): copied", self._device, error)
            # a refused call leaves its error behind, and the next launch would report it as its own
            with contextlib.suppress(RuntimeError):
                torch.zeros(1, device=self._device)
            return None
        with warnings.catch_warnings():  # that a read-only array makes a writable tensor
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(np.frombuffer(owner, np.uint8))

    def _forget_idle(self, now: float) -> None:
        """What is registered stays mapped, so pools of writers that died have to be let go."""
        cudart: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        for address, (_, whole, used) in list(self._pools.items()):
            if now - used > _IDLE_S:
                if whole is not None:
                    cudart.cudaHostUnregister(address)
                del self._pools[address]


class Downloads:
    """Results into page-locked memory, which is kept; the only wait of a batch."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.current_stream(device)
        # it sleeps: a wait that spins would take a core from the decoders
        self._done: Any = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        self._pinned: dict[tuple[Any, ...], torch.Tensor] = {}

    def __call__(self, tensors: Sequence[torch.Tensor]) -> list[Array]:
        """Valid until the next call."""
        host = []
        for index, tensor in enumerate(tensors):
            key = (index, tensor.dtype, *tensor.shape)
            if key not in self._pinned:
                self._pinned[key] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            host.append(self._pinned[key].copy_(tensor, non_blocking=True))
        self._done.record(self._stream)
        self._done.synchronize()
        return [tensor.numpy() for tensor in host]


class Graphs:
    """A recording of all kernels of a batch size: one launch in place of hundreds.

    For small models, whose kernels are shorter than their launches. What a graph reads and writes is
    the same memory each time, so its input has to be what `Uploads` returns. All graphs share their
    memory, so results have to be fetched before the next batch.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._pool = torch.cuda.graph_pool_handle()
        self._recorded: dict[int, tuple[torch.cuda.CUDAGraph, list[torch.Tensor]]] = {}

    def _record(self, batch: torch.Tensor) -> None:
        """Fails for a model that waits for its own results, as an NMS inside does."""
        aside: Any = torch.cuda.Stream(batch.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(batch.device))
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                self._run(batch)
        torch.cuda.current_stream(batch.device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            outputs = self._run(batch)
        self._recorded[len(batch)] = graph, outputs

    def __call__(self, batch: torch.Tensor) -> list[torch.Tensor]:
        """The same as `run`, by a graph that the first batch of a size records: the warm-up's."""
        if len(batch) not in self._recorded:
            self._record(batch)
        graph, outputs = self._recorded[len(batch)]
        graph.replay()
        return outputs
