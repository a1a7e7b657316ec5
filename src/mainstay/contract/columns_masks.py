"""The rules of a contract's nodes as expressions over columns: which values keep them all.

An expression says true or false of every value that is not null; what it says of null is left open, but by
`member_mask`, where it counts. None stands for "every value". A rule that has no expression of the same meaning for a
type of column is tested by its own Python predicate, once for each distinct value, so that none is left out.
"""

from __future__ import annotations

import math
from functools import partial, reduce
from operator import and_
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from mainstay.contract.columns_moments import BOUNDS, at_midnight, dated_bounds, is_of_years, text_bounds
from mainstay.contract.columns_patterns import text_test
from mainstay.contract.columns_records import (
    EXACT,
    TEMPORAL,
    TEXTS,
    as_list,
    field_types,
    flattened,
    is_utc_by_default,
    item_type,
    plain,
    temporal_texts,
)
from mainstay.contract.violations import as_tested, is_of_kind

if TYPE_CHECKING:
    from collections.abc import Iterable
    from fractions import Fraction

    from mainstay.contract.rules import Node, Test

INTEGER_RANGES: Final[dict[Any, tuple[int, int]]] = {
    **{kind: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for kind, bits in (
        (pl.Int8, 8), (pl.Int16, 16), (pl.Int32, 32), (pl.Int64, 64), (pl.Int128, 128))},
    **{kind: (0, 2**bits - 1) for kind, bits in (
        (pl.UInt8, 8), (pl.UInt16, 16), (pl.UInt32, 32), (pl.UInt64, 64), (pl.UInt128, 128))},
}  # fmt: skip  # two tables of pairs
_SAFE_DIGITS: Final = 15  # of any decimal with so many, the double says which it was
_EXACT_POWER: Final = 22  # the largest power of ten that is a double


def member_mask(node: Node, kind: pl.DataType, value: pl.Expr) -> pl.Expr | None:
    """Whether a field or an item keeps its node's rules, null included."""
    kept = value_mask(node, kind, value)
    if node.required:
        return value.is_not_null() if kept is None else value.is_not_null() & kept
    return None if kept is None else value.is_null() | kept


def value_mask(node: Node, kind: pl.DataType, value: pl.Expr) -> pl.Expr | None:
    """Whether values that are not null keep a node's rules, in a column of a type."""
    match node.kind:
        case "string":
            return _strings(node, kind, value)
        case "date" | "timestamp" | "time":
            return _dated(node, kind, value)
        case "integer":
            return _integers(node, kind, value)
        case "number":
            return _numbers(node, kind, value)
        case "boolean":
            return _every(_fallbacks(node, value)) if kind == pl.Boolean else _never(value)
        case "object":
            return _objects(node, kind, value)
        case "array":
            return _arrays(node, kind, value)
        case _:
            return _every([json_mask(kind, value), *_open_tests(node, kind, value)])


def json_mask(kind: pl.DataType, value: pl.Expr) -> pl.Expr | None:
    """Whether values, and all that is in them, are such as JSON has."""
    if kind.is_float():
        return value.is_finite()
    if isinstance(kind, pl.Struct):
        fields = _fields(kind, value)
        below = [(json_mask(field_types(kind)[name], inner), inner) for name, inner in fields.items()]
        return _every([mask | inner.is_null() for mask, inner in below if mask is not None])
    if isinstance(kind, pl.List | pl.Array):
        item = json_mask(item_type(kind), pl.col("item"))
        return None if item is None else _each_item(value, item | pl.col("item").is_null())
    known = kind.is_integer() or kind.is_decimal() or kind in (pl.Boolean, pl.Null, *TEXTS, *TEMPORAL)
    return None if known else _never(value)


def _never(value: pl.Expr) -> pl.Expr:
    return value.is_null()


def _every(masks: Iterable[pl.Expr | None]) -> pl.Expr | None:
    given = [mask for mask in masks if mask is not None]
    return reduce(and_, given) if given else None


# Rules that are tested in Python


def _fallbacks(node: Node, value: pl.Expr, tests: Iterable[Test] | None = None) -> list[pl.Expr | None]:
    return [_fallback(test, node, value) for test in (node.tests if tests is None else tests)]


