"""Weekly schedules: against brute force over changes of daylight saving, and what is no schedule."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.sinks.alarms.schedule import DAYS, parse

# nights on which clocks are set; Lord Howe sets them by half an hour
NIGHTS = {
    "Europe/Berlin": ["2026-03-29", "2026-10-25"],
    "America/New_York": ["2026-03-08", "2026-11-01"],
    "Australia/Lord_Howe": ["2026-04-05", "2026-10-04"],
}
HOUR = 3600


def seconds(text, zone="UTC", fold=0):
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp())


def wall_clock(line, t_s, zone):
    """What somebody would say who looks at the clock on the wall and at the calendar beside it."""
    now = datetime.fromtimestamp(t_s, UTC).astimezone(ZoneInfo(zone))
    days, hours = line.split()
    begin, end = hours.split("-")
    clock, today = f"{now:%H:%M}", DAYS[now.weekday()]
    yesterday = DAYS[(now.weekday() - 1) % 7]
    if begin < end:
        return today in days and begin <= clock < end
    return (today in days and clock >= begin) or (yesterday in days and clock < end)


@st.composite
def lines(draw):
    days = draw(st.lists(st.sampled_from(DAYS), min_size=1, max_size=7, unique=True))
    begin = draw(st.integers(0, 23 * 4 + 3)) * 15
    end = draw(st.integers(1, 24 * 4).filter(lambda n: n * 15 != begin)) * 15
    clocks = (f"{n // 60:02}:{n % 60:02}" for n in (begin, end))
    return f"{','.join(days)} {'-'.join(clocks)}"


@given(
    line=lines(),
    night=st.sampled_from([(zone, day) for zone, days in NIGHTS.items() for day in days]),
    before_h=st.integers(0, 30),
    length_h=st.integers(1, 60),
)
def test_it_holds_when_the_clock_on_the_wall_says_so(line, night, before_h, length_h):
    zone, day = night
    schedule = parse([line], zone)
    begin = seconds(f"{day}T00:00", zone) - before_h * HOUR
    end = begin + length_h * HOUR
    times = range(begin, end, 15 * 60)  # every change is at such a time
    expected = [t for t in times if wall_clock(line, t, zone)]
    assert [t for t in times if schedule.holds(t)] == expected
    spans = list(schedule.between(begin, end))
    assert [t for t in times if any(a <= t < b for a, b in spans)] == expected
    assert all(b < c for (_, b), (c, _) in pairwise(spans))  # apart
    assert sum(b - a for a, b in spans) == len(expected) * 15 * 60


@pytest.mark.parametrize(
    ("line", "zone", "day", "hours"),
    [
        ("00:00-06:00", "Europe/Berlin", "2026-03-29", 5),  # an hour is left out
        ("00:00-06:00", "Europe/Berlin", "2026-10-25", 7),  # one comes twice
        ("02:00-03:00", "Europe/Berlin", "2026-03-29", 0),
        ("02:00-03:00", "Europe/Berlin", "2026-10-25", 2),
        ("02:30-03:30", "America/New_York", "2026-03-08", 0.5),
        ("01:30-02:30", "Australia/Lord_Howe", "2026-04-05", 1.5),
        ("sun 00:00-24:00", "Australia/Lord_Howe", "2026-10-04", 23.5),
    ],
)
def test_nights_on_which_clocks_are_set(line, zone, day, hours):
    begin = seconds(f"{day}T00:00", zone)
    spans = list(parse([line], zone).between(begin, begin + 12 * HOUR))
    if line.startswith("sun"):
        tomorrow = datetime.fromisoformat(day) + timedelta(days=1)
        spans = list(parse([line], zone).between(begin, seconds(tomorrow.isoformat(), zone)))
    assert sum(b - a for a, b in spans) == hours * HOUR


def test_what_passes_midnight_belongs_to_the_day_that_it_begins_on():
    schedule = parse(["fri-sun 22:00-06:00"], "UTC")
    for text, holds in (
        ("2026-01-02T21:59", False),  # a Friday
        ("2026-01-02T22:00", True),
        ("2026-01-03T05:59", True),
        ("2026-01-03T06:00", False),
        ("2026-01-05T05:59", True),  # Monday, from Sunday on
        ("2026-01-05T22:00", False),
    ):
        assert schedule.holds(seconds(text)) == holds, text
    week = list(schedule.between(seconds("2025-12-29T00:00"), seconds("2026-01-05T00:00")))
    assert (
        sum(b - a for a, b in week) == (6 + 8 + 8 + 2) * HOUR
    )  # since Monday early; until midnight


def test_several_lines_are_one_schedule():
    schedule = parse(["mon 08:00-12:00", "mon 10:00-14:00", "sat-mon 00:00-01:00"], "UTC")
    monday = seconds("2026-01-05T00:00")
    spans = list(schedule.between(monday, monday + 24 * HOUR))
    assert [(a - monday, b - monday) for a, b in spans] == [(0, HOUR), (8 * HOUR, 14 * HOUR)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nightly", "wanted a text like"),
        ("mon 8:00-9:00", "wanted a text like"),
        ("mon 08:00-25:00", "within 00:00..24:00"),
        ("mon 08:60-09:00", "within 00:00..24:00"),
        ("mon 08:00-08:00", "has no length"),
        ("mon 24:00-08:00", "has no length"),
        ("moon 08:00-09:00", "wanted days out of mon"),
        ("mon-fri-sun 08:00-09:00", "wanted days out of mon"),
        ("", "wanted a text like"),
    ],
)
def test_what_is_no_schedule_is_said_in_a_sentence(line, words):
    with pytest.raises(ValueError, match=words):
        parse([line], "UTC")


def test_a_zone_that_there_is_not():
    with pytest.raises(ValueError, match="no time zone 'Mars/Base' here; write one like"):
        parse(["00:00-24:00"], "Mars/Base")
