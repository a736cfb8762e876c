"""Exports that are not read: told by name, with what to export instead."""

from __future__ import annotations

import re
from pathlib import Path

_INSTEAD = "export it as COCO or YOLO"
# Where nothing that is read was found: a pattern of the file's name, one of its first bytes, its name.
_SIGNS = (
    ("*.json", rb'"annotations"\s*:\s*\[.*"coordinates"', "CreateML's JSON"),
    ("*.json", rb'^\s*\[.*"(rectanglelabels|annotations|from_name)"', "Label Studio's own JSON"),
    ("*.json", rb'"_via_(settings|img_metadata)"|"shape_attributes"', "the VGG Image Annotator's JSON"),
    ("*.json", rb'"labels"\s*:\s*\{|"samples"\s*:\s*\[', "FiftyOne's own JSON"),
    ("*.json", rb'"objects"\s*:\s*\[.*"classTitle"', "Supervisely's JSON"),
    ("*.json", rb'"labels"\s*:\s*\[.*"box2d"', "BDD100K's JSON"),
    ("*.xml", rb"<annotations[\s>]", "CVAT's XML for video"),
    ("*.tfrecord*", rb"", "TFRecord"),
    ("*.parquet", rb"", "Parquet"),
    ("*.csv", rb"", "a CSV without the columns filename, class, xmin, ymin, xmax, ymax"),
    ("*.ndjson", rb"", "NDJSON"),
    ("*.mat", rb"", "a MATLAB file"),
)  # fmt: skip


def name_of(path: Path) -> str:
    """A sentence about the export that `path` holds, or "" if none is known."""
    for pattern, sign, name in _SIGNS:
        files = [path] if path.is_file() else [*path.glob(pattern), *path.glob(f"*/{pattern}")]
        for file in sorted(files)[:3]:
            if not file.match(pattern) or not file.is_file():
                continue
            with file.open("rb") as opened:
                head = opened.read(1 << 16)
            if re.search(sign, head, re.DOTALL):
                return f"{file} is {name}, which is not read; {_INSTEAD}"
    return ""
