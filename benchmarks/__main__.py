"""All benchmarks, one after the other, and the table in README.md: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.rig.measure import ROOT
from benchmarks.rig.plots import shown

README = Path(__file__).with_name("README.md")
RESULTS = ROOT / "out" / "bench"
BEGIN, END = "<!-- results: written by python -m benchmarks -->", "<!-- end of results -->"
SUITE = {  # name: arguments of the quick run
    "transport": ["--seconds", "210"],
    "throughput": ["--seconds", "120"],
    "exported": ["--pairs", "5"],
    "latency": ["--seconds", "120"],
    "fairness": ["--seconds", "180"],
    "startup": ["--seconds", "90"],
    "boxes": ["--seconds", "120"],
    "fleet": ["--seconds", "30"],
}
LONG = {  # only when it is named; "…-long" is the longer run of a module
    "latency-long": ["--seconds", "120", "--long"],
    "capacity": ["--seconds", "60", "--fps", "5"],
    "rivals": ["--seconds", "780"],
    "recovery": ["--tries", "10"],
    "soak": ["--seconds", "1800"],
    "training": ["--pairs", "7"],
}
NAME = re.compile(r"\*\*([\w-]+)")  # of a section
PLACES = {"capacity": "tool.capacity"}  # of those that do not lie beside this file


def main() -> None:
    """Run them, each in a fresh interpreter, and write their part of the table if all went through."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        choices=[*SUITE, *LONG, []],
        help=f"which; none: all but {', '.join(LONG)}",
    )
    parser.add_argument("--keep-table", action="store_true", help="leave README.md as it is")
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    names = options.names or list(SUITE)
    for name in names:
        module = f"benchmarks.{PLACES.get(name, name.removesuffix('-long'))}"
        command = [sys.executable, "-m", module, *(SUITE | LONG)[name]]
        done = subprocess.run([*command, "--json", RESULTS / f"{name}.json"], cwd=ROOT, check=False)
        if done.returncode:
            sys.exit(f"benchmarks.{name} failed; its words are above")
    if not options.keep_table:
        write_table(README, [json.loads((RESULTS / f"{name}.json").read_text()) for name in names])


def write_table(readme: Path, documents: list[dict[str, Any]]) -> None:
    """Replace the sections of these between the two markers; those of others stay, all in order.

    Raises ValueError if the markers are not there.
    """
    text = readme.read_text()
    before, begin, rest = text.partition(BEGIN)
    table, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{readme}: wanted the lines {BEGIN!r} and {END!r}, in this order")
    order = [*SUITE, *LONG]
    kept = [f"**{part.rstrip()}\n" for part in re.split(r"^\*\*", table, flags=re.MULTILINE)[1:]]
    sections = {NAME.findall(one)[0]: one for one in [*kept, *map(section, documents)]}
    written = [sections[name] for name in sorted(sections, key=order.index)]
    readme.write_text("\n".join([before + BEGIN, "", *written, END + after]))


def section(document: dict[str, Any]) -> str:
    """One benchmark as Markdown: where and when, then its figures."""
    machine = document["machine"]
    lines = [
        f"**{document['benchmark']}**, {machine['date']}, commit {machine['commit']}: {machine['cpu']}, "
        f"{machine['cores']} cores{', ' + machine['gpu'] if machine['gpu'] else ''}, {machine['system']}, "
        f"Python {machine['python']}; load {machine['load_before']} → {machine['load_after']}, "
        f"{machine['steal_share']:.1%} stolen.",
        "",
        "| id | figure | value | 95 % interval | target | verdict | n | measured |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in document["figures"]:
        target = row["target"]
        cells = (
            row["id"], row["what"], shown(row["value"]), f"{shown(row['low'])} – {shown(row['high'])}",
            f"{target['sign']} {target['limit']:g}" if target else "", row["verdict"],
            str(row["n"]), row["detail"],
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
