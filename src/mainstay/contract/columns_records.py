"""What a value of a column is as JSON, which is what the rules of a contract are about.

| column | JSON |
|---|---|
| any, null | absent; among the items of an array, null |
| boolean; integers; string, categorical, enum | the same |
| floats | the number, widened to 64 bits; where an integer is declared, a whole one within 2^53 is that integer |
| decimal | the integer when it is whole, else the nearest double, as readers of JSON have it |
| date | YYYY-MM-DD |
| datetime | YYYY-MM-DDThh:mm:ss with as many digits of a fraction as it needs, and Z when the column has a time zone |
| time | hh:mm:ss, with a fraction likewise |
| struct | an object without its null fields |
| list, array | an array |
| binary, duration, map and others | nothing: there is no one form, and the value breaks the type |

A datetime without a zone means UTC where the contract's `timezone` and `defaultTimezone` leave that open, as the
standard says, and has its Z then. Where a date is declared, a datetime at midnight, without a zone, is that date.

In files of text, a cell of an integer, number or boolean is read as JSON reads it, spaces around it aside, and with
`True` and `FALSE` allowed; a cell of an object or array holds its JSON. What cannot be read so stays text, and breaks
the type.
"""

from __future__ import annotations

import re
from base64 import b64encode
from itertools import islice
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import polars as pl

from mainstay.contract.rules import MAX_DEPTH
from mainstay.contract.values import nested_deeper

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal

    from mainstay.contract.rules import Node

EXACT: Final = 2**53  # to here, every whole number is a double of its own
NANOSECONDS: Final = 1_000_000_000
TEXTS: Final = (pl.String, pl.Categorical, pl.Enum)  # compared: a type with parameters has a hash of its own
TEMPORAL: Final = (pl.Date, pl.Datetime, pl.Time)

_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_MAX_DIGITS: Final = 400  # of a whole number in a cell; the widest format has 39
_BOOLEANS: Final = {"true": True, "false": False}
_decode: Final = msgspec.json.Decoder().decode


def plain(series: pl.Series, node: Node | None) -> list[Any]:
    """The JSON of each value of a column: None, bool, int, float, str, list or dict. `node` says what is declared."""
    kind = series.dtype
    if isinstance(kind, pl.Struct):
        return _objects(series, node)
    if isinstance(kind, pl.List | pl.Array):
        return _arrays(series, node)
    if kind.is_float():
        numbers = series.cast(pl.Float64).to_list()
        return [_whole(value) for value in numbers] if node is not None and node.kind == "integer" else numbers
    if kind.is_decimal():
        return [None if value is None else _number(value) for value in series.to_list()]
    if kind in TEMPORAL:
        return temporal_texts(series, node).to_list()
    if kind in TEXTS:
        return series.cast(pl.String).to_list()
    if kind.is_integer() or kind in {pl.Boolean, pl.Null}:
        return series.to_list()
    other = type(str(kind), (), {})()  # shown by the name of its type
    return [other if present else None for present in series.is_not_null().to_list()]


class NotJson(str):
    """The text that stands for a value which JSON has not: a number that is none, or bytes in base64."""

    __slots__ = ()


def as_json(series: pl.Series, node: Node | None) -> list[Any]:
    """As `plain`, of values that are to be written as JSON: a NotJson where JSON has no such value."""
    if series.dtype.is_float() and not series.is_finite().all():
        return [_finite(value) for value in plain(series, node)]
    if series.dtype == pl.Binary:
        return [None if value is None else NotJson(b64encode(value).decode()) for value in series.to_list()]
    if series.dtype == pl.Duration:
        return [None if value is None else NotJson(value) for value in series.to_list()]
    return plain(series, node)


def read_cell(text: str, node: Node) -> Any:
    """The value of a cell of text, or the text itself where it cannot be read as what the node declares."""
    stripped = text.strip(" \t")
    match node.kind:
        case "integer" | "number":
            value = _read_number(stripped)
            value = _whole(value) if node.kind == "integer" else value
            return text if value is None else value
        case "boolean":
            return _BOOLEANS.get(stripped.lower(), text)
        case "object" | "array":
            try:
                value = _decode(text)
            except (msgspec.DecodeError, RecursionError):
                return text
            return text if nested_deeper(value, MAX_DEPTH - 1) else value
        case _:
            return text


