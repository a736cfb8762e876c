"""What a person means by a moment: 2h (ago), 10:30 (today), 2026-11-22T10:30, with or without a zone."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from pipeline.errors import ConfigError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def wall_ns(option: str, text: str, now: datetime | None = None) -> int:
    """Of a moment, since 1970 in ns. Local time where no zone is given. Raises ConfigError.

    now: with a zone; None: this very moment.

    >>> from datetime import timezone
    >>> wall_ns("--since", "2m", datetime(1970, 1, 1, 0, 3, tzinfo=timezone.utc))
    60000000000
    """
    now = now or datetime.now().astimezone()
    if ago := re.fullmatch(r"(\d{1,6})([smhdw])", text):
        return _ns(now - timedelta(**{_UNITS[ago[2]]: int(ago[1])}))
    try:
        if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text):
            return _ns(datetime.fromisoformat(f"{now:%Y-%m-%d}T{text:0>5}").astimezone())
        return _ns(datetime.fromisoformat(text).astimezone())
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"{option}: wanted a moment like 2h (ago), 10:30 (today) or 2026-11-22T10:30, got {text!r}"
        ) from error


def seconds_of(option: str, text: str) -> int:
    """Of a length of time like 7d, 12h or 2w. Raises ConfigError.

    >>> seconds_of("--next", "2m")
    120
    """
    length = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if length is None or not int(length[1]):
        raise ConfigError(f"{option}: wanted a length of time like 7d, 12h or 2w, got {text!r}")
    return int(timedelta(**{_UNITS[length[2]]: int(length[1])}).total_seconds())


def _ns(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1000
