"""The loop: its configuration, what changes while it runs, and one epoch of it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from pipeline.errors import ConfigError
from stages.training import detr, parallel
from stages.training.batches import Batch, seed_of
from stages.training.ema import Ema
from stages.training.transforms import AugmentConfig

log = logging.getLogger("manyeyes")
Losses = dict[str, float]

# 70 pictures of traffic needed about 1300 steps of 8 from scratch, 5000 scenes 1900 of 16
STEPS, EPOCHS = 1500, (12, 150)
RECIPES = {  # learning rate, weight decay; queries: what adamw does with a detector that has some
    "sgd": (0.01, 1e-4), "adamw": (0.002, 0.02), "queries": (2e-4, 1e-4),
}  # fmt: skip
# Where the canvas is large, parts of it are learnt from: a step on 1280x704 px costs nine of 320x320, and
# shows little more of small objects. Not with SSD, whose boxes are shares of the canvas, nor with queries.
PART_PX, LARGE_PX2 = 320, 2 * 640 * 480
BY_PARTS = ("fcos", "retinanet", "fasterrcnn")
JUDGING = 0.2  # of the work of training that validation may cost


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How to train; the defaults suit a few hundred pictures. 0, None, auto: `settled` chooses."""

    epochs: int = 0  # 0: enough for STEPS steps, within EPOCHS
    # pictures of one step of the optimiser, over all ranks and accumulation together
    batch: int = 8
    # parts that a batch is computed in, one after the other; more where memory runs out
    accumulate: int = 1
    # sgd: with Nesterov momentum; auto: sgd for torchvision's detectors, adamw for all others
    optimizer: Literal["auto", "sgd", "adamw"] = "auto"
    lr: float = 0.0  # at the peak; 0: that of RECIPES
    momentum: float = 0.9  # sgd only
    # of matrices and kernels; norms and biases are not decayed; None: that of RECIPES
    weight_decay: float | None = None
    warmup_steps: int = 100  # linear from 0; at most a tenth of the run
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    step_at: tuple[float, ...] = (0.7, 0.9)  # shares of the run where "step" divides lr by 10
    clip_norm: float = 10.0  # largest gradient norm; 0: no clipping
    ema: float = 0.998  # decay of the average of the weights; 0: none
    # auto: bf16 where the processor has instructions for it, else fp16 on a GPU, fp32 on a CPU
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    freeze: tuple[str, ...] = ()  # prefixes of parameter names that stay as they are
    balanced: bool = False  # pictures of rare classes are drawn more often
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    # side of the square part of the canvas that is cut out around an object each time; 0: none, all of it
    part_px: int | None = None
    plain_epochs: float = 0.1  # share of the run, at its end, without mosaic and zoom-out
    evaluate_every: int = 0  # epochs; 0: four to thirty times in a run, by what it costs
    patience: int = 20  # evaluations without a better mAP before the run stops early; 0: never
    save_every: int = 500  # steps between checkpoints inside an epoch
    workers: int = 1  # processes that decode and augment
    cache_mb: int = 1024  # decoded pictures in memory, all workers together
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"epochs": 0, "batch": 1, "accumulate": 1, "lr": 0, "evaluate_every": 0}
        for name, bound in {**least, "save_every": 1}.items():
            value = getattr(self, name)
            if not value >= bound:  # nan, too
                raise ConfigError(f"train: {name} must be at least {bound}, got {value}")
        if self.part_px and (self.part_px < 64 or self.part_px % 32):
            raise ConfigError(
                f"train: part_px must be 0, or 64 or more and divide by 32, got {self.part_px}"
            )
        if not 0 <= self.ema < 1:
            raise ConfigError(f"train: ema is a decay within 0..1, 1 excluded, got {self.ema}")

    def settled(
        self,
        pictures: int,
        architecture: str,
        *,
        canvas_wh_px: tuple[int, int] = (0, 0),
        validated: int = 0,
    ) -> TrainConfig:
        """The same for so many training pictures, with nothing left to choose but the precision.

        That is the machine's: `dtype_of`; but queries are in fp32, as their boxes are sums of small steps.
        validated: pictures of validation.
        """
        fewest, most = EPOCHS
        epochs = self.epochs or min(most, max(fewest, round(STEPS * self.batch / pictures)))
        queries = architecture in detr.NAMED
        suited: Literal["sgd", "adamw"] = (
            "adamw" if queries or architecture == "fcos_tiny" else "sgd"
        )
        optimizer = suited if self.optimizer == "auto" else self.optimizer
        lr, weight_decay = RECIPES["queries" if queries and optimizer == "adamw" else optimizer]
        part_px = self.part_px
        if part_px is None:
            large = math.prod(canvas_wh_px) > LARGE_PX2 and min(canvas_wh_px) > PART_PX
            part_px = PART_PX if large and architecture.startswith(BY_PARTS) else 0
        settled = replace(
            self,
            epochs=epochs,
            optimizer=optimizer,
            lr=self.lr or lr,
            weight_decay=weight_decay if self.weight_decay is None else self.weight_decay,
            part_px=part_px,
            augment=self.augment.settled(parts=bool(part_px)),
            precision="fp32" if queries and self.precision == "auto" else self.precision,
        )
        cost = settled.judging(pictures, canvas_wh_px, validated)  # of all epochs, each time
        times = min(30.0, max(4.0, JUDGING * epochs / cost)) if cost else 30.0
        return replace(settled, evaluate_every=self.evaluate_every or math.ceil(epochs / times))

    def judging(self, pictures: int, canvas_wh_px: tuple[int, int], validated: int) -> float:
        """What one validation costs, in epochs of training: about, by the pixels that are computed.

        Each picture is seen twice, by the weights and their average; a step of training is thrice as much
        as looking. Of a settled configuration.
        """
        canvas = math.prod(canvas_wh_px)
        learnt = self.part_px**2 if self.part_px else canvas
        seen = (2 if self.ema else 1) * validated * canvas
        return seen / (3 * pictures * learnt) if learnt else 0.0


