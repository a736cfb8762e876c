"""Inference: a batch of pictures of many cameras through one model."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import ConfigError, DeviceLost, ModelError
from pipeline.messages import ALIGN_BYTES, MAX_ARRAYS, Output, Tensor
from pipeline.stage import BatchStage
from stages.detector import archive, bundle, fastest, layouts
from stages.detector.bundle import Facts
from stages.detector.decode import by_frame
from stages.detector.engine import Engine, Image, Outputs

log = logging.getLogger(__name__)

_ENGINES = (
    "auto",
    "torchscript",
    "onnx",
    "openvino",
    "stub",
)  # as `engines` has them, without torch
_LIBRARY_MIB = {"onnx": 80, "openvino": 170}  # as measured; torch 330


@dataclass(frozen=True)
class InferenceConfig:
    """Which model, and what runs it."""

    model: str = ""  # path of the bundle; not needed by the engine "stub"
    facts: str = ""  # JSON, `Facts.to_json`; empty: as the bundle says
    engine: str = "auto"  # auto: the fastest here | torchscript | onnx | openvino | stub
    fastest: str = ""  # for auto: the engine that was measured to be; empty: found by a trial
    memory: str = ""  # for auto: the file that keeps the trial's answer; empty: tried each time
    device: str = "auto"  # auto | cpu | cuda | cuda:N
    precision: str = "auto"  # auto | fp32 | fp16 | bf16; auto: fp16 on CUDA
    threads: int = 1  # of one inference on the CPU; 0: the library's choice
    max_batch: int = 0  # pictures; 0: the largest batch size of the bundle
    cuda_graphs: bool = False  # for small models on CUDA: one launch a batch
    sha256: str = ""  # 64 hex digits; refuses any other file
    stub_alpha_ms: float = 1.0  # engine "stub": a batch of b takes alpha + beta * b
    stub_beta_ms: float = 1.0
    stub_burn: bool = False  # engine "stub": keep the core busy, and not sleep


def facts_of(config: InferenceConfig) -> Facts:
    """The facts that the configuration states, or those of its bundle. Raises ModelError."""
    if config.facts:
        return Facts.from_json(config.facts)
    return bundle.read_facts(config.model)


class Inference(BatchStage):
    """Owns the device. Restarted as a whole when the device is lost."""

    Config = InferenceConfig
    config: InferenceConfig
    engine = ""  # its name; known after setup, as the device
    device = ""  # and precision, such as "cuda:0 fp16"

    @classmethod
    def check(cls, config: InferenceConfig) -> None:
        """Refuses a missing or foreign model and impossible numbers, without loading any of it."""
        facts = facts_of(config)
        if config.engine not in _ENGINES:
            raise ConfigError(
                f"inference: engine must be one of {', '.join(_ENGINES)}, got {config.engine!r}"
            )
        if config.threads < 0 or config.max_batch < 0:
            raise ConfigError("inference: threads and max_batch must be 0 (automatic) or more")
        if config.engine == "stub":
            return
        runs = bundle.runnable(config.model, facts)
        if config.engine not in ("auto", *runs):
            raise ModelError(
                f"{config.model}: engine {config.engine!r} cannot run it, {' and '.join(runs)} can; "
                "write engine = 'auto'"
            )
        if facts.output_bytes_per_image == 0:
            raise ModelError(
                f"{config.model}: its facts do not say output_bytes_per_image; import it again with "
                "`manyeyes model import`"
            )
        _check_hash(config)

    @classmethod
    def memory_bytes(cls, config: InferenceConfig) -> int:
        """The library, and its weights twice."""
        if config.engine == "stub":
            return 40 << 20
        engine = config.fastest if config.engine == "auto" else config.engine
        if config.engine == "auto" and not engine and config.memory:
            known = fastest.recall(Path(config.memory))
            engine = known["engine"] if known else ""  # a trial loads all of them
        return _LIBRARY_MIB.get(engine, 330) * 2**20 + 2 * os.path.getsize(config.model)

    @classmethod
    def slot_bytes(cls, config: InferenceConfig, frame_bytes: int) -> int:
        """All arrays of one frame, each on its own cache line."""
        facts = facts_of(config)
        size = facts.resize.pictures * facts.output_bytes_per_image
        return max(size, 64) + MAX_ARRAYS * ALIGN_BYTES

    @classmethod
    def files(cls, config: InferenceConfig) -> tuple[str, ...]:
        """The model's."""
        return () if config.engine == "stub" else (config.model,)

    def setup(self) -> None:
        """Loads the model, runs its golden test, warms up each batch size. Takes seconds, or minutes."""
        from stages.detector import engines, golden

        # one file is hashed, read and loaded, and it is the one that the run began with
        self.config = replace(self.config, model=self.runtime.original(self.config.model))
        config = self.config
        _check_hash(config)
        self._out_of_memory: type[Exception] = engines.OutOfMemory
        self._facts = facts_of(config)
        self._model_id = bundle.model_id(config.model) if config.engine != "stub" else "stub"
        largest = max(self._facts.batch_sizes)
        self._pictures = self._facts.resize.pictures  # of one item
        self._limit = min(config.max_batch or largest, largest)  # pictures
        self.engine, self._engine = self._loaded()
        self.device = f"{self._engine.device} {self._engine.precision}"
        self.about = f"{self.engine} {self.device}"
        self._check_outputs()
        slowest_s = self._engine.warm_up(range(1, self._limit + 1))
        if config.engine != "stub":  # it finds what it finds, whatever model the facts are of
            golden.check(self._facts, self._engine)  # as it runs from now on: specialised, recorded
        self.turn_s = max(1.0, 5 * slowest_s * math.ceil(self._pictures / self._limit))

    def _loaded(self) -> tuple[str, Engine]:
        """The engine that is asked for, or the fastest; and its name."""
        from stages.detector import engines

        config = self.config

        def load_as(name: str) -> Engine:
            return engines.load(
                config.model,
                self._facts,
                engine=name,
                device=config.device,
                precision=config.precision,
                threads=config.threads,
                max_batch=self._limit,
                cuda_graphs=config.cuda_graphs,
                stub=engines.StubTiming(
                    alpha_ms=config.stub_alpha_ms,
                    beta_ms=config.stub_beta_ms,
                    burn=config.stub_burn,
                ),
            )

        if config.engine != "auto":
            return config.engine, load_as(config.engine)
        names = fastest.candidates(config.model, self._facts, config.precision)
        memory = Path(config.memory) if config.memory else None
        return fastest.load(
            names, self._facts, load_as,
            measured=config.fastest, memory=memory, alive=self.runtime.alive,
        )  # fmt: skip

    def _check_outputs(self) -> None:
        """One inference: are the outputs what the layout says, and do they fit into a slot?"""
        where = self.config.model or self._facts.name
        (arrays,) = self._engine.infer(self._engine.buffer(1))
        layouts.check(arrays, self._facts, where)
        got = sum(array.nbytes for array in layouts.used(arrays, self._facts))
        wanted = self._facts.output_bytes_per_image
        if wanted and got > wanted:
            raise ModelError(
                f"{where}: its facts promise at most {wanted} bytes of output per picture, got {got}; "
                "import it again with `manyeyes model import`"
            )

    def process_batch(self, items: Sequence[Tensor]) -> list[Output]:
        """Blocks until the device is done. Any number of items; runs them in batches that fit."""
        outputs: list[Output] = []
        while len(outputs) < len(items):
            count = max(1, self._limit // self._pictures)
            part = items[len(outputs) : len(outputs) + count]
            try:
                outputs += self._infer(part)
            except self._out_of_memory as error:
                tried = min(self._limit, len(part) * self._pictures)
                if tried == 1:
                    raise DeviceLost(
                        f"inference: {self._engine.device} has no memory for a single picture: {error}"
                    ) from error
                self._limit = tried // 2
                log.warning("%s: batches of at most %d from now on", error, self._limit)
        return outputs

    def _infer(self, items: Sequence[Tensor]) -> list[Output]:
        if self._pictures == 1:
            results = self._engine.infer_pictures([item.pixels for item in items])
        else:
            results = self._infer_many([picture for item in items for picture in item.pixels])
        frames = by_frame([layouts.used(arrays, self._facts) for arrays in results], self._pictures)
        return [
            Output(
                info=item.info,
                fit=item.fit,
                tiles=item.tiles,
                model_id=self._model_id,
                arrays=self.runtime.pack(arrays),
            )
            for item, arrays in zip(items, frames, strict=True)
        ]

    def _infer_many(self, pictures: Sequence[Image]) -> list[Outputs]:
        """In batches of `_limit`; what comes is valid for longer than that of the engine."""
        parts = [pictures[i : i + self._limit] for i in range(0, len(pictures), self._limit)]
        return [
            tuple(array.copy() for array in arrays)
            for part in parts
            for arrays in self._engine.infer_pictures(part)
        ]


def _check_hash(config: InferenceConfig) -> None:
    if config.sha256 and config.engine != "stub":
        got = archive.sha256(config.model)
        if got != config.sha256.lower():
            raise ModelError(
                f"{config.model}: wanted the file with sha256 {config.sha256}, got {got}; "
                "restore the file, or state the new hash if the change was meant"
            )
