"""The logical type of a column, and its values as JSON has them.

A column of text may hold numbers, booleans, dates or times: it is taken for them when every value is one. Digits with a
leading zero, or under a name such as `zip`, are codes and stay text. Among numbers, dates and times, words such as `NA`
stand for a missing value; among text they may be values, and stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl

from mainstay.contract.inference_evidence import is_enough
from mainstay.contract.inference_names import CODES, has_word
from mainstay.contract.inference_types import Unfit
from mainstay.contract.types import Options
from mainstay.documents import describe

if TYPE_CHECKING:
    from mainstay.contract.inference_types import Wanted
    from mainstay.contract.types import LogicalType

MISSING_WORDS: Final = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "Null", "null", "None", "none", "?", "-")
MOST_DIGITS: Final = 18  # of a number that fits 64 bits whatever its digits are

_INTEGER: Final = r"^[+-]?[0-9]+$"
_LEADING_ZERO: Final = r"^[+-]?0[0-9]"
_NUMBER: Final = r"^[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?$"
_BOOLEAN: Final = r"^(?:true|false|True|False|TRUE|FALSE)$"
_CLOCK: Final = r"[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
_OFFSET: Final = r"(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"


class ReadColumn(NamedTuple):
    """A column as JSON has it."""

    kind: LogicalType
    values: pl.Series  # Int64, Float64, Boolean or String
    options: Options = Options()
    notes: tuple[str, ...] = ()


class _Dates(NamedTuple):
    """A way of writing days."""

    pattern: str
    form: str  # for polars
    written: str  # for people and for `format`
    rivals: tuple[str, ...] = ()  # ways of writing that the same text may be in


_DATES: Final = (
    _Dates(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", "%Y-%m-%d", "yyyy-MM-dd"),
    _Dates(r"^[0-9]{4}/[0-9]{2}/[0-9]{2}$", "%Y/%m/%d", "yyyy/MM/dd"),
    _Dates(r"^[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{4}$", "%d.%m.%Y", "dd.MM.yyyy"),
    _Dates(r"^[0-9]{1,2}/[0-9]{1,2}/[0-9]{4}$", "%d/%m/%Y", "dd/MM/yyyy", ("%m/%d/%Y",)),
    _Dates(r"^[0-9]{1,2}/[0-9]{1,2}/[0-9]{4}$", "%m/%d/%Y", "MM/dd/yyyy", ("%d/%m/%Y",)),
    _Dates(r"^[0-9]{1,2}-[0-9]{1,2}-[0-9]{4}$", "%d-%m-%Y", "dd-MM-yyyy", ("%m-%d-%Y",)),
    _Dates(r"^[0-9]{1,2}-[0-9]{1,2}-[0-9]{4}$", "%m-%d-%Y", "MM-dd-yyyy", ("%d-%m-%Y",)),
)


def read_column(column: pl.Series, wanted: Wanted | None = None) -> ReadColumn:
    """What a column holds. Raises Unfit when that is nothing a property can be, or not what is `wanted`."""
    kind = column.dtype
    if kind == pl.String or isinstance(kind, pl.Categorical | pl.Enum):
        read = _read_text(column.cast(pl.String), wanted)
    elif kind == pl.Null:
        read = ReadColumn("string", column.cast(pl.String), notes=("every value is missing",))
    elif kind == pl.Boolean:
        read = ReadColumn("boolean", column)
    elif kind.is_integer():
        read = ReadColumn("integer", _cast(column, pl.Int64()))
    elif kind.is_float() or kind.is_decimal():
        read = _read_floats(column.cast(pl.Float64))
    elif kind.is_temporal() and kind != pl.Duration:
        read = _read_temporal(column)
    else:
        raise Unfit(f"column {column.name}: expected text, numbers, booleans, dates or times, found {kind}")
    return read if wanted is None else _as_wanted(read, column, wanted)


def _as_wanted(read: ReadColumn, column: pl.Series, wanted: Wanted) -> ReadColumn:
    """The column as the kind that is wanted of it."""
    if wanted == "string" and read.kind != "string":
        return ReadColumn("string", _cast(column, pl.String()), notes=read.notes)
    fits = {
        "string": ("string",),
        "number": ("number", "integer", "boolean"),
        "integer": ("integer", "boolean"),
        "boolean": ("boolean",),
    }[wanted]
    if read.kind in fits:
        return read
    if wanted == "integer" and read.kind == "number" and _are_whole(read.values):
        return ReadColumn("integer", read.values.cast(pl.Int64), notes=read.notes)
    if wanted == "boolean" and read.kind == "integer" and read.values.drop_nulls().is_in([0, 1]).all():
        return ReadColumn("boolean", read.values.cast(pl.Boolean), notes=read.notes)
    example = next(iter(read.values.drop_nulls().head(1)), None)
    raise Unfit(
        f"column {column.name}: expected values of type {wanted}, found {read.kind}s such as {describe(example)}"
    )


def _are_whole(values: pl.Series) -> bool:
    return bool((values.drop_nulls() == values.drop_nulls().round()).all())


def _cast(column: pl.Series, kind: pl.DataType) -> pl.Series:
    made = column.cast(kind, strict=False)
    if made.null_count() > column.null_count():
        raise Unfit(f"column {column.name}: expected integers of 64 bits, found larger ones")
    return made


def _read_floats(column: pl.Series) -> ReadColumn:
    endless = int(column.is_infinite().sum() or 0)
    values = column.fill_nan(None)
    notes: tuple[str, ...] = ()
    if endless:
        values = values.set(values.is_infinite().fill_null(value=False), None)
        notes = (f"{endless:,} infinite values taken as missing, as JSON has none",)
    return ReadColumn("number", values, notes=notes)


def _read_temporal(column: pl.Series) -> ReadColumn:
    kind = column.dtype
    if kind == pl.Date:
        return ReadColumn("date", column.dt.to_string("%Y-%m-%d"))
    if kind == pl.Time:
        return ReadColumn("time", column.dt.to_string("%H:%M:%S%.f"))
    zone = getattr(kind, "time_zone", None)
    if zone is None:
        return ReadColumn("timestamp", column.dt.to_string("%Y-%m-%dT%H:%M:%S%.f"), Options(timezone=False))
    moved = column.dt.convert_time_zone("UTC")
    return ReadColumn("timestamp", moved.dt.to_string("%Y-%m-%dT%H:%M:%S%.fZ"))


# Text.


def _read_text(column: pl.Series, wanted: Wanted | None) -> ReadColumn:
    whole = column.set(column == "", None) if (column == "").any() else column
    if wanted == "string":
        return ReadColumn("string", whole)
    gaps = whole.is_in(MISSING_WORDS).fill_null(value=False)
    values = whole.set(gaps, None) if gaps.any() else whole
    present = values.drop_nulls()
    if present.is_empty():
        return ReadColumn("string", whole, notes=("every value is missing",))
    read = _read_number(values, present, wanted) or _read_moment(values, present)
    if read is None and present.str.contains(_BOOLEAN).all():
        read = ReadColumn("boolean", values.str.to_lowercase() == "true")
    if read is None:
        return ReadColumn("string", whole)
    words = sorted(set(whole.filter(gaps).unique().to_list()))
    return read._replace(notes=(*read.notes, f"{', '.join(words)} taken as missing")) if words else read


def _read_number(values: pl.Series, present: pl.Series, wanted: Wanted | None) -> ReadColumn | None:
    if not present.str.contains(_NUMBER).all():
        return None
    if wanted is None:
        if present.str.contains(_LEADING_ZERO).any() and not present.str.contains(r"^[+-]?0\.").any():
            return None  # 007 is a name
        if has_word(values.name, CODES) and present.str.contains(_INTEGER).all():
            return ReadColumn("string", values, notes=("digits of a code, by its name",))
    is_sure = is_enough(len(present)) or wanted == "integer"  # few rows may hold no fraction by chance
    if is_sure and present.str.contains(_INTEGER).all() and present.str.len_bytes().max() <= MOST_DIGITS:  # type: ignore[operator]  # of text that is there
        return ReadColumn("integer", values.str.strip_prefix("+").cast(pl.Int64))
    return _read_floats(values.str.strip_prefix("+").cast(pl.Float64))


def _read_moment(values: pl.Series, present: pl.Series) -> ReadColumn | None:
    for each in _DATES:
        if present.str.contains(each.pattern).all() and _reads(present, each.form):
            if any(_reads(present, rival) for rival in each.rivals):
                return ReadColumn("string", values, notes=("days, but which number is the month cannot be told",))
            days = values.str.to_date(each.form).dt.to_string("%Y-%m-%d")
            if each.written == "yyyy-MM-dd":
                return ReadColumn("date", days)
            return ReadColumn("date", days, Options(format=each.written), (f"written {each.written} in the sample",))
    if present.str.contains(rf"^{_CLOCK}$").all() and _is_a_time(present):
        return ReadColumn("time", values)
    for offset, timezone in ((_OFFSET, None), ("", False)):
        if present.str.contains(rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[ Tt]{_CLOCK}{offset}$").all():
            if not _reads(present.str.slice(0, 10), "%Y-%m-%d") or not _is_a_time(present.str.slice(11, 8)):
                return None
            made = values.str.replace(r"^(.{10})[ t]", "${1}T")
            spaced = ("written with a space for the T in the sample",) if (made != values).any() else ()
            return ReadColumn("timestamp", made, Options(timezone=timezone), spaced)
    return None


def _reads(days: pl.Series, form: str) -> bool:
    return days.str.to_date(form, strict=False).null_count() == 0


def _is_a_time(clocks: pl.Series) -> bool:
    return clocks.str.slice(0, 8).str.to_time("%H:%M:%S", strict=False).null_count() == 0
