"""Hypothesis strategies for columns of every type, right, nearly right and arbitrary for a property of a contract."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import polars as pl
from hypothesis import strategies as st

from contract.contracts import EDGES, MOMENTS, NAMES, STRINGS

INTEGERS: dict[pl.DataType, tuple[int, int]] = {
    pl.Int8(): (-(2**7), 2**7 - 1),
    pl.Int16(): (-(2**15), 2**15 - 1),
    pl.Int32(): (-(2**31), 2**31 - 1),
    pl.Int64(): (-(2**63), 2**63 - 1),
    pl.Int128(): (-(2**127), 2**127 - 1),
    pl.UInt8(): (0, 2**8 - 1),
    pl.UInt16(): (0, 2**16 - 1),
    pl.UInt32(): (0, 2**32 - 1),
    pl.UInt64(): (0, 2**64 - 1),
    pl.UInt128(): (0, 2**128 - 1),
}
DECIMALS = (pl.Decimal(5, 2), pl.Decimal(15, 3), pl.Decimal(38, 0), pl.Decimal(38, 6), pl.Decimal(38, 37))
DATETIMES = (
    *(pl.Datetime(unit) for unit in ("ms", "us", "ns")),
    pl.Datetime("us", "UTC"),
    pl.Datetime("ms", "Europe/Zurich"),
)
TEXTS = (pl.String(), pl.Categorical())
OTHERS = (pl.Binary(), pl.Duration("us"), pl.Null())
SCALARS = (
    *INTEGERS,
    pl.Float32(),
    pl.Float64(),
    *DECIMALS,
    pl.Boolean(),
    *TEXTS,
    pl.Date(),
    *DATETIMES,
    pl.Time(),
    *OTHERS,
)
FITTING: dict[str | None, tuple[pl.DataType, ...]] = {
    "string": TEXTS,
    "integer": (*INTEGERS, pl.Float64(), pl.Float32(), *DECIMALS),
    "number": (pl.Float64(), pl.Float64(), pl.Float32(), pl.Int64(), pl.UInt64(), pl.Int128(), *DECIMALS),
    "boolean": (pl.Boolean(),),
    "date": (pl.Date(), *TEXTS, *DATETIMES),
    "timestamp": (*DATETIMES, pl.String()),
    "time": (pl.Time(), pl.String()),
    None: SCALARS,
}
DAY = 86_400
DATED = (
    "2023-12-31T23:59:59.999999999Z", "2024-01-01T00:00:00.000000001Z", "2024-01-01T00:00:00.0Z",
    "2024-01-01T00:00:00+00:00",
    "2024-01-01T00:30:00+00:30", "2023-12-31T23:30:00-00:30", "2023-12-31T23:29:59-00:30",
    "2024-01-01T05:30:00.1230+05:30",
    "2024-01-01T05:30:00.1229+05:30", "2024-01-01T05:30:00.123z", "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999-23:59",
    "0001-01-01T00:00:00+23:59", "2024-01-01t00:00:00.5", "11:59:59.9990Z", "11:59:59.99899", "12:00:00.000000001Z",
    "12:59:59+01:00",
    "13:00:00+01:00", "00:00:00+23:59", "23:59:59-23:59", "12:00:00-00:00", "12:00:00+00:00", "11:29:59.999-00:30",
    "2023-12-31", "2024-01-02",
)  # fmt: skip  # one a line would fill a page
_SECONDS = (0, 1, -1, 1_704_067_200, 1_704_067_199, 1_704_067_201, 1_709_164_800, 253_402_300_799, 253_402_300_800,
            -62_135_596_800, -62_135_596_801)  # fmt: skip  # edges of years and of the contracts' bounds
_DECIMALS = st.one_of(st.integers(-2000, 2000), st.integers(-(10**15), 10**15))


def _edged(low: int, high: int) -> st.SearchStrategy[int]:
    edges = [edge for edge in (*EDGES, low, high, low + 1, high - 1) if low <= edge <= high]
    return st.one_of(st.sampled_from(edges), st.integers(max(low, -20), 20), st.integers(low, high))


def _moments(per_second: int) -> st.SearchStrategy[int]:
    limit = 2**63 - 1
    near = st.sampled_from(_SECONDS).map(lambda seconds: max(min(seconds * per_second, limit), -limit))
    days = st.integers(-800_000, 2_932_900).map(lambda day: max(min(day * DAY * per_second, limit), -limit))
    return st.one_of(
        near,
        days,
        st.tuples(near, st.integers(-2, 2)).map(lambda pair: max(min(sum(pair), limit), -limit)),
        st.integers(-limit, limit),
    )


def cells(kind: pl.DataType) -> st.SearchStrategy[Any]:
    """Physical values of a scalar type, which `column` makes a column of."""
    if kind in INTEGERS:
        return _edged(*INTEGERS[kind])
    match kind:
        case pl.Float64() | pl.Float32():
            width: Any = 64 if kind == pl.Float64 else 32
            edges = st.sampled_from((0.5, -0.0, 0.1, 0.3, 0.07, 0.25, 1.0, 100.0, 1e15, 2.0**53, 2.0**53 + 2, 1.5, 3.0))
            return st.one_of(
                st.floats(width=width), edges, st.integers(-20, 200).map(lambda n: n / 10), _edged(-20, 20).map(float)
            )
        case pl.Decimal():
            most = 10**kind.precision - 1
            whole = st.integers(-9, 9).map(lambda n: n * 10**kind.scale)
            unscaled = st.one_of(_DECIMALS, whole, st.integers(-most, most)).filter(lambda n: abs(n) <= most)
            return unscaled.map(lambda n: _decimal(n, kind))
        case pl.Boolean():
            return st.booleans()
        case pl.Date():
            return st.one_of(
                _moments(1).map(lambda n: n // DAY).filter(lambda n: abs(n) < 2**31), st.integers(19_000, 20_000)
            )
        case pl.Datetime():
            per_second = {"ms": 10**3, "us": 10**6, "ns": 10**9}[kind.time_unit]
            made = _moments(per_second)  # of one with a zone, only what the engine can show as local time
            return made.filter(lambda n: abs(n) < 250_000_000_000 * per_second) if kind.time_zone else made
        case pl.Time():
            noon = 43_200 * 10**9
            return st.one_of(
                st.sampled_from((0, noon, noon - 1, noon + 1, DAY * 10**9 - 1, noon - 10**6)),
                st.integers(0, DAY * 10**9 - 1),
            )
        case pl.Binary():
            return st.binary(max_size=3)
        case pl.Duration():
            return st.integers(-10, 10)
        case pl.Null():
            return st.none()
    dated = st.sampled_from([text for texts in MOMENTS.values() for text in texts])
    return st.one_of(st.sampled_from(STRINGS), dated, st.text(st.characters(exclude_categories=["Cs"]), max_size=6))


def edges(kind: pl.DataType) -> list[Any]:
    """Physical values of a scalar type where rules change their minds, and null."""
    match kind:
        case pl.Float64() | pl.Float32():
            tens = [sign * n / 10 for n in range(31) for sign in (1, -1)]
            far = [
                2.0**53,
                -(2.0**53),
                2.0**53 + 2,
                2.0**63,
                2.0**64,
                2.0**128,
                1e15,
                1e15 + 0.5,
                1e16,
                1e300,
                5e-324,
                3.5e38,
            ]
            return [
                *tens,
                *far,
                0.07,
                0.001,
                1e-3 + 1e-18,
                0.30000000000000004,
                20.0,
                math.nan,
                math.inf,
                -math.inf,
                None,
            ]
        case pl.Decimal():
            most = 10**kind.precision - 1
            near = [n * 10**kind.scale // 2 for n in range(-12, 43)]
            far = [2**53 + 1, 2**63, 123456789012345678901234567890, most, -most, 1, 30, 7]
            return [_decimal(n, kind) for n in (*near, *far) if abs(n) <= most] + [None]
        case pl.Boolean():
            return [True, False, None]
        case pl.Date():
            return [seconds // DAY + shift for seconds in _SECONDS for shift in (-1, 0, 1)] + [
                2**31 - 1,
                -(2**31),
                None,
            ]
        case pl.Datetime():
            per_second = {"ms": 10**3, "us": 10**6, "ns": 10**9}[kind.time_unit]
            made = [
                seconds * per_second + shift for seconds in _SECONDS for shift in (-1, 0, 1, 123 * per_second // 1000)
            ]
            return [n for n in made if abs(n) < 2**63] + [None]
        case pl.Time():
            hours = [hour * 3600 * 10**9 + shift for hour in range(1, 24) for shift in (-1, 0, 1, -(10**6))]
            return [0, *hours, DAY * 10**9 - 1, None]
        case pl.Binary():
            return [b"", b"a", None]
        case pl.Duration() | pl.Null():
            return [None, None if kind == pl.Null else 1]
    if kind in INTEGERS:
        low, high = INTEGERS[kind]
        tried = [*range(-12, 22), *(edge + shift for edge in (*EDGES, low, high) for shift in (-1, 0, 1))]
        return [n for n in tried if low <= n <= high] + [None]
    return [*STRINGS, *(text for texts in MOMENTS.values() for text in texts), *DATED, None]


def _decimal(unscaled: int, kind: pl.Decimal) -> Decimal:
    return Decimal((int(unscaled < 0), tuple(map(int, str(abs(unscaled)))), -kind.scale))


def column(values: list[Any], kind: pl.DataType) -> pl.Series:
    """A column of a scalar type from physical values."""
    if kind == pl.Date:
        return pl.Series(values, dtype=pl.Int32).cast(kind)
    if kind in {pl.Datetime, pl.Time, pl.Duration}:
        numbers = pl.Series(values, dtype=pl.Int64)
        return numbers.cast(kind)
    if kind == pl.Categorical:
        return pl.Series(values, dtype=pl.String).cast(kind)
    return pl.Series(values, dtype=kind, strict=True)


@st.composite
def columns(draw: st.DrawFn, declared: dict[str, Any] | None, rows: int, depth: int = 2) -> pl.Series:
    """A column for a property, of a type that fits it more often than not."""
    kind = (declared or {}).get("logicalType")
    chance = draw(st.integers(0, 9))
    if depth and (kind == "object" or (kind is None and chance < 2)) and chance < 8:
        return draw(_structs((declared or {}).get("properties"), rows, depth - 1))
    if depth and (kind == "array" or (kind is None and chance < 4)) and chance < 8:
        return draw(_lists((declared or {}).get("items"), rows, depth - 1))
    chosen = draw(st.sampled_from(FITTING.get(kind, SCALARS) if chance else SCALARS))
    values = st.one_of(cells(chosen), cells(chosen), cells(chosen), st.none())
    listed = [v for check in (declared or {}).get("quality", ()) for v in check["arguments"].get("validValues", ())]
    if chosen == pl.String and any(isinstance(v, str) for v in listed):
        values = st.one_of(values, st.sampled_from([v for v in listed if isinstance(v, str)]))
    if chosen == pl.Float64 and any(isinstance(v, int | float) for v in listed):
        values = st.one_of(values, st.sampled_from([float(v) for v in listed if isinstance(v, int | float)]))
    return column(draw(st.lists(values, min_size=rows, max_size=rows)), chosen)


@st.composite
def _structs(draw: st.DrawFn, properties: list[dict[str, Any]] | None, rows: int, depth: int) -> pl.Series:
    declared = {each["name"]: each for each in properties or ()}
    names = [name for name in declared if draw(st.integers(0, 9))]
    if not declared or draw(st.integers(0, 9)) == 0:
        names += [name for name in draw(st.lists(st.sampled_from(NAMES), max_size=2, unique=True)) if name not in names]
    inner = [draw(columns(declared.get(name), rows, depth)).alias(name) for name in names]
    made = pl.DataFrame(inner).to_struct("s") if inner else pl.Series([{}] * rows, dtype=pl.Struct([]))
    present = pl.Series(draw(st.lists(st.integers(0, 5), min_size=rows, max_size=rows)), dtype=pl.Int64) > 0
    return pl.select(pl.when(present).then(pl.lit(made))).to_series()


@st.composite
def _lists(draw: st.DrawFn, declared: dict[str, Any] | None, rows: int, depth: int) -> pl.Series:
    sizes = draw(st.lists(st.one_of(st.none(), st.integers(0, 4)), min_size=rows, max_size=rows))
    items = draw(columns(declared, sum(size or 0 for size in sizes), depth))
    return lists_of(items, sizes)


def lists_of(items: pl.Series, sizes: list[int | None]) -> pl.Series:
    """A column of lists of these sizes, filled with `items` in order; None is null."""
    owners = [row for row, size in enumerate(sizes) for _ in range(size or 0)]
    grouped = pl.DataFrame({"row": pl.Series(owners, dtype=pl.Int64), "items": items})
    grouped = grouped.group_by("row", maintain_order=True).agg("items")
    rows = pl.DataFrame({"row": pl.Series(range(len(sizes)), dtype=pl.Int64), "size": pl.Series(sizes, dtype=pl.Int64)})
    empty = pl.lit(pl.Series([[]], dtype=pl.List(items.dtype))).first()
    made = rows.join(grouped, on="row", how="left", maintain_order="left")
    return made.select(pl.when(pl.col("size") > 0).then("items").when(pl.col("size") == 0).then(empty)).to_series()


@st.composite
def frames(draw: st.DrawFn, fields: list[dict[str, Any]], rows: int) -> pl.DataFrame:
    """A table with a column for most of the fields, and now and then for one more."""
    made = [draw(columns(declared, rows)).alias(declared["name"]) for declared in fields if draw(st.integers(0, 19))]
    names = {series.name for series in made}
    if draw(st.integers(0, 9)) == 0:
        extra = draw(st.sampled_from([name for name in NAMES if name not in names]))
        made.append(draw(columns(None, rows, 1)).alias(extra))
    return pl.DataFrame(made) if made else pl.DataFrame({fields[0]["name"]: [None] * rows})
