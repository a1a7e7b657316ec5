"""The table `settled/...`: what became of rows that were held. A row that it names is not open any more.

It is written by `quarantine_settling` alone. Each row says what it is about by item and row, stands in the partition of
the day on which that one arrived, and holds nothing of its content.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - of a NamedTuple
from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl

from mainstay.intake.types import DAY, ITEM, ROW, settled_table

if TYPE_CHECKING:
    from mainstay.lake.lake import Lake
    from mainstay.lake.tables import Table

SCHEMA: Final = pl.Schema(
    {
        ITEM: pl.Int64(),
        ROW: pl.Int64(),
        "how": pl.String(),  # replayed or discarded
        "at": pl.Datetime("us", "UTC"),
        "by": pl.String(),
        "reason": pl.String(),
        "into_item": pl.Int64(),  # where it was replayed: the item that it is in now, and its row there
        "into_row": pl.Int64(),
        "entry": pl.String(),  # of the ledger: the change that this is part of
        DAY: pl.Date(),  # of arrival, as the held row has it; the partition
    }
)
WRITER: Final = "settling"


class Settled(NamedTuple):
    """What became of one row."""

    how: str
    at: datetime
    by: str
    reason: str
    into_item: int | None
    into_row: int | None
    entry: str


def create_settled(lake: Lake, capability: str, source: str) -> Table:
    """The table of a source, made when there is none."""
    return lake.create(settled_table(capability, source), SCHEMA, partition_by=[DAY])


def fate_of(table: Table, item: int, row: int) -> Settled | None:
    """What the table says of a held row."""
    here = table.frame().filter((pl.col(ITEM) == item) & (pl.col(ROW) == row))
    found = here.select(Settled._fields).head(1).collect()
    return Settled(*found.row(0)) if found.height else None


def replayed_from(table: Table, item: int, row: int) -> tuple[int, int] | None:
    """The held row that was replayed as this one."""
    here = table.frame().filter((pl.col("into_item") == item) & (pl.col("into_row") == row))
    found = here.select(ITEM, ROW).head(1).collect()
    return (int(found[ITEM][0]), int(found[ROW][0])) if found.height else None
