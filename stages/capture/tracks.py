"""Which of the tracks of a container is the film."""

from __future__ import annotations

from typing import Any

ATTACHED, DEFAULT = 0x0400, 0x0001  # AV_DISPOSITION_…: a cover; the one that players begin with


def film_of(container: Any) -> Any:
    """The video stream to read: never a cover; the default one, then the largest; None: no video."""
    films = [stream for stream in container.streams.video if not _says(stream, ATTACHED)]
    return max(films, key=lambda stream: (_says(stream, DEFAULT), _pixels(stream)), default=None)


def _says(stream: Any, disposition: int) -> bool:
    flags = getattr(stream, "disposition", 0)  # PyAV 14 can't tell; up to 17 it is no int
    return bool(int(getattr(flags, "value", flags)) & disposition)


def _pixels(stream: Any) -> int:
    return int(stream.codec_context.width * stream.codec_context.height)
