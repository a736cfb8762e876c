"""How users name what a camera shows: on the command line, and as `source` in a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pipeline import redaction
from pipeline.errors import ConfigError

STDIN = "-"


def check_path(source: str | int) -> None:
    """A path on the command line is a file of this moment; in a TOML it may come back later."""
    text = str(source)
    named = text.isdecimal() or text == STDIN or "://" in text
    is_path = not (named or any(sign in text for sign in "*?["))
    if is_path and not Path(text).exists():
        raise ConfigError(
            f"command line: source {redaction.shown(text)!r}: there is no such file or folder"
        )


def name_of(source: str | int, index: int, taken: Sequence[str]) -> str:
    """Of a camera of the command line: its file's, or cam<index>; -2, -3, … behind one that is taken."""
    text = str(source)
    # what must not be shown names no camera either
    is_file = "://" not in text and (Path(text).exists() or redaction.shown(text) == text)
    stem = "" if text.isdecimal() or not is_file else Path(text).stem
    base = re.sub(r"[^A-Za-z0-9_-]+", "_", stem)[:56].strip("_") or f"cam{index}"
    copies = (base, *(f"{base}-{i}" for i in range(2, len(taken) + 3)))
    return next(name for name in copies if name not in taken)


def located(where: str, source: str | int, folder: Path) -> str | int:
    """`source` of a file in `folder`: a path is relative to it. Raises ConfigError for what is none."""
    if isinstance(source, int):
        if source < 0:
            raise ConfigError(
                f"{where}: source must be the index of a webcam, 0 or more, got {source}"
            )
        return source
    _, is_url, rest = source.partition("://")
    if "@" in rest:
        raise ConfigError(
            f"{where}: a user or a password inside the URL of source; take it "
            "out, write credentials = 'NAME' and set NAME_USER and NAME_PASSWORD in the environment "
            "(an @ that is part of the path is written %40)"
        )
    if redaction.is_misspelt(source):
        raise ConfigError(
            f"{where}: source {redaction.shown(source)}: a URL has :// behind its "
            "scheme, as in rtsp://10.0.0.7/stream1"
        )
    if not source:
        raise ConfigError(
            f"{where}: source is empty; wanted a URL, a path, or the index of a webcam"
        )
    named = is_url or source.isdecimal() or source == STDIN
    return source if named else str(folder / source)
