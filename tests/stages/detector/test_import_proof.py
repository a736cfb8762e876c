"""A picture shows what is declared wrongly."""

import numpy as np
import pytest
import torch
from spots import SPOTS, Spots, traced

from pipeline.errors import ModelError
from stages.detector import proof
from stages.detector.bundle import Facts, InputFacts, ResizeFacts
from stages.detector.importing import import_model


def picture(of_colour):
    """A square of a colour on black: BGR (64, 64, 3)."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[16:32, 16:48] = of_colour
    return image


RED = picture((0, 0, 255))


@pytest.mark.parametrize(
    ("declared", "hint"),
    [
        ({}, None),
        ({"color": "bgr"}, None),  # it finds as much, of another class: the names tell
        ({"scale": 1 / 255 / 255}, "with --scale 0.0039"),
    ],
)
def test_another_way_that_finds_more_is_said(declared, hint, tmp_path):
    told = []
    import_model(
        traced(tmp_path / "m.pt"), str(tmp_path / "m.bundle"), pictures=[RED], tell=told.append,
        **SPOTS, **declared,
    )  # fmt: skip
    more = [line for line in told if line.startswith("warning: with ")]
    assert len(more) == (hint is not None)
    assert hint is None or hint in more[0]
    assert any(line.startswith("found: ") for line in told)


class Centred(Spots):
    """Finds what is in the middle, if nothing is beside it."""

    def forward(self, x):
        found = super().forward(x)
        boxes, scores = found[:, :4], found[:, 4:]
        beside = (boxes[:, :1] < 16) | (boxes[:, :1] > 48)
        blocked = (scores * beside).amax(dim=(1, 2), keepdim=True)
        return torch.cat([boxes, scores * ~beside * (1 - blocked)], dim=1)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"color": "bgr"}, "did not find red"),  # as the colours of its classes tell
        ({"scale": 1.0}, "with --scale 0.0039"),
        ({"resize": "stretch"}, "with --resize letterbox --align center it finds more"),
        ({"align": "top-left"}, "with --resize letterbox --align center it finds more"),
        ({"classes": "blue,red"}, "did not find red"),
    ],
)
def test_what_is_declared_wrongly_is_noticed(wrong, says, tmp_path):
    tall = np.zeros((128, 64, 3), np.uint8)  # in a letterbox half as wide
    tall[16:48] = (0, 0, 255)
    path, output = traced(tmp_path / "m.pt", Centred()), str(tmp_path / "m.bundle")
    with pytest.raises(ModelError, match=says):
        import_model(path, output, pictures=[tall], expected=["red"], **SPOTS | wrong)
    import_model(path, output, pictures=[tall], expected=["red"], **SPOTS)


def test_pictures_that_do_not_decide_are_named(tmp_path):
    told = []
    grey = traced(
        tmp_path / "m.pt", Spots(lambda b, s: torch.cat([b, s.mean(1, True), 0 * s[:, :1]], 1))
    )
    import_model(grey, str(tmp_path / "m.bundle"), pictures=[RED], tell=told.append, **SPOTS)
    [line] = [line for line in told if "do not show" in line]
    assert line.startswith("these pictures do not show that --color bgr or ")
    assert not any(line.startswith("warning: with ") for line in told)


class Bright:
    """An engine that finds what is bright, if it is not too tall."""

    def __init__(self, tallest):
        self.tallest = tallest

    def infer(self, batch):
        return [self._found((pixels > 128).any(axis=2)) for pixels in batch]

    def _found(self, bright):
        tall, wide = bright.any(axis=1).sum(), bright.any(axis=0).sum()
        score = np.float32([0.9 if 0 < tall < self.tallest * max(1, wide) else 0])
        return np.float32([[8, 8, 40, 40]]), score, np.int64([0])


@pytest.mark.parametrize(("tallest", "hints"), [(1.5, 2), (9, 0)])
def test_a_square_picture_shows_that_a_model_is_to_see_no_stretched_ones(tallest, hints):
    """As it is, both ways show the same."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[4:12, 20:28] = 255
    facts = Facts(
        name="m", architecture="a", classes=("bright",), layout="candidates",
        input=InputFacts(width=64, height=64), resize=ResizeFacts(mode="stretch"),
    )  # fmt: skip
    better, _ = proof.judged(lambda _: Bright(tallest), facts, [image])
    assert len(better) == hints
    assert all("letterbox" in hint and "in strips" in hint for hint in better)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_who_knows_stop_signs_shows_its_colours_without_any_in_the_picture(color, tmp_path):
    """Its spots are red and blue alike, so that the picture does not show the order."""
    told = []

    def spots(boxes, scores):
        red, blue = scores[:, :1], scores[:, 1:]
        return torch.cat([boxes, (4 * red - 8 * blue).clamp(0, 1), (red + blue) / 2], 1)

    import_model(
        traced(tmp_path / "m.pt", Spots(spots)), str(tmp_path / "m.bundle"),
        pictures=[picture((200, 0, 200))], tell=told.append,
        **SPOTS | {"classes": "stop sign,spot", "color": color},
    )  # fmt: skip
    hints = [line for line in told if "of red stop signs" in line]
    assert len(hints) == (color == "bgr")
    assert not hints or hints[0].startswith("warning: with --color rgb it finds more")
    assert not any("do not show that --color" in line for line in told)


@pytest.mark.parametrize(
    ("many", "few", "more"),
    [
        ([2, 2, 2, 2], [1, 1, 1, 1], True),
        ([2, 2, 2, 9], [2, 2, 2, 2], False),  # one object, by chance
        ([2.1, 2, 2.1, 2], [2, 2, 2, 2], False),
        ([0.2, 0.2, 0, 0], [0, 0, 0, 0], False),  # next to nothing
        ([0, 0], [0, 0], False),
    ],
)
def test_more_is_found_in_all_views_or_by_chance(many, few, more):
    assert proof._more(np.float32(many), np.float32(few)) is more
    assert not proof._more(np.float32(few), np.float32(many))


@pytest.mark.parametrize("declared", [{"color": "bgr"}, {"classes": "blue,red"}])
def test_what_is_expected_has_to_be_found(declared, tmp_path):
    path, output = traced(tmp_path / "m.pt"), str(tmp_path / "m.bundle")
    with pytest.raises(ModelError, match="wanted red in the pictures, did not find red"):
        import_model(path, output, pictures=[RED], expected=["red"], **SPOTS | declared)
    import_model(path, output, pictures=[RED], expected=["red"], **SPOTS)