def temporal_texts(series: pl.Series, node: Node | None) -> pl.Series:
    """The texts of a column of dates, datetimes or times. Years of other than four digits come out as they are."""
    kind = series.dtype
    present = series.drop_nulls()
    numbers = present.to_physical().to_numpy()
    if isinstance(kind, pl.Datetime):
        texts = [_trimmed(text) for text in np.datetime_as_string(numbers.view(f"datetime64[{kind.time_unit}]"))]
        if kind.time_zone is not None or is_utc_by_default(node):
            texts = [f"{text}Z" for text in texts]
        elif node is not None and node.kind == "date":
            texts = [text.removesuffix("T00:00:00") for text in texts]
    elif kind == pl.Date:
        texts = np.datetime_as_string(numbers.astype("datetime64[D]")).tolist()
    else:
        texts = [_clock(number) for number in numbers.tolist()]
    given = iter(texts)
    return pl.Series([next(given) if there else None for there in series.is_not_null().to_list()], dtype=pl.String)


def is_utc_by_default(node: Node | None) -> bool:
    """Whether a timestamp without a zone is meant in UTC: the contract says no more than that, or nothing."""
    if node is None or node.kind != "timestamp" or node.options is None or node.options.timezone is not None:
        return False
    return (node.options.default_timezone or "UTC").upper() in {"UTC", "ETC/UTC", "Z"}


def _finite(value: Any) -> Any:
    if not isinstance(value, float) or isfinite(value):
        return value
    return NotJson("NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity")


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else str(text)


def _clock(nanoseconds: int) -> str:
    seconds, fraction = divmod(nanoseconds, NANOSECONDS)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return _trimmed(f"{hour:02}:{minute:02}:{second:02}.{fraction:09}")


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= EXACT else value


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _read_number(text: str) -> int | float | None:
    if not _NUMBER.fullmatch(text):
        return None
    if text.lstrip("-").isdigit():
        return int(text) if len(text) <= _MAX_DIGITS else None
    number = float(text)
    return None if number in {float("inf"), float("-inf")} else number


def _objects(series: pl.Series, node: Node | None) -> list[Any]:
    known = dict(node.fields or ()) if node is not None else {}
    names = [field.name for field in series.dtype.fields]  # type: ignore[attr-defined]  # a struct's
    inner = series.struct.unnest()
    inner.columns = [f"f{i}" for i in range(len(names))]
    columns = [plain(inner.to_series(i), known.get(name)) for i, name in enumerate(names)]
    rows: Iterable[tuple[Any, ...]] = zip(*columns, strict=True) if columns else [()] * len(series)
    present = series.is_not_null().to_list()
    return [
        {name: value for name, value in zip(names, row, strict=True) if value is not None} if there else None
        for there, row in zip(present, rows, strict=True)
    ]


def _arrays(series: pl.Series, node: Node | None) -> list[Any]:
    series = as_list(series)
    items = iter(plain(flattened(series), node.items if node is not None else None))
    return [None if size is None else list(islice(items, size)) for size in series.list.len().to_list()]


def as_list(series: pl.Series) -> pl.Series:
    """A column of lists, also where it was one of arrays of a fixed size."""
    return series.arr.to_list() if isinstance(series.dtype, pl.Array) else series


def item_type(kind: pl.List | pl.Array) -> pl.DataType:
    """The type of the items."""
    return _instance(kind.inner)


def field_types(kind: pl.Struct) -> dict[str, pl.DataType]:
    """The types of a struct's fields by name."""
    return {field.name: _instance(field.dtype) for field in kind.fields}


def _instance(kind: Any) -> pl.DataType:
    """A type with its parameters; those of a column always have them."""
    assert isinstance(kind, pl.DataType)
    return kind


def flattened(series: pl.Series) -> pl.Series:
    """The items of all lists of a column, in order."""
    return series.list.explode(empty_as_null=False, keep_nulls=False)
