"""Does every model of the list run by its name, without a network? Stand-ins lie where a sentence says.

    python -m benchmarks.named VIDEO [--only yolox] [--file NAME=FILE]…

By hand: torchvision's largest take minutes. Each name gets a cache of its own with nothing but the file,
and `manyeyes run VIDEO --model NAME` runs where there is no network (in a namespace of its own, if
`unshare` may make one).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.stand_ins import write
from pipeline.errors import ManyeyesError
from stages.detector import zoo

LIMIT_S = 3600


def main() -> None:
    """A line for each name; exit code 1 if one did not run, or delivered nothing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--only", default="", help="names that contain this")
    parser.add_argument(
        "--file", action="append", default=[], help="NAME=FILE, instead of a stand-in"
    )
    options = parser.parse_args()
    files = dict(pair.split("=", 1) for pair in options.file)
    failed = []
    for entry in zoo.entries().values():
        if options.only in entry.name:
            with tempfile.TemporaryDirectory(prefix="manyeyes-named-") as folder:
                text = _run(entry.name, options.video.absolute(), Path(folder), files)
            print(f"{entry.name:38} {text}", flush=True)
            failed += [entry.name] if text.startswith("failed") else []
    sys.exit(1 if failed else 0)


def _run(name: str, video: Path, folder: Path, files: dict[str, str]) -> str:
    os.environ["XDG_CACHE_HOME"] = str(folder)
    entry = zoo.entry(name)
    command = [sys.executable, "-m", "pipeline", "run", str(video), "--model", name]
    command = [*_without_network(), *command, "--events", "events.jsonl"]
    refused = _started(command, folder)  # before there is a file
    if not (place := re.search(r"put it at (\S+?),", " ".join(refused.stderr.split()))):
        raise ManyeyesError(
            f"{name}: wanted a sentence where to put its file, got {refused.stderr}"
        )
    if Path(place[1]) != entry.download:
        raise ManyeyesError(f"{name}: wanted {entry.download} in its sentence, got {place[1]}")
    entry.download.parent.mkdir(parents=True, exist_ok=True)
    if name in files:
        shutil.copyfile(files[name], entry.download)
    else:
        write(entry, entry.download)
    start = time.monotonic()
    done = _started(command, folder)
    seconds = time.monotonic() - start
    lines = (folder / "events.jsonl").read_text().splitlines() if done.returncode == 0 else []
    boxes = sum(len(json.loads(line)["detections"]) for line in lines)
    if done.returncode or not lines:
        return f"failed, exit code {done.returncode}: {done.stderr[-600:]}"
    return f"{len(lines)} frames delivered, {boxes} boxes, {seconds:.0f} s"


def _started(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "1000", "PYTHONPATH": str(Path.cwd())}
    return subprocess.run(
        command, cwd=folder, env=environment, timeout=LIMIT_S, capture_output=True, text=True, check=False
    )  # fmt: skip


def _without_network() -> list[str]:
    alone = ["unshare", "--net"]
    able = shutil.which("unshare") and not subprocess.run([*alone, "true"], check=False).returncode
    return alone if able else []


if __name__ == "__main__":
    main()
