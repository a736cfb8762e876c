"""What an imported model finds in a picture that a person knows, and whether it was declared as it is.

A model that gets its pictures in the wrong colours, range or place finds less than it could, and nothing
else tells. So the picture is shown to it in each other way, too: where that finds clearly more, the
declaration is probably wrong. A few objects find themselves better by chance, so each picture is shown in
ten views, and all of them have a say. In grey streets colours hardly count: who knows stop signs is
shown red ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from pipeline.detections import Detections, Floats
from stages.detector.bundle import Facts
from stages.detector.decode import Options, detections_from
from stages.detector.engine import Engine, Image

CLEARLY, SURELY = 1.05, 3.5
"""Times the sum of scores of the other way, and the error of their mean difference. Seen with a published
YOLOX in 130 groups of 1, 2 and 4 frames of four films: no wrong way beats the right one by both. The right
one beats wrong colours in 8 of 23, 27 of 67 and 29 of 40 of them, and a stretched picture in 10, 47 and
31. A letterbox at the other end finds as much as the right one (1.005 times): nothing is lost by it."""
STRIPS, IN_STRIPS = 2.0, 1.0
"""Stretching makes everything twice as tall in strips half as high as the picture: times what it finds
there, and the sum of scores, from which a letterbox finds clearly more. Seen with the same YOLOX, declared
to stretch, in 20 of 22 frames of those films with that much, 9 times as a rule; with a model of stretched
pictures (BCCD, 320x320 px) in none of 30, 0.93 times."""
SIGN, SIGN_CLEARLY = "stop sign", 1.2  # there red ones get 3.0 in all, and blue ones 1.9
SCORE = 0.25  # that counts
_VIEW = 0.93  # of a side, of a view that begins in a corner

Load = Callable[[Facts], Engine]


def found(engine: Engine, facts: Facts, picture: Image) -> Detections:
    """What the model finds in a picture, uint8 (H, W, 3) BGR, with its own thresholds."""
    return _found(engine, facts, picture, Options())


def judged(load: Load, facts: Facts, pictures: Sequence[Image]) -> tuple[list[str], list[str]]:
    """What these pictures say of every other way of showing them, by what is found in them.

    load: the model with these facts. Returns a sentence for each way that finds clearly more, and the
    words of those that do not find clearly less: these pictures do not show that they are wrong.
    """
    views = [view for picture in pictures for view in _views(picture)]
    mine = _sums(load(facts), facts, views)
    better, alike = [], []
    for words, other in ways(facts):
        ours, theirs, of = mine, _sums(load(other), other, views), ""
        if other.input.color != facts.input.color and (signs := _signs(load, facts, other)):
            ours, theirs, of = *signs, " of red stop signs"
        elif theirs.sum() >= ours.sum() and (strips := _strips(load, facts, other, pictures)):
            ours, theirs, of = *strips, " in strips of the pictures"
        if of or _more(theirs, ours):
            if theirs.sum() > ours.sum():
                better.append(
                    f"with {words} it finds more: scores{of} add up to {theirs.sum():.2f}, and now to "
                    f"{ours.sum():.2f}"
                )
        elif theirs.sum() > SCORE and not _more(ours, theirs):
            alike.append(words)
    return better, alike


def _more(many: Floats, few: Floats) -> bool:
    """Whether there is clearly more in the same views: in all of them together, and not by chance."""
    more = many - few
    error = more.std(ddof=1) / np.sqrt(len(more))
    enough = many.sum() > max(CLEARLY * few.sum(), SCORE)
    return bool(enough and more.mean() > SURELY * error)


def _signs(load: Load, facts: Facts, other: Facts) -> tuple[Floats, Floats] | None:
    """The scores of red stop signs in both ways; None: it does not know them, or not their colour."""
    if SIGN not in facts.classes:
        return None
    from stages.imaging.stop_sign import stop_signs  # cv2

    label = frozenset([facts.classes.index(SIGN)])
    ours, theirs = (_sums(load(way), way, stop_signs(), label) for way in (facts, other))
    more, less = max(ours.sum(), theirs.sum()), min(ours.sum(), theirs.sum())
    return (ours, theirs) if more > max(SIGN_CLEARLY * less, SCORE) else None


def _strips(
    load: Load, facts: Facts, other: Facts, pictures: Sequence[Image]
) -> tuple[Floats, Floats] | None:
    """The scores in strips half as high as the pictures; None: it is not a letterbox that finds clearly
    more than stretching there."""
    if (facts.resize.mode, other.resize.mode) != ("stretch", "letterbox"):
        return None
    strips = []
    for picture in pictures:
        high = max(1, picture.shape[0] // 2)
        for top in (0, high // 2, picture.shape[0] - high):
            strip = picture[top : top + high]
            strips += [np.ascontiguousarray(side) for side in (strip, strip[:, ::-1])]
    ours, theirs = (_sums(load(way), way, strips) for way in (facts, other))
    return (ours, theirs) if theirs.sum() > max(STRIPS * ours.sum(), IN_STRIPS) else None


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


def _sums(
    engine: Engine, facts: Facts, pictures: Sequence[Image], classes: frozenset[int] | None = None
) -> Floats:
    """Of scores above SCORE, one for each picture."""
    counting = Options(score_threshold=SCORE, classes=classes)
    sums = [_found(engine, facts, picture, counting).scores.sum() for picture in pictures]
    return np.array(sums, np.float32)


def _views(picture: Image) -> Iterator[Image]:
    """A picture and its mirror image, each whole and a little less from every corner."""
    height, width = picture.shape[:2]
    high, wide = max(1, round(height * _VIEW)), max(1, round(width * _VIEW))
    for side in (picture, picture[:, ::-1]):
        yield np.ascontiguousarray(side)
        for top in (0, height - high):
            for left in (0, width - wide):
                yield np.ascontiguousarray(side[top : top + high, left : left + wide])


def _found(engine: Engine, facts: Facts, picture: Image, options: Options) -> Detections:
    from stages.imaging.letterbox import prepare  # cv2

    pixels, fit = prepare(picture, facts.input, facts.resize)
    [arrays] = engine.infer(pixels[None])
    height, width = picture.shape[:2]
    return detections_from(arrays, facts, fit, (width, height), options)
