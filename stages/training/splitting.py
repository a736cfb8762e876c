"""A data set in parts: seeded, every class in every part, and what belongs together stays together."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.table import Table

from pipeline.errors import DataError
from stages.training import alike
from stages.training.convert import coco_document, new_folder
from stages.training.datasets import DataSet

DEFAULT_FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}


def split(
    dataset: DataSet,
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    *,
    seed: int = 0,
    group_by: str = "none",
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, DataSet]:
    """Divide the pictures so that each part has its share of pictures and of each class.

    fractions: name of the part → its share, > 0, together 1.
    group_by: pictures of one group never part. `none`: each is its own group; `folder`: those of one
        folder; anything else is a regular expression that is searched in the file name, and what its
        first bracket (or all of it) matches names the group: "^(cam[0-9]+)_".
        Pictures that are equal or look alike never part either, unless there are too many of them.
    note: is told how many those are.
    The same arguments and pictures give the same parts. Method: iterative stratification (Sechidis,
    Tsoumakas, Vlahavas, "On the Stratification of Multi-Label Data", 2011), of groups.

    Raises DataError: shares that cannot be, a name that the expression does not match, fewer groups
    than parts.
    """
    if not fractions or min(fractions.values()) <= 0 or abs(sum(fractions.values()) - 1) > 1e-6:
        raise DataError(f"split: wanted shares above 0 that add up to 1, got {dict(fractions)}")
    groups = _together(dataset, _groups(dataset, group_by), min(fractions.values()), note)
    if len(groups) < len(fractions):
        raise DataError(
            f"{dataset.name}: {len(groups)} group(s) of pictures with group_by={group_by!r} cannot "
            f"fill {len(fractions)} parts; group more finely or make fewer parts"
        )
    # Of each group: pictures that show class c, for each c; pictures at all.
    wealth = np.zeros((len(groups), len(dataset.classes) + 1))
    for row, members in zip(wealth, groups, strict=True):
        for index in members:
            row[np.unique(dataset.samples[index].labels)] += 1
            row[-1] += 1
    part_of = _assign(wealth, np.array(list(fractions.values())), np.random.default_rng(seed))
    parts = {}
    for number, name in enumerate(fractions):
        chosen = [groups[i] for i in np.flatnonzero(part_of == number)]
        indices = sorted(index for members in chosen for index in members)
        samples = tuple(dataset.samples[index] for index in indices)
        parts[name] = replace(dataset, name=f"{dataset.name}/{name}", samples=samples, problems=())
    return parts


def write(parts: Mapping[str, DataSet], output: Path | str, **how: object) -> Path:
    """Write <part>.json (COCO, pictures where they lie) and <part>.txt (paths) into a new folder.

    `load(output, split="train")` reads a part. how: noted in split.json.
    Raises DataError if the folder exists, ResourceError if it can't be written.
    """
    output = Path(output)
    at = output.resolve()
    with new_folder(output) as folder:
        for name, part in parts.items():
            paths = [Path(os.path.relpath(s.path.resolve(), at)).as_posix() for s in part.samples]
            document = coco_document(part, paths)
            (folder / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")
            (folder / f"{name}.txt").write_text("".join(f"{p}\n" for p in paths), encoding="utf-8")
        note = {**how, "parts": {name: len(part.samples) for name, part in parts.items()}}
        (folder / "split.json").write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    return output


def counts(parts: Mapping[str, DataSet]) -> dict[str, dict[str, int]]:
    """For each part its pictures and the objects of each class."""
    return {
        name: {
            "pictures": len(part.samples),
            **{
                known: sum(int((s.labels == label).sum()) for s in part.samples)
                for label, known in enumerate(part.classes)
            },
        }
        for name, part in parts.items()
    }


def table(parts: Mapping[str, DataSet]) -> Table:
    """`counts` for a terminal."""
    rows = counts(parts)
    table = Table(header_style="bold", box=None, pad_edge=False)
    table.add_column("part")
    for title in next(iter(rows.values())):
        table.add_column(title, justify="right")
    for name, row in rows.items():
        table.add_row(name, *map(str, row.values()))
    return table


def _groups(dataset: DataSet, group_by: str) -> list[list[int]]:
    """Indices of the samples of each group; groups in the order of their first picture by path."""
    try:
        pattern = None if group_by in ("none", "folder") else re.compile(group_by)
    except re.error as error:
        raise DataError(f"group_by {group_by!r}: no regular expression: {error}") from error
    groups: dict[str, list[int]] = {}
    for index in sorted(range(len(dataset.samples)), key=lambda i: dataset.samples[i].path):
        sample = dataset.samples[index]
        key = sample.group if group_by == "folder" else str(sample.path)
        if pattern is not None:
            found = pattern.search(sample.path.name)
            if found is None:
                raise DataError(f"{sample.path}: group_by {group_by!r} does not match its name")
            key = found.group(1 if pattern.groups else 0) or ""
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def _together(
    dataset: DataSet, groups: list[list[int]], share: float, note: Callable[[str], None]
) -> list[list[int]]:
    """Groups joined where a picture of one is like a picture of another, up to `share` of all pictures.

    A fixed camera's pictures may all be alike: what would be larger than the smallest part stays apart.
    """
    group_of = {index: number for number, members in enumerate(groups) for index in members}
    joined = list(range(len(groups)))  # of each group the one that it is joined to

    def root(number: int) -> int:
        while joined[number] != number:
            joined[number] = number = joined[joined[number]]
        return number

    for i, j in alike.pairs(dataset.samples):
        joined[root(group_of[j])] = root(group_of[i])
    clusters: dict[int, list[list[int]]] = {}
    for number, members in enumerate(groups):
        clusters.setdefault(root(number), []).append(members)
    result, kept, apart = [], 0, 0
    for parts in clusters.values():
        size = sum(map(len, parts))
        if len(parts) == 1 or size > share * len(dataset.samples):
            result += parts
            apart += size if len(parts) > 1 else 0
        else:
            result.append([index for members in parts for index in members])
            kept += size
    if kept:
        note(f"{kept} pictures are equal or look alike; those that do are in one part")
    if apart:
        note(
            f"{apart} pictures look alike, too many to keep in one part (a fixed camera?): the parts are "
            "not independent; say what belongs together with --group-by, a day or an hour, say"
        )
    return result


def _assign(
    wealth: npt.NDArray[np.float64], shares: npt.NDArray[np.float64], random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """The part of each group: int64 (G,). wealth: (G, C + 1), the last column counts pictures."""
    want = np.outer(shares, wealth.sum(axis=0))  # (parts, C + 1)
    part_of = np.full(len(wealth), -1)
    tie = random.random(len(wealth))
    open_ = np.ones(len(wealth), bool)
    while open_.any():
        left = wealth[open_].sum(axis=0)
        left[:-1][left[:-1] == 0] = math.inf
        rarest = int(left[:-1].argmin()) if np.isfinite(left[:-1]).any() else wealth.shape[1] - 1
        mine = np.flatnonzero(open_ & (wealth[:, rarest] > 0))
        # Large groups first: what comes last evens out.
        for group in sorted(mine, key=lambda g: (-wealth[g, -1], tie[g])):
            part_of[group] = _neediest(want, rarest, random)
            want[part_of[group]] -= wealth[group]
            open_[group] = False
    for empty in set(range(len(shares))) - set(part_of):  # a small share of few groups
        richest = np.bincount(part_of).argmax()
        part_of[np.flatnonzero(part_of == richest)[-1]] = empty
    return part_of


def _neediest(want: npt.NDArray[np.float64], label: int, random: np.random.Generator) -> int:
    """The part that lacks most pictures of a class; then, most pictures; then, by lot."""
    needs = [(row[label], row[-1], random.random()) for row in want]
    return max(range(len(want)), key=lambda part: needs[part])
