"""What is in a data set: a report, a sheet of its pictures with their boxes, a plot of box sizes."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.errors import ResourceError
from pipeline.messages import Image
from stages.training.datasets import DataSet, Sample, read_image
from stages.training.formats import Problem, summary

PALETTE = ("#3b82f6", "#f97316", "#10b981", "#e11d48", "#8b5cf6", "#eab308", "#06b6d4", "#ec4899",
           "#84cc16", "#64748b")  # fmt: skip
_TILE_PX = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCount:
    """How often and how large one class is. Sides are square roots of areas, in px; nan without boxes."""

    name: str
    boxes: int
    pictures: int
    crowd: int
    difficult: int
    side_p10_px: float
    side_p50_px: float
    side_p90_px: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """The report."""

    name: str
    sha256: str
    pictures: int
    empty: int  # pictures without objects
    boxes: int
    sizes_px: dict[str, int]  # "640x480" → pictures
    classes: tuple[ClassCount, ...]
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; every problem with its file and line."""
        rows = [
            {
                key: None if isinstance(v, float) and math.isnan(v) else v
                for key, v in asdict(row).items()
            }
            for row in self.classes
        ]
        problems = [{**asdict(problem), "file": str(problem.file)} for problem in self.problems]
        return {**asdict(self), "classes": rows, "problems": problems}

    def table(self, shown: int = 10) -> RenderableType:
        """For a terminal; of each kind of problem the first `shown`."""
        head = Text.assemble(
            (self.name, "bold"),
            f"  {self.pictures} pictures ({self.empty} without objects), {self.boxes} boxes, ",
            f"sha256 {self.sha256[:12]}\n",
            "sizes: "
            + ", ".join(f"{size} px ({n})" for size, n in list(self.sizes_px.items())[:6]),
            " …" if len(self.sizes_px) > 6 else "",
        )
        table = Table(header_style="bold", box=None, pad_edge=False)
        table.add_column("class")
        for title in (
            "boxes",
            "share",
            "pictures",
            "crowd",
            "difficult",
            "side p10",
            "p50",
            "p90 px",
        ):
            table.add_column(title, justify="right")
        for row in self.classes:
            quantiles = (row.side_p10_px, row.side_p50_px, row.side_p90_px)
            sides = ["–" if math.isnan(v) else f"{v:.0f}" for v in quantiles]
            share = f"{row.boxes / max(self.boxes, 1):.1%}"
            counts = [str(v) for v in (row.pictures, row.crowd, row.difficult)]
            table.add_row(Text(row.name), str(row.boxes), share, *counts, *sides)
        notes = [Text("no problems", style="green")]
        if self.problems:
            lines = summary(self.problems, shown)
            notes = [Text(line, "" if line[0] == " " else "bold yellow") for line in lines]
        return Group(head, Text(), table, Text(), *notes)


def inspect(dataset: DataSet) -> Inspection:
    """Count what is in a data set; opens no picture again."""
    labels = np.concatenate([np.zeros(0, np.int32), *(s.labels for s in dataset.samples)])
    sides = _sides_px(dataset)
    flags = {
        name: np.concatenate([np.zeros(0, bool), *(getattr(s, name) for s in dataset.samples)])
        for name in ("crowd", "difficult")
    }
    sizes = Counter(f"{s.width}x{s.height}" for s in dataset.samples)
    classes = []
    for label, name in enumerate(dataset.classes):
        mine = labels == label
        p10, p50, p90 = np.percentile(sides[mine], (10, 50, 90)) if mine.any() else (math.nan,) * 3
        classes.append(
            ClassCount(
                name=name,
                boxes=int(mine.sum()),
                pictures=sum(bool((s.labels == label).any()) for s in dataset.samples),
                crowd=int(flags["crowd"][mine].sum()),
                difficult=int(flags["difficult"][mine].sum()),
                side_p10_px=float(p10),
                side_p50_px=float(p50),
                side_p90_px=float(p90),
            )
        )
    return Inspection(
        name=dataset.name,
        sha256=dataset.sha256,
        pictures=len(dataset.samples),
        empty=sum(not len(s.labels) for s in dataset.samples),
        boxes=len(labels),
        sizes_px=dict(sizes.most_common()),
        classes=tuple(classes),
        problems=dataset.problems,
    )


def contact_sheet(dataset: DataSet, path: Path | str, *, pictures: int = 20, seed: int = 0) -> None:
    """Draw a random choice of pictures with their boxes, colour by class, as a PNG.

    Rare classes are shown, too: pictures are drawn in turn for each class that is there, and for none.
    """
    chosen = sorted(_choose(dataset, pictures, np.random.default_rng(seed)))
    columns = min(5, max(1, math.ceil(math.sqrt(len(chosen) * 1.25))))
    rows = math.ceil(len(chosen) / columns)
    plt = pyplot()
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(3.2 * columns, 2.75 * rows + 0.9),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, index in zip(axes.flat, chosen, strict=False):
        sample = dataset.samples[index]
        small, scale = thumbnail(read_image(sample), _TILE_PX * 2)
        axis.imshow(small[..., ::-1])
        _draw_boxes(axis, sample, scale)
        axis.set_title(f"{sample.path.name} · {len(sample.labels)}", fontsize=8, color="#334155")
    shown = sorted({int(label) for i in chosen for label in dataset.samples[i].labels})
    handles = [plt.Rectangle((0, 0), 1, 1, color=color_of(label)) for label in shown[:20]]
    names = [dataset.classes[label] for label in shown[:20]]
    if names:
        figure.legend(
            handles, names, loc="outside lower center", ncols=min(8, len(names)), frameon=False
        )
    title = f"{dataset.name}: {len(chosen)} of {len(dataset.samples)} pictures"
    figure.suptitle(title, fontsize=13, fontweight="bold", color="#0f172a")
    _save(figure, path)


