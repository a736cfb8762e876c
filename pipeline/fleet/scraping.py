"""How a run on another machine does, as its metrics say."""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import Iterator
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

PATIENCE_S = 2.0
_MAX_BYTES = 16 << 20


def scrape(address: str) -> dict[str, dict[str, Any]]:
    """Cameras of the run at HOST:PORT → state, captured, delivered, dropped.

    Waits for seconds at most. Raises OSError if it does not answer, ValueError if what answers is no run.
    """
    with contextlib.closing(
        urllib.request.urlopen(f"http://{address}/metrics", timeout=PATIENCE_S)
    ) as answer:
        text = answer.read(_MAX_BYTES).decode()
    cameras: dict[str, dict[str, Any]] = {}
    for sample in _samples(text):
        row = cameras.setdefault(
            sample.labels["camera"], {"state": "down", "captured": 0, "delivered": 0, "dropped": {}}
        )
        number = int(sample.value)
        if sample.name == "manyeyes_camera_up":
            row["state"] = "up" if number else "down"
        elif sample.labels.get("path") != "detect":
            continue
        elif sample.name == "manyeyes_frames_total" and sample.labels["outcome"] in (
            "captured",
            "delivered",
        ):
            row[sample.labels["outcome"]] = number
        elif sample.name == "manyeyes_dropped_total" and number:
            row["dropped"][sample.labels["reason"]] = number
    return cameras


def _samples(text: str) -> Iterator[Sample]:
    """Those with a camera."""
    for family in text_string_to_metric_families(text):
        yield from (sample for sample in family.samples if "camera" in sample.labels)
