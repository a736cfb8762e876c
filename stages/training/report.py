"""An evaluation for people: a table for the terminal, and one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.detections import Detections
from pipeline.errors import ResourceError
from pipeline.messages import Image
from stages.training import plots
from stages.training.datasets import DataSet, Sample, read_image
from stages.training.evaluate import Evaluation
from stages.training.matching import match

TILE_PX = 520  # width of one of the worst pictures
FOUND, FALSE, MISSED = (94, 163, 22), (38, 38, 220), (8, 145, 234)  # B, G, R
IGNORED = (160, 160, 160)
_STYLE = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")


def tables(evaluation: Evaluation) -> RenderableType:
    """COCO's figures, each class and the kinds of errors, for a terminal."""
    figures = list(evaluation.coco.values())
    coco = Table(header_style="bold", box=None, pad_edge=False)
    for title in ("IoU", "0.50:0.95", "0.50", "0.75", "small", "medium", "large"):
        coco.add_column(title, justify="right")
    coco.add_row("AP", *(_number(v) if v >= 0 else "–" for v in figures[:6]))
    coco.add_row()
    coco.add_row(
        *(Text(t, "bold") for t in ("found", "1", "10", "100", "small", "medium", "large"))
    )
    coco.add_row("AR", *(_number(v) if v >= 0 else "–" for v in figures[6:]))
    classes = Table(header_style="bold", box=None, pad_edge=False, collapse_padding=True)
    titles = (
        "class",
        "n",
        "AP",
        "AP50",
        "VOC50",
        "prec.",
        "rec.",
        "F1",
        "acc.",
        "IoU",
        "F1max",
        "at",
    )
    for i, title in enumerate(titles):
        classes.add_column(title, justify="right" if i else "left", overflow="fold")
    for i, row in enumerate(_class_rows(evaluation)):
        classes.add_row(*map(Text, row), style="bold" if i == len(evaluation.per_class) else "")
    split = ", ".join(f"{name} {count}" for name, count in evaluation.errors.items())
    sizes = ", ".join(
        f"{name} {_number(row['recall'])} of {row['truths']:.0f}"
        for name, row in evaluation.sizes.items()
    )
    speed = ", ".join(f"{name} {ms:.1f} ms" for name, ms in evaluation.speed.items())
    lines = [
        Text(f"\nerrors: {split}"),
        Text(f"recall by size: {sizes}"),
        Text(f"calibration error (D-ECE): {_number(evaluation.calibration_error)}"),
        *([Text(f"speed per picture: {speed}")] if speed else []),
    ]
    return Group(Text(_headline(evaluation), style="bold"), Text(), coco, Text(), classes, *lines)


def write_html(
    evaluation: Evaluation,
    predictions: Sequence[Detections],
    dataset: DataSet,
    path: Path | str,
    *,
    title: str = "Evaluation",
    worst: int = 12,
) -> None:
    """Write the report as one HTML file: figures, tables, plots and the `worst` pictures.

    predictions: those that `evaluation` is of. Raises ResourceError if the file can't be written,
    DataError if a picture is gone.
    """
    parts = [
        f"<h1>{html.escape(title)}</h1><p class=sub>{html.escape(_headline(evaluation))}</p>",
        _tiles(evaluation),
        _section("Classes", _table(_CLASS_COLUMNS, _class_rows(evaluation), bold_last=True)),
        _section(
            "Precision and recall",
            _figure(plots.precision_recall(evaluation), "Precision against recall, by class")
            + _figure(plots.f1_curves(evaluation), "F1 against the score threshold, by class"),
            wide=True,
        ),
        _section(
            "What goes wrong",
            _figure(plots.confusion(evaluation), "Rows: what was there. Columns: what was said.")
            + _figure(plots.errors(evaluation), "Errors at the chosen threshold, by kind"),
            wide=True,
        ),
        _section(
            "Scores and sizes",
            _figure(plots.calibration(evaluation), "How often a detection of some score is right")
            + _figure(plots.sizes(evaluation), "Recall by size of the object"),
            wide=True,
        ),
        _section("COCO's twelve figures", _coco_table(evaluation)),
        _section("Worst pictures", _worst(evaluation, predictions, dataset, worst)),
        f"<footer>data set {html.escape(evaluation.dataset)}, sha256 {evaluation.sha256}</footer>",
    ]
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style><main>{''.join(parts)}</main></html>\n"
    )
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written: {error.strerror or error}") from error


def draw_errors(image: Image, found: Detections, sample: Sample, evaluation: Evaluation) -> Image:
    """Truth and prediction on a picture: uint8 (H, W, 3) BGR, about TILE_PX wide, new memory.

    Green: found. Red: detected, but nothing (or something else) is there. Amber: missed.
    Objects to be ignored are grey.
    """
    scale = TILE_PX / image.shape[1]
    size = (TILE_PX, max(1, round(image.shape[0] * scale)))
    enlarge = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    canvas: Image = cv2.resize(image, size, interpolation=enlarge).astype(np.uint8, copy=False)
    found = found[found.scores >= np.float32(evaluation.score_threshold)]
    matched = match(found, sample, iou=evaluation.iou)
    ignored = sample.crowd | sample.difficult
    hits = np.zeros(len(sample.labels), bool)
    hits[matched.truth[matched.truth >= 0]] = True
    boxes: list[tuple[Any, tuple[int, int, int], str]] = []  # corners, colour, text
    for i, xyxy in enumerate(sample.xyxy * scale):
        if ignored[i]:
            boxes.append((xyxy, IGNORED, ""))
        elif not hits[i]:
            boxes.append((xyxy, MISSED, evaluation.classes[sample.labels[i]]))
    for i in np.argsort(found.scores, kind="stable"):
        if not matched.ignored[i]:
            right = matched.truth[i] >= 0
            text = f"{evaluation.classes[found.labels[i]]} {found.scores[i]:.2f}"
            boxes.append((found.xyxy[i] * scale, FOUND if right else FALSE, "" if right else text))
    for xyxy, color, _ in boxes:
        x1, y1, x2, y2 = (round(float(value)) for value in xyxy)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), color, 2, cv2.LINE_AA)
    taken: list[tuple[int, int, int, int]] = []
    for xyxy, color, text in reversed(boxes):  # the surest errors first
        if text:
            _label(canvas, xyxy, color, text, taken)
    return canvas


