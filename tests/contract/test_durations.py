from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.contract.durations import parse_clock, parse_duration, parse_moment, show_age

NOON = datetime(2024, 3, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "unit", "months", "seconds"),
    [
        (4, "d", 0, 4 * 86_400),
        (4, "Days", 0, 4 * 86_400),
        (3, "y", 36, 0),
        (3, "yr", 36, 0),
        (2, "m", 2, 0),
        (2, "min", 0, 120),
        (90, "s", 0, 90),
        ("24", "hours", 0, 86_400),
        (1.5, "h", 0, 5_400),
        (2, "weeks", 0, 14 * 86_400),
        ("P1Y", None, 12, 0),
        ("P1Y6M", None, 18, 0),
        ("PT36H", "d", 0, 36 * 3_600),
        ("P1DT0.5S", None, 0, Fraction(2 * 86_400 + 1, 2)),
    ],
)
def test_spans_are_read_in_short_and_long_units_and_in_iso_8601(
    value: object, unit: str | None, months: int, seconds: Fraction
) -> None:
    read = parse_duration(value, unit)
    assert (read.months, read.seconds) == (months, seconds)


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (4, None, "expected a unit"),
        (4, "fortnights", "found fortnights"),
        ("soon", "d", "found soon"),
        (True, "d", "found True"),
        (None, "d", "found None"),
        (-1, "d", "found -1"),
        (0.5, "y", "whole number of years"),
        (10**10, "d", "at most"),
        ("P", None, "ISO 8601"),
        ("PT", None, "ISO 8601"),
        ("P1H", None, "ISO 8601"),
    ],
)
def test_what_is_no_span_is_refused_with_the_reason(value: object, unit: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_duration(value, unit)


def test_months_and_years_follow_the_calendar() -> None:
    assert parse_duration(1, "m").before(NOON) == datetime(2024, 2, 29, 12, tzinfo=UTC)
    assert parse_duration(1, "y").before(datetime(2024, 2, 29, tzinfo=UTC)) == datetime(2023, 2, 28, tzinfo=UTC)


def test_a_span_that_reaches_before_the_calendar_ends_at_its_beginning() -> None:
    first = datetime(1, 1, 1, tzinfo=UTC)
    assert parse_duration(5_000, "y").before(NOON) == first
    assert parse_duration(10**9, "d").before(NOON) == first


def test_the_zone_of_the_moment_does_not_change_the_span() -> None:
    local = NOON.astimezone(timezone(timedelta(hours=-11)))
    assert parse_duration(1, "m").before(local) == parse_duration(1, "m").before(NOON)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_longer_span_never_begins_later(a: int, b: int) -> None:
    shorter, longer = sorted((a, b))
    for unit in ("s", "h", "d", "m"):
        assert parse_duration(longer, unit).before(NOON) <= parse_duration(shorter, unit).before(NOON)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2032-05-12T09:30:10-08:00", datetime(2032, 5, 12, 17, 30, 10, tzinfo=UTC)),
        ("2032-05-12 09:30:10", datetime(2032, 5, 12, 9, 30, 10, tzinfo=UTC)),
        ("2032-05-12", datetime(2032, 5, 12, tzinfo=UTC)),
        ("2032-05-12T00:00:00.25Z", datetime(2032, 5, 12, 0, 0, 0, 250_000, tzinfo=UTC)),
    ],
)
def test_moments_are_read_with_their_offset(text: str, moment: datetime) -> None:
    assert parse_moment(text) == moment


@pytest.mark.parametrize("text", ["", "tomorrow", "2032-02-30", "12 May 2032", None, 2032, "0001-01-01T00:00:00+23:00"])
def test_what_is_no_moment_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_moment(text)


def test_times_of_day_keep_their_offset() -> None:
    assert str(parse_clock("09:00-08:00")) == "09:00:00-08:00"
    assert str(parse_clock("9:05")) == "09:05:00+00:00"
    assert str(parse_clock("23:59:59Z")) == "23:59:59+00:00"


@pytest.mark.parametrize("text", ["", "25:00", "09", "09:60", 9, None, "09:00-99:00"])
def test_what_is_no_time_of_day_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="time of day"):
        parse_clock(text)


def test_ages_are_told_in_the_two_largest_units() -> None:
    assert show_age(timedelta(days=3, hours=4, minutes=5)) == "3 days 4 hours old"
    assert show_age(timedelta(seconds=61)) == "1 minute 1 second old"
    assert show_age(timedelta()) == "0 seconds old"
    assert show_age(-timedelta(hours=2)) == "2 hours from now"
