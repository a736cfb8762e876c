"""A plan as a picture: SVG text, left to right, one box a process, one line an edge.

A layered drawing after Sugiyama: columns by longest path from a source, a line that passes columns gets
a lane in each, lines into one consumer share their lanes, and boxes move towards their neighbours.
Processes of one kind beyond four (the cameras of a large site) are one box.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from xml.sax.saxutils import escape

from pipeline.accounts.layout import DETECT, VIEW
from pipeline.plan.graph import EdgeSpec, Plan, ProcessSpec

FOLD_ABOVE = 4  # processes of one kind
_COLORS = {"detect": "#2563eb", "view": "#0f766e", "results": "#b45309"}
_BOX_PX, _LANE_PX, _GAP_PX = 58, 14, 22  # heights, and the space between two of them
_COLUMN_GAP_PX, _LABEL_PX = 146, 84  # a line bends in the first part, its label is over the rest
_MARGIN_PX = 28
_CHAR_PX = 0.58  # width of a letter of a sans-serif font, per px of its size; on the wide side


@dataclass(eq=False)
class _Node:
    """A box, or a lane (no `lines`) of what goes to `consumer`."""

    column: int
    lines: list[str] = field(default_factory=list)
    role: str = ""
    y: float = 0.0  # of its middle
    inputs: list[_Node] = field(default_factory=list)
    outputs: list[_Node] = field(default_factory=list)

    @property
    def height(self) -> int:
        return _BOX_PX if self.lines else _LANE_PX


@dataclass(frozen=True, eq=False)
class _Wire:
    """From a box, by lanes, to a box."""

    nodes: list[_Node]
    kind: str
    label: str


def svg(plan: Plan) -> str:
    """The picture as a whole SVG document; needs no other file. Pure."""
    groups = _groups(plan)
    of = {spec.name: group[0].name for group in groups for spec in group}
    columns = _columns(groups, of)
    boxes = {
        group[0].name: _Node(columns[group[0].name], _lines(group), group[0].role)
        for group in groups
    }
    wires = _wires(groups, of, boxes)
    nodes = list(dict.fromkeys([*boxes.values(), *(n for wire in wires for n in wire.nodes)]))
    layers = [[n for n in nodes if n.column == c] for c in range(max(columns.values()) + 1)]
    _place(layers)
    return _document(plan, layers, wires)


# -- what there is ---------------------------------------------------------------------------------


def _groups(plan: Plan) -> list[list[ProcessSpec]]:
    """Processes that are drawn as one box: more than FOLD_ABOVE of one kind."""
    kinds: dict[tuple[str, str], list[ProcessSpec]] = defaultdict(list)
    for name in plan.order():
        spec = plan.by_name[name]
        kinds[(name if spec.role == "sink" else name.partition(".")[0], spec.run)].append(spec)
    groups: list[list[ProcessSpec]] = []
    for specs in kinds.values():
        groups += [specs] if len(specs) > FOLD_ABOVE else [[spec] for spec in specs]
    return groups


def _columns(groups: list[list[ProcessSpec]], of: dict[str, str]) -> dict[str, int]:
    """Longest path from a source; sinks all stand in the last column. Groups are in wiring order."""
    columns = {group[0].name: 0 for group in groups}
    for _ in groups:  # a path is at most as long as there are groups
        for group in groups:
            for edge in (edge for spec in group for edge in spec.outputs):
                consumer = of[edge.consumer]
                columns[consumer] = max(columns[consumer], columns[group[0].name] + 1)
    last = max(columns.values())
    sinks = {group[0].name for group in groups if group[0].role == "sink"}
    return {name: last if name in sinks else column for name, column in columns.items()}


def _lines(group: list[ProcessSpec]) -> list[str]:
    first = group[0]
    title, what = first.name, first.run.partition(":")[2] or "fair batches"
    if len(group) > 1:
        title = f"{first.name.partition('.')[0]} ×{len(group)}"
        what += f": {first.name.partition('.')[2]} … {group[-1].name.partition('.')[2]}"
    memory = sum(spec.slots * spec.slot_bytes for spec in group) / 2**20
    slots = sum(spec.slots for spec in group)
    return [title, _short(what), f"{slots} slots, {memory:.1f} MiB" if slots else "no pool"]


def _short(text: str, limit: int = 34) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _wires(
    groups: list[list[ProcessSpec]], of: dict[str, str], boxes: dict[str, _Node]
) -> list[_Wire]:
    wires = []
    lanes: dict[tuple[str, str, int], _Node] = {}
    seen = set()
    for group in groups:
        for edge in (edge for spec in group for edge in spec.outputs):
            source, target, kind = boxes[group[0].name], boxes[of[edge.consumer]], _kind(edge)
            if (source, target, kind) in seen:
                continue
            seen.add((source, target, kind))
            path = [source]
            for column in range(source.column + 1, target.column):
                key = of[edge.consumer], kind, column
                path.append(lanes.setdefault(key, _Node(column)))
            path.append(target)
            for left, right in pairwise(path):
                if right not in left.outputs:
                    left.outputs.append(right)
                    right.inputs.append(left)
            wires.append(_Wire(path, kind, _label(edge)))
    return wires


def _kind(edge: EdgeSpec) -> str:
    return "detect" if DETECT in edge.paths else "view" if VIEW in edge.paths else "results"


def _label(edge: EdgeSpec) -> str:
    full = "newest" if edge.overflow == "drop" else "wait"
    limit = f", ≤ {edge.max_hz:g}/s" if edge.max_hz else ""
    return f"{edge.credits} + {edge.depth}, {full}{limit}"


# -- where it goes ---------------------------------------------------------------------------------


def _place(layers: list[list[_Node]]) -> None:
    for layer in layers:
        _spread(layer, [0.0] * len(layer))
    for sweep in range(24):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            # the side that was placed in this sweep counts, and what it leads to a little
            wanted = [_pull(node, forth=sweep % 2 == 0) for node in layer]
            pairs = sorted(zip(wanted, layer, strict=True), key=lambda pair: pair[0])
            layer[:] = [node for _, node in pairs]
            _spread(layer, [y for y, _ in pairs])


def _pull(node: _Node, *, forth: bool) -> float:
    near, far = (node.inputs, node.outputs) if forth else (node.outputs, node.inputs)
    sides = [(sum(n.y for n in side) / len(side)) for side in (near, far) if side]
    return sides[0] * 0.7 + sides[1] * 0.3 if len(sides) == 2 else (sides or [node.y])[0]


def _spread(layer: list[_Node], wanted: list[float]) -> None:
    """As near to what they want as their heights allow, in this order."""
    below = float("-inf")
    for node, y in zip(layer, wanted, strict=True):
        node.y = max(y, below + node.height / 2)
        below = node.y + node.height / 2 + _GAP_PX
    shift = sum(n.y - y for n, y in zip(layer, wanted, strict=True)) / max(1, len(layer))
    for node in layer:
        node.y -= shift


# -- ink -------------------------------------------------------------------------------------------


def _document(plan: Plan, layers: list[list[_Node]], wires: list[_Wire]) -> str:
    nodes = [node for layer in layers for node in layer]
    top = min(node.y - node.height / 2 for node in nodes) - _MARGIN_PX - 36
    for node in nodes:
        node.y -= top
    lefts, widths, x = [], [], float(_MARGIN_PX)
    for layer in layers:
        lefts.append(x)
        widths.append(max([_width(node) for node in layer if node.lines], default=0.0))
        x += widths[-1] + _COLUMN_GAP_PX
    width = max(x - _COLUMN_GAP_PX + _MARGIN_PX, 1100)  # the legend's
    height = max(node.y + node.height / 2 for node in nodes) + 2 * _MARGIN_PX + 24
    body = [
        _text(_MARGIN_PX, 34, _title(plan), 15, weight=600),
        *_curves(wires, lefts, widths),
        *(part for n in nodes if n.lines for part in _box(n, lefts[n.column], widths[n.column])),
        *_legend(height - _MARGIN_PX, wires),
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" '
            'font-family="system-ui, -apple-system, Helvetica, Arial, sans-serif">',
            f"<title>{escape(_title(plan))}</title>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *body,
            "</svg>\n",
        ]
    )


def _title(plan: Plan) -> str:
    n = len(plan.cameras)
    memory = sum(spec.slots * spec.slot_bytes for spec in plan.processes) / 2**20
    cameras = f"{n} camera{'s' if n > 1 else ''}"
    processes = f"{len(plan.processes)} processes, {memory:.0f} MiB of shared memory"
    return f"{cameras}, {processes}, policy {plan.policy}"


def _width(node: _Node) -> float:
    sizes = (14, 11, 11)  # the first is bold: wider
    return 26 + max(len(t) * s * _CHAR_PX for t, s in zip(node.lines, sizes, strict=True))


def _box(node: _Node, left: float, width: float) -> Iterator[str]:
    top = node.y - _BOX_PX / 2
    yield (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{_BOX_PX}" rx="7" '
        'fill="#f8fafc" stroke="#475569"/>'
    )
    for row, text in enumerate(node.lines):
        size, color, weight = ((13, "#0f172a", 600), (11, "#334155", 400), (11, "#64748b", 400))[
            row
        ]
        yield _text(left + 12, top + 19 + 16 * row, text, size, color, weight)


def _curves(wires: list[_Wire], lefts: list[float], widths: list[float]) -> Iterator[str]:
    """All lines, each once though many wires share it, then arrows and labels on top of them."""
    lines: dict[str, str] = {}  # path → colour, in order
    labels: dict[tuple[float, float, str], str] = {}
    for wire in wires:
        entry = _entry(wire, wires)
        for left, right in pairwise(wire.nodes):
            y = entry if right.lines else right.y
            start, end = lefts[left.column] + widths[left.column], lefts[right.column]
            if not left.lines:  # straight through its column
                lines[f"M{lefts[left.column]:.1f} {left.y:.1f}H{start:.1f}"] = _COLORS[wire.kind]
            bent, tip = (end - _LABEL_PX, end - 7) if right.lines else (end, end)
            bend = (start + bent) / 2
            curve = f"C{bend:.1f} {left.y:.1f} {bend:.1f} {y:.1f} {bent:.1f} {y:.1f}H{tip:.1f}"
            lines[f"M{start:.1f} {left.y:.1f}{curve}"] = _COLORS[wire.kind]
        labels[lefts[wire.nodes[-1].column], entry, wire.label] = _COLORS[wire.kind]
    yield from (_path(d, color) for d, color in lines.items())
    for (x, y, text), color in labels.items():
        yield f'<path d="M{x - 8:.1f} {y - 4:.1f}l8 4l-8 4z" fill="{color}"/>'
        yield _text(x - 12, y - 7, text, 10, color, anchor="end")


def _entry(wire: _Wire, wires: list[_Wire]) -> float:
    """Where it enters its box: each kind of edge at a place of its own, in the order they come in."""
    target = wire.nodes[-1]
    heights: dict[str, list[float]] = defaultdict(list)
    for other in wires:
        if other.nodes[-1] is target:
            heights[other.kind].append(other.nodes[-2].y)
    kinds = sorted(heights, key=lambda kind: sum(heights[kind]) / len(heights[kind]))
    step = _BOX_PX / 2
    return target.y + (kinds.index(wire.kind) - (len(kinds) - 1) / 2) * step


def _legend(y: float, wires: list[_Wire]) -> Iterator[str]:
    x = float(_MARGIN_PX)
    used = {wire.kind for wire in wires}
    for kind, text in (
        ("detect", "frames to the model"),
        ("view", "frames to be seen"),
        ("results", "results and drawn frames"),
    ):
        if kind in used:
            yield _path(f"M{x:.1f} {y - 4:.1f}h22", _COLORS[kind])
            yield _text(x + 28, y, text, 11, "#334155")
            x += 28 + len(text) * 11 * _CHAR_PX + 22
    full = {
        "newest": "newest: a newer one takes the place of the oldest that waits",
        "wait": "wait: the writer waits",
    }
    notes = [note for word, note in full.items() if any(word in wire.label for wire in wires)]
    yield _text(x, y, "; ".join(["credits + waiting, per camera", *notes]), 11, "#64748b")


def _path(d: str, color: str) -> str:
    return f'<path d="{d}" fill="none" stroke="{color}" stroke-width="1.6"/>'


def _text(
    x: float, y: float, text: str, size: int, color: str = "#0f172a", weight: int = 400,
    anchor: str = "start",
) -> str:  # fmt: skip
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{color}" '
        f'text-anchor="{anchor}" paint-order="stroke" stroke="#ffffff" stroke-width="3" '
        f'stroke-linejoin="round">{escape(text)}</text>'
    )
