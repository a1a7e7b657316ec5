"""The two tables behind a door, and how far it has come: that stands in their commits and nowhere else.

A position is the number of an item and how many of its rows are done; DONE of a finished one. Of a part the quarantined
rows are committed first and then the accepted ones, so the table of accepted rows says what is done, and where the
quarantine is ahead of it, somebody was killed between the two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import polars as pl
from msgspec import Struct

from mainstay.contract.tables import REASONS
from mainstay.errors import NOT_READ, Misuse
from mainstay.intake.door_columns import FIELD_COLUMNS, assigned, column_type, read_columns, renewed
from mainstay.intake.lateness import EVENT_TYPE
from mainstay.intake.types import (
    ARRIVED_AT,
    COERCED,
    CONTRACT,
    DAY,
    DOOR_WRITER,
    EVENT_AT,
    EXTRA,
    HEADER,
    ITEM,
    KIND,
    LATE,
    ORIGIN,
    RAW,
    REASON,
    ROW,
    ROW_BITS,
    VIOLATIONS,
    intake_table,
    quarantine_table,
)
from mainstay.lake.schemas import differences, storable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mainstay.contract.rules import Node
    from mainstay.lake.lake import Lake
    from mainstay.lake.tables import Table

DONE: Final = 2**32 - 1  # the rows of an item that is in the tables to its end
MAX_ITEM: Final = 2**30 - 1

HEALER: Final = "door/again"  # as which the door completes the quarantine of a part that it was killed in

_OURS: Final[dict[str, pl.DataType]] = {
    ITEM: pl.Int64(),
    ROW: pl.Int64(),
    ARRIVED_AT: pl.Datetime("us", "UTC"),
    EVENT_AT: EVENT_TYPE,
    LATE: pl.String(),
    COERCED: pl.String(),
    EXTRA: pl.String(),
    ORIGIN: pl.String(),
    CONTRACT: pl.String(),
    DAY: pl.Date(),
}
QUARANTINE_SCHEMA: Final = pl.Schema(
    {
        ITEM: pl.Int64(),
        ROW: pl.Int64(),
        RAW: pl.Binary(),
        KIND: pl.String(),
        HEADER: pl.String(),
        ORIGIN: pl.String(),
        ARRIVED_AT: pl.Datetime("us", "UTC"),
        VIOLATIONS: REASONS,
        CONTRACT: pl.String(),
        REASON: pl.String(),
        DAY: pl.Date(),
    }
)


class Counts(Struct):
    """What became of an item's rows so far."""

    rows: int = 0
    accepted: int = 0
    coerced: int = 0
    quarantined: int = 0
    late: int = 0
    repeated: int = 0

    def plus(self, other: Counts) -> Counts:
        """Both together."""
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return Counts(*(one + more for one, more in pairs))


class Reached(Struct):
    """What the door says with a commit."""

    cursor: Any = None  # behind the last finished item
    before: datetime | None = None  # the newest event of the items before this one
    newest: datetime | None = None  # of this one's rows too
    counts: Counts = msgspec.field(default_factory=Counts)  # of this item
    totals: Counts = msgspec.field(default_factory=Counts)  # of all items before it
    contract: str = ""


class Place(NamedTuple):
    """A position."""

    item: int
    rows: int

    @property
    def position(self) -> int:
        return (self.item << ROW_BITS) | self.rows


def place_of(position: int | None) -> Place:
    """The place that a position says; before the first item where there is none."""
    return Place(0, DONE) if position is None else Place(position >> ROW_BITS, position & DONE)


