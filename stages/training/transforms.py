"""Augmentation: one sample with boxes in, one canvas with boxes out, repeatable from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from pipeline.errors import ConfigError
from stages.detector.bundle import InputFacts, ResizeFacts
from stages.imaging.letterbox import prepare

SHOWN = 0.4  # of a box that a part cuts off: with less of it, it is not learnt from
Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]
Boxed = tuple[Image, Floats, Labels]
"""A picture uint8 (H, W, 3) BGR, its boxes float32 (N, 4) xyxy px, and their classes int32 (N,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentConfig:
    """How training pictures are varied; a probability of 0 switches a variation off.

    None: `settled` chooses, by whether parts of pictures are learnt from. Those are for objects that are
    small already; what shrinks them further makes many smaller than a cell of the model's finest map.
    """

    flip: float = 0.5  # probability of mirroring left and right
    photometric: float = 0.5  # brightness, contrast, saturation, hue
    iou_crop: float = 0.3  # a crop that keeps some box by IoU, as SSD was trained
    zoom_out: float | None = None  # the picture small on a grey canvas; None: 0.3, or 0 in parts
    scale_jitter: float = 0.0  # zoom in or out by `scale_range` and crop or pad
    scale_range: tuple[float, float] = (0.5, 1.5)
    mosaic: float | None = None  # four pictures in one, smaller; None: 0.5, or 0 in parts
    min_box_px: float = 3.0  # canvas px; boxes with a shorter side are not learnt from

    def __post_init__(self) -> None:
        for name in ("flip", "photometric", "iou_crop", "zoom_out", "scale_jitter", "mosaic"):
            got = getattr(self, name)
            if got is not None and not 0 <= got <= 1:
                raise ConfigError(f"augmentation: {name} is a probability, wanted 0..1, got {got}")

    def settled(self, *, parts: bool) -> AugmentConfig:
        """The same with nothing left to choose; parts: training looks at parts of pictures."""
        zoom_out, mosaic = (0.0, 0.0) if parts else (0.3, 0.5)
        return replace(
            self,
            zoom_out=zoom_out if self.zoom_out is None else self.zoom_out,
            mosaic=mosaic if self.mosaic is None else self.mosaic,
        )

    @classmethod
    def off(cls) -> AugmentConfig:
        """No variation at all."""
        return cls(flip=0, photometric=0, iou_crop=0, zoom_out=0, scale_jitter=0, mosaic=0)


class Augment:
    """Varies samples and letterboxes them with the function that evaluation and the pipeline use.

    part_px: side of the part of the canvas that is learnt from in place of all of it; 0: all of it.
    """

    def __init__(
        self,
        config: AugmentConfig,
        input_facts: InputFacts,
        resize: ResizeFacts,
        *,
        part_px: int = 0,
    ) -> None:
        self.config = config = config.settled(parts=bool(part_px))
        self.canvas = input_facts
        self.part_px = part_px
        width, height = (part_px,) * 2 if part_px else (input_facts.width, input_facts.height)
        self.input = replace(input_facts, width=width, height=height)  # of a training picture
        self.resize = resize
        fill = {tv_tensors.Image: resize.pad, "others": 0}
        steps: list[v2.Transform] = []
        if config.scale_jitter:
            steps.append(
                v2.RandomApply([_Jitter(config.scale_range, resize.pad)], config.scale_jitter)
            )
        if config.zoom_out:
            steps.append(v2.RandomZoomOut(fill=fill, side_range=(1.0, 2.0), p=config.zoom_out))
        if config.iou_crop:
            steps.append(v2.RandomApply([v2.RandomIoUCrop(min_scale=0.4)], config.iou_crop))
        if config.flip:
            steps.append(v2.RandomHorizontalFlip(config.flip))
        # mandatory behind RandomIoUCrop, which leaves boxes of cut-off objects with zero area
        self.steps = v2.Compose([*steps, v2.SanitizeBoundingBoxes(min_size=1.0)])
        self.colors = v2.RandomPhotometricDistort(p=config.photometric)

    def plain(self) -> Augment:
        """The same without what makes pictures unlike those of the camera."""
        config = replace(self.config, mosaic=0.0, zoom_out=0.0, scale_jitter=0.0)
        return Augment(config, self.canvas, self.resize, part_px=self.part_px)

    def __call__(
        self, read: Callable[[int], Boxed], index: int, others: int, seed: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One training picture.

        Args:
            read: gives picture and boxes of an index; called up to four times; nothing is changed.
            index: the picture that is meant.
            others: pictures there are, for the mosaic's companions.
            seed: all randomness of this call; the same seed gives the same result in any process.

        Returns:
            image: uint8 (3, height, width) of the canvas or its part, in the model's colour order.
            boxes: float32 (N, 4) xyxy, canvas px, each side at least `min_box_px`.
            labels: int64 (N,), 0-based classes.
        """
        with torch.random.fork_rng(devices=[]):  # transforms.v2 draws from torch's global generator
            torch.manual_seed(seed)
            if self.part_px:
                read = partial(self._part, read)
            if self.config.mosaic and torch.rand(()) < self.config.mosaic:
                companions = torch.randint(others, (3,)).tolist()
                image, xyxy, labels = mosaic(
                    [read(i) for i in (index, *companions)], self.resize.pad
                )
            else:
                image, xyxy, labels = read(index)
            image, xyxy, labels = self._vary(image, xyxy, labels)
            canvas, fit = prepare(image, self.input, self.resize)
            pixels = self._color(torch.from_numpy(canvas).permute(2, 0, 1))
        boxes = fit.to_input(xyxy)  # (N, 4)
        keep = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) >= self.config.min_box_px
        return (
            pixels,
            torch.from_numpy(boxes[keep]),
            torch.from_numpy(labels[keep].astype(np.int64)),
        )

    def _part(self, read: Callable[[int], Boxed], index: int) -> Boxed:
        """As much of a picture as a part of the canvas shows."""
        loaded = read(index)
        height, width = loaded[0].shape[:2]
        scale = np.array([self.canvas.width / width, self.canvas.height / height])
        if self.resize.mode == "letterbox":
            scale[:] = scale.min()
        return around_object(loaded, self.part_px / scale)

    def _vary(self, image: Image, xyxy: Floats, labels: Labels) -> Boxed:
        """Cut, shrunk, mirrored: nothing that looks at colours."""
        planes = tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1))
        if not len(xyxy):  # RandomIoUCrop needs a box, and there is nothing to keep
            mirrored = v2.RandomHorizontalFlip(self.config.flip)(planes)
            return _pixels(mirrored), np.zeros((0, 4), np.float32), np.zeros(0, np.int32)
        boxes = tv_tensors.BoundingBoxes(
            torch.from_numpy(xyxy), format="XYXY", canvas_size=image.shape[:2]
        )
        picture, found = self.steps(planes, {"boxes": boxes, "labels": torch.from_numpy(labels)})
        return _pixels(picture), found["boxes"].numpy().reshape(-1, 4), found["labels"].numpy()

    def _color(self, canvas: Tensor) -> Tensor:
        """Colours last, where the picture is smallest. canvas: uint8 (3, H, W), the model's order."""
        if not self.config.photometric:
            return canvas
        bgr = self.input.color == "bgr"
        rgb = tv_tensors.Image(canvas.flip(0) if bgr else canvas)
        varied: Tensor = self.colors(rgb).as_subclass(Tensor)
        return varied.flip(0) if bgr else varied


def _pixels(picture: Tensor) -> Image:
    """(3, H, W) as OpenCV has it: (H, W, 3), in one piece."""
    pixels: Image = np.ascontiguousarray(picture.permute(1, 2, 0).numpy())
    return pixels


class _Jitter(v2.Transform):  # type: ignore[misc]  # torchvision publishes no types
    """Scale the picture, then cut or pad it back to its size at a random place."""

    def __init__(self, scale_range: tuple[float, float], pad: int) -> None:
        super().__init__()
        self.scale_range = scale_range
        self.fill = {tv_tensors.Image: pad, "others": 0}

    def forward(self, *inputs: object) -> object:
        image = inputs[0]
        assert isinstance(image, tv_tensors.Image)  # our own caller
        height, width = image.shape[-2:]
        steps = [
            v2.ScaleJitter((height, width), self.scale_range, antialias=True),
            v2.RandomCrop((height, width), pad_if_needed=True, fill=self.fill),
        ]
        return v2.Compose(steps)(*inputs)


def around_object(loaded: Boxed, size_wh_px: npt.NDArray[np.float64]) -> Boxed:
    """A part of a picture, at a random place that shows one of its objects whole, if it has any.

    size_wh_px: of the part, (2,); where the picture is smaller, as large as that. Draws from torch's
    global generator. Boxes are clipped; those of which less than SHOWN is inside are left out.
    """
    image, xyxy, labels = loaded
    whole = np.array([image.shape[1], image.shape[0]])
    size = np.minimum(whole, size_wh_px.round().astype(int).clip(1))
    low, high = np.zeros(2), whole - size
    if len(xyxy):
        box = xyxy[int(torch.randint(len(xyxy), ()))]
        ends = np.sort(np.stack([box[2:] - size, box[:2]]), axis=0).clip(low, high)  # (2, xy)
        low, high = ends
    x, y = (low + (high - low) * torch.rand(2).numpy()).round().astype(int)
    w, h = size
    corner = np.array([x, y, x, y], np.float32)
    moved = xyxy - corner  # (N, 4)
    clipped = np.clip(moved, 0, [w, h, w, h]).astype(np.float32)
    keep = _area(clipped) >= SHOWN * _area(moved)
    return image[y : y + h, x : x + w], clipped[keep], labels[keep]


def mosaic(four: list[Boxed], pad: int) -> Boxed:
    """Four pictures around a random centre, on a canvas of the first one's size (YOLOv4, YOLOv5).

    Each picture is scaled to cover about a quarter up to the whole canvas, and cut at the centre
    lines. Draws from torch's global generator. Boxes are clipped; those that lose more than 70 % of
    their area are left out.
    """
    height, width = four[0][0].shape[:2]
    canvas = np.full((height, width, 3), pad, np.uint8)
    share = torch.rand(2) * 0.4 + 0.3  # the centre lies within the middle of the canvas
    cx, cy = int(width * float(share[0])), int(height * float(share[1]))
    all_boxes, all_labels = [], []
    for quadrant, (image, xyxy, labels) in enumerate(four):
        right, low = quadrant % 2 == 1, quadrant >= 2
        x1, x2 = (cx, width) if right else (0, cx)
        y1, y2 = (cy, height) if low else (0, cy)
        scale = min(width / image.shape[1], height / image.shape[0])
        scale *= float(torch.rand(())) * 0.5 + 0.5
        w, h = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        small = cv2.resize(
            image, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        )
        # the picture touches the centre with its inner corner
        left, top = (cx if right else cx - w), (cy if low else cy - h)
        a1, b1, a2, b2 = max(x1, left), max(y1, top), min(x2, left + w), min(y2, top + h)
        canvas[b1:b2, a1:a2] = small[b1 - top : b2 - top, a1 - left : a2 - left]
        ratio = np.array([w / image.shape[1], h / image.shape[0]] * 2, np.float32)
        moved = xyxy * ratio + np.array([left, top] * 2, np.float32)  # (N, 4)
        clipped = np.clip(moved, [a1, b1, a1, b1], [a2, b2, a2, b2]).astype(np.float32)
        keep = _area(clipped) > 0.3 * _area(moved)
        all_boxes.append(clipped[keep])
        all_labels.append(labels[keep])
    return canvas, np.concatenate(all_boxes).astype(np.float32), np.concatenate(all_labels)


def _area(xyxy: Floats) -> Floats:
    sides = xyxy[:, 2:] - xyxy[:, :2]  # (N, 2)
    area: Floats = sides[:, 0] * sides[:, 1]
    return area


def sheet(pictures: list[tuple[Tensor, Tensor, Tensor]], color: str, columns: int = 4) -> Image:
    """What the model sees, for a person: canvases side by side with their boxes drawn.

    pictures: as `Augment` returns them, all of one size. Returns uint8 (H, W, 3) BGR.
    """
    cells = []
    for canvas, boxes, labels in pictures:
        image = np.ascontiguousarray(
            canvas.permute(1, 2, 0).numpy()[..., :: -1 if color == "rgb" else 1]
        )
        for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels.tolist(), strict=True):
            hue = int(label * 47 % 180)
            pixel = cv2.cvtColor(np.array([[[hue, 220, 255]]], np.uint8), cv2.COLOR_HSV2BGR)[
                0, 0
            ].tolist()
            cv2.rectangle(image, (round(x1), round(y1)), (round(x2), round(y2)), pixel, 1)
        cells.append(image)
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    rows = [np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)]
    return np.vstack(rows)
