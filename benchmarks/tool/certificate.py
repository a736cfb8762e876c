"""The certificate of a capacity as one HTML file that needs nothing beside it."""

from __future__ import annotations

import html
from typing import Any

from benchmarks.rig import plots
from benchmarks.rig.measure import ROOT
from benchmarks.tool.capacity import headline
from benchmarks.tool.search import SLOWER

_CSS = ROOT / "stages" / "training" / "report.css"
_MORE_CSS = """
.answer { display: flex; align-items: baseline; gap: 18px; margin: 6px 0 20px; }
.answer b { font-size: 76px; line-height: 1; letter-spacing: -.04em; color: #059669; }
.answer.none b { color: #dc2626; }
.answer span { font-size: 19px; color: var(--soft); max-width: 44em; }
.tiles b { white-space: nowrap; }
.chart svg { width: 100%; height: auto; display: block; }
section p { margin: 0 0 8px; max-width: 62em; }
pre { background: #0f172a; color: #e2e8f0; border-radius: 8px; padding: 14px 16px; overflow-x: auto;
  font-size: 13px; white-space: pre-wrap; }
td.yes { color: #059669; } td.no { color: #dc2626; }
.facts td { text-align: left; } .facts td:first-child { color: var(--soft); width: 15em; }
"""


def page(document: dict[str, Any]) -> str:
    """One HTML file that needs nothing beside it."""
    machine, n = document["machine"], document["cameras"]
    style = _CSS.read_text(encoding="utf-8") + _MORE_CSS
    title = f"{n} camera{'' if n == 1 else 's'} on {machine['cpu']}, {machine['cores']} cores"
    if machine["gpu"]:
        title += f", {machine['gpu']}"
    parts = [
        f"<h1>How many cameras does this machine take?</h1><p class=sub>{_safe(title)}</p>",
        f"<div class='answer{'' if n else ' none'}'><b>{n}</b>"
        f"<span>{_safe(headline(document))}</span></div>",
        _tiles(document),
        _section("The curve", f"<div class=chart>{plots.svg(plots.curve(document))}</div>"),
        _section("What limits it", _words(document)),
        _section("Every trial", _trials(document)),
        _section("The machine", _facts(document)),
        _section("How to repeat it", _repeat(document)),
        f"<footer>manyeyes {_safe(machine['commit'])}, {_safe(machine['date'])}</footer>",
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_safe(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{style}</style><main>{''.join(parts)}</main></html>\n"
    )


def _safe(text: object) -> str:
    return html.escape(str(text))


def _section(title: str, body: str) -> str:
    return f"<section><h2>{_safe(title)}</h2>{body}</section>"


def _confirmed(document: dict[str, Any], cameras: int) -> dict[str, Any] | None:
    rows = [t for t in document["trials"] if t["confirmed"] and t["cameras"] == cameras]
    return rows[0] if rows else None


def _tiles(document: dict[str, Any]) -> str:
    tiles = {}
    if (seen := _confirmed(document, document["cameras"])) is not None:
        tiles = {
            "p50 latency": f"{seen['p50_ms']:.0f} ms",
            "p99 latency": f"{seen['p99_ms']:.0f} ms",
            "frames served": f"{seen['served']:.1%}",
            "frames a second": f"{seen['fps']:.0f}",
            f"of {document['machine']['cores']} cores busy": f"{seen['cores']:.1f}",
            "memory": f"{seen['memory_bytes'] / 2**30:.1f} GiB",
        }
    share = next(row for row in reversed(document["figures"]) if row["id"].startswith("e"))
    tiles["of the hardware's limit"] = f"{share['value']:.0%}"
    cells = [
        f"<div><b>{_safe(value)}</b><span>{_safe(name)}</span></div>"
        for name, value in tiles.items()
    ]
    return f"<div class=tiles>{''.join(cells)}</div>"


def _words(document: dict[str, Any]) -> str:
    n, hardware = document["cameras"], document["hardware"]
    more = f"With {n + 1} cameras the limit is {document['limited_by']['words']}."
    if _confirmed(document, n + 1) is None:
        more = f"The search ended at {n} cameras; more were not tried."
    model = " and ".join(f"{row['model_fps']:.0f}" for row in hardware)
    decode = "The scenes come from memory, so nothing is decoded"
    if hardware[0]["decode_fps"] is not None:
        rates = " and ".join(f"{row['decode_fps']:.0f}" for row in hardware)
        decode = f"Decoding alone gives {rates} frames a second on this machine"
    lines = [
        more,
        f"{decode}; the bare model gives {model} ({hardware[0]['how']}), before and after the search.",
    ]
    for row in document["figures"]:
        if row["id"].startswith("e"):
            against = row["what"].partition(" / ")[2]
            verdict = f"; the target is 90 %: {row['verdict']}" if row["target"] else ""
            lines.append(
                f"The run reaches {row['value']:.0%} ({row['low']:.0%} to {row['high']:.0%}) of "
                f"{against}{verdict}."
            )
    return "".join(f"<p>{_safe(line)}</p>" for line in lines)


def _trials(document: dict[str, Any]) -> str:
    names = (
        "cameras",
        "time",
        "p50 ms",
        "p99 ms",
        "served",
        "frames/s",
        "cores",
        "others",
        "work ms",
        "answer",
    )
    head = "".join(f"<th>{name}</th>" for name in names)
    body = []
    for row in sorted(document["trials"], key=lambda t: (t["cameras"], t["seconds"])):
        cells = [
            row["cameras"], f"{row['seconds']:.0f} s", _ms(row["p50_ms"]), _ms(row["p99_ms"]),
            f"{row['served']:.1%}", f"{row['fps']:.1f}", f"{row['cores']:.2f}",
            f"{row['others']:.2f}", f"{row['core_ms']:.2f}",
        ]  # fmt: skip
        answer = (
            f"<td class={'yes' if row['passed'] else 'no'}>{_safe(row['why'] or 'passes')}</td>"
        )
        body.append(
            "<tr>" + "".join(f"<td>{_safe(cell)}</td>" for cell in cells) + answer + "</tr>"
        )
    note = (
        "<p class=sub>cores: that the run kept busy; others: that other programs did meanwhile; work: "
        "what a core took for the same small piece of work in the slowest second, so how fast the "
        "cores were. What failed while they were slower than usual by more than "
        f"{SLOWER - 1:.0%} was tried again</p>"
    )
    return (
        f"{note}<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>"
        "</table></div>"
    )


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _facts(document: dict[str, Any]) -> str:
    machine, question = document["machine"], document["question"]
    clips = ", ".join(
        f"{clip['source']} ({clip['width']}×{clip['height']}, {clip['rate_hz']:g} fps)"
        for clip in question["clips"]
    )
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items() if v)
    rows = {
        "CPU": f"{machine['cpu']}, {machine['cores']} cores",
        "GPU": machine["gpu"] or "none",
        "system": f"{machine['system']}, Python {machine['python']}",
        "versions": versions,
        "other load": f"load {machine['load_before']} → {machine['load_after']}, "
        f"{machine['steal_share']:.1%} of the CPU time stolen by other guests",
        "model": f"{question['model']} (engine {question['engine']})",
        "cameras": clips,
    }
    body = "".join(f"<tr><td>{_safe(k)}</td><td>{_safe(v)}</td></tr>" for k, v in rows.items())
    return f"<table class=facts><tbody>{body}</tbody></table>"


def _repeat(document: dict[str, Any]) -> str:
    return (
        "<p>On a machine that does nothing else:</p>"
        f"<pre>{_safe(document['command'])}</pre>"
        "<p>One number of cameras alone, with an exit code that says whether it passes:</p>"
        f"<pre>{_safe(document['command'])} --cameras {max(1, document['cameras'])}</pre>"
        "<p>Copies of the clips are played in real time, each with a phase of its own, and begin again at "
        "their end; the policy is newest. The number is doubled until it fails, then bisected with short "
        "looks; the answer passes over the full time, and one camera more fails over the full time. The "
        "start and the warm-up are not counted. Latency is from the end of decoding to the result, over "
        "all cameras; a frame that a camera should have sent and nobody read counts as lost.</p>"
    )
