"""What tables can hold, how a batch is fitted to a table, and which changes of a table's columns are possible.

Columns are Polars types. Delta tables know fewer: no unsigned integers, no times of day, no durations, and instants in
microseconds only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from mainstay.documents import nearest
from mainstay.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from polars._typing import PolarsDataType

MAX_COLUMNS: Final = 5_000
MAX_DECIMAL_DIGITS: Final = 38

_COLUMN = re.compile(r"[^\s,;{}()=\x00-\x1f]{1,255}")  # what Parquet columns of Delta tables may be called
_INTEGERS: Final = (pl.Int8, pl.Int16, pl.Int32, pl.Int64)
_PLAIN: Final = (*_INTEGERS, pl.Float32, pl.Float64, pl.Boolean, pl.String, pl.Binary, pl.Date)
_EXACT_IN_FLOAT64: Final = (pl.Int8, pl.Int16, pl.Int32, pl.Float32)
_CAST_HINT = "Cast them first: times of day and durations to integers or text, UInt64 to Int64 or Decimal(20, 0)."


@dataclass(frozen=True, slots=True)
class Changes:
    """What would have to change for a table to have a schema."""

    added: dict[str, pl.DataType]
    widened: dict[str, pl.DataType]
    refused: list[str]  # each names its column, what the table has and what was wanted

    def __bool__(self) -> bool:
        return bool(self.added or self.widened)


def storable(schema: pl.Schema) -> pl.Schema:
    """The schema as a table holds it. Raises Misuse with everything that no table holds."""
    problems = _name_problems(schema.names())
    kept: dict[str, pl.DataType] = {}
    for name, kind in schema.items():
        found = _storable_type(kind)
        if found is None:
            problems.append(f"{name}: {kind} cannot be stored in a Delta table")
        else:
            kept[name] = found
    if problems:
        raise Misuse("\n".join(["expected columns that a table can have, found others:", *problems]), hint=_CAST_HINT)
    return pl.Schema(kept)


def _name_problems(names: list[str]) -> list[str]:
    folded: dict[str, str] = {}
    problems = [] if 0 < len(names) <= MAX_COLUMNS else [f"expected 1 to {MAX_COLUMNS:,} columns, found {len(names):,}"]
    for name in names:
        if not _COLUMN.fullmatch(name):
            problems.append(f"{name[:80]!r}: a column's name has no spaces and none of , ; {{ }} ( ) =")
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            problems.append(f"{name}: another column is called {other}, and engines do not tell them apart by case")
    return problems


def _storable_type(kind: pl.DataType) -> pl.DataType | None:
    match kind:
        case pl.UInt8():
            return pl.Int16()
        case pl.UInt16():
            return pl.Int32()
        case pl.UInt32():
            return pl.Int64()
        case pl.Categorical() | pl.Enum():
            return pl.String()
        case pl.Datetime():
            return pl.Datetime("us", None if kind.time_zone is None else "UTC")
        case pl.Decimal():
            return kind if kind.precision <= MAX_DECIMAL_DIGITS else None
        case pl.List() | pl.Array():
            inner = _storable_type(_instance(kind.inner))
            return None if inner is None else pl.List(inner)
        case pl.Struct():
            fields = {field.name: _storable_type(_instance(field.dtype)) for field in kind.fields}
            whole = {name: found for name, found in fields.items() if found is not None}
            return pl.Struct(whole) if len(whole) == len(fields) and whole else None
    return kind if isinstance(kind, _PLAIN) else None


def _instance(kind: PolarsDataType) -> pl.DataType:
    return kind if isinstance(kind, pl.DataType) else kind()


def holds(wide: pl.DataType, narrow: pl.DataType) -> bool:
    """Whether every value of `narrow` is one of `wide`, unchanged."""
    if wide == narrow:
        return True
    if isinstance(wide, _INTEGERS) and isinstance(narrow, _INTEGERS):
        return _INTEGERS.index(type(wide)) > _INTEGERS.index(type(narrow))
    if isinstance(wide, pl.Float64):
        return isinstance(narrow, _EXACT_IN_FLOAT64)
    if isinstance(wide, pl.Decimal) and isinstance(narrow, pl.Decimal):
        more = wide.scale - narrow.scale
        return more >= 0 and wide.precision - narrow.precision >= more
    return False


def arrow_name(kind: pl.DataType) -> str:
    """The name of a type that a column may be widened to, as the engine's `arrow_cast` takes it."""
    if isinstance(kind, pl.Decimal):
        return f"Decimal128({kind.precision}, {kind.scale})"
    return type(kind).__name__


def differences(table: pl.Schema, wanted: pl.Schema) -> Changes:
    """What would have to change for `table` to hold batches of `wanted`; both are storable.

    A column that is wanted no more stays, and is null from then on. A column of another type is widened where every
    value it holds stays what it was, and refused otherwise.
    """
    added: dict[str, pl.DataType] = {}
    widened: dict[str, pl.DataType] = {}
    refused: list[str] = []
    for name, kind in wanted.items():
        if name not in table:
            added[name] = kind
        elif holds(table[name], kind):
            continue
        elif holds(kind, table[name]):
            widened[name] = kind
        else:
            refused.append(f"{name}: the table has {table[name]}, found {kind}, and neither holds the other's values")
    clashes = _name_problems([*table.names(), *added])
    return Changes(added, widened, refused + clashes)


def fit(batch: pl.DataFrame, table: pl.Schema, name: str) -> pl.DataFrame:
    """The batch with exactly the columns and types of the table; a column it lacks is null.

    Raises Misuse with everything that does not fit: a value is never narrowed and a column never dropped.
    """
    typed = [column for column, kind in batch.schema.items() if kind != pl.Null]
    given = pl.Schema({column: batch.schema[column] for column in typed})
    changes = differences(table, storable(given) if typed else given)
    unknown = [f"{column}: the table has no such column{_nearest(column, table)}" for column in changes.added]
    narrow = [f"{column}: the table has {table[column]}, found {kind}" for column, kind in changes.widened.items()]
    if problems := unknown + narrow + changes.refused:
        raise Misuse(
            "\n".join([f"table {name}: the batch does not fit:", *problems]),
            hint="Nothing was written. Widen the table first (`Table.evolve`), or cast the batch.",
        )
    columns = [
        (pl.col(column) if column in typed else pl.lit(None)).cast(kind).alias(column) for column, kind in table.items()
    ]
    return batch.select(columns) if batch.width else pl.DataFrame(schema=table)


def _nearest(column: str, table: Iterable[str]) -> str:
    near = nearest(column, table)
    return "" if near is None else f"; did you mean {near}?"
