"""Imported models against their makers' own inference code: box for box, on videos of yours.

    PYTHONPATH=. out/makers/bin/python -m benchmarks.peers.makers VIDEO… [--of transformers] [--json]

Run by hand, in an environment of its own: Ultralytics' package is AGPL, and nothing here depends on it or
on transformers. Models are built from their descriptions, with random weights that are set so that some
boxes have a score above SCORE, exported by their makers' own exporters, and imported here without an
option. Both sides then see the same frames: the maker's own code, and what the pipeline calls.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import tempfile
from pathlib import Path

from benchmarks.peers.makers.comparing import compared, seen

MAKERS = ("ultralytics", "transformers", "torchvision", "paddle")


def main() -> None:
    """Export, import, compare, print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--of", choices=MAKERS, action="append", help="none: all of them")
    parser.add_argument("--only", help="models whose name contains this")
    parser.add_argument("--every", type=int, default=24, help="frames from one look to the next")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args()
    os.environ |= {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "HF_HUB_OFFLINE": "1"}
    frames = [frame for video in options.videos for frame in seen(video, options.every)]
    with tempfile.TemporaryDirectory(prefix="manyeyes-makers-") as folder:
        os.environ.setdefault("YOLO_CONFIG_DIR", folder)
        for maker in options.of or MAKERS:
            module = importlib.import_module(f"benchmarks.peers.makers.of_{maker}")
            for model in module.models(options.only or ""):
                row = {"maker": maker, "model": model.name, **compared(model, Path(folder), frames)}
                text = "  ".join(f"{key} {value}" for key, value in row.items())
                print(json.dumps(row) if options.json else text, flush=True)


if __name__ == "__main__":
    main()
