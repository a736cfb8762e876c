"""What a person sees beside the results: notes and progress, on stderr."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console


@contextmanager
def bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, from the first thing on; yields what is called with the number done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total, visible=False)
        yield lambda done: progress.update(task, completed=done, visible=True)


@contextmanager
def on_interrupt(text: str) -> Iterator[None]:
    """A note for whoever stops what goes on within."""
    try:
        yield
    except KeyboardInterrupt:
        note(text)
        raise


def silent() -> bool:
    """Whether another process of `torchrun` does the talking."""
    return os.environ.get("RANK", "0") != "0"


def note(text: str) -> None:
    """A line on stderr, so that results alone are on stdout."""
    Console(stderr=True).print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)
