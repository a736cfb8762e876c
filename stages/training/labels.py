"""A model's classes and a data set's classes, brought together by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pipeline.detections import Detections, Labels
from pipeline.errors import DataError
from stages.training.datasets import DataSet


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


def only(dataset: DataSet, classes: Sequence[str], *, lenient: bool = False) -> DataSet:
    """The data set with these classes in this order; objects of others are left out, pictures stay.

    lenient: a class that the data set does not know stays without objects, as long as another is there.
    Raises DataError naming the class that is not there.
    """
    if tuple(classes) == dataset.classes:
        return dataset
    missing = [name for name in classes if name not in dataset.classes]
    if missing and (not lenient or len(missing) == len(classes)):
        raise DataError(
            f"{dataset.name}: no class {missing[0]!r} here; it has {some(dataset.classes) or 'none'}"
        )
    index = {name: label for label, name in enumerate(classes)}
    mapping = np.array([index.get(name, -1) for name in dataset.classes], np.int32)
    samples = []
    for sample in dataset.samples:
        labels = mapping[sample.labels]
        keep = labels >= 0
        kept = {name: getattr(sample, name)[keep] for name in ("xyxy", "crowd", "difficult")}
        area = None if sample.area is None else sample.area[keep]
        samples.append(replace(sample, labels=labels[keep], area=area, **kept))
    ids = () if missing else [dataset.category_id(dataset.classes.index(name)) for name in classes]
    return replace(
        dataset,
        classes=tuple(classes),
        samples=tuple(samples),
        sha256=hashlib.sha256("\0".join((dataset.sha256, *classes)).encode()).hexdigest(),
        category_ids=tuple(ids),
    )


def some(names: Sequence[str]) -> str:
    """The first few of many names, for a sentence."""
    return ", ".join(names[:5]) + (f" … {len(names)} in all" if len(names) > 5 else "")
