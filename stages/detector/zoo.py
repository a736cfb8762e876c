"""Models by name: a table of what can be had, and where a name lies once it was fetched.

    zoo.toml                                       the table
    ~/.cache/manyeyes/downloads/yolox_nano.onnx    a file as its maker published it, or as a person put it
    ~/.cache/manyeyes/models/yolox-nano.bundle     what a run takes

`manyeyes model get` makes the third of the second.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, ModelError
from stages.detector import archive

DEFAULT = "yolox-nano"
"""What real cameras get where no model is named: of the table, the one that finds most for the time of a
core. Seen with ONNX Runtime, one thread, an AMD EPYC: 25.8 AP in 7.0 ms; ssdlite320 21.3 AP in 18.2 ms."""
DEMO = "demo"  # the carried one, of rendered scenes


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A model that somebody published."""

    name: str
    url: str
    licence: str
    recipe: dict[
        str, Any
    ]  # {"torchvision": architecture, "size", "resize"}, or options of an import
    sha256: str = ""  # or its first digits; empty: not published
    megabytes: float | None = None
    ap: float | None = None  # COCO val2017; None: it was made for another data set

    @property
    def download(self) -> Path:
        """Where its file lies, or is to be put by hand."""
        return folder("downloads") / self.url.rpartition("/")[2]

    @property
    def bundle(self) -> Path:
        """Where its bundle lies once it was made."""
        return folder("models") / f"{self.name}.bundle"

    @property
    def size_mb(self) -> str:
        """Of the download, for a sentence."""
        return "some MB" if self.megabytes is None else f"{self.megabytes:.0f} MB"


def folder(name: str) -> Path:
    """A folder in the user's cache; it may not be there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "manyeyes" / name


@cache
def entries() -> dict[str, Entry]:
    """The table, in its order, by name."""
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return {fields["name"]: Entry(**fields) for fields in table["model"]}


def entry(name: str) -> Entry:
    """Raises ConfigError for a name that nobody knows."""
    known = entries()
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else "`manyeyes model list` names them"
        raise ConfigError(f"model {name!r}: there is neither such a file nor such a name; {hint}")
    return known[name]


def imported(path: Path) -> Path:
    """The bundle of a file: itself, or the place of what is made of a model of somebody else.

    What is no model stays what it is: who opens it says so.
    """
    try:
        if archive.carries_facts(path):
            return path
        folder("models").mkdir(parents=True, exist_ok=True)
        return folder("models") / f"{path.stem}-{archive.sha256(path)[:16]}.bundle"
    except (ModelError, OSError):
        return path


def bundle_of(name: str) -> Path:
    """The bundle of this name, which may not have been made yet. Raises ConfigError as `entry`."""
    if name == DEMO:
        return Path(__file__).with_name("demo.bundle")
    return entry(name).bundle
