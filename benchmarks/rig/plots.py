"""The pictures of the benchmarks, as matplotlib figures on the Agg backend.

`write(document, path)` draws what a document of any benchmark has to show: the figures against their
targets, and for `stages`, `capacity` and `fleet` what these are about.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, ResourceError

INK, SOFT, LINE = "#0f172a", "#64748b", "#e2e8f0"
GOOD, BAD, UNSURE, PLAIN = "#10b981", "#e11d48", "#f59e0b", "#94a3b8"
_VERDICTS = {"met": GOOD, "missed": BAD, "undecided": UNSURE, "report": PLAIN}
_COLORS = ("#3b82f6", "#8b5cf6", "#06b6d4", "#f97316", "#10b981", "#ec4899", "#eab308", "#84cc16")
_MS_SHOWN = 0.045  # share of the whole below which a part has no room for its name


def shown(value: float) -> str:
    """Three digits, never an exponent.

    >>> shown(0.98765), shown(1163.4)
    ('0.988', '1163')
    """
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def write(document: Mapping[str, Any], path: Path) -> None:
    """Draw a document into a .png or .svg file. Raises ConfigError without matplotlib, ResourceError."""
    kinds = {"stages": flame, "capacity": curve, "fleet": sizes}
    figure = kinds.get(document["benchmark"], figures)(document)
    try:
        figure.savefig(path, dpi=144, facecolor="white")
    except OSError as error:
        raise ResourceError(f"{path}: can't be written: {error.strerror or error}") from error
    finally:
        pyplot().close(figure)


def pyplot() -> Any:
    """matplotlib.pyplot on the Agg backend. Raises ConfigError where it is not installed."""
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ConfigError(
            "the plots need matplotlib, which is not installed; pip install 'manyeyes[bench]'"
        ) from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.fonttype"] = "none"  # text stays text
    plt.rcParams["text.parse_math"] = False  # a $ in a name is a $
    plt.rcParams["svg.hashsalt"] = "manyeyes"  # the same document gives the same file
    return plt


def svg(figure: Any) -> str:
    """A figure as an <svg> element for a page; it is closed afterwards."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    pyplot().close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


# -- figures against targets -----------------------------------------------------------------------


def figures(document: Mapping[str, Any]) -> Any:
    """Each figure with its interval on a log axis; a bar where its target is, the good side tinted."""
    rows = document["figures"]
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(11, 1.2 + 0.5 * max(1, len(rows))), layout="constrained")
    positive = [v for row in rows for v in _numbers(row) if v > 0 and math.isfinite(v)]
    left, right = min(positive, default=0.1) / 2, max(positive, default=10) * 2
    axis.set_xscale("log", subs=(2, 5))
    axis.set_xlim(left, right)
    _numbered(axis.xaxis, minor=right / left < 300)
    for place, row in enumerate(rows):
        color = _VERDICTS[row["verdict"]]
        value, low, high = (min(max(row[key], left), right) for key in ("value", "low", "high"))
        if target := row["target"]:
            span = (left, target["limit"]) if target["sign"] == "≤" else (target["limit"], right)
            axis.fill_betweenx([place - 0.36, place + 0.36], *span, color=GOOD, alpha=0.1, lw=0)
            axis.plot([target["limit"]] * 2, [place - 0.36, place + 0.36], color=INK, lw=1.8)
        axis.plot([low, high], [place, place], color=color, lw=5, solid_capstyle="round", alpha=0.5)
        axis.plot(value, place, "o", color=color, ms=8, mec="white", mew=1)
        goal = f"{target['sign']} {target['limit']:g}" if target else ""
        for x_pt, text in ((48, shown(row["value"])), (104, goal), (172, row["verdict"])):
            axis.annotate(
                text, (1, place), xycoords=axis.get_yaxis_transform(), xytext=(x_pt, 0),
                textcoords="offset points", ha="right", va="center", fontsize=9.5, color=color,
                weight="bold" if target else "normal",
            )  # fmt: skip
    names = ["\n".join(textwrap.wrap(f"{row['id']}  {row['what']}", 62)[:2]) for row in rows]
    axis.set_yticks(range(len(rows)), names, fontsize=9, color=INK)
    axis.set_ylim(len(rows) - 0.45, -0.55)
    _plain(axis)
    axis.grid(True, axis="x", color=LINE)
    axis.tick_params(axis="y", length=0)
    machine = document["machine"]
    axis.set_title(
        f"{document['benchmark']}: {machine['cpu']}, {machine['cores']} cores, {machine['date']}, "
        f"commit {machine['commit']}\ndot: median; bar: 95 % interval; line: target; tinted: where it "
        "should lie",
        fontsize=9, color=SOFT, loc="left",
    )  # fmt: skip
    return figure


