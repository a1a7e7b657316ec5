"""Rows of a table that takes a source in (`intake/<capability>/<source>`), at one version of it.

A row stands there by its item and its number in the item, whatever files the table has been rewritten into: so rows are
read in that order, and a place in it stays what it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl

from mainstay.batch.inputs import SPAN_BYTES, SPAN_ROWS, Part, check_columns, rows_at_once, rows_together
from mainstay.batch.types import START, Piece, Place
from mainstay.errors import Failed, Misuse
from mainstay.intake.door_columns import read_columns
from mainstay.intake.types import DOOR_WRITER, ITEM, ROW, ROW_BITS
from mainstay.lake.commits import first_line
from mainstay.lake.tables import ERASED_WRITER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from mainstay.lake.tables import Table

OURS: Final = "mainstay_"  # what the names of columns begin with that are not the source's

_SAMPLED_ROWS: Final = 256


class _Item(NamedTuple):
    """What the table has of one item."""

    number: int
    rows: int
    first: int  # the number of its first row, and of its last
    last: int


class LakeInput:
    """A version of a table."""

    def __init__(
        self, table: Table, fields: Collection[str], version: int | None = None, *, key: str | None = None
    ) -> None:
        """Of the rows, `fields` are taken, those of the input, and `key`; a source may have more. None: the newest.

        Raises Misuse when the table has no such version, or is not one of intake.
        """
        self.version = table.refresh().version if version is None else version
        self._name = table.name
        self._frame = table.frame(version=self.version)
        self._identity = _identity(table, self.version)
        schema = self._frame.collect_schema()
        if ITEM not in schema or ROW not in schema:
            raise Misuse(
                f"table {table.name}: expected the columns {ITEM} and {ROW}, which tables of intake have",
                hint="Give a table `lake:intake/CAPABILITY/SOURCE`, or files.",
            )
        wanted = {*fields} if key is None else {*fields, key}
        named = {name: name for name in schema if not name.startswith(OURS) or name == key}
        named |= read_columns(table.properties)
        taken = {field: column for field, column in named.items() if field in wanted and column in schema}
        check_columns(f"table {table.name}", {field: schema[column] for field, column in taken.items()})
        self._columns = [pl.col(column).alias(field) for field, column in taken.items()]
        self._fields = list(taken)
        self._total = 0
        self._done = 0

    def parts(self) -> tuple[Part, ...]:
        return (Part(self._name, self._identity),)

    def share(self) -> float:
        return self._done / max(self._total, 1)

    def rows_behind(self, place: Place) -> int:
        """How many rows there are behind a place."""
        return int(self._collected(self._frame.filter(_behind(place)).select(pl.len())).item())

    def pieces(self, after: Place = START) -> Iterator[Piece]:
        behind = self._frame.filter(_behind(after))
        number = pl.col(ROW)
        sizes = behind.group_by(ITEM).agg(pl.len(), number.min().alias("first"), number.max().alias("last"))
        items = [_Item(*row) for row in self._collected(sizes.sort(ITEM)).iter_rows()]
        self._total, self._done = sum(each.rows for each in items), 0
        sample = self._collected(behind.select(self._columns).head(_SAMPLED_ROWS))
        at_once, of_piece = rows_together(sample, SPAN_ROWS, SPAN_BYTES), rows_at_once(sample)
        for first, last in _spans(items, at_once):
            rows = behind.filter(_behind(Place(first.part, first.row - 1)) & ~_behind(last))
            frame = self._collected(rows.select(ITEM, ROW, *self._columns).sort(ITEM, ROW))
            for at in range(0, frame.height, of_piece):
                part = frame.slice(at, of_piece)
                self._done += part.height
                parts, numbers = part[ITEM].to_list(), part[ROW].to_list()
                yield Piece(self._name, parts, numbers, frame=part.select(self._fields), in_table=True)

    def _collected(self, frame: pl.LazyFrame) -> pl.DataFrame:
        try:
            return frame.collect(engine="streaming")
        except (pl.exceptions.PolarsError, OSError) as error:
            raise Failed(
                f"table {self._name}, version {self.version}: could not be read: {first_line(error)}",
                hint="Old versions can be read for as long as the lake keeps their files (`lake_versions_days`).",
            ) from None


def _identity(table: Table, version: int) -> str:
    """Which rows a version has: what was taken in, and how often rows were erased. Compaction changes neither."""
    delta = table.delta(version=version)
    reached = Place(*divmod(delta.transaction_version(DOOR_WRITER) or 0, 1 << ROW_BITS))
    return f"up to item {reached.part}, row {reached.row}; erased {delta.transaction_version(ERASED_WRITER) or 0} times"


def _behind(place: Place) -> pl.Expr:
    item, number = pl.col(ITEM), pl.col(ROW)
    return (item > place.part) | ((item == place.part) & (number > place.row))


def _spans(items: Sequence[_Item], at_once: int) -> Iterator[tuple[Place, Place]]:
    """From which row to which, both included, so that about so many are between: some items, or rows of one."""
    together: list[_Item] = []
    for item in items:
        if together and sum(each.rows for each in together) + item.rows > at_once:
            yield _around(together)
            together = []
        if item.rows <= at_once:
            together.append(item)
            continue
        # Numbers have gaps where rows went to quarantine: such a stretch holds fewer rows, and never more.
        for first in range(item.first, item.last + 1, at_once):
            yield Place(item.number, first), Place(item.number, min(first + at_once - 1, item.last))
    if together:
        yield _around(together)


def _around(items: Sequence[_Item]) -> tuple[Place, Place]:
    return Place(items[0].number, items[0].first), Place(items[-1].number, items[-1].last)