def lr_factor(step: int, total: int, config: TrainConfig) -> float:
    """What the peak learning rate is multiplied with at `step` of `total`: 0..1.

    Linear warm-up (Goyal et al. 2017), then half a cosine down to 0 (Loshchilov & Hutter 2017) or
    steps. A function of the step alone: a schedule has no state.
    """
    warmup = min(config.warmup_steps, total // 10)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, total - warmup)
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if config.schedule == "step":
        return 0.1 ** sum(done >= at for at in config.step_at)
    return 1.0


@dataclass(slots=True)
class State:
    """What changes while a run goes on."""

    model: nn.Module
    network: nn.Module  # the model, or what averages its gradients over all processes
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: Ema | None
    parts: int = 1  # that a batch is computed in; more where memory runs out
    step: int = 0  # steps done in the whole run
    losses: Losses = field(default_factory=dict)  # sums over the steps of this epoch
    best: dict[str, Any] = field(default_factory=dict)  # epoch, map, weights ("ema" or "raw")
    stale: int = 0  # evaluations since the best one

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on as if nothing had happened."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "step": self.step,
            "losses": dict(self.losses),
            "best": dict(self.best),
            "stale": self.stale,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises RuntimeError when the weights are of another architecture."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema and state["ema"]:
            self.ema.load_state_dict(state["ema"])
        self.step, self.stale = state["step"], state["stale"]
        self.losses, self.best = dict(state["losses"]), dict(state["best"])


def new_state(model: nn.Module, config: TrainConfig, device: torch.device) -> State:
    """Optimiser, loss scaler and average for a model that is on its device already.

    config: a settled one.
    """
    freeze(model, config.freeze)
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise ConfigError("train: every parameter is frozen, nothing is left to learn")
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer: torch.optim.Optimizer
    if config.optimizer == "sgd":
        nesterov = config.momentum > 0
        optimizer = torch.optim.SGD(groups, config.lr, momentum=config.momentum, nesterov=nesterov)
    else:
        optimizer = torch.optim.AdamW(groups, config.lr)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype_of(config, device) is torch.float16)
    ema = Ema(model, config.ema) if config.ema else None
    return State(model, parallel.wrap(model), optimizer, scaler, ema, config.accumulate)


def freeze(model: nn.Module, prefixes: Iterable[str]) -> None:
    """Stop learning of all parameters whose names start with a prefix; a prefix must match some."""
    for prefix in prefixes:
        matched = [p for name, p in model.named_parameters() if name.startswith(prefix)]
        if not matched:
            tops = sorted({".".join(name.split(".")[:2]) for name, _ in model.named_parameters()})
            raise ConfigError(
                f"train: freeze {prefix!r} matches no parameter; the model has {', '.join(tops[:12])}"
            )
        for parameter in matched:
            parameter.requires_grad_(False)


def dtype_of(config: TrainConfig, device: torch.device) -> torch.dtype:
    """The precision of the forward pass."""
    if config.precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            return torch.bfloat16 if native else torch.float16
        return torch.bfloat16 if _cpu_has_bf16() else torch.float32
    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if config.precision == "fp16" and device.type == "cpu":
        raise ConfigError("train: precision fp16 needs a GPU; on a CPU use bf16 or fp32")
    return names[config.precision]