class DoorTables:
    """The tables of one source, made when the first rows come."""

    def __init__(self, lake: Lake, capability: str, source: str) -> None:
        self._lake = lake
        self._names = intake_table(capability, source), quarantine_table(capability, source)
        self._accepted = lake.find(self._names[0])
        self._quarantine = lake.find(self._names[1])

    @property
    def accepted(self) -> Table:
        assert self._accepted is not None, "tables are prepared before rows are taken"
        return self._accepted

    @property
    def quarantine(self) -> Table:
        assert self._quarantine is not None, "tables are prepared before rows are taken"
        return self._quarantine

    def refresh(self) -> None:
        """Read how far the tables have come."""
        for name, table in zip(self._names, (self._accepted, self._quarantine), strict=True):
            if table is not None:
                table.refresh()
            elif name == self._names[0]:
                self._accepted = self._lake.find(name)
            else:
                self._quarantine = self._lake.find(name)

    def done(self) -> Place:
        """What is in the table of accepted rows."""
        return place_of(None if self._accepted is None else self._accepted.position(DOOR_WRITER))

    def position(self) -> int:
        """The same as one number; -1 where nothing was taken."""
        found = None if self._accepted is None else self._accepted.position(DOOR_WRITER)
        return -1 if found is None else found

    def reached(self) -> Reached:
        """What was said with it; nothing where another engine dropped that."""
        said = None if self._accepted is None else self._accepted.cursor(DOOR_WRITER)
        try:
            return msgspec.convert(said or {}, Reached)
        except NOT_READ:
            return Reached()

    def begun(self, item: int) -> int | None:
        """Up to which row of an item the quarantine is ahead of the accepted rows; None where it is not."""
        found = place_of(None if self._quarantine is None else self._quarantine.position(DOOR_WRITER))
        return found.rows if found.item == item and found > self.done() else None

    def quarantined(self, item: int, begin: int, end: int) -> dict[int, str]:
        """The rows of an item, behind `begin` and up to `end`, that are in quarantine already, and why."""
        within = (pl.col(ITEM) == item) & (pl.col(ROW) > begin) & (pl.col(ROW) <= end)
        return dict(self.quarantine.frame().filter(within).select(ROW, REASON).collect().iter_rows())

    def prepare(self, fields: Sequence[tuple[str, Node]]) -> dict[str, str]:
        """Have both tables, with columns for these fields of the contract: the column of each field."""
        if self._quarantine is None:
            self._quarantine = self._lake.create(self._names[1], QUARANTINE_SCHEMA, partition_by=[DAY])
        given = {} if self._accepted is None else read_columns(self._accepted.properties)
        columns = assigned((name for name, _ in fields), given)
        if self._accepted is None:
            self._accepted = self._lake.create(
                self._names[0],
                _schema(fields, columns),
                partition_by=[DAY],
                properties={FIELD_COLUMNS: msgspec.json.encode(columns).decode()},
            )
        else:
            columns = _settled(fields, columns, self._accepted)
            if columns != given:
                self._accepted.set_property(FIELD_COLUMNS, msgspec.json.encode(columns).decode())
            if differences(self._accepted.schema, storable(_schema(fields, columns))):
                self._accepted.evolve(_schema(fields, columns))
        return {name: columns[name] for name, _ in fields}

    def put_aside(self, rows: Sequence[pl.DataFrame], place: Place) -> None:
        """Commit quarantined rows, unless that was done."""
        self.quarantine.append(rows, writer=DOOR_WRITER, position=place.position)

    def put_aside_more(self, rows: Sequence[pl.DataFrame]) -> None:
        """Commit rows of a part whose quarantine was committed before they were found to be bad."""
        if rows:
            position = (self.quarantine.position(HEALER) or 0) + 1
            self.quarantine.append(rows, writer=HEALER, position=position)

    def accept(self, frames: Sequence[pl.DataFrame], place: Place, said: Reached) -> None:
        """Commit accepted rows, and with them all that is done. Raises Failed when somebody else was at it."""
        last = self.accepted.position(DOOR_WRITER)
        self.accepted.append(
            frames,
            writer=DOOR_WRITER,
            position=place.position,
            metadata=msgspec.to_builtins(said, str_keys=True),
            previous=-1 if last is None else last,
        )


def _schema(fields: Sequence[tuple[str, Node]], columns: Mapping[str, str]) -> pl.Schema:
    return pl.Schema({columns[name]: column_type(node) for name, node in fields} | _OURS)


def _settled(fields: Sequence[tuple[str, Node]], columns: dict[str, str], table: Table) -> dict[str, str]:
    """The columns of fields; a new one for each whose column cannot be changed to hold what it now may be."""
    for name, node in fields:
        wanted = pl.Schema({columns[name]: column_type(node)})
        if differences(table.schema, storable(wanted)).refused:
            columns = renewed(name, columns)
    return columns


def quarantine_frame(rows: Mapping[str, Any], fixed: Mapping[str, Any]) -> pl.DataFrame:
    """Quarantined rows, of columns that differ from row to row and of values that are the same in all."""
    made = {name: pl.Series(values, dtype=QUARANTINE_SCHEMA[name]) for name, values in rows.items()}
    frame = pl.DataFrame(made)
    same = [pl.lit(value, dtype=QUARANTINE_SCHEMA[name]).alias(name) for name, value in fixed.items()]
    return frame.with_columns(same).select(list(QUARANTINE_SCHEMA))


def arrival_day(arrived_at: datetime) -> Any:
    """The day of an arrival, in UTC."""
    return arrived_at.astimezone(UTC).date()


def check_number(item: int) -> None:
    """Raises Misuse for an item that no position can name."""
    if not 1 <= item <= MAX_ITEM:
        raise Misuse(f"expected an item of number 1 to {MAX_ITEM:,}, found {item}")
