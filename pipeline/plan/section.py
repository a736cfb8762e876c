"""What the tables of a configuration file are made of."""

from __future__ import annotations

from typing import Annotated, Any

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
