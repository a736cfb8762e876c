"""What the tables of a configuration file are made of."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[A-Za-z0-9_-]{1,64}$"
NAMED = "1 to 64 of the characters A-Z a-z 0-9 _ -"
CLASS = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
BOOL = "true or false"

Tiles = Annotated[int, Field(ge=1, le=8)]
Share = Annotated[float, Field(ge=0, le=1)]


def field(default: Any, wanted: str, **limits: Any) -> Any:
    """wanted: what the value must be; the words of its error, and of the JSON schema."""
    return Field(default, description=wanted, **limits)


class Section(BaseModel):
    """A table; frozen, and unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, but a key that the table has not raises TypeError: there it would do nothing."""
        if unknown := {*(update or {})} - type(self).model_fields.keys():
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")
        return super().model_copy(update=update, deep=deep)


class WithOptions(Section):
    """A table with the keys of a class among its own: every key that is not here is an option of that."""

    options: dict[str, Any] = field({}, "a table")

    def with_options(self, **changes: Any) -> Self:
        """The same with these options changed."""
        return self.model_copy(update={"options": {**self.options, **changes}})


def options_apart(table: Any, section: type[Section], needed: Sequence[str]) -> Any:
    """The keys that `section` does not know, in a table of their own: they are the class's.

    needed: what a key may be meant to be that is not there.
    """
    if not isinstance(table, dict):
        return table
    known = section.model_fields.keys() - {"options"}
    missing = [name for name in needed if name not in table]
    options = {
        key: value
        for key, value in table.items()
        if key not in known and not difflib.get_close_matches(key, missing, 1)  # a typo
    }
    own = {key: value for key, value in table.items() if key not in options}
    return own | {"options": options}
