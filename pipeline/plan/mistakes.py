"""What is wrong with a configuration: pydantic's words as one sentence with file, place and key."""

from __future__ import annotations

from typing import Any, cast, get_args

from pydantic import BaseModel, ValidationError

from pipeline import redaction
from pipeline.errors import ConfigError
from pipeline.plan.fields import check_keys, shown

SHARE = "within 0..1"  # what such a field must be; who writes 40 means 40 %


def sentence(error: ValidationError, raw: dict[str, Any], file: str, root: type[BaseModel]) -> str:
    """The first mistake that pydantic found in `raw`, a file for the model `root`, in one sentence.

    The description of a field says what it must be. A value that may be a secret is not repeated.
    """
    # A typo is two mistakes, the key that is unknown and the one that is missing: name the first.
    first = min(error.errors(), key=lambda mistake: mistake["type"] != "extra_forbidden")
    where, section, loc, table = _place(first["loc"], raw, root)
    where, key = (f"{file}: {where}" if where else file), str(loc[0])
    if first["type"] == "extra_forbidden":
        try:
            check_keys(where, [key], section.model_fields)
        except ConfigError as unknown:
            return str(unknown)
    wanted = section.model_fields[key].description or "a table"
    if key not in table:
        return f"{where}: {key!r} is missing; it must be {wanted}"
    if key == "credentials":  # what is there may be the secret itself
        return f"{where}: {key} must be {wanted}"
    got = table[key]
    if isinstance(got, dict) and len(loc) > 1:
        key, got = f"{key}.{loc[1]}", got[str(loc[1])]
    is_percent = wanted == SHARE and type(got) in (int, float) and 1 < got <= 100
    hint = f"; write {got / 100:g} for {got:g} %" if is_percent else ""
    return f"{where}: {key} must be {wanted}, got {shown(got)}{hint}"


def _place(
    loc: tuple[int | str, ...], raw: dict[str, Any], root: type[BaseModel]
) -> tuple[str, type[BaseModel], tuple[int | str, ...], dict[str, Any]]:
    """Where a mistake is: words for it, the class of its table, the rest of `loc`, the table."""
    name = str(loc[0])
    annotation = root.model_fields[name].annotation if name in root.model_fields else None
    section = cast(type[BaseModel], next(iter(get_args(annotation)), annotation))
    if len(loc) > 2 and isinstance(loc[1], int):
        table = raw[name][loc[1]]
        label = table.get("name", table.get("type"))
        where = f"[[{name}]] number {loc[1] + 1}"
        if isinstance(label, str):
            where = f"{name} {redaction.shown(label)!r}"
        return where, section, loc[2:], table
    if len(loc) > 1 and isinstance(loc[1], str) and isinstance(raw[name], dict):
        return f"[{name}]", section, loc[1:], raw[name]
    return "", root, loc, raw