def size_plot(dataset: DataSet, path: Path | str) -> None:
    """Plot width against height of all boxes, and how their sizes are distributed, as a PNG."""
    from matplotlib import ticker

    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    sides = _sides_px(dataset)
    low, high = (max(1.0, sides.min()), sides.max()) if len(sides) else (4.0, 64.0)
    edges = np.geomspace(low / 1.05, max(high, 2 * low) * 1.05, 32)
    for label, name in enumerate(dataset.classes):
        boxes = [s.xyxy[s.labels == label] for s in dataset.samples]
        wh = np.concatenate([np.zeros((0, 4), np.float32), *boxes])
        wh = wh[:, 2:] - wh[:, :2]  # (N, 2)
        if not len(wh):
            continue
        tag = f"{name} ({len(wh)})" if label < 15 else None
        alpha = float(np.clip(40 / math.sqrt(len(wh)), 0.15, 0.8))
        left.scatter(*wh.T, s=9, alpha=alpha, color=color_of(label), label=tag, linewidths=0)
        side = np.sqrt(wh.prod(axis=1))
        right.hist(
            side, bins=edges, histtype="step", linewidth=1.8, color=color_of(label), label=tag
        )
    left.set(xlabel="width / px", ylabel="height / px", title="boxes", xscale="log", yscale="log")
    right.set(xlabel="side (√area) / px", ylabel="boxes", title="sizes", xscale="log", yscale="log")
    for side, size in ((32, "small | medium"), (96, "medium | large")):
        right.axvline(side, color="#94a3b8", linestyle=":", linewidth=1.2)
        place = right.get_xaxis_transform()
        right.text(side, 1.01, size, transform=place, fontsize=7, color="#64748b", ha="center")
    right.set_title("sizes", pad=14)
    for axis in (left, right):
        axis.grid(True, which="major", color="#e2e8f0")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in (left.xaxis, left.yaxis, right.xaxis):
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5), numticks=12))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(ticker.NullLocator())
    right.yaxis.set_major_formatter("{x:g}")
    if len(sides):
        legend = left.legend(fontsize=8, frameon=False)
        for handle in legend.legend_handles:
            handle.set_alpha(1)
    figure.suptitle(dataset.name, fontsize=13, fontweight="bold", color="#0f172a")
    _save(figure, path)


def _save(figure: Any, path: Path | str) -> None:
    try:
        figure.savefig(path, format="png", dpi=110, facecolor="white")
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        pyplot().close(figure)


def pyplot() -> Any:
    """matplotlib.pyplot on the Agg backend: no screen is needed, none is touched."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def color_of(label: int) -> str:
    """The colour of a class, "#rrggbb"."""
    return PALETTE[label % len(PALETTE)]


def thumbnail(image: Image, longest_px: int) -> tuple[Image, float]:
    """A picture scaled down to at most `longest_px`, and by how much; never up."""
    import cv2

    scale = min(1.0, longest_px / max(image.shape[:2]))
    if scale == 1:
        return image, 1.0
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small: Image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(
        np.uint8, copy=False
    )
    return small, scale


def _draw_boxes(axis: Any, sample: Sample, scale: float) -> None:
    from matplotlib.patches import Rectangle

    for xyxy, label, crowd, difficult in zip(
        sample.xyxy * scale, sample.labels, sample.crowd, sample.difficult, strict=True
    ):
        x1, y1, x2, y2 = map(float, xyxy)
        style = "--" if crowd or difficult else "-"
        color = color_of(int(label))
        box = Rectangle(
            (x1, y1), x2 - x1, y2 - y1, fill=False, linewidth=1.4, linestyle=style, ec=color
        )
        axis.add_patch(box)


def _choose(dataset: DataSet, wanted: int, random: np.random.Generator) -> list[int]:
    """Indices of samples, drawn in turn for each class and for pictures without objects."""
    order = random.permutation(len(dataset.samples)).tolist()
    queues = [
        [i for i in order if (dataset.samples[i].labels == label).any()]
        for label in range(len(dataset.classes))
    ]
    queues.append([i for i in order if not len(dataset.samples[i].labels)])
    chosen: dict[int, None] = {}
    while len(chosen) < min(wanted, len(order)):
        for queue in queues:
            while queue and queue[0] in chosen:
                queue.pop(0)
            if queue and len(chosen) < wanted:
                chosen[queue.pop(0)] = None
    return list(chosen)


def _sides_px(dataset: DataSet) -> npt.NDArray[np.float32]:
    """The square root of the area of each box of the data set: float32 (N,) px."""
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(s.xyxy for s in dataset.samples)])
    sides: npt.NDArray[np.float32] = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    return sides
