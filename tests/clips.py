"""Small video files for tests, encoded on the spot with the libraries in PyAV's wheel."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from functools import cache
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
    options: dict[str, str] | None = None,  # of libx264, in place of these
    pixel_aspect: tuple[int, int] | None = None,  # width of a pixel, height
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
                    stream.options = options or {"preset": "ultrafast", "g": "10", "crf": "10"}
                if pixel_aspect is not None:
                    stream.codec_context.sample_aspect_ratio = Fraction(*pixel_aspect)
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


@cache
def h264_loop(size: tuple[int, int], frames: int = 50) -> tuple[list[bytes], ...]:
    """H.264 frames as lists of their NAL units: noise with a bright square that moves."""
    width, height = size
    noise = np.random.default_rng(0).integers(60, 110, (height, width, 3), np.uint8)
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
    codec.framerate, codec.time_base = 25, Fraction(1, 25)
    codec.options = {
        "preset": "ultrafast", "tune": "zerolatency", "g": "25",
        "x264-params": "sliced-threads=0:repeat-headers=1",
    }  # fmt: skip
    out = []
    for i in range(frames):
        image = noise.copy()
        left = i * (width - 32) // frames
        image[16:48, left : left + 32] = 230
        frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")
        frame.pts = i
        out += [nal_units(bytes(packet)) for packet in codec.encode(frame)]
    out += [nal_units(bytes(packet)) for packet in codec.encode(None)]
    return tuple(out)


def nal_units(annex_b: bytes) -> list[bytes]:
    """The NAL units between the start codes."""
    return [nal for nal in re.split(b"\x00\x00\x00?\x01", annex_b) if nal]
