"""Any picture as the input of a model: the one resize of training, evaluation and the pipeline.

Accuracy that training reports is the accuracy that the pipeline delivers only because all of them call
these functions (another interpolation alone costs up to 6e-4 mAP).
"""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.detections import Fit
from pipeline.errors import FrameError
from pipeline.messages import Image
from stages.detector.bundle import InputFacts, ResizeFacts
from stages.imaging.pixels import bgr_of_yuv
from stages.imaging.tiles import of_part, parts_of

Box = tuple[int, int, int, int]

_INTERPOLATION = {
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "nearest": cv2.INTER_NEAREST,
    "cubic": cv2.INTER_CUBIC,
}


def fit_into(
    size_wh_px: tuple[int, int], input: InputFacts, resize: ResizeFacts
) -> tuple[Fit, Box]:
    """Where a picture of this size comes to lie inside the model's input.

    Args:
        size_wh_px: (width, height) of the source picture, each >= 1.
        input: gives the (width, height) of the model's input.
        resize: letterbox keeps the aspect ratio and centres or goes top left; stretch fills.

    Returns:
        fit: the way there and back in edge coordinates; its scale is exactly new size / old size, so
            that the whole picture is the whole inner box, whatever was rounded.
        inner_xyxy_px: (x1, y1, x2, y2) of the picture in input pixels, at least 1 px each way. If two
            bars cannot be equal, the right or bottom one is 1 px wider.

    Raises FrameError if the picture has no pixels.

    >>> fit_into((1920, 1080), InputFacts(width=640, height=640), ResizeFacts())[1]
    (0, 140, 640, 500)
    """
    (width, height), (out_w, out_h) = size_wh_px, (input.width, input.height)
    if width < 1 or height < 1:
        raise FrameError(f"fit_into: wanted a picture of at least 1x1 px, got {width}x{height}")
    new_w, new_h, left, top = out_w, out_h, 0, 0
    if resize.mode == "letterbox":
        ratio = min(out_w / width, out_h / height)
        new_w = min(out_w, max(1, round(width * ratio)))
        new_h = min(out_h, max(1, round(height * ratio)))
        if resize.align == "center":
            left, top = (out_w - new_w) // 2, (out_h - new_h) // 2
    fit = Fit(scale_x=new_w / width, scale_y=new_h / height, offset_x_px=left, offset_y_px=top)
    return fit, (left, top, left + new_w, top + new_h)


def prepare(
    image_bgr: Image, input: InputFacts, resize: ResizeFacts, out: Image | None = None
) -> tuple[Image, Fit]:
    """A BGR picture as the model wants to see it.

    Args:
        image_bgr: uint8 (H, W, 3), BGR, H, W >= 1; read-only will do; not changed, not kept.
        input, resize: from the facts of the model.
        out: uint8 (input.height, input.width, 3) to be written, C-contiguous; None: new memory.

    Returns:
        out: uint8 (input.height, input.width, 3) in the colour order of the model, 0..255.
        fit: the way back.

    Raises FrameError if `image_bgr` or `out` has another dtype or shape.

    Not promised: equal pixels from another OpenCV version.
    """
    _check("image_bgr", image_bgr, (None, None, 3))
    fit, inner_xyxy_px = fit_into((image_bgr.shape[1], image_bgr.shape[0]), input, resize)
    out, inner = _canvas(inner_xyxy_px, input, resize, out)
    size = (inner.shape[1], inner.shape[0])
    if input.color == "bgr":
        _resized(image_bgr, size, resize, inner)
    else:
        cv2.cvtColor(_resized(image_bgr, size, resize), cv2.COLOR_BGR2RGB, dst=inner)
    return out, fit


