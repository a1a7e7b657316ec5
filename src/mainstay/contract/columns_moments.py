"""Bounds of dates and times over columns: of dates, datetimes and times, and of the texts of RFC 3339.

A bound is a `formats.Moment`: seconds, and the digits of a fraction without trailing zeros. Days count from 0001-01-01
as day 1, and without an offset UTC is meant.
"""

from __future__ import annotations

import math
from datetime import date
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mainstay.contract.formats import Moment
    from mainstay.contract.rules import Test
    from mainstay.contract.types import Rule

BOUNDS: Final[frozenset[Rule]] = frozenset({"minimum", "maximum", "exclusive-minimum", "exclusive-maximum"})

_DAY_SECONDS: Final = 86_400
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_FIRST_DAY: Final = 1 - _EPOCH_DAY  # 0001-01-01, from the epoch
_LAST_DAY: Final = date(9999, 12, 31).toordinal() - _EPOCH_DAY
_INT64: Final = (-(2**63), 2**63 - 1)
_PER_SECOND: Final = {"ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_CLOCK_CHARACTERS: Final = 8  # hh:mm:ss


def is_of_years(kind: pl.DataType, value: pl.Expr) -> pl.Expr:
    """Whether the year of a date or datetime is one that RFC 3339 can write: 0001 to 9999."""
    per_day = 1 if kind == pl.Date else _DAY_SECONDS * _per_second(kind)
    first, last = int(_FIRST_DAY * per_day), int((_LAST_DAY + 1) * per_day - 1)
    return value.to_physical().cast(pl.Int64).is_between(max(first, _INT64[0]), min(last, _INT64[1]))


def at_midnight(kind: pl.DataType, value: pl.Expr) -> pl.Expr | None:
    """Whether a datetime is the beginning of a day; a date is."""
    return None if kind == pl.Date else value.to_physical() % int(_DAY_SECONDS * _per_second(kind)) == 0


def dated_bounds(kind: pl.DataType, tests: Iterable[Test], value: pl.Expr) -> list[pl.Expr]:
    """The bounds of dates, datetimes or times, each a test over whole numbers of the column's own unit."""
    numbers = value.to_physical().cast(pl.Int64)
    per_second = _per_second(kind)
    begins = 0 if kind == pl.Time else _EPOCH_DAY * _DAY_SECONDS
    masks = []
    for test in tests:
        seconds, digits = test.given
        bound = (seconds - begins + Fraction(int(digits or 0), 10 ** len(digits))) * per_second
        match test.rule:
            case "minimum":
                masks.append(_at_least(numbers, math.ceil(bound)))
            case "exclusive-minimum":
                masks.append(_at_least(numbers, math.floor(bound) + 1))
            case "maximum":
                masks.append(_at_most(numbers, math.floor(bound)))
            case _:
                masks.append(_at_most(numbers, math.ceil(bound) - 1))
    return masks


def text_bounds(kind: str, tests: Iterable[Test], text: pl.Expr) -> list[pl.Expr]:
    """The bounds of texts of a logicalType, of those texts that have its format."""
    if kind == "date":
        seconds, fraction = _days(text) * _DAY_SECONDS, pl.lit("")
    elif kind == "timestamp":
        clock, fraction = _clock(text.str.slice(11))
        seconds = _days(text) * _DAY_SECONDS + clock
    else:
        seconds, fraction = _clock(text)
    return [_compared(test, seconds, fraction).fill_null(value=True) for test in tests]


def _per_second(kind: pl.DataType) -> Fraction:
    if isinstance(kind, pl.Datetime):
        return Fraction(_PER_SECOND[kind.time_unit])
    return Fraction(1, _DAY_SECONDS) if kind == pl.Date else Fraction(_PER_SECOND["ns"])


def _at_least(numbers: pl.Expr, bound: int) -> pl.Expr:
    return numbers >= bound if bound <= _INT64[1] else numbers.is_null()


def _at_most(numbers: pl.Expr, bound: int) -> pl.Expr:
    return numbers <= bound if bound >= _INT64[0] else numbers.is_null()


def _days(text: pl.Expr) -> pl.Expr:
    made = text.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
    return made.to_physical().cast(pl.Int64) + _EPOCH_DAY


def _clock(text: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """Seconds in UTC and digits of a fraction, of texts that begin with hours."""
    hours, minutes, seconds = (text.str.slice(at, 2).cast(pl.Int64, strict=False) for at in (0, 3, 6))
    rest = text.str.slice(_CLOCK_CHARACTERS)
    fraction = rest.str.extract(r"\A\.([0-9]+)").fill_null("").str.strip_chars_end("0")
    offset_hours = rest.str.extract(r"([+-][0-9]{2}):[0-9]{2}\z").cast(pl.Int64, strict=False)
    offset_minutes = rest.str.extract(r"[+-][0-9]{2}:([0-9]{2})\z").cast(pl.Int64, strict=False)
    west = pl.when(rest.str.contains("-", literal=True)).then(-1).otherwise(1)
    offset = (offset_hours * 3_600 + west * offset_minutes * 60).fill_null(0)
    return hours * 3_600 + minutes * 60 + seconds - offset, fraction


def _compared(test: Test, seconds: pl.Expr, fraction: pl.Expr) -> pl.Expr:
    moment: Moment = test.given
    whole, digits = pl.lit(moment[0], dtype=pl.Int64), pl.lit(moment[1])
    match test.rule:
        case "minimum":
            return (seconds > whole) | ((seconds == whole) & (fraction >= digits))
        case "exclusive-minimum":
            return (seconds > whole) | ((seconds == whole) & (fraction > digits))
        case "maximum":
            return (seconds < whole) | ((seconds == whole) & (fraction <= digits))
        case _:
            return (seconds < whole) | ((seconds == whole) & (fraction < digits))
