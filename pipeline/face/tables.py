"""How tables look in a terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table


def empty_table(title: str | None = None) -> Table:
    """Without columns yet; narrow, so that what it gets fits into 80 of them."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
