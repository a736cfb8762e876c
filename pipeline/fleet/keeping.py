"""What a controller keeps on its disk for the one after it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.fleet.config import replace_file
from pipeline.fleet.placement import Placed

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Of the last controller."""

    term: int
    tables: dict[str, Any]  # of the fleet
    placed: Placed


def file_of(fleet_file: Path) -> Path:
    """Beside `fleet.toml`."""
    return fleet_file.with_suffix(".controller.json")


def recall(path: Path) -> Kept | None:
    """None: there was none. Raises ConfigError for a file that can't be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.pop("version") != _VERSION:
            raise ValueError("another version")
        placed = {key: _tupled(value) for key, value in document.pop("placed").items()}
        return Kept(**document, placed=Placed(**placed))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{path}: can't be read: {error}; if nothing of this fleet runs any more, remove it"
        ) from error


def remember(path: Path, kept: Kept) -> None:
    """Raises ResourceError."""
    text = json.dumps({"version": _VERSION, **asdict(kept)}, indent=1) + "\n"
    replace_file(path, text, is_private=True)


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
