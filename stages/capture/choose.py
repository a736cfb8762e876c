"""Which source reads what the configuration calls `source`."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import ConfigError
from pipeline.redaction import shown
from stages.capture.ffmpeg import PROTOCOLS, STDIN
from stages.capture.opencv import is_webcam
from stages.capture.pictures import SUFFIXES

URLS = tuple(scheme for scheme in PROTOCOLS if scheme not in ("file", "pipe"))
VIDEOS = (
    ".264", ".3gp", ".asf", ".avi", ".flv", ".h264", ".h265", ".m2ts", ".m4v", ".mjpeg", ".mjpg",
    ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogv", ".ts", ".vob", ".webm",
    ".wmv", ".y4m",
)  # fmt: skip
ALLOWED = (
    f"{', '.join(f'{scheme}://' for scheme in URLS)}, synthetic://, a webcam (0, 1, …, /dev/video0 or "
    "/dev/v4l/by-id/…), a video file, a picture, a folder of pictures, a glob, or - for stdin"
)


# By kind: where the class is, and the field of its config that says which source.
AV = ("stages.capture.av:AvSource", "url")
CLASSES = {
    "opencv": ("stages.capture.opencv:OpenCvSource", "device"),
    "pictures": ("stages.capture.pictures:PicturesSource", "path"),
    "snapshots": ("stages.capture.snapshots:SnapshotsSource", "url"),
    "synthetic": ("stages.capture.synthetic:Synthetic", "url"),
}


def source_for(source: str | int, *, reader: str | None = None) -> tuple[str, dict[str, Any]]:
    """The class that reads `source`, and its config.

    Looks at the file system, opens nothing.

    Args:
        source: what the user wrote: a URL, an index, a path, a glob.
        reader: "av" or "opencv" to force one of the two for a file, "av" or "snapshots" for an address
            of HTTP; None: the best for the source.

    Returns:
        run: where the class is, such as "stages.capture.av:AvSource".
        config: the one field of its Config that says which source, JSON-able.

    Raises ConfigError if nothing reads this.

    >>> source_for("rtsp://10.0.0.7/stream1")
    ('stages.capture.av:AvSource', {'url': 'rtsp://10.0.0.7/stream1'})
    >>> source_for("0")
    ('stages.capture.opencv:OpenCvSource', {'device': 0})
    """
    kind, text = _kind(source), str(source)
    name = shown(text)
    readers = _READERS.get(kind, ())
    if reader not in (None, "av", "opencv", "snapshots"):
        raise ConfigError(
            f"source {name}: reader must be 'av', 'opencv' or 'snapshots', got {reader!r}"
        )
    if reader is not None and reader not in readers:
        raise ConfigError(f"source {name}: can't be read by {reader!r}; remove reader")
    if reader is not None and kind in ("http", "https", "snapshots"):
        kind = "http" if reader == "av" else reader
    if kind == "webcam" or reader == "opencv":
        kind = "opencv"
    run, key = CLASSES.get(kind, AV)
    device = int(text) if kind == "opencv" and text.isdecimal() else text
    return run, {key: device}


_READERS = {
    **dict.fromkeys(URLS, ("av",)),
    **dict.fromkeys(("http", "https", "snapshots"), ("av", "snapshots")),
    "stdin": ("av",),
    "video": ("av", "opencv"),
    "webcam": ("opencv",),
}


def _kind(source: str | int) -> str:
    """One of URLS, snapshots, synthetic, webcam, pictures, video, stdin."""
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
        is_picture = PurePosixPath(re.split("[?#]", source)[0]).suffix.lower() in SUFFIXES
        if scheme in ("http", "https") and is_picture:
            return "snapshots"
        if scheme in (*URLS, "synthetic"):
            return scheme
        raise ConfigError(f"source {shown(source)}: unknown scheme; wanted {ALLOWED}")
    if source == STDIN:
        return "stdin"
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