def prepare_all(
    image_bgr: Image, input: InputFacts, resize: ResizeFacts
) -> tuple[Image, tuple[Fit, ...]]:
    """All that the model sees of a BGR picture: `prepare` of the whole, then of each of its tiles.

    Returns uint8 (resize.pictures, input.height, input.width, 3), and the way back of each.
    """
    out = np.empty((resize.pictures, input.height, input.width, 3), np.uint8)
    fits = [prepare(image_bgr, input, resize, out[0])[1]]
    for part, place in zip(tiles_of(image_bgr.shape[1::-1], resize), out[1:], strict=True):
        x1, y1, x2, y2 = part
        fits.append(of_part(prepare(image_bgr[y1:y2, x1:x2], input, resize, place)[1], part))
    return out, tuple(fits)


def tiles_of(size_wh_px: tuple[int, int], resize: ResizeFacts) -> tuple[Box, ...]:
    """The parts of a picture of this size that the model sees beside the whole."""
    return parts_of(size_wh_px, resize.tiles) if resize.pictures > 1 else ()


def prepare_i420(
    planes: tuple[Image, Image, Image],
    matrix: str,
    full_range: bool,
    input: InputFacts,
    resize: ResizeFacts,
    out: Image | None = None,
) -> tuple[Image, Fit]:
    """Planes Y, U, V as the model wants to see them: resized first, converted when they are small.

    planes: uint8 Y (H, W), U and V (H/2, W/2); matrix: bt601 | bt709; full_range: luma is 0..255.
    The rest as `prepare`, from which the result differs by about two grey levels in smooth pictures
    (chroma is interpolated here, and repeated there). Chroma at half the size and OpenCV's own conversion
    of I420 or NV12 take 0.1 ms less of 0.3, for BT.601 and even sizes alone, and change the pixels again.
    """
    for name, plane in zip("YUV", planes, strict=True):
        _check(f"plane {name}", plane, (None, None))
    luma = planes[0]
    fit, inner_xyxy_px = fit_into((luma.shape[1], luma.shape[0]), input, resize)
    out, inner = _canvas(inner_xyxy_px, input, resize, out)
    size = (inner.shape[1], inner.shape[0])
    small = cv2.merge([_resized(plane, size, resize) for plane in planes])
    to_color = bgr_of_yuv(matrix, full_range)  # (3, 4), rows B, G, R
    if input.color == "rgb":
        to_color = to_color[::-1]
    cv2.transform(small, to_color, dst=inner)
    return out, fit


def _resized(
    image: Image, size_wh_px: tuple[int, int], resize: ResizeFacts, out: Image | None = None
) -> Image:
    """A picture, or a plane of it, in another size; in `out` if that is given."""
    if resize.interpolation != "antialias":
        interpolation = _INTERPOLATION[resize.interpolation]
        return cv2.resize(image, size_wh_px, dst=out, interpolation=interpolation)  # type: ignore[return-value]
    from PIL import Image as Pillow  # OpenCV has no such filter; this one takes as long as its area

    small = Pillow.fromarray(image).resize(size_wh_px, Pillow.Resampling.BILINEAR)
    if out is None:
        return np.asarray(small)
    np.copyto(out, np.asarray(small))
    return out


def _canvas(
    inner_xyxy_px: Box, input: InputFacts, resize: ResizeFacts, out: Image | None
) -> tuple[Image, Image]:
    """The model's input with its bars filled, and the view of it that the picture goes into."""
    if out is None:
        out = np.empty((input.height, input.width, 3), np.uint8)
    _check("out", out, (input.height, input.width, 3))
    x1, y1, x2, y2 = inner_xyxy_px
    out[:y1] = out[y2:] = resize.pad
    out[y1:y2, :x1] = out[y1:y2, x2:] = resize.pad
    return out, out[y1:y2, x1:x2]


def _check(name: str, array: Image, wanted: tuple[int | None, ...]) -> None:
    good = array.dtype == np.uint8 and array.ndim == len(wanted) and array.size > 0
    if not good or any(w not in (None, got) for w, got in zip(wanted, array.shape, strict=True)):
        shape = ", ".join("any" if side is None else str(side) for side in wanted)
        raise FrameError(f"{name}: wanted uint8 ({shape}), got {array.dtype} {array.shape}")
