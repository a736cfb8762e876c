"""Where the pictures lie that an annotation names: often by the path of another machine."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from stages.training.formats import canonical, pictures_below

_PARTS = {"train", "val", "test"}


class Finder:
    """The pictures below a folder, by what annotations call them.

    A name is looked for as it stands, seen from the folders where it may be; then, with the slashes of
    Windows turned, by its end: the one picture whose path agrees with most of it from the right. 7.jpg
    of the training part is never that of the test part.
    """

    def __init__(self, root: Path, near: Iterable[Path] = (), part: Iterable[str] = ()) -> None:
        """near: folders to look from, the likeliest first; part: words that may name train, val, test."""
        self.root = root
        self._part = _parts(part)
        self._near = list(dict.fromkeys(near))

    @cached_property
    def pictures(self) -> list[Path]:
        """All of them, sorted."""
        return pictures_below(self.root)

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        named: dict[str, list[Path]] = {}
        for picture in self.pictures:
            named.setdefault(picture.name.casefold(), []).append(picture)
        return named

    def __call__(self, stated: str) -> Path:
        """The picture, or where it should be; a name that two pictures answer equally well is none's."""
        stated = stated.strip().strip("\"'")
        for index, base in enumerate(self._near):
            if _is_file(base / stated):
                self._near.insert(0, self._near.pop(index))  # the next one lies there, too
                return base / stated
        for written in dict.fromkeys((stated, unquote(stated))):
            found = self._by_end(written.replace("\\", "/"))
            if found is not None:
                return found
        return next(iter(self._near), self.root) / stated

    def _by_end(self, written: str) -> Path | None:
        parts = [part.casefold() for part in written.split("/") if part not in ("", ".", "..")]
        wanted = _parts(parts) or self._part
        candidates = [
            picture
            for picture in self._by_name.get(parts[-1] if parts else "", [])
            if not wanted or not (lies := self._lies_in(picture)) or lies & wanted
        ]
        agrees = [_agreement(parts, picture) for picture in candidates]
        best = max(agrees, default=0)
        return candidates[agrees.index(best)] if agrees.count(best) == 1 else None

    def _lies_in(self, picture: Path) -> set[str]:
        inside = (
            picture.parent.relative_to(self.root) if picture.is_relative_to(self.root) else Path()
        )
        return _parts(inside.parts)


def _parts(words: Iterable[str]) -> set[str]:
    return {canonical(word) for word in words} & _PARTS


def _agreement(parts: list[str], picture: Path) -> int:
    """How many names of the two paths are equal, counted from the right."""
    count = 0
    for ours, theirs in zip(reversed(picture.parts), reversed(parts), strict=False):
        if ours.casefold() != theirs:
            break
        count += 1
    return count


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a NUL
        return False
