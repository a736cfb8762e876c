"""The order of pictures: as people sort them."""

from __future__ import annotations

import re
from pathlib import Path


def by_number(path: Path) -> tuple[list[tuple[int, str]], str]:
    """A key for sorting: img2 before img10, in capitals or not.

    >>> [str(path) for path in sorted(map(Path, ["img10", "b", "IMG2"]), key=by_number)]
    ['b', 'IMG2', 'img10']
    """
    parts = re.split(r"(\d+)", str(path).lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], str(path)
