"""What an imported model finds in a picture that a person knows, and whether it was declared as it is.

A model that gets its pictures in the wrong colours, range or place finds less than it could, and nothing
else tells. So the picture is shown to it in each other way, too: where that finds clearly more, the
declaration is probably wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from pipeline.detections import Detections
from stages.detector.bundle import Facts
from stages.detector.decode import Options, detections_from
from stages.detector.engine import Engine, Image

CLEARLY = 1.05
"""Times the sum of scores that the declared way gets. Seen with a published YOLOX on nine frames of
streets: the right way is beaten by at most 1.03, on one of them; a letterbox that is wrongly centred by
1.06 over all, wrong colours by 1.6."""
ALIKE = 0.9
"""Times that sum, from which on nothing is shown. Wrong colours get 0.97 on two pictures of people in a
grey square, and 0.5 on streets with cars."""
SCORE = 0.25  # that counts


def found(engine: Engine, facts: Facts, picture: Image) -> Detections:
    """What the model finds in a picture, uint8 (H, W, 3) BGR, with its own thresholds."""
    return _found(engine, facts, picture, Options())


def judged(
    load: Callable[[Facts], Engine], facts: Facts, pictures: Sequence[Image]
) -> tuple[list[str], list[str]]:
    """What these pictures say of every other way of showing them, by what is found in them.

    load: the model with these facts. Returns a sentence for each way that finds clearly more, and the
    words of those that find about as much: these pictures do not show that they are wrong.
    """
    mine = _sum(load(facts), facts, pictures)
    better, alike = [], []
    for words, other in ways(facts):
        theirs = _sum(load(other), other, pictures)
        if theirs > max(CLEARLY * mine, SCORE):
            better.append(
                f"with {words} it finds more: scores add up to {theirs:.2f}, and now to {mine:.2f}"
            )
        elif theirs > max(ALIKE * mine, SCORE):
            alike.append(words)
    return better, alike


def ways(facts: Facts) -> Iterator[tuple[str, Facts]]:
    """Every other way, one difference each, in words and as facts."""
    given, resize = facts.input, facts.resize
    swapped = "rgb" if given.color == "bgr" else "bgr"
    back = {"mean": given.mean and given.mean[::-1], "std": given.std and given.std[::-1]}
    yield f"--color {swapped}", _with_input(facts, color=swapped, **back)
    if given.dtype == "float32" and given.mean is None and given.std is None:
        for scale, words in ((1.0, "1"), (1 / 255, repr(1 / 255))):
            if abs(scale / given.scale - 1) > 0.01:
                yield f"--scale {words}", _with_input(facts, scale=scale)
    for mode, align in (("letterbox", "center"), ("letterbox", "top-left"), ("stretch", "center")):
        if mode != resize.mode or (mode == "letterbox" and align != resize.align):
            words = f"--resize {mode}" + (f" --align {align}" if mode == "letterbox" else "")
            other = dataclasses.replace(resize, mode=mode, align=align)  # type: ignore[arg-type]
            yield words, dataclasses.replace(facts, resize=other)


def missing(detections: Sequence[Detections], facts: Facts, expected: Sequence[str]) -> list[str]:
    """The expected classes that are in none of the pictures."""
    labels = {facts.classes[label] for found in detections for label in found.labels}
    return [name for name in expected if name not in labels]


def _with_input(facts: Facts, **changes: object) -> Facts:
    return dataclasses.replace(facts, input=dataclasses.replace(facts.input, **changes))  # type: ignore[arg-type]


def _sum(engine: Engine, facts: Facts, pictures: Sequence[Image]) -> float:
    counting = Options(score_threshold=SCORE)
    return sum(float(_found(engine, facts, picture, counting).scores.sum()) for picture in pictures)


def _found(engine: Engine, facts: Facts, picture: Image, options: Options) -> Detections:
    from stages.imaging.letterbox import prepare  # cv2

    pixels, fit = prepare(picture, facts.input, facts.resize)
    [arrays] = engine.infer(pixels[None])
    height, width = picture.shape[:2]
    return detections_from(arrays, facts, fit, (width, height), options)
