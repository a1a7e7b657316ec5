"""Which rows of a table are meant: small values that say the same in SQL and as a Polars expression.

Rows are never named by text that somebody wrote: a condition quotes what it holds, and is small enough to be parsed. A
parser of SQL works by recursion, and a few thousand `OR`s end the process it runs in.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final, TypeAlias

import polars as pl

from mainstay.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Literal: TypeAlias = "str | int | date | datetime"

MAX_VALUES: Final = 10_000  # of one condition
MAX_PARTS: Final = 32
_SHORT_RUN: Final = 64  # a run up to this long is written as its numbers


@dataclass(frozen=True, slots=True)
class OneOf:
    """The column has one of the values."""

    column: str
    values: tuple[Literal, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.values) <= MAX_VALUES:
            raise Misuse(f"expected 1 to {MAX_VALUES:,} values of {self.column}, found {len(self.values):,}")

    def sql(self) -> str:
        return f"{quote_name(self.column)} IN ({', '.join(map(quote, self.values))})"

    def expr(self) -> pl.Expr:
        return pl.col(self.column).is_in(list(self.values))


@dataclass(frozen=True, slots=True)
class NoneOf:
    """The column has a value, and none of these."""

    column: str
    values: tuple[Literal, ...]

    def sql(self) -> str:
        # That null is no value is said outright: the engine simplifies some negations as if there were no nulls.
        return f"{quote_name(self.column)} IS NOT NULL AND NOT ({OneOf(self.column, self.values).sql()})"

    def expr(self) -> pl.Expr:
        return pl.col(self.column).is_not_null() & ~OneOf(self.column, self.values).expr()


@dataclass(frozen=True, slots=True)
class Within:
    """The column is `first` or above, and below `last`; without one of them, only the other counts."""

    column: str
    first: Literal | None = None
    last: Literal | None = None

    def __post_init__(self) -> None:
        if self.first is None and self.last is None:
            raise Misuse(f"expected a bound for {self.column}, found none")

    def sql(self) -> str:
        name = quote_name(self.column)
        bounds = [f"{name} >= {quote(self.first)}"] if self.first is not None else []
        if self.last is not None:
            bounds.append(f"{name} < {quote(self.last)}")
        return " AND ".join(bounds)

    def expr(self) -> pl.Expr:
        column = pl.col(self.column)
        if self.first is None:
            return column < self.last
        if self.last is None:
            return column >= self.first
        return (column >= self.first) & (column < self.last)


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds."""

    parts: tuple[Condition, ...]

    def __post_init__(self) -> None:
        _check_parts(self.parts)

    def sql(self) -> str:
        return " AND ".join(f"({part.sql()})" for part in self.parts)

    def expr(self) -> pl.Expr:
        return pl.all_horizontal([part.expr() for part in self.parts])


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One part holds."""

    parts: tuple[Condition, ...]

    def __post_init__(self) -> None:
        _check_parts(self.parts)

    def sql(self) -> str:
        return " OR ".join(f"({part.sql()})" for part in self.parts)

    def expr(self) -> pl.Expr:
        return pl.any_horizontal([part.expr() for part in self.parts])


Condition: TypeAlias = "OneOf | NoneOf | Within | AllOf | AnyOf"


def _check_parts(parts: tuple[Condition, ...]) -> None:
    if not 0 < len(parts) <= MAX_PARTS:
        raise Misuse(f"expected 1 to {MAX_PARTS} parts of a condition, found {len(parts)}")


def in_runs(column: str, runs: Iterable[tuple[int, int]]) -> Iterator[Condition]:
    """Conditions that together mean the numbers in runs [first, behind the last), however many there are."""
    numbers: list[int] = []
    long: list[Condition] = []
    for first, last in runs:
        if last - first <= _SHORT_RUN:
            numbers.extend(range(first, last))
        else:
            long.append(Within(column, first, last))
        if len(numbers) > MAX_VALUES - _SHORT_RUN:
            yield OneOf(column, tuple(numbers))
            numbers.clear()
        if len(long) == MAX_PARTS:
            yield AnyOf(tuple(long))
            long.clear()
    if numbers:
        yield OneOf(column, tuple(numbers))
    if long:
        yield AnyOf(tuple(long))


def quote_name(column: str) -> str:
    """A column's name in SQL."""
    return '"' + column.replace('"', '""') + '"'


def quote(value: Literal) -> str:
    """A value in SQL. Raises Misuse for an instant without an offset: nobody can say which it is."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise Misuse(f"expected an instant with its offset from UTC, found {value.isoformat()}")
        return f"'{value.astimezone(UTC).strftime('%Y-%m-%dT%H:%M:%S.%fZ')}'"
    return f"DATE '{value.isoformat()}'" if isinstance(value, date) else str(int(value))
