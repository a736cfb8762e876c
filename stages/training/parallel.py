"""Training in several processes, as `torchrun` starts them; with one process nothing happens here."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.errors import ConfigError


def rank() -> int:
    """Which of the processes this one is; 0 writes the files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def expected_world() -> int:
    """How many processes `torchrun` started, also before `group` is entered."""
    return int(os.environ["WORLD_SIZE"]) if _launched() else 1


def _launched() -> bool:
    return "WORLD_SIZE" in os.environ and "RANK" in os.environ


def barrier() -> None:
    """Wait for all processes."""
    if world() > 1:
        distributed.barrier()


@contextlib.contextmanager
def group(wanted: str = "auto") -> Iterator[torch.device]:
    """The device of this process, for as long as training lasts.

    wanted: auto (a GPU if there is one), cpu, cuda, cuda:N; ConfigError if it is not there.

    Joins the others when `torchrun` started this process (it sets WORLD_SIZE, RANK, LOCAL_RANK and
    MASTER_ADDR): NCCL between GPUs, gloo between CPUs.
    """
    device = _device(wanted, int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not _launched():
        yield device
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    # rank 0 evaluates while the others wait for it
    distributed.init_process_group(backend, timeout=datetime.timedelta(hours=2))
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def _device(wanted: str, local: int) -> torch.device:
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    name, colon, index = wanted.partition(":")
    if name not in ("auto", "cuda") or (colon and not index.isdecimal()):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {wanted!r}")
    if colon and expected_world() > 1:
        raise ConfigError(
            f"device {wanted!r}: with torchrun each process has its own; write 'cuda'"
        )
    number, there = int(index or local), torch.cuda.device_count()
    if number >= there:
        raise ConfigError(
            f"device {wanted!r}: this machine offers {there} CUDA devices; write 'cpu', or 'auto'"
        )
    return torch.device("cuda", number)


def wrap(model: nn.Module) -> nn.Module:
    """The model whose backward pass averages gradients over all processes."""
    if world() == 1:
        return model
    return DistributedDataParallel(model)


def no_sync(network: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Within it gradients only add up locally."""
    if isinstance(network, DistributedDataParallel):
        manager: contextlib.AbstractContextManager[None] = network.no_sync()
        return manager
    return contextlib.nullcontext()


def mean(values: dict[str, float]) -> dict[str, float]:
    """The mean of each value over all processes; the same keys everywhere."""
    if world() == 1:
        return values
    tensor = torch.tensor(list(values.values()), dtype=torch.float64)
    if distributed.get_backend() == "nccl":
        tensor = tensor.float().cuda()
    distributed.all_reduce(tensor)
    return dict(zip(values, (tensor / world()).tolist(), strict=True))


def agree(flag: bool) -> bool:
    """What rank 0 says; waits for all."""
    if world() == 1:
        return flag
    holder = [flag]
    distributed.broadcast_object_list(holder)
    return bool(holder[0])
