"""Stages, sources and sinks by name, `"package.module:Class"`: what they take and give, how one is made.

The runtime knows none of them; this is the one place where they come in.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import typing
from typing import Any

from pipeline.errors import ConfigError
from pipeline.messages import Frame, Output, Result, Tensor
from pipeline.stage import BatchStage, Source, Stage


def search_current_folder() -> None:
    """From now on `load` finds the stages of others in the current folder, after all that is installed.

    Never before: a `queue.py` or `stages.py` that lies there is nobody's business. A process that is to
    call this starts with `python -P`, or as the console script.
    """
    with contextlib.suppress(OSError):  # a folder that was removed has nothing to offer
        sys.path.append(os.getcwd())


def load(name: str) -> Any:
    """The object that "package.module:Name" names. Raises ConfigError if there is none."""
    module_name, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f'{name!r} can\'t be loaded: {error}; write run = "package.module:Class" and make sure '
            "that the package is installed or on PYTHONPATH"
        ) from error


def stage_class(run: str) -> Any:
    """The class of a stage, source or sink. Raises ConfigError if there is none or it is none."""
    cls = load(run)
    if not (isinstance(cls, type) and issubclass(cls, Source | Stage | BatchStage)):
        raise ConfigError(
            f"{run!r} is no stage; wanted a class that inherits from Stage, BatchStage, Source or Sink "
            "of pipeline.stage"
        )
    if not hasattr(cls, "Config"):
        raise ConfigError(
            f"{run!r} has no Config; wanted a dataclass of its keys as an attribute of the class, an empty "
            "one if it has none"
        )
    return cls


_MESSAGES = (Frame, Tensor, Output, Result)


def signature(run: str) -> tuple[tuple[type, ...], type | None]:
    """What the class named `run` takes and gives (None: nothing), from `process`'s annotations."""
    cls = stage_class(run)
    method = getattr(cls, "process_batch", None) or cls.process
    try:
        hints = typing.get_type_hints(method)
    except NameError as error:
        raise ConfigError(
            f"{run!r}: an annotation of process() can't be read: {error}; import it where the module is "
            "loaded, and not for type checkers alone"
        ) from error
    returned = hints.pop("return", None)
    taken = tuple(kind for hint in hints.values() for kind in _messages_in(hint))
    given = _messages_in(returned)
    if not taken:
        raise ConfigError(
            f"{run!r}: process() must say what it takes, one of "
            f"{', '.join(kind.__name__ for kind in _MESSAGES)}; annotate its argument"
        )
    return taken, given[0] if given else None


def _messages_in(hint: Any) -> list[type]:
    if hint in _MESSAGES:
        return [hint]
    return [kind for part in typing.get_args(hint) for kind in _messages_in(part)]


def build(run: str, config: dict[str, Any]) -> Any:
    """The stage or source that `run` names, with its configuration. Raises ConfigError."""
    cls = stage_class(run)
    try:
        return cls(cls.Config(**{key: _frozen(value) for key, value in config.items()}))
    except TypeError as error:
        raise ConfigError(f"{run}: its configuration does not fit: {error}") from error


def _frozen(value: Any) -> Any:
    return tuple(_frozen(part) for part in value) if isinstance(value, list) else value
