"""What is wrong with a camera's pictures, told by a few hundred samples of their light. Pure.

luma   brightness 0..255 on a grid of 48x27, whatever the picture's size
frozen   no sample has changed for `frozen_s`: sensors have noise, and codecs repeat no picture for long
dark     nearly all samples are as good as black
blinded  the picture has light, and neither edges nor differences: a lens that is covered or dazzled
moved    the edges of the scene, which stay where they are by day and night, are somewhere else
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Luma = npt.NDArray[np.float32]  # (27, 48), 0..255

_GRID_WH = (48, 27)
_SIDE = 4  # pixels of a block, to each side
_DARK = 20.0  # of the brightest fiftieth; night with a lamp in it is brighter
_FLAT = 6.0  # standard deviation of all samples; fog has 10 and more
_STILL = 0.02  # mean change of a sample; noise and codecs make more
# Of rendered scenes with eight objects the edges never fell below 0.44 in two minutes; pictures shifted by
# a twentieth of their width, and others, are at 0.45 to -0.1.
_ALIKE = 0.4  # correlation of edges below which the scene is another one
_SAME = 0.75  # above which it is the same again
_SLOW = 0.05  # weight of a new look in the picture of the scene
_LEARN = 10  # looks until the scene is known
_NOW = (
    0.25  # weight of a new look in how it looks now: who walks by and what the sensor adds is less
)


def sample(plane: npt.NDArray[np.uint8]) -> Luma:
    """Brightness on the grid: means of small blocks, so that noise is less than what is seen.

    plane: uint8 (H, W) luma, or (H, W, 3) BGR, of which green is taken. A thousandth of its pixels is
    read, so it takes under half a millisecond at any size.
    """
    height, width = plane.shape[:2]
    columns, rows = _GRID_WH
    y = ((np.arange(rows * _SIDE) + 0.5) * height / (rows * _SIDE)).astype(np.intp)
    x = ((np.arange(columns * _SIDE) + 0.5) * width / (columns * _SIDE)).astype(np.intp)
    picked = (plane if plane.ndim == 2 else plane[..., 1])[y][:, x]
    blocks = picked.reshape(rows, _SIDE, columns, _SIDE)
    luma: Luma = blocks.mean(axis=(1, 3), dtype=np.float32)
    return luma


@dataclass(slots=True)
class Looks:
    """What the pictures of one camera have been like.

    frozen_s: how long a picture may stay the same. hold_s: how long anything has to last before it is
    said, and to be over before it is taken back.
    """

    frozen_s: float = 10.0
    hold_s: float = 3.0
    said: dict[str, int] = field(default_factory=dict)  # what is wrong → since when, ns
    _since: dict[str, int] = field(default_factory=dict)  # what has looked otherwise → since when
    _last: Luma | None = None
    _changed_ns: int = 0
    _edges: Any = None  # of the scene, learned slowly
    _now: Any = None  # how it looks now
    _looks: int = 0

    def see(self, luma: Luma, t_ns: int) -> list[tuple[str, str, float]]:
        """One more picture. Returns what is said now: (kind, cause, seconds), as Happening has them."""
        now = self._judge(luma, t_ns)
        said: list[tuple[str, str, float]] = []
        for name, is_wrong in now.items():
            if is_wrong == (name in self.said):
                self._since.pop(name, None)
                continue
            since_ns = self._since.setdefault(name, t_ns)
            if name != "frozen" and t_ns - since_ns < self.hold_s * 1e9:
                continue
            del self._since[name]
            if is_wrong:
                self.said[name] = since_ns
                said.append((name, "", 0.0))
            else:
                began_ns = self.said.pop(name)
                said.append(("recovered", name, (t_ns - began_ns) / 1e9))
        if any(kind == "moved" for kind, _, _ in said):
            self.said.pop("moved")  # where it looks now is the scene from now on
            self._edges, self._now, self._looks = None, None, 0
        return said

    def forget(self) -> None:
        """The camera was away: what it shows now may be anything."""
        self._last, self._now, self._changed_ns = None, None, 0
        self._since.clear()

    def _judge(self, luma: Luma, t_ns: int) -> dict[str, bool]:
        changed = self._last is None or float(np.abs(luma - self._last).mean()) > _STILL
        if changed:
            self._last, self._changed_ns = luma, t_ns
        dark = float(np.quantile(luma, 0.98)) < _DARK
        blinded = not dark and float(luma.std()) < _FLAT
        wrong = {
            "frozen": t_ns - self._changed_ns >= self.frozen_s * 1e9,
            "dark": dark,
            "blinded": blinded,
        }
        # neither night nor a hand before the lens is another scene
        wrong["moved"] = not any(wrong.values()) and changed and self._is_elsewhere(luma)
        return wrong

    def _is_elsewhere(self, luma: Luma) -> bool:
        self._now = luma if self._now is None else (1 - _NOW) * self._now + _NOW * luma
        edges = _edges_of(self._now)
        if self._edges is None or self._looks < _LEARN:
            self._looks += 1
            weight = 1 / self._looks
            self._edges = (
                edges if self._edges is None else (1 - weight) * self._edges + weight * edges
            )
            return False
        alike = _correlation(edges, self._edges)
        if alike > _SAME:
            self._edges = (1 - _SLOW) * self._edges + _SLOW * edges
        return alike < _ALIKE


def _edges_of(luma: Luma) -> Luma:
    """How much brightness changes to the right and downward, whatever the light: (2, 26, 47)."""
    dx, dy = np.diff(luma, axis=1)[:-1], np.diff(luma, axis=0)[:, :-1]
    edges: Luma = np.stack([dx, dy])
    return edges / max(1e-3, float(np.abs(edges).mean()))


def _correlation(a: Luma, b: Luma) -> float:
    return float((a * b).sum() / max(1e-6, float(np.sqrt((a * a).sum() * (b * b).sum()))))
