"""The known keys of a door's table, brought up to where the table stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from mainstay.intake.door_columns import column_type
from mainstay.intake.door_tables import place_of
from mainstay.intake.known_keys import KnownKeys
from mainstay.intake.types import EXTRA, ITEM, ROW

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mainstay.contract.rules import Node
    from mainstay.intake.door_tables import DoorTables

_ROWS_AT_ONCE: Final = 131_072
_ROWS_OF_A_RUN: Final = 1_048_576


def known_records(
    tables: DoorTables, folder: Path, key: Sequence[str], fields: Sequence[tuple[str, Node]], columns: Mapping[str, str]
) -> KnownKeys | None:
    """What is known of the table's records; None where the source declares no key.

    What is in `folder` is used where it is of these columns, and rows that the table has beyond it are read.
    """
    if not key:
        return None
    said = [columns[name] for name, _ in fields]
    types = ", ".join(f"{columns[name]}: {column_type(node)}" for name, node in fields)
    known = KnownKeys(folder, f"({', '.join(columns[name] for name in key)}) of {types}")
    position = tables.position()
    if known.covers > position:
        known.reset()
    if known.covers < position:
        _fill(known, tables, [columns[name] for name in key], [*said, EXTRA], position)
    return known


def _fill(known: KnownKeys, tables: DoorTables, key: list[str], said: list[str], position: int) -> None:
    frame = tables.accepted.frame()
    if known.covers >= 0:
        place = place_of(known.covers)
        behind = (pl.col(ITEM) == place.item) & (pl.col(ROW) > place.rows)
        frame = frame.filter((pl.col(ITEM) > place.item) | behind)
    rows = 0
    for batch in frame.select(ITEM, ROW, *said).collect_batches(
        chunk_size=_ROWS_AT_ONCE, maintain_order=False, lazy=True
    ):
        known.add(known.digests(batch, key, said))
        rows += batch.height
        if rows >= _ROWS_OF_A_RUN:
            known.commit(known.covers)  # rows that are read again, should this be cut short, are the same entries
            rows = 0
    known.commit(position)
