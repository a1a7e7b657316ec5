"""From a decision to the source rows behind it, and from a landing item to the decisions it touched.

A batch decision names its row, so that link is exact. A call has none: it is linked by its business key to the newest
row of that key that had arrived when it was made, where a source declares one field as its key. Such a link says `by
key` and nothing more: whoever called may have known the row from somewhere else.

Nothing here reads a whole history: items are found by what files say of their rows, decisions from the day of the
item's arrival on, rows of a key day by day backwards.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

import polars as pl

from mainstay.errors import Misuse
from mainstay.intake.door_columns import read_columns
from mainstay.intake.landing import landing_of
from mainstay.intake.types import (
    ARRIVED_AT,
    COERCED,
    CONTRACT,
    DAY,
    EVENT_AT,
    ITEM,
    LATE,
    ORIGIN,
    REASON,
    ROW,
    intake_table,
    quarantine_table,
)
from mainstay.lake.commits import translated
from mainstay.lake.conditions import AllOf, OneOf, Within
from mainstay.lake.decision_rows import DAY as DECIDED_DAY
from mainstay.lake.decision_rows import DECISIONS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from mainstay.capability.sources import Source
    from mainstay.lake.conditions import Condition
    from mainstay.lake.lake import Lake
    from mainstay.lake.tables import Table
    from mainstay.ledger.index_key import KeyDigests
    from mainstay.workspace import Workspace

Link: TypeAlias = Literal["row", "key"]

DAYS_BACK: Final = 31  # that rows of a key are looked for
MOST_ROWS: Final = 20  # of one key on one day that are shown, the newest
MOST_KEYS: Final = 1_000_000  # of one item that decisions are looked for by

_LONGEST_NUMBER: Final = 20  # characters of a whole number of 64 bits

_FACTS: Final = (ITEM, ROW, ARRIVED_AT, EVENT_AT, LATE, COERCED, CONTRACT, ORIGIN, DAY)
_TOUCHED: Final = ("id", "at", "outcome", "version", "release", "stage", "source_batch", "source_row")


class SourceRow(NamedTuple):
    """A row of an intake table that stands behind a decision."""

    link: Link
    table: str
    item: int
    row: int
    arrived_at: datetime | None  # None where the row is not in the table any more
    event_at: datetime | None = None
    late: str | None = None  # what the source declared for late rows, where it was
    coerced: str | None = None  # JSON: the values that were coerced, as they came
    contract: str | None = None  # id@version that let it in
    origin: str | None = None  # where its item came from; None where nothing remembers it
    table_version: int | None = None  # by key: of the table when it was decided; None when nothing remembers it


class ItemFacts(NamedTuple):
    """What became of a landing item."""

    table: str
    item: int
    accepted: int  # rows in the table
    quarantined: int  # rows in quarantine, settled or not
    reasons: dict[str, int]  # of those
    arrived_at: datetime | None
    contract: str | None
    origin: str | None


# From a decision to rows.


def row_behind(workspace: Workspace, lake: Lake, table: str, item: int, row: int) -> SourceRow:
    """The row that a batch decision names. It may have left the table since."""
    found = lake.find(table)
    rows = None if found is None else _rows(found, _names(item, row), _FACTS)
    origin = _origin(workspace, lake, table, item)
    if rows is None or not rows.height:
        return SourceRow("row", table, item, row, None, origin=origin)
    return _shown("row", table, rows.row(0, named=True), origin)


def rows_by_key(
    workspace: Workspace,
    lake: Lake,
    capability: str,
    source: Source,
    key: str,
    at: datetime,
    *,
    days: int = DAYS_BACK,
) -> list[SourceRow]:
    """The newest rows of a key that had arrived at an instant, newest first, of the last day that has any.

    None where the source's key is not one field, or there was no row in `days` days before.
    """
    name = intake_table(capability, source.name)
    table = lake.find(name) if len(source.key) == 1 else None
    column = None if table is None else _key_column(table, source)
    if table is None or column is None:
        return []
    value = _as_column(key, table.schema[column])
    if value is None:
        return []
    for day in _days(table, at.date() - timedelta(days=days), at.date()):
        rows = _rows(table, AllOf((OneOf(DAY, (day,)), OneOf(column, (value,)))), _FACTS)
        rows = rows.filter(pl.col(ARRIVED_AT) <= at).sort(ARRIVED_AT, ITEM, ROW, descending=True)
        if rows.height:
            version = _version_at(table, at)
            return [
                _shown("key", name, each, _origin(workspace, lake, name, each[ITEM]))._replace(table_version=version)
                for each in rows.head(MOST_ROWS).iter_rows(named=True)
            ]
    return []


# From an item to decisions.


def item_facts(workspace: Workspace, lake: Lake, capability: str, source: str, item: int) -> ItemFacts:
    """What became of an item. Raises Misuse when neither table has a row of it."""
    name = intake_table(capability, source)
    accepted, quarantine = lake.find(name), lake.find(quarantine_table(capability, source))
    rows = None if accepted is None else _rows(accepted, _names(item), _FACTS)
    bad = None if quarantine is None else _rows(quarantine, _names(item), (ARRIVED_AT, CONTRACT, REASON))
    some = [each for each in (rows, bad) if each is not None and each.height]
    if not some:
        raise Misuse(
            f"item {item} of {capability}/{source}: expected rows of it in {name} or in quarantine, found none",
            hint="It may be waiting to be taken, or its rows are older than the tables keep them.",
        )
    first = some[0].row(0, named=True)
    return ItemFacts(
        table=name,
        item=item,
        accepted=0 if rows is None else rows.height,
        quarantined=0 if bad is None else bad.height,
        reasons={} if bad is None else dict(bad[REASON].value_counts(sort=True).iter_rows()),
        arrived_at=first[ARRIVED_AT],
        contract=first[CONTRACT],
        origin=_origin(workspace, lake, name, item),
    )


def decisions_of_item(lake: Lake, capability: str, facts: ItemFacts) -> Iterator[pl.DataFrame]:
    """The decisions whose records name a row of the item, a batch of rows in memory at a time."""
    condition: list[Condition] = [OneOf("source_table", (facts.table,)), OneOf("source_item", (facts.item,))]
    if facts.arrived_at is not None:
        condition.append(Within(DECIDED_DAY, facts.arrived_at.astimezone(UTC).date(), None))
    yield from _decisions(lake, capability, AllOf(tuple(condition)))


def decisions_of_batch(lake: Lake, capability: str, batch: str, since: date | None = None) -> Iterator[pl.DataFrame]:
    """The decisions that a batch made."""
    condition: list[Condition] = [OneOf("source_batch", (batch,))]
    if since is not None:
        condition.append(Within(DECIDED_DAY, since, None))
    yield from _decisions(lake, capability, AllOf(tuple(condition)))


def decisions_by_key(
    lake: Lake, capability: str, source: Source, facts: ItemFacts, digests: KeyDigests
) -> Iterator[pl.DataFrame]:
    """The calls whose business key is that of a row of the item, which was the newest of its key when they were made.

    Nothing where the source's key is not one field. Raises Misuse when the item has more than MOST_KEYS keys.
    """
    table, decisions = lake.find(facts.table), lake.find(DECISIONS + capability)
    column = None if table is None or len(source.key) != 1 else _key_column(table, source)
    if (
        table is None
        or decisions is None
        or column is None
        or facts.arrived_at is None
        or "key" not in decisions.schema
    ):
        return
    keys = _rows(table, _names(facts.item), (column,))[column].drop_nulls().unique()
    if len(keys) > MOST_KEYS:
        raise Misuse(
            f"item {facts.item} has {len(keys):,} keys: expected at most {MOST_KEYS:,} to look for decisions by"
        )
    known = pl.DataFrame({column: keys, "key": [digests.of(str(key)).hex() for key in keys]})
    since = facts.arrived_at.astimezone(UTC).date()
    arrivals = (
        table.frame()
        .filter(pl.col(DAY) >= since)
        .select(column, ITEM, ARRIVED_AT)
        .join(known.lazy(), on=column)
        .select("key", ITEM, pl.col(ARRIVED_AT).alias("at"))
        .sort("at", ITEM)
        .collect(engine="streaming")
    )
    for rows in _decisions(lake, capability, Within(DECIDED_DAY, since, None), ("key",)):
        calls = rows.filter(pl.col("source_batch").is_null()).join(known, on="key", how="semi").sort("at")
        newest = calls.join_asof(arrivals, on="at", by="key", strategy="backward", check_sortedness=False)
        found = newest.filter(pl.col(ITEM) == facts.item).drop("key", ITEM)
        if found.height:
            yield found


def _decisions(lake: Lake, capability: str, condition: Condition, more: tuple[str, ...] = ()) -> Iterator[pl.DataFrame]:
    table = lake.find(DECISIONS + capability)
    if table is None or "source_batch" not in table.schema:  # no decision of it was exported, or none by this release
        return
    with translated(f"table {table.name}"):
        for batch in table.delta().scan(columns=[*_TOUCHED, *more], predicate=condition.sql()):
            rows = pl.DataFrame(batch)
            if rows.height:
                yield rows.with_columns(pl.col("at").dt.convert_time_zone("UTC"))


# Rows.


def _names(item: int, row: int | None = None) -> Condition:
    if row is None:
        return OneOf(ITEM, (item,))
    return AllOf((OneOf(ITEM, (item,)), OneOf(ROW, (row,))))


def _rows(table: Table, condition: Condition, columns: tuple[str, ...]) -> pl.DataFrame:
    """Some columns of the rows that are meant; those that the table has not are left out."""
    schema = table.schema
    wanted = [column for column in columns if column in schema]
    with translated(f"table {table.name}"):
        found = pl.DataFrame(table.delta().scan(columns=wanted, predicate=condition.sql()))
    return found.cast({column: schema[column] for column in wanted})


def _shown(link: Link, table: str, facts: dict[str, Any], origin: str | None) -> SourceRow:
    return SourceRow(
        link,
        table,
        facts[ITEM],
        facts[ROW],
        facts[ARRIVED_AT],
        facts.get(EVENT_AT),
        facts.get(LATE),
        facts.get(COERCED),
        facts.get(CONTRACT),
        facts.get(ORIGIN) or origin,
    )


def _origin(workspace: Workspace, lake: Lake, table: str, item: int) -> str | None:
    """Where an item came from: as its rows say, or one in quarantine, or itself while it waits to be dropped."""
    _, capability, source = table.split("/") if table.count("/") == 2 else ("", "", "")
    if not capability:
        return None
    for name in (table, quarantine_table(capability, source)):
        found = lake.find(name)
        if found is not None and ORIGIN in found.schema:
            rows = _rows(found, _names(item), (ORIGIN,))
            if rows.height:
                return str(rows[ORIGIN][0])
    waiting = landing_of(workspace.data, capability, source).waiting()
    return next((each.origin for each in waiting if each.number == item), None)


def _key_column(table: Table, source: Source) -> str | None:
    field = source.key[0]
    column = read_columns(table.properties).get(field, field)
    return column if column in table.schema else None


def _as_column(key: str, kind: pl.DataType) -> str | int | None:
    """A business key as the column would hold it; None where it could not."""
    if isinstance(kind, pl.String):
        return key
    if not kind.is_integer() or len(key) > _LONGEST_NUMBER or not key.removeprefix("-").isdecimal():
        return None
    number = int(key)
    return number if -(2**63) <= number < 2**63 else None


def _days(table: Table, first: date, last: date) -> list[date]:
    """The days from first to last of which the table has rows, newest first."""
    with translated(f"table {table.name}"):
        partitions = table.delta().partitions(file_pruning_predicate=Within(DAY, first, last + timedelta(days=1)).sql())
    return sorted({_date(each[DAY]) for each in partitions}, reverse=True)


def _date(value: Any) -> date:
    return datetime.fromisoformat(str(value)).date()


def _version_at(table: Table, at: datetime) -> int | None:
    try:
        return int(table.delta(at=at).version())
    except Misuse:
        return None
