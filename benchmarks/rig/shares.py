"""How evenly something is shared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def jain(rates: Sequence[float], *, nobody: float | None = None) -> float:
    """Jain's index of fairness: (Σx)² / (n Σx²); 1: all alike, 1/n: one has everything.

    Jain, Chiu, Hawe: A quantitative measure of fairness, DEC-TR-301, 1984. rates: >= 0.
    nobody: what it is where all are 0, or there are none; None: raises ValueError.

    >>> jain([3.0, 3.0]), jain([1.0, 0.0])
    (1.0, 0.5)
    """
    x = np.asarray(rates, float)
    if not x.any():
        if nobody is not None:
            return nobody
        raise ValueError(f"jain: wanted at least one rate above 0, got {list(rates)}")
    x = x / x.max()  # it knows no unit, and squares of tiny numbers are none
    return float(x.sum() ** 2 / (len(x) * (x**2).sum()))
