"""Two JSON files of benchmarks side by side: what became faster, what slower, if the machines are alike."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.table import Table

from benchmarks.rig.measure import resampled_medians
from benchmarks.tool.search import OTHERS, SLOWER
from pipeline.errors import ConfigError

# What two machines must have in common before their figures mean anything beside each other.
ALIKE = ("cpu", "cores", "gpu", "system", "python")
LIBRARIES = ("numpy", "opencv-python", "torch", "onnxruntime", "av")
_STYLES = {"better": "green", "worse": "bold red", "same": "dim", "changed": "yellow"}


Word = Literal["faster", "slower", "better", "worse", "changed", "same"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One figure that both documents have."""

    id: str
    what: str
    unit: str
    a: float
    b: float
    ratio: float  # b / a
    low: float  # 95 % interval of the ratio
    high: float
    better: str  # "lower" or "higher" is; "": neither is good or bad
    margin: float  # a change by less than this share is called the same

    @property
    def kind(self) -> Literal["better", "worse", "changed", "same"]:
        """Same, unless the whole interval lies on one side of 1 and the ratio is beyond the margin."""
        up = self.low > 1 and self.ratio > 1 + self.margin
        down = self.high < 1 and self.ratio < 1 / (1 + self.margin)
        if not (up or down):
            return "same"
        if not self.better:
            return "changed"
        return "better" if down == (self.better == "lower") else "worse"

    @property
    def word(self) -> Word:
        """As people say it: of times, faster and slower."""
        if self.unit == "ms" and self.kind in ("better", "worse"):
            return "faster" if self.kind == "better" else "slower"
        return self.kind


def read(path: Path) -> dict[str, Any]:
    """A document that a benchmark wrote. Raises ConfigError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}; check the path") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is no JSON: {error}") from error
    keys = ("benchmark", "machine", "figures")
    if not isinstance(document, dict) or not all(key in document for key in keys):
        raise ConfigError(
            f"{path}: wanted a file that a benchmark wrote, with {', '.join(keys)}; "
            "`manyeyes bench stages -o FOLDER` makes one"
        )
    return document


def changes(a: dict[str, Any], b: dict[str, Any], margin: float) -> list[Change]:
    """Every figure of both. Raises ConfigError if the machines, or the questions, are not alike."""
    _check_alike(a, b)
    theirs = {(row["id"], row["what"]): row for row in b["figures"]}
    pairs = [(row, theirs[row["id"], row["what"]]) for row in a["figures"] if _key(row) in theirs]
    if not pairs:
        raise ConfigError(
            "compare: the two files have no figure in common; compare two runs of the same benchmark "
            "with the same configuration"
        )
    return [_change(one, other, margin) for one, other in pairs]


def notes(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """What makes two runs on the same machine hard to compare."""
    conditions = [document.get("conditions", {}) for document in (a, b)]
    took = [its.get("others_cores", 0.0) for its in conditions]
    found = []
    if max(took) > OTHERS * a["machine"]["cores"]:
        found.append(
            f"other programs took {took[0]:.1f} cores in A and {took[1]:.1f} in B, which makes service "
            "times longer; close what else runs"
        )
    work_ms = [its.get("core_ms", 0.0) for its in conditions]
    if min(work_ms) > 0 and max(work_ms) > SLOWER * min(work_ms):
        found.append(
            f"the cores themselves were slower in {'AB'[int(work_ms[1] > work_ms[0])]}: the same small "
            f"piece of work took {work_ms[0]:.2f} ms in A and {work_ms[1]:.2f} ms in B; compare runs that "
            "were made one after the other"
        )
    return found


def table(rows: list[Change]) -> Table:
    """For a terminal."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "figure", "A", "B", "B / A", "95 % interval", ""):
        shown.add_column(name, justify="left" if name in ("", "figure") else "right")
    for row in rows:
        unit = f" {row.unit}" if row.unit else ""
        shown.add_row(
            row.id, row.what, f"{row.a:.3g}{unit}", f"{row.b:.3g}{unit}", f"{row.ratio:.3f}",
            f"{row.low:.3f} – {row.high:.3f}", f"[{_STYLES[row.kind]}]{row.word}",
        )  # fmt: skip
    return shown


def _key(row: dict[str, Any]) -> tuple[str, str]:
    return row["id"], row["what"]


def _check_alike(a: dict[str, Any], b: dict[str, Any]) -> None:
    if a["benchmark"] != b["benchmark"]:
        raise ConfigError(
            f"compare: wanted two runs of one benchmark, got {a['benchmark']!r} and {b['benchmark']!r}"
        )
    one, other = _facts(a["machine"]), _facts(b["machine"])
    if differ := [f"{k} ({one[k]} and {other[k]})" for k in one if one[k] != other[k]]:
        raise ConfigError(
            f"compare: the machines are not alike, they differ in {', '.join(differ)}; "
            "measure both on the same one"
        )


def _facts(machine: dict[str, Any]) -> dict[str, Any]:
    facts = {key: machine.get(key) or "none" for key in ALIKE}
    versions = machine.get("versions", {})
    return facts | {name: versions.get(name) or "none" for name in LIBRARIES}


def _change(a: dict[str, Any], b: dict[str, Any], margin: float) -> Change:
    low, high = _interval(a, b)
    target = a.get("target") or {}
    by_target = {"≤": "lower", "≥": "higher"}.get(target.get("sign", ""), "")
    return Change(
        id=a["id"], what=a["what"], unit=a.get("unit", ""), a=a["value"], b=b["value"],
        ratio=_over(b["value"], a["value"]), low=low, high=high,
        better=a.get("better") or by_target, margin=margin,
    )  # fmt: skip


def _interval(a: dict[str, Any], b: dict[str, Any]) -> tuple[float, float]:
    """Of b / a: by the bootstrap where the samples are told, else from both intervals."""
    if a.get("samples") and b.get("samples"):
        sides = enumerate((a["samples"], b["samples"]))  # drawn independently of each other
        below, above = (resampled_medians(samples, seed=seed) for seed, samples in sides)
        low, high = np.quantile(above / np.maximum(below, 1e-12), (0.025, 0.975))
        return float(low), float(high)
    return _over(b["low"], a["high"]), _over(b["high"], a["low"])


def _over(b: float, a: float) -> float:
    if a == b:
        return 1.0
    return b / a if a else float("inf")
