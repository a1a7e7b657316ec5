"""The newest rows of an intake or quarantine table, and how far it has come, without reading the old ones.

How far the door has come is its position. Which partitions hold the newest items is said by the statistics that every
file of a Delta table has in the table's log; of those partitions alone anything is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from mainstay.intake.types import DAY, DOOR_WRITER, ITEM, item_of

if TYPE_CHECKING:
    from mainstay.lake.tables import Table


def newest_item(table: Table) -> int:
    """The number of the item that the door came to in this table; 0 where it has none."""
    return item_of(table.position(DOOR_WRITER))


def rows_after(table: Table, item: int) -> pl.LazyFrame:
    """The rows of the items with greater numbers, lazily."""
    frame = table.frame().filter(pl.col(ITEM) > item)
    files = file_statistics(table)
    if f"partition.{DAY}" not in files.columns or f"max.{ITEM}" not in files.columns:
        return frame
    newest = pl.col(f"max.{ITEM}")
    days = files.filter(newest.is_null() | (newest > item))[f"partition.{DAY}"].unique()
    return frame.filter(pl.col(DAY).is_in(days.to_list()))


def file_statistics(table: Table) -> pl.DataFrame:
    """A row for each file of the version that was read last: `num_records`, `min.X`, `max.X`, `null_count.X`."""
    return pl.DataFrame(table.delta(version=table.version).get_add_actions(flatten=True))
