"""The golden test: fixed pictures, made by code, and what the model must find in them.

`facts.golden` is written at export and checked after each load: it notices changed weights, a class
list in another order, wrong colours, scale or letterbox, and a device that computes wrongly. It holds
two inputs: a tensor pattern, fed as it is, and a picture that goes through the letterbox and the
colour order of the facts, as a frame would. Expected labels are names, not numbers.

    {"generator": "v1", "batch": 2,
     "pattern": [[detection, …], …],      # per picture of the batch, the best first
     "picture": [detection, …]}           # detection: {"label", "score", "xyxy": px of the input}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from stages.detector.bundle import Facts

Array = npt.NDArray[Any]
Candidates = tuple[
    Array, Array, Array
]  # xyxy (N, 4) px of the input, scores (N,), labels (N,) 0-based
Prepare = Callable[
    [Array], Array
]  # uint8 (H, W, 3) BGR -> the model's input of one picture (3, h, w)
Detect = Callable[
    [Array], list[Candidates]
]  # inputs (B, 3, h, w) -> candidates of each, before NMS

BATCH = 2
KEPT = 20  # detections a picture; more would not notice more
BOX_TOLERANCE_PX = {"fp32": 0.1, "fp16": 2.0, "bf16": 8.0}
SCORE_TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 1e-1}


def pattern(batch: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Integer arithmetic only, so the same bytes everywhere: uint8 (batch, 3, height, width)."""
    k, c, y, x = np.ogrid[:batch, :3, :height, :width]
    ramp = 7 * x + 13 * y + 53 * c + 29 * k
    return ((ramp ^ (31 * (x // 16) * (y // 16))) & 255).astype(np.uint8)


def picture(width: int, height: int) -> npt.NDArray[np.uint8]:
    """A street of coloured shapes for a canvas of that size: uint8 (H, W, 3) BGR.

    A third wider than the canvas, so that a letterbox has bars, and half as large again, so that the
    interpolation is seen. Red, green and blue differ everywhere, so that their order is seen.
    """
    wide, high = width * 2, height * 3 // 2
    y, x = np.mgrid[:high, :wide]
    out = np.stack([160 - 60 * y // high, 120 + 40 * x // wide, 70 + 90 * y // high], axis=2)
    state = 12345
    for number in range(14):
        draws = []
        for _ in range(7):  # the generator of ANSI C's rand: integers only
            state = (1103515245 * state + 12345) % 2**31
            draws.append(state >> 16)
        cx, cy = draws[0] % wide, high // 3 + draws[1] % (high // 2)
        size = high // 12 + draws[2] % (high // 6)
        colour = np.array([draws[3] % 256, draws[4] % 256, draws[5] % 256])
        half_w, half_h = ((size, size // 2), (size // 3 + 1, size), (size // 2, size // 2))[
            number % 3
        ]
        dx, dy = abs(x - cx), abs(y - cy)
        if number % 3 == 2:
            out[dx * dx + dy * dy <= half_w * half_w] = colour
        else:
            out[(dx <= half_w) & (dy <= half_h)] = colour
            out[(dx <= half_w // 2) & (abs(dy - half_h // 2) <= half_h // 4)] = 255 - colour
    return out.astype(np.uint8)


def record(facts: Facts, prepare: Prepare, detect: Detect) -> dict[str, Any]:
    """What `detect` finds now, to be kept in `facts.golden`."""
    size = facts.input
    of_pattern = detect(_as_input(facts, pattern(BATCH, size.height, size.width)))
    [of_picture] = detect(prepare(picture(size.width, size.height))[None])
    return {
        "generator": "v1",
        "batch": BATCH,
        "pattern": [_best(facts, found) for found in of_pattern],
        "picture": _best(facts, of_picture),
    }


def check(facts: Facts, prepare: Prepare, detect: Detect, *, precision: str = "fp32") -> None:
    """Raise ModelError unless the model finds what `facts.golden` says; nothing without a record.

    Args:
        facts: of the bundle.
        prepare: the letterbox and colour order of these facts, for one picture.
        detect: runs the loaded model and decodes its output.
        precision: what the model computes in here: "fp32", "fp16" or "bf16".
    """
    if facts.golden is None:
        return
    if facts.golden.get("generator") != "v1":
        raise ModelError(
            f"model '{facts.name}': its golden test is of generator {facts.golden.get('generator')!r}, "
            "this build knows 'v1'; export the model again"
        )
    size = facts.input
    batch = int(facts.golden["batch"])
    of_pattern = detect(_as_input(facts, pattern(batch, size.height, size.width)))
    [of_picture] = detect(prepare(picture(size.width, size.height))[None])
    wanted_of = [*facts.golden["pattern"], facts.golden["picture"]]
    names = [f"pattern {number}" for number in range(batch)] + ["picture"]
    for name, wanted, found in zip(names, wanted_of, [*of_pattern, of_picture], strict=True):
        for detection in wanted:
            if problem := _missing(facts, detection, found, precision):
                raise ModelError(
                    f"model '{facts.name}' fails its golden test on the {name}: {problem}; the file, its "
                    "facts or this device is wrong: export the model again or try another device"
                )


def _as_input(facts: Facts, pixels: npt.NDArray[np.uint8]) -> Array:
    if facts.input.dtype == "uint8":
        return pixels
    scaled = pixels.astype(np.float32) * np.float32(facts.input.scale)
    mean = np.array(facts.input.mean or (0, 0, 0), np.float32).reshape(3, 1, 1)
    std = np.array(facts.input.std or (1, 1, 1), np.float32).reshape(3, 1, 1)
    return np.asarray((scaled - mean) / std)


def _best(facts: Facts, found: Candidates) -> list[dict[str, Any]]:
    boxes, scores, labels = found
    order = np.argsort(-scores, kind="stable")[:KEPT]
    return [
        {
            "label": facts.classes[int(labels[i])],
            "score": float(scores[i]),
            "xyxy": [round(float(v), 3) for v in boxes[i]],
        }
        for i in order
        if scores[i] > 0
    ]


def _missing(facts: Facts, wanted: dict[str, Any], found: Candidates, precision: str) -> str | None:
    """Say how the nearest candidate differs from a wanted detection; None where one agrees.

    Scores agree within the tolerance, and small ones within a hundredth of themselves at fp32 (near
    0, a difference of logits shows as a ratio of scores).
    """
    boxes, scores, labels = found
    tolerance = SCORE_TOLERANCE[precision]
    allowed = min(tolerance, 1e-5 + 10 * tolerance * wanted["score"])
    if wanted["label"] not in facts.classes:
        return f"it finds '{wanted['label']}', which is no class of the model"
    same = np.flatnonzero(labels == facts.classes.index(wanted["label"]))
    away = np.abs(boxes[same] - np.asarray(wanted["xyxy"])).max(axis=1, initial=0.0)
    near = same[away <= BOX_TOLERANCE_PX[precision]]
    if len(near) and np.abs(scores[near] - wanted["score"]).min() <= allowed:
        return None
    got = f"scores {np.round(scores[near], 4).tolist()}" if len(near) else "no such box"
    return f"wanted '{wanted['label']}' {wanted['score']:.4f} at {wanted['xyxy']}, got {got}"