def _label(
    canvas: Image,
    xyxy: Any,
    color: tuple[int, int, int],
    text: str,
    taken: list[tuple[int, int, int, int]],
) -> None:
    """Write a text at a box, unless another one is there already."""
    x1, y1 = round(float(xyxy[0])), round(float(xyxy[1]))
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.38, 1)
    left = max(0, min(x1 - 1, canvas.shape[1] - width - 4))
    top = y1 - height - 5 if y1 > height + 6 else y1
    right, bottom = left + width + 4, top + height + 5
    if any(left < r_ and l_ < right and top < b_ and t_ < bottom for l_, t_, r_, b_ in taken):
        return
    taken.append((left, top, right, bottom))
    cv2.rectangle(canvas, (left, top), (right, bottom), color, -1)
    place = (left + 2, top + height + 2)
    cv2.putText(
        canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (255, 255, 255), 1, cv2.LINE_AA
    )


def _worst(
    evaluation: Evaluation, predictions: Sequence[Detections], dataset: DataSet, wanted: int
) -> str:
    order = sorted(range(len(evaluation.wrong)), key=lambda i: -evaluation.wrong[i])
    cards = []
    for i in [index for index in order if evaluation.wrong[index]][:wanted]:
        sample = dataset.samples[i]
        canvas = draw_errors(read_image(sample), predictions[i], sample, evaluation)
        data = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes()
        text = f"{html.escape(sample.path.name)} · {evaluation.wrong[i]} wrong"
        cards.append(
            f"<figure>{_image(data, 'jpeg', text)}<figcaption>{text}</figcaption></figure>"
        )
    if not cards:
        return "<p>Not one error at this threshold.</p>"
    legend = (
        "<p class=legend><i class=found></i>found<i class=false></i>false<i class=missed></i>missed"
        "<i class=ignored></i>ignored</p>"
    )
    return f"{legend}<div class=cards>{''.join(cards)}</div>"


_CLASS_COLUMNS = (
    "class", "objects", "AP", "AP50", "VOC AP50", "precision", "recall", "F1", "accuracy", "mean IoU",
    "best F1", "at score",
)  # fmt: skip


def _class_rows(evaluation: Evaluation) -> list[list[str]]:
    rows = []
    for result in (*evaluation.per_class, evaluation.overall):
        chosen = result.chosen
        ratios = (chosen.precision, chosen.recall, chosen.f1, chosen.accuracy, chosen.mean_iou)
        aps = (result.ap, result.ap50, result.voc_ap50)
        values = [
            _number(value) for value in (*aps, *ratios, result.best.f1, result.best.threshold)
        ]
        rows.append([result.name, str(result.scored.truths), *values])
    return rows


def _headline(evaluation: Evaluation) -> str:
    return (
        f"{evaluation.dataset}: {evaluation.pictures} pictures, {evaluation.overall.scored.truths} "
        f"objects; matches at IoU ≥ {evaluation.iou:g}, scores ≥ {evaluation.score_threshold:g}"
    )


def _tiles(evaluation: Evaluation) -> str:
    chosen = evaluation.overall.chosen
    tiles = {
        "AP": evaluation.overall.ap,
        "AP50": evaluation.overall.ap50,
        "precision": chosen.precision,
        "recall": chosen.recall,
        "F1": chosen.f1,
        "mean IoU": chosen.mean_iou,
        "D-ECE": evaluation.calibration_error,
    }
    cells = [
        f"<div><b>{_number(value)}</b><span>{name}</span></div>" for name, value in tiles.items()
    ]
    if evaluation.speed:
        total = sum(evaluation.speed.values())
        phases = " + ".join(f"{name} {ms:.1f}" for name, ms in evaluation.speed.items())
        cells.append(
            f'<div title="{html.escape(phases)}"><b>{total:.1f}</b><span>ms a picture</span></div>'
        )
    return f"<div class=tiles>{''.join(cells)}</div>"


def _coco_table(evaluation: Evaluation) -> str:
    names = [name.replace("_", " ") for name in evaluation.coco]
    values = [_number(value) if value >= 0 else "–" for value in evaluation.coco.values()]
    return _table(names, [values])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, bold_last: bool = False) -> str:
    titles = "".join(f"<th>{html.escape(title)}</th>" for title in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    kind = " class=total" if bold_last else ""
    rows_ = f"<thead><tr>{titles}</tr></thead><tbody>{body}</tbody>"
    return f"<div class=scroll><table{kind}>{rows_}</table></div>"


def _section(title: str, body: str, *, wide: bool = False) -> str:
    inner = f"<div class=pair>{body}</div>" if wide else body
    return f"<section><h2>{html.escape(title)}</h2>{inner}</section>"


def _figure(figure: Any, caption: str) -> str:
    """A matplotlib figure, closed afterwards, as a PNG in the page (SVG of dense curves is larger)."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144, facecolor="white")
    plots.close(figure)
    text = html.escape(caption)
    return (
        f"<figure>{_image(buffer.getvalue(), 'png', text)}<figcaption>{text}</figcaption></figure>"
    )


def _image(data: bytes, kind: str, text: str) -> str:
    return f'<img alt="{text}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
