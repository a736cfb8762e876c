"""Which source reads what the configuration calls `source`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.redaction import shown
from stages.capture.av import AvConfig
from stages.capture.opencv import OpenCvConfig, is_webcam
from stages.capture.pictures import SUFFIXES, PicturesConfig

URLS = ("rtsp", "rtsps", "http", "https")
VIDEOS = (
    ".264", ".asf", ".avi", ".flv", ".h264", ".h265", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv",
    ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv",
)  # fmt: skip
ALLOWED = (
    "rtsp://, rtsps://, http://, https://, synthetic://, a webcam (0, 1, … or /dev/video0), "
    "a video file, a picture, a folder of pictures or a glob"
)


def _fields(config: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(config))


# By kind: where the class is, and the fields of its config, that for the source first.
AV = ("stages.capture.av:AvSource", _fields(AvConfig))
CLASSES = {
    "opencv": ("stages.capture.opencv:OpenCvSource", _fields(OpenCvConfig)),
    "pictures": ("stages.capture.pictures:PicturesSource", _fields(PicturesConfig)),
    "synthetic": ("stages.capture.synthetic:Synthetic", ("url",)),
}


def source_for(
    source: str | int, *, reader: str | None = None, **options: Any
) -> tuple[str, dict[str, Any]]:
    """The class that reads `source`, and its config.

    Looks at the file system, opens nothing.

    Args:
        source: what the user wrote: a URL, an index, a path, a glob.
        reader: "av" or "opencv" to force one of the two for a file; None: the best for the source.
        options: fields of the class's config (max_size, loop, credentials, …); None: not given.

    Returns:
        run: where the class is, such as "stages.capture.av:AvSource".
        config: keyword arguments of its Config, JSON-able.

    Raises:
        ConfigError: nothing reads this, or its reader has no such option.

    >>> source_for("rtsp://10.0.0.7/stream1", transport="udp", loop=None)
    ('stages.capture.av:AvSource', {'url': 'rtsp://10.0.0.7/stream1', 'transport': 'udp'})
    >>> source_for("0")
    ('stages.capture.opencv:OpenCvSource', {'device': 0})
    """
    kind, text = _kind(source), str(source)
    name = shown(text)
    if reader not in (None, "av", "opencv"):
        raise ConfigError(f"source {name}: reader must be 'av' or 'opencv', got {reader!r}")
    if reader is not None and kind != "video" and (reader == "opencv") != (kind == "webcam"):
        raise ConfigError(f"source {name}: can't be read by {reader!r}; remove reader")
    if kind == "webcam" or reader == "opencv":
        kind = "opencv"
    run, known = CLASSES.get(kind, AV)
    device = int(text) if kind == "opencv" and text.isdecimal() else text
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in known[1:]:
            raise ConfigError(
                f"source {name}: has no option {key!r}; "
                f"it knows {', '.join(known[1:]) or 'none, they are in the URL'}"
            )
    return run, {known[0]: device} | given


def _kind(source: str | int) -> str:
    """One of URLS, synthetic, webcam, pictures, video."""
    if isinstance(source, bool) or not isinstance(source, str | int):
        raise ConfigError(
            f"source must be text or a webcam's index, got {type(source).__name__}; wanted {ALLOWED}"
        )
    if isinstance(source, int) or source.isdecimal() or is_webcam(source):
        if isinstance(source, int) and source < 0:
            raise ConfigError(f"source {source}: the index of a webcam is 0 or more")
        return "webcam"
    if "://" in source:
        scheme = source.partition("://")[0].lower()
        if scheme in (*URLS, "synthetic"):
            return scheme
        raise ConfigError(f"source {shown(source)}: unknown scheme; wanted {ALLOWED}")
    if not source:
        raise ConfigError(f"source is empty; wanted {ALLOWED}")
    path = Path(source)
    suffix = path.suffix.lower()
    if path.is_dir() or suffix in SUFFIXES or any(mark in source for mark in "*?["):
        return "video" if path.is_file() and suffix not in SUFFIXES else "pictures"
    if path.is_file() or suffix in VIDEOS:
        return "video"
    raise ConfigError(
        f"source {shown(source)!r}: no such file or folder, and no URL; wanted {ALLOWED}"
    )