def _numbers(row: Mapping[str, Any]) -> list[float]:
    limit = [row["target"]["limit"]] if row["target"] else []
    return [row["value"], row["low"], row["high"], *limit]


# -- capacity --------------------------------------------------------------------------------------


def curve(document: Mapping[str, Any]) -> Any:
    """p99 latency, and the share of frames served, against cameras; the limits are drawn in."""
    plt = pyplot()
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(10, 5.6), sharex=True, layout="constrained", height_ratios=(3, 2)
    )
    ran = [row for row in document["trials"] if not row["failure"]]
    limit_ms, served = document["question"]["p99_ms"], document["question"]["served"]
    for axis, key, factor in ((above, "p99_ms", 1), (below, "served", 100)):
        points = [(row["cameras"], factor * row[key], row) for row in ran if row[key] is not None]
        best = {n: value for n, value, row in sorted(points, key=lambda p: p[2]["confirmed"])}
        axis.plot(sorted(best), [best[n] for n in sorted(best)], color="#94a3b8", lw=1.5, zorder=1)
        for n, value, row in points:
            color = GOOD if row["passed"] else BAD
            face = color if row["confirmed"] else "white"
            axis.plot(n, value, "o", mfc=face, mec=color, mew=1.8, ms=8, zorder=3)
        _plain(axis)
        axis.grid(True, color=LINE)
        if document["cameras"]:
            axis.axvspan(0, document["cameras"] + 0.5, color=GOOD, alpha=0.07, lw=0, zorder=0)
    _limit(above, limit_ms, f"limit {limit_ms:g} ms", "bottom")
    _limit(below, 100 * served, f"limit {100 * served:g} %", "top")
    above.set_yscale("log", subs=(2, 5))
    _numbered(above.yaxis, minor=True)
    low_ms, high_ms = above.get_ylim()
    above.set_ylim(min(low_ms, limit_ms / 3), 1.4 * max(high_ms, limit_ms * 2))
    above.set_ylabel("p99 latency, ms", color=SOFT)
    below.set_ylabel("frames served, %", color=SOFT)
    below.set_xlabel("cameras", color=SOFT)
    below.set_ylim(min(below.get_ylim()[0], 100 * served - 1.5), 101)
    most = max((row["cameras"] for row in ran), default=1)
    below.set_xlim(0, most * 1.04 + 0.5)
    best_n = document["hardware_cameras"]
    if best_n < most * 1.04:
        for axis in (above, below):
            axis.axvline(best_n, color=SOFT, lw=1.3, ls=":", zorder=1)
        above.annotate(
            f"hardware limit {best_n:.1f}", (best_n, 1), xycoords=("data", "axes fraction"),
            xytext=(-5, -12), textcoords="offset points", fontsize=9, color=SOFT, ha="right",
        )  # fmt: skip
    below.xaxis.get_major_locator().set_params(integer=True)
    above.set_title(
        "filled: the trials that decided; hollow: the others; green: passes, red: does not",
        fontsize=9, color=SOFT, loc="left",
    )  # fmt: skip
    return figure


def _limit(axis: Any, value: float, text: str, side: str) -> None:
    axis.axhline(value, color=INK, lw=1.3, ls=(0, (5, 3)), zorder=2)
    axis.annotate(
        text, (0, value), xycoords=("axes fraction", "data"), ha="left", va=side, fontsize=9,
        color=INK, xytext=(4, 3 if side == "bottom" else -3), textcoords="offset points",
    )  # fmt: skip


# -- fleet ---------------------------------------------------------------------------------------------