def _cpu_has_bf16() -> bool:
    """Whether bf16 is computed and not emulated, which would be slower than fp32 (x86-64 alone)."""
    # not in torch 2.9 yet
    features: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def train_one_epoch(
    state: State,
    batches: Iterable[Batch],
    config: TrainConfig,
    *,
    total: int,
    device: torch.device,
    label_offset: int,
    name_of: Callable[[int], str] = str,
    after_step: Callable[[State, Losses], None] = lambda state, losses: None,
) -> None:
    """The rest of an epoch: one step of the optimiser per batch.

    Args:
        state: is advanced in place; `state.losses` sums the losses of the epoch's steps.
        batches: full batches of this rank, `config.batch` pictures over all ranks together.
        total: steps of the whole run, for the schedule.
        label_offset: what classes grow by for the model.
        name_of: the file name of a sample, for error messages.
        after_step: called after each step with its losses; may save a checkpoint.

    Raises ConfigError when a loss is not finite (names the pictures) or not even one picture fits into
    memory.
    """
    _learning(state.model)
    for images, targets, indices in batches:
        for group in state.optimizer.param_groups:
            group["lr"] = config.lr * lr_factor(state.step, total, config)
        # the sampling of Faster R-CNN and dropout draw from the global generators
        torch.manual_seed(seed_of(config.seed, state.step, parallel.rank()))
        losses = parallel.mean(_backward(state, images, targets, config, device, label_offset))
        if not all(map(math.isfinite, losses.values())):
            raise ConfigError(_not_finite(state.step, losses, [name_of(i) for i in indices]))
        if config.clip_norm:
            state.scaler.unscale_(state.optimizer)
            torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.clip_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        if state.ema:
            state.ema.update(state.model)
        state.step += 1
        for name, value in losses.items():
            state.losses[name] = state.losses.get(name, 0.0) + value
        after_step(state, losses)


def _learning(model: nn.Module) -> None:
    """Training mode, but a batch norm whose weights are frozen keeps its statistics, too."""
    model.train()
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, BatchNorm) and own and not any(p.requires_grad for p in own):
            module.eval()


def _backward(
    state: State,
    images: list[Tensor],
    targets: list[dict[str, Tensor]],
    config: TrainConfig,
    device: torch.device,
    label_offset: int,
) -> Losses:
    """Add the gradients of one batch, in as many parts as memory asks for; returns its losses."""
    while True:
        try:
            return _in_parts(state, images, targets, config, device, label_offset)
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            if state.parts >= len(images) or parallel.world() > 1:  # others wait for gradients
                raise ConfigError(
                    f"train: {math.ceil(len(images) / state.parts)} pictures at a time do not fit into "
                    "memory; use a smaller model, input size or batch"
                ) from error
        # only here is the memory free that the error's traceback held
        state.optimizer.zero_grad(set_to_none=True)
        state.parts = min(2 * state.parts, len(images))
        log.warning("memory is short: batches are computed in %d parts from now on", state.parts)


def _in_parts(
    state: State,
    images: list[Tensor],
    targets: list[dict[str, Tensor]],
    config: TrainConfig,
    device: torch.device,
    label_offset: int,
) -> Losses:
    dtype = dtype_of(config, device)
    parts = split(images, targets, state.parts)
    sums: Losses = {}
    for number, part in enumerate(parts):
        inputs, truth = to_device(*part, device, label_offset)
        share = len(inputs) / len(images)
        last = number == len(parts) - 1
        # ranks add their gradients up once, at the last part
        with contextlib.nullcontext() if last else parallel.no_sync(state.network):
            with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
                losses = state.network(inputs, truth)
            state.scaler.scale(sum(losses.values()) * share).backward()
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach()) * share
    return sums


def split(
    images: list[Tensor], targets: list[dict[str, Tensor]], parts: int
) -> list[tuple[list[Tensor], list[dict[str, Tensor]]]]:
    """A batch in at most `parts` parts whose sizes differ by at most one."""
    parts = min(parts, len(images))
    cuts = [len(images) * i // parts for i in range(parts + 1)]
    return [(images[a:b], targets[a:b]) for a, b in itertools.pairwise(cuts)]


def to_device(
    images: list[Tensor], targets: list[dict[str, Tensor]], device: torch.device, label_offset: int
) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Float pictures 0..1 and targets as the torchvision detectors take them."""
    inputs = list(torch.stack(images).to(device, non_blocking=True).float().div_(255))
    truth = [
        {"boxes": t["boxes"].to(device), "labels": t["labels"].to(device) + label_offset}
        for t in targets
    ]
    return inputs, truth


def _not_finite(step: int, sums: Losses, names: list[str]) -> str:
    bad = ", ".join(
        f"{name} is {value}" for name, value in sums.items() if not math.isfinite(value)
    )
    return (
        f"train: step {step}: {bad}, wanted finite losses; the batch held {', '.join(names)}; look at "
        "these pictures and their boxes, or lower lr"
    )


def _out_of_memory(error: RuntimeError) -> bool:
    # the CPU's allocator raises a plain RuntimeError: "… can't allocate memory: …"
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
