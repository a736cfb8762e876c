"""Keys and values of tables that a class takes: what is wrong with them, in one sentence."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from pipeline import redaction
from pipeline.errors import ConfigError


def check_keys(where: str, keys: Iterable[str], known: Iterable[str]) -> None:
    """Raise ConfigError for the first key that is not known, with the nearest that is."""
    names = sorted(known)
    for key in keys:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
            raise ConfigError(f"{where}: unknown key {redaction.shown(key)!r}; {hint}")


def check_fields(where: str, fields: dict[str, Any], known: type) -> None:
    """Raise ConfigError for the first of `fields` that `known`, a dataclass, can't be made with."""
    hints = get_type_hints(known)
    check_keys(where, fields, hints)
    for field in dataclasses.fields(known):
        hint = hints[field.name]
        wanted = _named(hint)
        if field.name not in fields:
            if field.default is field.default_factory is dataclasses.MISSING:
                raise ConfigError(f"{where}: {field.name!r} is missing; it must be {wanted}")
            continue
        value = fields[field.name]
        try:
            TypeAdapter(hint).validate_json(json.dumps(value, default=no_json), strict=True)
        except ValidationError:
            raise ConfigError(
                f"{where}: {field.name} must be {wanted}, got {shown(value)}"
            ) from None


def _named(hint: Any) -> str:
    """A type as a sentence names it: str, 'one' or 'other', float | None."""
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    return hint.__name__ if isinstance(hint, type) else str(hint)


def check_texts(where: str, value: Any) -> None:
    """Raise ConfigError for text in there, at any depth, that can be no name and no path."""
    try:
        for text in _texts(value):
            if "\0" in text or not _is_unicode(text):
                raise ConfigError(
                    f"{where}: {shown(text)} holds what no name or path may; wanted UTF-8 without NUL"
                )
    except RecursionError:
        raise ConfigError(too_deep(where)) from None


def too_deep(where: str) -> str:
    """The sentence for tables in tables in tables."""
    return f"{where}: is nested too deep; wanted tables of plain values"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from _texts(pair)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of a command line that are no UTF-8
        return False
    return True


def shown(value: Any) -> str:
    """A value as a sentence quotes it, at most 80 characters."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, bool):
        return str(value).lower()
    value = _redacted(value)
    text = repr(value) if isinstance(value, str | list) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _redacted(value: Any) -> Any:
    if isinstance(value, list):
        return [_redacted(part) for part in value]
    if isinstance(value, dict):
        return {key: _redacted(part) for key, part in value.items()}
    return redaction.shown(value) if isinstance(value, str) else value


def no_json(value: Any) -> dict[str, str]:
    """For json.dumps: what a strict check then refuses."""
    return {"": str(value)}  # dates and times: TOML has them, no field takes them
