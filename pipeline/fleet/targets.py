"""What Prometheus is to scrape, as its file_sd reads it: each run, with its machine as a label."""

from __future__ import annotations

import json

from pipeline.fleet.config import Fleet, replace_file
from pipeline.fleet.placement import Placed


def write(fleet: Fleet, placed: Placed) -> None:
    """The file of `[fleet] targets`, if it is wanted and has changed. Raises ResourceError."""
    if fleet.settings.targets is None:
        return
    path = fleet.file.parent / fleet.settings.targets
    groups = [
        {"targets": [fleet.addresses[name]], "labels": {"machine": name}}
        for name in fleet.names
        if name in placed.where.values()
    ]
    text = json.dumps(groups, indent=1) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        replace_file(path, text)
