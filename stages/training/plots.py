"""The plots of a report, as matplotlib figures on the Agg backend."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stages.training.evaluate import Evaluation
from stages.training.inspection import color_of, pyplot

_INK, _SOFT, _LINE = "#0f172a", "#64748b", "#e2e8f0"
_SHOWN = 12  # classes in a plot; the ones with most objects


def precision_recall(evaluation: Evaluation) -> Any:
    """Precision against recall of each class, with the chosen threshold as a dot."""
    figure, axis = _axes("recall", "precision")
    for label, result in _largest(evaluation):
        _, precision, recall = result.scored.curve()
        if len(recall):
            recall, precision = np.insert(recall, 0, 0.0), np.insert(precision, 0, precision[0])
        text = f"{result.name} ({result.ap50:.2f})"
        axis.plot(recall, precision, color=color_of(label), linewidth=1.8, label=text)
        axis.plot(result.chosen.recall, result.chosen.precision, "o", color=color_of(label), ms=6)
    axis.set(xlim=(0, 1.01), ylim=(0, 1.01))
    _legend(figure, axis, "class (AP50), ● chosen threshold")
    return figure


def f1_curves(evaluation: Evaluation) -> Any:
    """F1 against the score threshold of each class and of all together."""
    figure, axis = _axes("score threshold", "F1")
    results = [*_largest(evaluation), (None, evaluation.overall)]
    for label, result in results:
        thresholds, precision, recall = result.scored.curve()
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        color, width = (_INK, 2.4) if label is None else (color_of(label), 1.5)
        best = (
            "–"
            if math.isnan(result.best.f1)
            else f"{result.best.f1:.2f} at {result.best.threshold:.2f}"
        )
        # Between two scores the lower one's set is the one above the threshold.
        axis.step(
            thresholds,
            f1,
            where="pre",
            color=color,
            linewidth=width,
            label=f"{result.name} ({best})",
        )
    axis.axvline(evaluation.score_threshold, color=_SOFT, linestyle="--", linewidth=1)
    axis.set(xlim=(0, 1.01), ylim=(0, 1.01))
    _legend(figure, axis, "class (best F1), ┆ chosen threshold")
    return figure


def confusion(evaluation: Evaluation) -> Any:
    """The confusion matrix: shares of each row as colour, counts as numbers."""
    shown = sorted(label for label, _ in _largest(evaluation))
    index = [*shown, len(evaluation.classes)]
    counts = evaluation.confusion[np.ix_(index, index)]
    names = [*(evaluation.classes[label] for label in shown), "background"]
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axis = _axes("said", "there", grid=False)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    size = 11 if len(names) <= 6 else 8
    for row in range(len(names)):
        for column in range(len(names)):
            empty = row == column == len(names) - 1  # nothing said where nothing is: not countable
            color = "white" if share[row, column] > 0.55 else _INK
            text = "" if empty else f"{counts[row, column]}"
            axis.text(column, row, text, ha="center", va="center", color=color, fontsize=size)
    ticks = range(len(names))
    axis.set_xticks(ticks, names, rotation=30 if len(names) > 5 else 0, fontsize=9)
    axis.set_yticks(ticks, names, fontsize=9)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return figure


def errors(evaluation: Evaluation) -> Any:
    """How many errors of each kind."""
    figure, axis = _axes("errors", "")
    names, counts = list(evaluation.errors), list(evaluation.errors.values())
    colors = ["#e11d48" if name == "missed" else "#3b82f6" for name in names]
    bars = axis.barh(names[::-1], counts[::-1], color=colors[::-1], height=0.62)
    axis.bar_label(bars, padding=4, fontsize=10, color=_INK)
    axis.set_xlim(0, max(1, *counts) * 1.12)
    axis.tick_params(axis="y", length=0)
    axis.grid(False, axis="y")
    return figure


def calibration(evaluation: Evaluation) -> Any:
    """Precision of the detections of each bin of scores; on the diagonal, scores mean what they say."""
    figure, axis = _axes("score", "precision")
    bins = [b for b in evaluation.bins if b.n]
    most = max((b.n for b in bins), default=1)
    axis.plot([0, 1], [0, 1], color=_SOFT, linestyle="--", linewidth=1)
    for b in bins:
        alpha = 0.25 + 0.75 * b.n / most
        width = b.high - b.low
        axis.bar(b.low, b.precision, width=width * 0.94, align="edge", color="#3b82f6", alpha=alpha)
        axis.plot([b.low, b.low + width * 0.94], [b.mean_score] * 2, color="#e11d48", linewidth=2)
    axis.set(xlim=(0, 1), ylim=(0, 1.01))
    axis.set_title(
        "bars: precision, darker with more detections; red: mean score", fontsize=9, color=_SOFT
    )
    return figure


def sizes(evaluation: Evaluation) -> Any:
    """Recall and mean IoU of small, medium and large objects."""
    figure, axis = _axes("", "")
    rows = evaluation.sizes
    places = np.arange(len(rows))
    limits = {"small": "< 32² px", "medium": "32² – 96² px", "large": "> 96² px"}
    for shift, key, color in ((-0.18, "recall", "#3b82f6"), (0.18, "mean_iou", "#10b981")):
        values = [row[key] for row in rows.values()]
        heights = [0 if math.isnan(value) else value for value in values]
        texts = ["–" if math.isnan(value) else f"{value:.2f}" for value in values]
        bars = axis.bar(
            places + shift, heights, 0.33, color=color, label=key.replace("_iou", " IoU")
        )
        axis.bar_label(bars, texts, padding=3, fontsize=9, color=_INK)
    names = [f"{name}\n{limits[name]}\n{row['truths']} objects" for name, row in rows.items()]
    axis.set_xticks(places, names, fontsize=9)
    axis.set_ylim(0, 1.1)
    axis.grid(False, axis="x")
    axis.legend(frameon=False, fontsize=9, loc="upper left", ncols=2)
    return figure


def close(figure: Any) -> None:
    """Free a figure."""
    pyplot().close(figure)


def _largest(evaluation: Evaluation) -> list[tuple[int, Any]]:
    """(label, result) of the classes that have objects, most first, at most _SHOWN."""
    there = [(i, result) for i, result in enumerate(evaluation.per_class) if result.scored.truths]
    return sorted(there, key=lambda pair: -pair[1].scored.truths)[:_SHOWN]


def _axes(x: str, y: str, *, grid: bool = True) -> tuple[Any, Any]:
    figure, axis = pyplot().subplots(figsize=(5.4, 4.1), layout="constrained")
    axis.set_xlabel(x, color=_SOFT)
    axis.set_ylabel(y, color=_SOFT)
    axis.tick_params(colors=_INK, labelsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color("#cbd5e1")
    if grid:
        axis.grid(True, color=_LINE)
    axis.set_axisbelow(True)
    return figure, axis


def _legend(figure: Any, axis: Any, title: str) -> None:
    """Below the plot, where it covers no curve; the plot keeps its size."""
    handles, names = axis.get_legend_handles_labels()
    if handles:
        columns = 2
        rows = 1 + math.ceil(len(handles) / columns)
        figure.set_figheight(figure.get_figheight() + 0.19 * rows)
        figure.legend(handles, names, title=title, loc="outside lower center", ncols=columns,
                      fontsize=8.5, title_fontsize=8.5, frameon=False)  # fmt: skip
