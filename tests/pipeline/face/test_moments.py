"""Moments as people write them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from pipeline.errors import ConfigError
from pipeline.face.moments import wall_ns

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def at(text):
    return datetime.fromtimestamp(wall_ns("--since", text, NOW) / 1e9, UTC)


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("90s", timedelta(seconds=90)), ("5m", timedelta(minutes=5)), ("2h", timedelta(hours=2)),
        ("3d", timedelta(days=3)), ("1w", timedelta(weeks=1)), ("0s", timedelta()),
    ],
)  # fmt: skip
def test_ago(text, ago):
    assert at(text) == NOW - ago


def test_a_moment_with_a_zone_is_that_moment():
    assert at("2026-11-22T10:30+02:00") == datetime(2026, 11, 22, 8, 30, tzinfo=UTC)


def test_a_moment_without_a_zone_is_local():
    local = datetime(2026, 11, 22, 10, 30).astimezone()
    assert at("2026-11-22T10:30") == local
    assert at("2026-11-22 10:30:00") == local
    assert at("2026-11-22") == datetime(2026, 11, 22).astimezone()
    zone = timezone(timedelta(hours=5))
    now = datetime(2026, 11, 22, 1, 0, tzinfo=zone)  # another day in UTC
    today = datetime.fromtimestamp(wall_ns("--since", "9:05", now) / 1e9).astimezone()
    assert (today.month, today.day, today.hour, today.minute) == (11, 22, 9, 5)


@pytest.mark.parametrize(
    "text", ["yesterday", "", "25:00", "2h30", "-2h", "9999999d", "2026-13-01"]
)
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(ConfigError, match="--since: wanted a moment like 2h"):
        at(text)
