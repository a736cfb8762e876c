"""The processes of one model in the graph, and those of one that only looks on.

preprocess ─► batcher ─► inference ─► postprocess        once for every model
                              a shadow's postprocess ─► compare ◄─ the postprocess that delivers
"""

from __future__ import annotations

from typing import Any

from pipeline.accounts.layout import DETECT
from pipeline.plan.chains import Chain, postprocess_of
from pipeline.plan.draft import Depths, Draft

PREPROCESS = "stages.preprocess:Preprocess"
INFERENCE = "stages.inference:Inference"
POSTPROCESS = "stages.postprocess:Postprocess"
COMPARE = "stages.compare:Compare"


def add_chain(
    draft: Draft,
    detect: tuple[str, ...],
    chain: Chain,
    classes: tuple[str, ...],
    *,
    is_shadow: bool = False,
) -> str:
    """Everything from frames to results for the cameras of one model; returns who gives the results.

    detect: who feeds the detect path. is_shadow: it is beside that path, and has only what it has time for.
    """
    text, last = chain.facts.to_json(), f"postprocess{chain.suffix}"
    paths = () if is_shadow else (DETECT,)
    depths = Depths() if is_shadow else draft.depths
    before = _add_preprocess(draft, detect, chain, depths, paths)
    batcher = f"batcher{chain.suffix}"
    options = {
        "max_batch": chain.max_batch,
        "policy": "newest" if is_shadow else draft.config.run.policy,
        "depth": sum(depths.tensors),
    }
    own: dict[str, Any] = {"cameras": chain.cameras, "paths": paths}
    draft.add(batcher, "", {}, role="batcher", options=options, **own)
    for name in before:
        draft.edge(name, batcher, depths.tensors, paths, overflow=depths.overflow, counted=False)
    in_order = draft.config.run.policy == "every" and not is_shadow
    found = postprocess_of(chain, classes)
    found["tells_missed"] = any(sink.type == "store" for sink in draft.config.sink)
    found["is_shadow"] = is_shadow
    delivers = not is_shadow
    draft.add(last, POSTPROCESS, found, role="stage", delivers=delivers, in_order=in_order, **own)
    environment = {key: str(chain.threads) for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    for j in range(chain.workers):
        name = f"inference{chain.suffix}" + (f".{j}" if chain.workers > 1 else "")
        draft.add(
            name,
            INFERENCE,
            {**_inference(chain, text), **chain.engine},
            role="batch",
            options={"max_batch": chain.max_batch},
            environment=environment,
            **own,
        )
        draft.edge(batcher, name, (1, 1), paths, counted=False)
        draft.reads(name, *before)
        draft.edge(name, last, depths.outputs, paths, overflow="wait", counted=False)
        draft.reads(last, name)
    return last


def _add_preprocess(
    draft: Draft, detect: tuple[str, ...], chain: Chain, depths: Depths, paths: tuple[int, ...]
) -> tuple[str, ...]:
    count, facts = len(chain.lanes), chain.facts.to_json()
    names = [f"preprocess{chain.suffix}" + (f".{i}" if count > 1 else "") for i in range(count)]
    for name, cameras in zip(names, chain.lanes, strict=True):
        draft.add(
            name, PREPROCESS, {"facts": facts}, role="stage", cameras=cameras, paths=paths,
            works_ahead=True,
        )  # fmt: skip
        for producer in detect:
            if set(draft.specs[producer].cameras) & set(cameras):
                draft.edge(
                    producer, name, depths.frames, paths, overflow=depths.overflow, counted=False
                )
                draft.reads(name, producer)
    return tuple(names)


def add_shadow(
    draft: Draft,
    detect: tuple[str, ...],
    chain: Chain,
    classes: tuple[str, ...],
    last: tuple[str, ...],
) -> None:
    """A model that looks at the frames that others look at, and what compares them.

    detect, last: who feeds the detect path, and who gives the results that are delivered.
    """
    names = tuple(dict.fromkeys((*classes, *chain.facts.classes)))
    shadow = add_chain(draft, detect, chain, names, is_shadow=True)
    name = f"compare{chain.suffix}"
    draft.add(
        name, COMPARE, {"classes": list(names)}, role="stage", cameras=chain.cameras, paths=()
    )
    for producer in (*last, shadow):
        if {*draft.specs[producer].cameras} & {*chain.cameras}:
            draft.edge(producer, name, draft.depths.results, (), overflow="drop", counted=False)


def _inference(chain: Chain, facts: str) -> dict[str, Any]:
    model = chain.model
    return {
        "model": str(model.path),
        "facts": facts,
        "device": model.device,
        "precision": model.precision,
        "threads": chain.threads,
        "max_batch": chain.max_batch * chain.facts.resize.pictures,
        "cuda_graphs": model.cuda_graphs,
        "sha256": model.sha256,
    }
