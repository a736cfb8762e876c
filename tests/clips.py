"""Small video files for tests, encoded on the spot with the libraries in PyAV's wheel."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

Image = np.ndarray


def write_clip(
    path: Path,
    images: Iterable[Image],
    *,
    codec: str = "libx264",
    source_format: str = "bgr24",
    pix_fmt: str = "yuv420p",
    fps: int = 25,
    matrix: int | None = None,  # AVColorSpace; 1: bt709, 5: bt601
    full_range: bool = False,
) -> Path:
    """Encode `images`: uint8 (H, W, 3) BGR, or what `source_format` says. ffv1 keeps every bit."""
    with av.open(str(path), "w") as container:
        stream = None
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format=source_format)
            if stream is None:
                stream = container.add_stream(codec, rate=fps)
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pix_fmt
                if codec == "libx264":
                    stream.options = {"preset": "ultrafast", "g": "10", "crf": "10"}
                if matrix is not None:
                    stream.codec_context.colorspace = matrix
                if full_range:
                    stream.codec_context.color_range = 2
            if frame.format.name != pix_fmt:
                frame = frame.reformat(
                    format=pix_fmt,
                    dst_colorspace="ITU709" if matrix == 1 else "ITU601",
                    dst_color_range="JPEG" if full_range else "MPEG",
                )
            frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode(None))
    return path


def moving_square(count: int = 10, size: tuple[int, int] = (96, 64)) -> list[Image]:
    """Smooth pictures, uint8 (H, W, 3) BGR, with a bright square that moves to the right."""
    width, height = size
    ramp = np.linspace(40, 160, width, dtype=np.uint8)
    images = []
    for i in range(count):
        image = np.empty((height, width, 3), np.uint8)
        image[:] = ramp[:, None]
        left = i * (width - 16) // max(1, count)
        image[8:24, left : left + 16] = (60, 200, 230)
        images.append(image)
    return images


def noise_i420(count: int, size: tuple[int, int], seed: int = 0) -> list[Image]:
    """Random yuv420p pictures as PyAV takes them: uint8 (H * 3 // 2, W); even sizes."""
    width, height = size
    rng = np.random.default_rng(seed)
    return [rng.integers(16, 236, (height * 3 // 2, width), np.uint8) for _ in range(count)]
