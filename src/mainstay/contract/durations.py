"""Spans of time, moments and times of day as service levels write them, and how a person reads the age of something."""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import MAXYEAR, MINYEAR, UTC, datetime, time, timedelta, timezone
from fractions import Fraction
from typing import Any, Final, NamedTuple

from mainstay.contract.formats import moment_reader
from mainstay.documents import shorten

_MAX_AMOUNT: Final = 10**9  # of any unit; what is longer is no promise

# The standard names d, day, days and y, yr, years, and leaves the rest to "the ISO standard": m is a month there.
_UNITS: Final = {
    "second": ("s", "sec", "secs", "second", "seconds"),
    "minute": ("min", "mins", "minute", "minutes"),
    "hour": ("h", "hr", "hrs", "hour", "hours"),
    "day": ("d", "day", "days"),
    "week": ("w", "wk", "week", "weeks"),
    "month": ("m", "mo", "month", "months"),
    "year": ("y", "yr", "yrs", "year", "years"),
}
_NAMES: Final = {name: unit for unit, names in _UNITS.items() for name in names}
_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "week": 604_800}
_MONTHS: Final = {"month": 1, "year": 12}

_NUMBER = r"(\d{1,12}(?:[.,]\d{1,9})?)"
_ISO_DURATION: Final = re.compile(
    rf"(?a)P(?=[\dT])(?:{_NUMBER}Y)?(?:{_NUMBER}M)?(?:{_NUMBER}W)?(?:{_NUMBER}D)?"
    rf"(?:T(?=\d)(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?"
)
_ISO_UNITS: Final = ("year", "month", "week", "day", "hour", "minute", "second")
_AMOUNT: Final = re.compile(rf"(?a){_NUMBER}")
_CLOCK: Final = re.compile(r"(?a)(\d{1,2}):(\d\d)(?::(\d\d))?\s*(?:([Zz])|([+-])(\d{1,2}):?(\d\d))?")


class Duration(NamedTuple):
    """A span of calendar months and of seconds, as it was written."""

    months: int
    seconds: Fraction
    words: str

    def __str__(self) -> str:
        return self.words

    def before(self, moment: datetime) -> datetime:
        """The moment that lies this long before another; the first of the calendar where there is none.

        A month before the last of March is the last of February.
        """
        moment = moment.astimezone(UTC)
        month = moment.year * 12 + moment.month - 1 - self.months
        year, index = divmod(month, 12)
        if year < MINYEAR:
            return _FIRST
        day = min(moment.day, monthrange(year, index + 1)[1])
        try:
            return moment.replace(year=year, month=index + 1, day=day) - timedelta(seconds=float(self.seconds))
        except OverflowError:
            return _FIRST


_FIRST: Final = datetime(MINYEAR, 1, 1, tzinfo=UTC)


def parse_duration(value: Any, unit: str | None) -> Duration:
    """The span `value` in a `unit`, or one of ISO 8601 such as P1Y or PT36H. Raises ValueError with the reason."""
    if isinstance(value, str) and value[:1] == "P":
        found = _ISO_DURATION.fullmatch(value)
        if found is None:
            raise ValueError(f"expected a duration of ISO 8601 such as P1Y or PT36H, found {shorten(value)}")
        return _sum(zip(_ISO_UNITS, found.groups(), strict=True), value)
    text = value.strip() if isinstance(value, str) else repr(value)
    if _AMOUNT.fullmatch(text) is None:
        raise ValueError(f"expected a number with a unit, or a duration of ISO 8601, found {shorten(text)}")
    name = (unit or "").strip()
    known = _NAMES.get(name.casefold())
    if known is None:
        raise ValueError(f"expected a unit: {', '.join(_UNITS)} or short d, h, min, s, found {shorten(name or 'none')}")
    return _sum([(known, text)], f"{text} {known}{'' if text == '1' else 's'}")


def _sum(parts: Any, words: str) -> Duration:
    months, seconds = 0, Fraction(0)
    for unit, text in parts:
        if text is None:
            continue
        amount = Fraction(text.replace(",", "."))
        if amount > _MAX_AMOUNT:
            raise ValueError(f"expected at most {_MAX_AMOUNT:,} {unit}s, found {text}")
        if unit in _SECONDS:
            seconds += amount * _SECONDS[unit]
        elif amount.denominator == 1:
            months += int(amount) * _MONTHS[unit]
        else:
            raise ValueError(f"expected a whole number of {unit}s, which differ in length, found {text}")
    return Duration(months, seconds, words)


_read_moment: Final = moment_reader("timestamp")
_read_date: Final = moment_reader("date")


def parse_moment(value: Any) -> datetime:
    """A date or a date and time of RFC 3339; UTC where it names no offset. Raises ValueError with the reason."""
    text = value.strip() if isinstance(value, str) else ""
    found = _read_moment(text) or _read_date(text)
    if found is None:
        raise ValueError(f"expected a date such as 2032-05-12, or a date and time, found {shorten(str(value))}")
    seconds, fraction = found
    day, second = divmod(seconds, 86_400)
    try:
        moment = datetime.fromordinal(day).replace(tzinfo=UTC) + timedelta(seconds=second)
    except (ValueError, OverflowError):
        raise ValueError(f"expected a moment of the years {MINYEAR} to {MAXYEAR}, found {shorten(text)}") from None
    return moment.replace(microsecond=int(fraction[:6].ljust(6, "0")))


def parse_clock(value: Any) -> time:
    """A time of day such as 09:00-08:00; UTC where it names no offset. Raises ValueError with the reason."""
    found = _CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"expected a time of day such as 09:00-08:00, found {shorten(str(value))}")
    hour, minute, second, _, sign, offset_hours, offset_minutes = found.groups()
    offset = timedelta(hours=int(offset_hours or 0), minutes=int(offset_minutes or 0))
    try:
        return time(int(hour), int(minute), int(second or 0), tzinfo=timezone(-offset if sign == "-" else offset))
    except ValueError:
        raise ValueError(f"expected a time of day such as 09:00-08:00, found {shorten(str(value))}") from None


def show_age(age: timedelta) -> str:
    """How long ago, in the two largest units: `3 days 4 hours old`."""
    seconds = int(abs(age).total_seconds())
    parts: list[str] = []
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        amount, seconds = divmod(seconds, length)
        if amount or (unit == "second" and not parts):
            parts.append(f"{amount:,} {unit}{'' if amount == 1 else 's'}")
    words = " ".join(parts[:2])
    return f"{words} old" if age >= timedelta(0) else f"{words} from now"
