"""The golden test: fixed pictures, made by code, and what the model must find in them.

`facts.golden` is written at export and checked after each load: it notices changed weights, a class
list in another order, wrong colours, scale or letterbox, and a device that computes wrongly. It holds
two kinds of input: a tensor pattern, fed as it is, and a picture that goes through the letterbox and
the colour order of the facts, as a frame would. Expected labels are names, not numbers.

    {"generator": "v1",
     "pattern": [[detection, …], …],  # per picture of the batch, the best first
     "picture": [detection, …]}       # detection: {"label", "score", "xyxy": px of the input}
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from stages.detector import layouts
from stages.detector.bundle import Facts

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]
Image = npt.NDArray[np.uint8]

BATCH = 2
KEPT = 20  # detections a picture; more would not notice more
BOX_TOLERANCE_PX = {"fp32": 0.1, "fp16": 2.0, "bf16": 8.0, "int8": 8.0}
SCORE_TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 1e-1, "int8": 1e-1}


class Runs(Protocol):
    """The part of an engine that is needed here: `stages.detector.engines.Engine` has it."""

    @property
    def precision(self) -> str:
        """Decides what counts as equal."""

    def infer(self, batch: Image) -> list[tuple[Array, ...]]:
        """uint8 (B, H, W, 3) in the colour order of the facts -> the arrays of each picture."""


def record(facts: Facts, engine: Runs) -> dict[str, Any]:
    """What the model finds now, to be kept in `facts.golden`."""
    *of_pattern, of_picture = [
        [_detection(facts, row) for row in _best(found)] for found in _find(facts, engine)
    ]
    return {"generator": "v1", "pattern": of_pattern, "picture": of_picture}


def check(facts: Facts, engine: Runs) -> None:
    """Raise ModelError unless the model finds what `facts.golden` says.

    Without a record: ModelError for what `manyeyes export` wrote, which always has one; a warning for
    an imported model, which has none where it found nothing, as one with a threshold inside may.
    Two inferences, of 2 and of 1 picture: for one engine, in its thread, after loading.
    """
    if facts.golden is None:
        _without_record(facts)
        return
    generator = facts.golden.get("generator")
    if generator != "v1":
        raise ModelError(
            f"model '{facts.name}': its golden test is of generator {generator!r}, this build knows "
            "'v1'; export the model again"
        )
    try:
        wanted_of = [*facts.golden["pattern"], facts.golden["picture"]]
        for i, (wanted, found) in enumerate(zip(wanted_of, _find(facts, engine), strict=True)):
            if not wanted:  # every model of ours finds something, if with a low score
                raise ValueError("no detections")
            for detection in wanted:
                if problem := _missing(facts, detection, found, engine.precision):
                    on = f"pattern {i}" if i < BATCH else "picture"
                    raise ModelError(
                        f"model '{facts.name}' fails its golden test on the {on}: {problem}; the "
                        "file, its facts or this device is wrong: export it again"
                    )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"model '{facts.name}': its golden record is damaged ({error!r}); export it again"
        ) from None


def _without_record(facts: Facts) -> None:
    if facts.layout == "candidates" and "source" not in facts.provenance:
        raise ModelError(
            f"model '{facts.name}': its facts have no golden record, which every export writes: they "
            "were changed by hand, or cut; export the model again"
        )
    log.warning(
        "model '%s' has no golden record (it found nothing when it was imported): that it computes "
        "rightly here was not checked",
        facts.name,
    )


def inputs(facts: Facts, pictures: Sequence[Image] = ()) -> Image:
    """The pattern, the picture, and others (BGR, any sizes) as the model gets them: uint8 (n, H, W, 3)."""
    from stages.imaging.letterbox import prepare  # cv2

    size = facts.input
    shown = [picture(size.width, size.height), *pictures]
    return np.stack(
        [
            *pattern(BATCH, size.height, size.width),
            *(prepare(image, size, facts.resize)[0] for image in shown),
        ]
    )


def _find(facts: Facts, engine: Runs) -> list[layouts.Candidates]:
    everything = inputs(facts)
    outputs = []
    for batch in (everything[:BATCH], everything[BATCH:]):
        # an engine may use the memory of its results again
        outputs += [tuple(a.copy() for a in arrays) for arrays in engine.infer(batch)]
    for arrays in outputs:
        layouts.check(arrays, facts, f"model '{facts.name}'")
    return [layouts.candidates(arrays, facts, 0.0) for arrays in outputs]


def pattern(batch: int, height: int, width: int) -> Image:
    """Integer arithmetic only, so the same bytes everywhere: uint8 (batch, height, width, 3)."""
    k, y, x, c = np.ogrid[:batch, :height, :width, :3]
    ramp = 7 * x + 13 * y + 53 * c + 29 * k
    out: Image = ((ramp ^ (31 * (x // 16) * (y // 16))) & 255).astype(np.uint8)
    return out


def picture(width: int, height: int) -> Image:
    """A street of coloured shapes for a canvas of that size: uint8 (H, W, 3) BGR.

    Wider in shape, and not just twice as large: a letterbox has bars, and every interpolation
    gives other pixels. Red, green and blue differ everywhere, so that their order is seen.
    """
    wide, high = width * 5 // 2, height * 15 // 8
    y, x = np.mgrid[:high, :wide]
    out = np.stack([160 - 60 * y // high, 120 + 40 * x // wide, 70 + 90 * y // high], axis=2)
    state = 12345
    for number in range(14):
        draws = []
        for _ in range(6):  # the generator of ANSI C's rand: integers only
            state = (1103515245 * state + 12345) % 2**31
            draws.append(state >> 16)
        cx, cy = draws[0] % wide, high // 3 + draws[1] % (high // 2)
        size = high // 12 + draws[2] % (high // 6)
        colour = np.array([value % 256 for value in draws[3:]])
        dx, dy = abs(x - cx), abs(y - cy)
        if number % 3 == 2:
            out[dx * dx + dy * dy <= size * size // 4] = colour
        else:  # lying or standing, with a window
            half_w, half_h = ((size, size // 2), (size // 3 + 1, size))[number % 3]
            out[(dx <= half_w) & (dy <= half_h)] = colour
            out[(dx <= half_w // 2) & (abs(dy - half_h // 2) <= half_h // 4)] = 255 - colour
    return out.astype(np.uint8)


def _best(found: layouts.Candidates) -> list[tuple[Array, float, int]]:
    order = np.argsort(-found.scores, kind="stable")[:KEPT]
    return [(found.xyxy[i], float(found.scores[i]), int(found.labels[i])) for i in order]


def _detection(facts: Facts, row: tuple[Array, float, int]) -> dict[str, Any]:
    xyxy, score, label = row
    return {
        "label": facts.classes[label],
        "score": score,
        "xyxy": [round(float(v), 3) for v in xyxy],
    }


def _missing(
    facts: Facts, wanted: dict[str, Any], found: layouts.Candidates, precision: str
) -> str | None:
    """Say how the nearest candidate differs from a wanted detection; None where one agrees.

    Small scores have to agree within a hundredth of themselves (in fp32): near 0 a difference of
    logits shows as a ratio of scores.
    """
    tolerance = SCORE_TOLERANCE[precision]
    allowed = min(tolerance, 1e-5 + 10 * tolerance * wanted["score"])
    if wanted["label"] not in facts.classes:
        return f"it finds '{wanted['label']}', which is no class of the model"
    same = np.flatnonzero(found.labels == facts.classes.index(wanted["label"]))
    away = np.abs(found.xyxy[same] - np.asarray(wanted["xyxy"])).max(axis=1, initial=0.0)
    near = same[away <= BOX_TOLERANCE_PX[precision]]
    if len(near) and np.abs(found.scores[near] - wanted["score"]).min() <= allowed:
        return None
    got = f"scores {np.round(found.scores[near], 4).tolist()}" if len(near) else "no such box"
    return f"wanted '{wanted['label']}' {wanted['score']:.4f} at {wanted['xyxy']}, got {got}"