def sizes(document: Mapping[str, Any]) -> Any:
    """What is measured of fleets of several sizes, each against the number of cameras, with its target."""
    curves: dict[str, list[Mapping[str, Any]]] = {}
    for row in document["figures"]:
        curves.setdefault(row["what"].partition(": ")[2], []).append(row)
    plt = pyplot()
    rows_high = math.ceil(len(curves) / 2)
    figure, axes = plt.subplots(
        rows_high,
        2,
        figsize=(11, 2.7 * rows_high),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, (name, rows) in zip(axes.flat, curves.items(), strict=False):
        cameras = [int(row["what"].partition(" ")[0]) for row in rows]
        axis.fill_between(
            cameras, [row["low"] for row in rows], [row["high"] for row in rows], color=_COLORS[0],
            alpha=0.15, lw=0,
        )  # fmt: skip
        axis.plot(
            cameras, [row["value"] for row in rows], "o-", color=_COLORS[0], mec="white", ms=7
        )
        axis.set_xscale("log")
        axis.set_ylim(0, 1.12 * max(v for row in rows for v in _numbers(row)))
        if target := rows[0]["target"]:
            limit = target["limit"]
            _limit(axis, limit, f"wanted {target['sign']} {limit:g}", "bottom")
        axis.set_title(name, fontsize=10, color=INK, loc="left")
        axis.set_xticks(cameras, list(map(str, cameras)))
        axis.minorticks_off()
        axis.grid(True, color=LINE)
        _plain(axis)
    for axis in axes[-1]:
        axis.set_xlabel("cameras", color=SOFT)
    return figure


# -- stages ----------------------------------------------------------------------------------------


def flame(document: Mapping[str, Any]) -> Any:
    """A frame's way from capture to result, and the CPU time that it costs, each as a flame."""
    plt = pyplot()
    figure, (way, work) = plt.subplots(2, 1, figsize=(11, 5.2), layout="constrained")
    stages = document["stages"]
    colors = {row["stage"]: _COLORS[i % len(_COLORS)] for i, row in enumerate(stages)}
    latency = document["latency"]
    parts: list[tuple[str, float, Sequence[tuple[str, float]]]] = [
        (row["stage"], row["wait_ms"] + row["service_ms"],
         (("waits", row["wait_ms"]), ("works", row["service_ms"])))
        for row in stages if row["on_the_way"]
    ]  # fmt: skip
    between_ms = latency["mean_ms"] - sum(ms for _, ms, _ in parts)
    if between_ms > 0.02 * latency["mean_ms"]:
        parts.append(("messages and the rest", between_ms, ()))
    title = f"capture → result: mean {latency['mean_ms']:.1f} ms"
    _flame(way, title, parts, colors)
    way.set_title(
        f"the way of a frame (p50 {latency['p50_ms']:.1f} ms, p99 {latency['p99_ms']:.1f} ms)",
        fontsize=10, color=SOFT, loc="left",
    )  # fmt: skip
    cpu = sorted(((row["stage"], row["cpu_ms"], ()) for row in stages), key=lambda part: -part[1])
    total_ms = sum(ms for _, ms, _ in cpu)
    _flame(work, f"CPU: {total_ms:.1f} ms a frame", cpu, colors)
    work.set_title("what it costs, in all processes", fontsize=10, color=SOFT, loc="left")
    handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in colors.values()]
    figure.legend(
        handles, list(colors), loc="outside lower center", ncols=8, fontsize=8.5, frameon=False,
        handlelength=1, labelcolor=INK,
    )  # fmt: skip
    return figure


def _flame(
    axis: Any,
    title: str,
    parts: Sequence[tuple[str, float, Sequence[tuple[str, float]]]],
    colors: Mapping[str, str],
) -> None:
    """One bar for the whole, its parts above it, and their parts above them."""
    total = max(sum(ms for _, ms, _ in parts), 1e-9)
    _bar(axis, 0, 0, total, total, title, "#cbd5e1", INK)
    left, floors = 0.0, 2
    for name, ms, inner in parts:
        color = colors.get(name, "#94a3b8")
        _bar(axis, 1, left, ms, total, f"{name} {_short(ms)} ms", color, "white")
        at = left
        for word, part_ms in inner:
            floors = 3
            works = word == "works"
            _bar(axis, 2, at, part_ms, total, f"{word} {_short(part_ms)}", color,
                 "white" if works else INK, alpha=1.0 if works else 0.3)  # fmt: skip
            at += part_ms
        left += ms
    axis.set_xlim(0, total)
    axis.set_ylim(-0.05, floors)
    axis.set_yticks([])
    _plain(axis)
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("ms", color=SOFT)


def _short(ms: float) -> str:
    return f"{ms:.0f}" if ms >= 9.95 else f"{ms:.1f}" if ms >= 0.95 else f"{ms:.2f}"


def _bar(
    axis: Any, floor: int, left: float, width: float, total: float, text: str, color: str, ink: str,
    *, alpha: float = 1.0,
) -> None:  # fmt: skip
    axis.barh(floor, width, left=left, height=0.94, align="edge", color=color, alpha=alpha,
              edgecolor="white", linewidth=1.2)  # fmt: skip
    share = width / total
    if share < _MS_SHOWN:
        return
    room = int(130 * share)  # characters that fit
    lines = textwrap.wrap(text.replace(" ms", "\u00a0ms"), max(6, room), break_long_words=False)
    if len(lines) <= 3 and max(map(len, lines)) <= room:
        axis.text(left + width / 2, floor + 0.47, "\n".join(lines), ha="center", va="center",
                  color=ink, fontsize=8.5)  # fmt: skip


def _numbered(side: Any, *, minor: bool) -> None:
    """Plain numbers at a log axis, at its small ticks, too, if there is room."""
    import matplotlib.ticker as ticks

    plain = ticks.FuncFormatter(lambda value, _: f"{value:g}")
    side.set_major_formatter(plain)
    side.set_minor_formatter(plain if minor else ticks.NullFormatter())


def _plain(axis: Any) -> None:
    axis.tick_params(which="both", colors=INK, labelsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color("#cbd5e1")
    axis.set_axisbelow(True)
