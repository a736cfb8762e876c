"""How long ago a picture was taken, also when the machine was off in between: the one place with clocks."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path


@cache
def boot_id() -> str:
    """Of this run of the machine: monotonic times of another one mean nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def seconds_since(t_capture_ns: int, t_wall_ns: int, boot: str) -> float:
    """Monotonic where it can be; over a restart of the machine by its clock, which may have been set."""
    if boot == boot_id():
        return (time.monotonic_ns() - t_capture_ns) / 1e9
    return max(0.0, (time.time_ns() - t_wall_ns) / 1e9)


def before(age_s: float) -> dict[str, int | str]:
    """What a picture of this age has: boot, and with it capture_ns; in any other boot wall_ns."""
    age_ns = int(age_s * 1e9)
    return {
        "boot": boot_id(),
        "capture_ns": time.monotonic_ns() - age_ns,
        "wall_ns": time.time_ns() - age_ns,
    }


def wall_s() -> int:
    """Since 1970, for the label of a message."""
    return int(time.time())