def _fallback(test: Test, node: Node, value: pl.Expr) -> pl.Expr:
    return value.map_batches(partial(_tested, test, node), return_dtype=pl.Boolean, is_elementwise=True)


def _tested(test: Test, node: Node, series: pl.Series) -> pl.Series:
    """The predicate of a rule, of every value of the right type; it is not asked of others, which break the type."""

    def holds(value: Any) -> bool:
        return value is None or not is_of_kind(node, value) or test.holds(as_tested(node, value))

    if series.dtype.is_nested():
        return pl.Series([holds(value) for value in plain(series, node)], dtype=pl.Boolean)
    distinct = series.unique()
    bad = distinct.filter(pl.Series([not holds(value) for value in plain(distinct, node)], dtype=pl.Boolean))
    if bad.is_empty():
        return pl.repeat(True, len(series), dtype=pl.Boolean, eager=True)  # noqa: FBT003 - the value to repeat
    return ~series.is_in(bad.implode())


# Texts


def _strings(node: Node, kind: pl.DataType, value: pl.Expr) -> pl.Expr | None:
    if kind in TEMPORAL:
        value = _as_text(node, value)
    elif kind not in TEXTS:
        return _never(value)
    elif kind != pl.String:
        value = value.cast(pl.String)
    return _every(_text_test(test, node, value) for test in node.tests)


def _as_text(node: Node, value: pl.Expr) -> pl.Expr:
    make = partial(_temporal_texts, node)
    return value.map_batches(make, return_dtype=pl.String, is_elementwise=True)


def _temporal_texts(node: Node, series: pl.Series) -> pl.Series:
    return temporal_texts(series, node)


def _text_test(test: Test, node: Node, text: pl.Expr) -> pl.Expr:
    match test.rule:
        case "min-length":
            return text.str.len_chars() >= pl.lit(test.given)
        case "max-length":
            return text.str.len_chars() <= pl.lit(test.given)
        case "valid-values":
            return text.is_in([key for key in test.given if isinstance(key, str)])
        case "pattern" | "format":
            made = text_test(test.given) if test.given is not None else None
            return _fallback(test, node, text) if made is None else made(text)
        case _:
            return _fallback(test, node, text)


# Numbers


