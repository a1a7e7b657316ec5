"""Rows of a query into a file: a Parquet file of typed columns, or JSON lines where a value fits no such column."""

from __future__ import annotations

from itertools import chain
from typing import IO, TYPE_CHECKING, Any, Final

import polars as pl

from mainstay.contract.tables_files import write_frames
from mainstay.intake.sql_database import Unfit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import sqlalchemy as sa

    from mainstay.intake.sql_database import Column

CHUNK_BYTES: Final = 8 << 20  # asked for at a time, about

_FIRST_ROWS: Final = 256
_MOST_ROWS: Final = 16_384
_EXACT_INTEGER: Final = 2**53  # beyond it, not every whole number is a double


class Chunks:
    """The rows of a result, some at a time, so that about CHUNK_BYTES of them are held."""

    def __init__(self, result: sa.CursorResult[Any], keep: Callable[[Sequence[Any]], bool]) -> None:
        """`keep` sees every row once, in order, and says whether it lands."""
        self._result = result
        self._keep = keep
        self._rows = _FIRST_ROWS

    def __iter__(self) -> Iterator[list[Sequence[Any]]]:
        while found := self._result.fetchmany(self._rows):
            yield [row for row in found if self._keep(row)]

    def held(self, rows: int, size: int) -> None:
        """Rows that were read took so many bytes; the next chunk is chosen by that."""
        if rows:
            self._rows = max(1, min(_MOST_ROWS, self._rows * 4, CHUNK_BYTES * rows // max(size, 1)))


def write_parquet(path: Path, columns: Sequence[Column], chunks: Chunks) -> int:
    """Write rows, the values of the columns first in each. Raises Unfit, and what reading them raises.

    Returns how many rows there are; nothing is written when there are none.
    """
    frames = _frames(columns, chunks)
    first = next(frames, None)
    if first is None:
        return 0
    count = 0

    def counted() -> Iterator[pl.DataFrame]:
        nonlocal count
        for frame in chain([first], frames):
            count += frame.height
            yield frame

    write_frames(counted(), first.schema, path)
    return count


def write_lines(file: IO[bytes], line: Callable[[Sequence[Any]], bytes], chunks: Chunks) -> int:
    """Write rows as `line` makes them; returns how many there are."""
    count = 0
    for rows in chunks:
        lines = [line(row) for row in rows]
        file.writelines(each + b"\n" for each in lines)
        count += len(lines)
        chunks.held(len(lines), sum(map(len, lines)))
    return count


def _frames(columns: Sequence[Column], chunks: Chunks) -> Iterator[pl.DataFrame]:
    """Frames of one schema, none of them empty."""
    schema: Mapping[str, pl.DataType] | None = None
    for rows in chunks:
        if not rows:
            continue
        values = list(zip(*rows, strict=True))[: len(columns)]
        if schema is None:
            schema = {each.name: each.kind or _kind_of(held) for each, held in zip(columns, values, strict=True)}
        frame = pl.DataFrame([_series(name, held, schema[name]) for name, held in zip(schema, values, strict=True)])
        chunks.held(frame.height, int(frame.estimated_size()))
        yield frame


def _kind_of(values: Sequence[Any]) -> pl.DataType:
    """The type of a column that was declared with none."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {int}:
        return pl.Int64()
    if kinds and kinds <= {int, float}:
        return pl.Float64()
    return pl.Binary() if kinds == {bytes} else pl.String()


def _series(name: str, values: Sequence[Any], kind: pl.DataType) -> pl.Series:
    """A column, each value exactly as it came. Raises Unfit when its type does not hold one."""
    if isinstance(kind, pl.Decimal):
        _check_decimals(values, kind.scale)
    elif kind == pl.Float64():
        _check_doubles(values)
    elif kind == pl.Boolean():
        values = [_boolean(value) for value in values]
    try:
        return pl.Series(name, values, dtype=kind, strict=True)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):  # it may repeat the value
        raise Unfit(name) from None


def _check_decimals(values: Sequence[Any], scale: int) -> None:
    """The engine rounds what has more digits, and panics at what is no number."""
    for value in values:
        if value is not None and (not value.is_finite() or -value.as_tuple().exponent > scale):
            raise Unfit


def _check_doubles(values: Sequence[Any]) -> None:
    for value in values:
        if isinstance(value, int) and not -_EXACT_INTEGER <= value <= _EXACT_INTEGER:
            raise Unfit


def _boolean(value: Any) -> bool | None:
    """SQLite has 0 and 1 for them."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and value in {0, 1}:
        return bool(value)
    raise Unfit
