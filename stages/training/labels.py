"""A model's classes and a data set's classes, brought together by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pipeline.detections import Detections, Labels
from pipeline.errors import DataError


def class_map(
    model: Sequence[str], dataset: Sequence[str], rename: Mapping[str, str] | None = None
) -> Labels:
    """For each class of a model its label in a data set, by name; -1 where it has none.

    rename: class of the model → class of the data set. Case does not matter where nothing is equal.
    Raises DataError if no name agrees (every figure would be 0 for no good reason), or `rename` names
    a class that is none.

    >>> class_map(("person", "car"), ("Car", "dog")).tolist()
    [-1, 0]
    >>> class_map(("person", "car"), ("vehicle",), {"car": "vehicle"}).tolist()
    [-1, 0]
    """
    rename = rename or {}
    for name, known, which in (
        *((name, model, "model") for name in rename),
        *((name, dataset, "data set") for name in rename.values()),
    ):
        if name not in known:
            raise DataError(f"rename: {name!r} is no class of the {which} ({some(known)})")
    index = {name.casefold(): label for label, name in enumerate(dataset)}
    index |= {name: label for label, name in enumerate(dataset)}
    names = [rename.get(name, name) for name in model]
    labels = [index.get(name, index.get(name.casefold(), -1)) for name in names]
    if max(labels, default=-1) < 0:
        raise DataError(
            f"no class of the model ({some(model)}) is one of the data set ({some(dataset)}); "
            "rename the classes of one of them"
        )
    return np.array(labels, np.int32)


def relabelled(found: Detections, mapping: Labels) -> Detections:
    """The detections with labels mapped, without those of classes that map to -1."""
    labels = mapping[found.labels]
    return replace(found, labels=labels)[labels >= 0]


def some(names: Sequence[str]) -> str:
    """The first few of many names, for a sentence."""
    return ", ".join(names[:5]) + (f" … {len(names)} in all" if len(names) > 5 else "")