def _integers(node: Node, kind: pl.DataType, value: pl.Expr) -> pl.Expr | None:
    if kind.is_integer():
        return _whole_numbers(node, value, kind, *INTEGER_RANGES[kind])
    if kind.is_float():
        is_whole = value.is_between(-EXACT, EXACT) & (value.floor() == value)
        whole = value.cast(pl.Int64, strict=False)
        return _every([is_whole, _whole_numbers(node, whole, pl.Int64(), -EXACT, EXACT)])
    if isinstance(kind, pl.Decimal):
        scale = pl.lit(10**kind.scale, dtype=pl.Int128)
        unscaled = value.to_physical()
        rules = _whole_numbers(node, unscaled // scale, pl.Int128(), *INTEGER_RANGES[pl.Int128])
        return _every([unscaled % scale == 0, rules])
    return _never(value)


def _whole_numbers(node: Node, value: pl.Expr, kind: pl.DataType, low: int, high: int) -> pl.Expr | None:
    """The tests of an integer, on whole numbers of a type between `low` and `high`."""
    masks: list[pl.Expr | None] = []
    least, most = low, high
    for test in node.tests:
        match test.rule:
            case "minimum":
                least = max(least, math.ceil(test.given))
            case "exclusive-minimum":
                least = max(least, math.floor(test.given) + 1)
            case "maximum":
                most = min(most, math.floor(test.given))
            case "exclusive-maximum":
                most = min(most, math.ceil(test.given) - 1)
            case "multiple-of":
                masks.append(_multiples(test, node, value, kind, low, high))
            case "valid-values":
                masks.append(value.is_in(pl.Series(_whole_keys(test.given, low, high), dtype=kind).implode()))
            case _:
                masks.append(_fallback(test, node, value))
    if least > most:
        return _never(value)
    lower = value >= pl.lit(least, dtype=kind) if least > low else None
    upper = value <= pl.lit(most, dtype=kind) if most < high else None
    return _every([lower, upper, *masks])


def _multiples(test: Test, node: Node, value: pl.Expr, kind: pl.DataType, low: int, high: int) -> pl.Expr | None:
    step = test.given
    if step == 1:
        return None
    if step <= high:
        return value % pl.lit(step, dtype=kind) == 0
    return value == 0 if step > -low else _fallback(test, node, value)


def _whole_keys(keys: Iterable[Any], low: int, high: int) -> list[int]:
    numbers = (key for key in keys if isinstance(key, int | float) and math.isfinite(key))
    return [int(key) for key in numbers if key == int(key) and low <= key <= high]


def _numbers(node: Node, kind: pl.DataType, value: pl.Expr) -> pl.Expr | None:
    if isinstance(kind, pl.Decimal):
        # A quotient of two exact doubles is the nearest; of longer decimals only their text says which that is.
        double = value.cast(pl.Float64) if kind.precision <= _SAFE_DIGITS else value.cast(pl.String).cast(pl.Float64)
    elif kind.is_integer() or kind.is_float():
        double = value if kind == pl.Float64 else value.cast(pl.Float64)
    else:
        return _never(value)
    masks = [_double_test(test, node, double) for test in node.tests]
    rules = {test.rule for test in node.tests}
    is_closed = {"minimum", "exclusive-minimum"} & rules and {"maximum", "exclusive-maximum"} & rules
    if kind.is_float() and not is_closed:  # what is between two numbers is finite
        masks.append(double.is_finite())
    return _every(masks)


def _double_test(test: Test, node: Node, double: pl.Expr) -> pl.Expr:
    match test.rule:
        case "minimum":
            return double >= pl.lit(test.given)
        case "exclusive-minimum":
            return double > pl.lit(test.given)
        case "maximum":
            return double <= pl.lit(test.given)
        case "exclusive-maximum":
            return double < pl.lit(test.given)
        case "valid-values":
            return double.is_in([key for key in test.given if isinstance(key, float)])
        case "multiple-of":
            return double.map_batches(partial(_decimal_multiples, test, node), return_dtype=pl.Boolean)
        case _:
            return _fallback(test, node, double)


def _decimal_multiples(test: Test, node: Node, series: pl.Series) -> pl.Series:
    """Which doubles, as the shortest decimal that they are written as, are multiples of a decimal.

    n / 10^d, for a whole n below 10^15, is the decimal of the nearest double, and of no other; so one that n / 10^d
    gives back is written so, and one that it does not has more digits than d.
    """
    digits, units = _in_units(test.given)
    if digits > _EXACT_POWER or units >= EXACT:
        return _tested(test, node, series)
    values = series.to_numpy()  # whose division is exact; the engine multiplies with a reciprocal. Null is NaN
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = values * 10.0**digits
        is_safe = np.abs(scaled) < 10.0**_SAFE_DIGITS
        nearest = np.rint(np.where(is_safe, scaled, 0.0))
    found = (nearest / 10.0**digits == values) & (nearest.astype(np.int64) % units == 0)
    unsafe = np.flatnonzero(~is_safe & np.isfinite(values))
    if len(unsafe):
        found[unsafe] = _tested(test, node, series.gather(unsafe)).to_numpy()
    return pl.Series(found)


def _in_units(step: Fraction) -> tuple[int, int]:
    """A decimal as a number of digits after the point and a whole number of units of the last of them."""
    digits = 0
    while (step * 10**digits).denominator != 1:
        digits += 1
    return digits, int(step * 10**digits)


def _open_tests(node: Node, kind: pl.DataType, value: pl.Expr) -> list[pl.Expr | None]:
    """The tests of a value of any type: lists of valid ones."""
    if kind not in TEXTS:
        return _fallbacks(node, value)
    return [_text_test(test, node, value.cast(pl.String)) for test in node.tests]


# Dates and times


def _dated(node: Node, kind: pl.DataType, value: pl.Expr) -> pl.Expr | None:
    bounds = [test for test in node.tests if test.rule in BOUNDS]
    others = [test for test in node.tests if test.rule not in BOUNDS]
    if kind in TEXTS:
        text = value if kind == pl.String else value.cast(pl.String)
        return _every([*(_text_test(test, node, text) for test in others), *text_bounds(node.kind, bounds, text)])
    if not _has_the_form(node, kind):
        return _never(value)
    days = [at_midnight(kind, value)] if node.kind == "date" else []
    years = [] if kind == pl.Time else [is_of_years(kind, value)]
    texts = [_text_test(test, node, _as_text(node, value)) for test in others if test.rule != "format"]
    return _every([*years, *days, *dated_bounds(kind, bounds, value), *texts])


def _has_the_form(node: Node, kind: pl.DataType) -> bool:
    """Whether values of a type of column can be written as the format asks, with an offset or without."""
    timezone = node.options.timezone if node.options is not None else None
    if node.kind == "date":
        return kind == pl.Date or (isinstance(kind, pl.Datetime) and kind.time_zone is None)
    if node.kind == "time":
        return kind == pl.Time and timezone is not True
    if not isinstance(kind, pl.Datetime):
        return False
    has_offset = kind.time_zone is not None or is_utc_by_default(node)
    return has_offset == (timezone is not False)


# Objects and arrays


def _fields(kind: pl.Struct, value: pl.Expr) -> dict[str, pl.Expr]:
    """The fields of a struct. They are renamed first, because a name such as `*` or `^a$` would mean several."""
    renamed = value.struct.rename_fields([f"f{i}" for i in range(len(kind.fields))])
    return {field.name: renamed.struct.field(f"f{i}") for i, field in enumerate(kind.fields)}


def _objects(node: Node, kind: pl.DataType, value: pl.Expr) -> pl.Expr | None:
    if not isinstance(kind, pl.Struct):
        return _never(value)
    fields, types = _fields(kind, value), field_types(kind)
    if node.fields is None:
        counted = fields
        masks = [json_mask(kind, value)]
    else:
        known = dict(node.fields)
        counted = {name: inner for name, inner in fields.items() if name in known}
        masks = [
            member_mask(known[name], types[name], inner) if name in known else inner.is_null()
            for name, inner in fields.items()
        ]
        if any(child.required for name, child in node.fields if name not in fields):
            return _never(value)
    count = pl.sum_horizontal([pl.lit(0), *(inner.is_not_null().cast(pl.Int64) for inner in counted.values())])
    for test in node.tests:
        match test.rule:
            case "min-properties":
                masks.append(count >= test.given)
            case "max-properties":
                masks.append(count <= test.given)
            case "required":
                masks.append(fields[test.at].is_not_null() if test.at in fields else _never(value))
            case _:
                masks.append(_fallback(test, node, value))
    return _every(masks)


def _arrays(node: Node, kind: pl.DataType, value: pl.Expr) -> pl.Expr | None:
    if not isinstance(kind, pl.List | pl.Array):
        return _never(value)
    inner = item_type(kind)
    value = value.map_batches(as_list, return_dtype=pl.List(inner)) if isinstance(kind, pl.Array) else value
    masks: list[pl.Expr | None] = []
    if node.items is None:
        masks.append(json_mask(pl.List(inner), value))
    else:
        item = member_mask(node.items, inner, pl.col("item"))
        masks.append(None if item is None else _each_item(value, item))
    for test in node.tests:
        match test.rule:
            case "min-items":
                masks.append(value.list.len() >= test.given)
            case "max-items":
                masks.append(value.list.len() <= test.given)
            case "unique-items" if _differ_as_they_are(node, inner):
                masks.append(value.list.n_unique() == value.list.len())
            case _:
                masks.append(_fallback(test, node, value))
    return _every(masks)


def _differ_as_they_are(node: Node, inner: pl.DataType) -> bool:
    """Whether two items are the same as JSON only if they are the same in the column."""
    declared = node.items.kind if node.items is not None else "any"
    if inner == pl.String or inner in {pl.Boolean, pl.Float32, pl.Float64}:
        return True
    return inner.is_integer() and declared != "number"  # as doubles, two long integers may be one


def _each_item(value: pl.Expr, item: pl.Expr) -> pl.Expr:
    """Whether all items of each array keep `item`, an expression over the column `item`."""
    return value.map_batches(partial(_lists_of, item), return_dtype=pl.Boolean, is_elementwise=True)


def _lists_of(item: pl.Expr, series: pl.Series) -> pl.Series:
    lists = as_list(series)
    kept = flattened(lists).to_frame("item").select(item).to_series()
    found = np.ones(len(lists), dtype=np.bool_)
    sizes = lists.list.len().fill_null(0).to_numpy()
    found[np.repeat(np.arange(len(lists)), sizes)[~kept.to_numpy()]] = False
    return pl.Series(found)
