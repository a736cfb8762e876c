"""A whole run without any picture library: pattern cameras through all kinds of process.

`python tests/patterns.py POLICY CAMERAS SECONDS FRAMES RATE FOLDER` runs one and prints its ledger as
JSON; `plan` is for tests that run a supervisor themselves.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from pipeline.accounts.layout import DETECT, VIEW
from pipeline.plan.graph import EdgeSpec, Plan, ProcessSpec
from pipeline.supervision.supervisor import Options, Supervisor

HERE = Path(__file__).parent
# for processes that need parts.py: the packages come first, since tests/pipeline has the name of one
PATH = f"{HERE.parent}{os.pathsep}{HERE}"
PIXELS = 64 * 64 * 3
RESULTS, FRAMES = 2, 3  # the accounts of the sinks in the ledger
MORE = {"sink.more": 4, "sink.other": 5, "sink.viewer": 6}  # of sinks that not every run has


def plan(
    folder: Path,
    *,
    policy="newest",
    cameras=2,
    frames=0,
    rate_hz=50.0,
    alpha_ms=1.0,
    workers=1,
    view_hz=None,
    rates_hz=(),
    spare=0,
    turns=(),
    more=(),
    between=False,
):
    """cameras: how many, or their names; rates_hz: of those that have one of their own.
    turns: of settings that change nothing, by process. more: sinks, of MORE. between: a stage before
    all sinks of results."""
    names = tuple(f"c{i}" for i in range(cameras)) if isinstance(cameras, int) else tuple(cameras)
    every = policy == "every"
    overflow = "wait" if every else "drop"

    def edge(consumer, paths, credits, depth, overflow=overflow, cameras=names, max_hz=None):
        return EdgeSpec(
            consumer=consumer,
            cameras=cameras,
            paths=paths,
            credits=credits,
            depth=depth,
            overflow=overflow,
            max_hz=max_hz,
        )

    def process(name, run, outputs=(), **fields):
        pixels = fields.pop("slot_bytes", 0)
        slots = 20 + sum(edge.slots for edge in outputs) if pixels else 0
        settings = fields.pop("config", {})
        if name in dict(turns):
            settings = {**settings, "turn": dict(turns)[name]}
        counters = tuple(f"undelivered:{edge.consumer}" for edge in outputs if not edge.paths)
        return ProcessSpec(
            name=name,
            run=run,
            outputs=tuple(outputs),
            slots=slots,
            slot_bytes=pixels,
            counters=counters,
            **{"cameras": names, "paths": (), "role": "stage", **fields, "config": settings},
        )

    captures = tuple(f"capture.{name}" for name in names)
    results = {"sink.results": RESULTS} | {
        n: MORE[n] for n in ("sink.more", "sink.other") if n in more
    }
    ways = tuple(results.values())
    ends = [edge(name, (way,), 8, 32) for name, way in results.items()]
    ends.append(edge("render", (), 32, 32))
    engines = tuple(f"inference.{j}" for j in range(workers))
    config = {"frames": frames, "rate_hz": rate_hz}
    processes = [
        process(
            f"capture.{name}",
            "parts:Pattern",
            [
                edge(
                    "preprocess", (DETECT,), 2 if every else 1, 2 if every else 1, cameras=(name,)
                ),
                edge("render", (VIEW,), 24 if every else 3, 1, cameras=(name,), max_hz=view_hz),
            ],
            role="source",
            config={**config, "rate_hz": dict(rates_hz).get(name, rate_hz)},
            cameras=(name,),
            paths=(DETECT, VIEW),
            works_ahead=True,
            slot_bytes=PIXELS,
        )
        for name in names
    ]
    processes += [
        process(
            "preprocess",
            "parts:Shrink",
            [edge("batcher", (DETECT,), 6 if every else 3, 2 if every else 1)],
            paths=(DETECT,),
            works_ahead=True,
            reads=captures,
            slot_bytes=32 * 32 * 3,
        ),
        process(
            "batcher",
            "",
            [edge(name, (DETECT,), 1, 1) for name in engines],
            role="batcher",
            paths=(DETECT,),
            options={"max_batch": 4, "policy": policy, "depth": 8},
        ),
        *(
            process(
                name,
                "parts:Model",
                [edge("postprocess", (DETECT,), 2, 8, "wait")],
                role="batch",
                paths=(DETECT,),
                reads=("preprocess",),
                slot_bytes=64,
                config={"alpha_ms": alpha_ms},
            )
            for name in engines
        ),
        process(
            "postprocess",
            "parts:Decode",
            [edge("between", ways, 8, 32)] if between else ends,
            paths=(DETECT,),
            delivers=True,
            in_order=every,
            reads=engines,
        ),
        process(
            "render",
            "parts:Draw",
            [
                edge("sink.frames", (FRAMES,), 1, 1),
                *(edge(name, (MORE[name],), 1, 1) for name in ("sink.viewer",) if name in more),
            ],
            role="join",
            paths=(VIEW,),
            delivers=True,
            reads=captures,
            slot_bytes=PIXELS,
            options={"max_age_ms": 500, "max_waiting": 24 if every else 3},
        ),
        process(
            "sink.results",
            "parts:WriteResults",
            role="sink",
            paths=(RESULTS,),
            delivers=True,
            config=_file(folder, "results"),
        ),
        process(
            "sink.frames",
            "parts:WriteFrames",
            role="sink",
            paths=(FRAMES,),
            delivers=True,
            reads=("render",),
            config=_file(folder, "frames"),
        ),
    ]
    if between:
        processes.append(process("between", "parts:Between", ends, paths=ways))
    processes += [
        process(
            name,
            "parts:WriteFrames" if name == "sink.viewer" else "parts:WriteResults",
            role="sink",
            paths=(way,),
            delivers=True,
            reads=("render",) if name == "sink.viewer" else (),
            config=_file(folder, name.removeprefix("sink.")),
        )
        for name, way in MORE.items()
        if name in more
    ]
    return Plan(cameras=names, policy=policy, processes=tuple(processes), spare=spare)


def _file(folder: Path, name: str) -> dict[str, str]:
    return {"path": str(folder / f"{name}.txt")}


def rows(folder: Path, name: str) -> list[tuple[str, int, int, int]]:
    """(camera, frame_id, value of the pixels, the source's count) of every line that a sink wrote."""
    path = folder / f"{name}.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    cells = [line.split() for line in lines]
    return [(row[0], int(row[1]), int(row[2]), int(row[3])) for row in cells if len(row) == 4]


def assert_accounts_are_in_files(folder: Path, supervisor: Supervisor, killed=()) -> None:
    """What the table says is what the sinks have written, each once. killed: names of processes.

    Under `newest` nothing comes again: a sink that is killed may have written a line and not have said so.
    """
    every = supervisor.plan.policy == "every"
    for (camera, path), totals in supervisor.totals.items():
        name = "results" if path == "detect" else "frames"
        ids = [row[1] for row in rows(folder, name) if row[0] == camera]
        kills = 0 if every else [*killed].count(f"sink.{name}")
        assert len(ids) == len(set(ids)), f"{camera} {path}: a frame is there twice"
        assert 0 <= len(ids) - totals.delivered <= kills, f"{camera} {path}: {len(ids)}, {totals}"
        assert (totals.error, totals.in_flight) == (0, 0)
        assert totals.captured == totals.delivered + sum(totals.dropped.values())


def summary(supervisor: Supervisor) -> dict[str, dict[str, int]]:
    return {
        f"{camera}/{path}": {
            "captured": totals.captured,
            "delivered": totals.delivered,
            "in_flight": totals.in_flight,
            "error": totals.error,
            **{reason: n for reason, n in totals.dropped.items() if n},
        }
        for (camera, path), totals in supervisor.totals.items()
    }


def main() -> None:
    policy, cameras, seconds, frames, rate_hz, folder = sys.argv[1:7]
    run = Supervisor(
        plan(
            Path(folder),
            policy=policy,
            cameras=int(cameras),
            frames=int(frames),
            rate_hz=float(rate_hz),
        ),
        Options(
            seconds=float(seconds) or None,
            to_bgr=None,
            directory=Path(sys.argv[7]) if len(sys.argv) > 7 else None,
        ),
        _announce,
    )
    run.run()
    print(json.dumps(summary(run)), flush=True)


def _announce(supervisor: Supervisor) -> None:
    """READY with all pids, once frames arrive at the sinks."""
    if not getattr(supervisor, "announced", False) and all(
        totals.delivered for totals in supervisor.totals.values()
    ):
        supervisor.announced = True
        pids = {child.name: child.pid for child in supervisor.children.values()}
        print(
            "READY",
            json.dumps({"pids": pids, "sockets": str(supervisor._directory.sockets)}),
            flush=True,
        )


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = PATH
    from pipeline.errors import ManyeyesError

    try:
        main()
    except ManyeyesError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
