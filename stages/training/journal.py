"""What a person sees of a run: a line per epoch, curves, augmented pictures, a progress bar."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from pipeline.errors import ResourceError
from stages.detector.bundle import Facts
from stages.training.batches import Pictures
from stages.training.train import State
from stages.training.transforms import sheet

METRICS = "metrics.jsonl"


@contextmanager
def writer(folder: Path, epoch: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What takes the line of each epoch, from `epoch` on, to `metrics.jsonl` and TensorBoard.

    What a killed run wrote about these epochs goes: they are done again.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # an extra
        yield lambda line: _append(folder / METRICS, line)
        return
    with SummaryWriter(str(folder / "tensorboard"), purge_step=epoch) as board:

        def write(line: dict[str, Any]) -> None:
            _append(folder / METRICS, line)
            scalars = {f"loss/{name}": value for name, value in line["losses"].items()}
            for weights, figures in line.get("validation", {}).items():
                scalars |= {f"{name}/{weights}": value for name, value in figures.items()}
            for name, value in {**scalars, "lr": line["lr"]}.items():
                board.add_scalar(name, value, line["epoch"])
            board.flush()

        yield write


def _append(path: Path, line: dict[str, Any]) -> None:
    old = path.read_text().splitlines(keepends=True) if path.exists() else []
    kept = [
        text for text in old if text.endswith("\n") and json.loads(text)["epoch"] < line["epoch"]
    ]
    new = path.with_suffix(".new")
    try:
        new.write_text("".join([*kept, json.dumps(line) + "\n"]))
        new.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise ResourceError(
            f"{path}: cannot be written ({error.strerror}), the last checkpoint is kept; make room and "
            "go on with --resume"
        ) from error


def write_sheet(path: Path, pictures: Pictures, facts: Facts) -> None:
    """Eight training pictures as the model sees them, with their boxes, as a JPEG file."""
    count = len(pictures)
    chosen = [pictures[0, i % count] for i in range(8)]
    cv2.imwrite(str(path), sheet([item[:3] for item in chosen], facts.input.color))


def describe(state: State, steps: int) -> str:
    """The losses of this epoch so far, in short."""
    done = state.step % steps or steps
    return "loss " + " ".join(f"{k} {v / done:.3f}" for k, v in state.losses.items())


def sentence(line: dict[str, Any]) -> str:
    """A line of `metrics.jsonl` for a person."""
    losses = " ".join(f"{name} {value:.3f}" for name, value in line["losses"].items())
    figures = " ".join(
        f"{weights}: mAP {figure(f['map'])} AP50 {figure(f['map_50'])} F1 {f['f1']:.3f}"
        for weights, f in line.get("validation", {}).items()
    )
    speed = f"{line['images_per_s']:.1f} pictures/s"
    return f"epoch {line['epoch']}: " + "; ".join(filter(None, (losses, figures, speed)))


def figure(value: float) -> str:
    """An average precision for a person; COCO's -1 means that there was nothing to find.

    >>> figure(0.5), figure(-1.0)
    ('0.500', '–')
    """
    return f"{value:.3f}" if value >= 0 else "–"


@contextmanager
def progress(console: Console | None) -> Iterator[Progress]:
    """A bar with steps done and the time that is left; console None: nothing is shown."""
    whole, rest = Column(no_wrap=True), Column(no_wrap=True, ratio=1, overflow="ellipsis")
    columns = (
        BarColumn(bar_width=20),
        MofNCompleteColumn(table_column=whole),
        TimeRemainingColumn(table_column=whole),
        TextColumn("{task.description}", table_column=rest),
    )
    with Progress(*columns, console=console, disable=console is None, expand=True) as bar:
        yield bar
