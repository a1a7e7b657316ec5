"""Taking a snapshot: the rows of one version of a table, copied in numbered parts and sealed with their digest."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from mainstay.errors import Failed, Misuse
from mainstay.lake.canonical import encode_header, encode_part, type_name
from mainstay.lake.commits import translated
from mainstay.lake.conditions import Within
from mainstay.lake.schemas import fit
from mainstay.lake.snapshots import (
    DOCUMENT,
    PART,
    PART_ROWS,
    ROW,
    SOURCE,
    Snapshot,
    Taken,
    digest,
    numbered_parts,
    table_name,
    write_document,
)
from mainstay.lake.tables import ERASED_WRITER
from mainstay.lineage.naming import described, table_dataset
from mainstay.locks import locked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mainstay.lake.conditions import Condition
    from mainstay.lake.lake import Lake
    from mainstay.lake.tables import Table
    from mainstay.lineage.emitting import Emitter, Run

JOB: Final = "snapshot"
_WRITER: Final = "snapshot"
_LOCK_FILE: Final = "_mainstay.taking.lock"


def take(
    lake: Lake,
    name: str,
    table: str,
    *,
    version: int | None = None,
    where: Condition | None = None,
    emitter: Emitter | None = None,
) -> Snapshot:
    """Take a snapshot of a version of a table, the newest one if none is said, or of the rows of it that are meant.

    Taking the same again gives the one there is. It may be killed anywhere, and is begun again then. Events of lineage
    go to `emitter`. Raises Misuse when the name stands for another snapshot, Failed when somebody else takes it too, or
    rows are erased at the same time.
    """
    wanted = _Wanted(table, version, None if where is None else where.sql())
    old = _find(lake, name, wanted)
    if old is not None:
        return old
    source = lake.table(table)
    at = source.version if version is None else version
    schema = pl.Schema(source.delta(version=at).schema().to_arrow())
    if {PART, ROW} & set(schema):
        raise Misuse(f"table {table}: expected no columns {PART} and {ROW}: snapshots number their rows with them")
    target = lake.create(
        table_name(name),
        pl.Schema({**schema, PART: pl.Int32(), ROW: pl.Int64()}),
        partition_by=[PART],
        properties={SOURCE: table},
    )
    with _alone(lake, target):
        old = _find(lake, name, wanted)  # by whoever held the lock
        if old is not None:
            return old
        known = msgspec.structs.replace(wanted, version=at)
        if emitter is None:
            return _take(source, target, schema, known)
        with emitter.run(f"{JOB}.{name}") as run:
            taken = _take(source, target, schema, known)
            _tell(run, lake.location.root, taken)
            return taken


def _tell(run: Run, root: str, snapshot: Snapshot) -> None:
    """What a taking read and wrote; each column is a copy."""
    taken = snapshot.taken
    table = described(table_dataset(root, taken.table), taken.columns, version=taken.version)
    copy = described(table_dataset(root, table_name(taken.name)), taken.columns, version=taken.sha256)
    run.read(table, rows=taken.rows)
    run.wrote(msgspec.structs.replace(copy, copied_from=(table.namespace, table.name)), rows=taken.rows)


class _Wanted(msgspec.Struct, frozen=True):
    """The rows that are to be taken."""

    table: str
    version: int | None  # None: the newest there is, or whichever was taken
    where: str | None


def _find(lake: Lake, name: str, wanted: _Wanted) -> Snapshot | None:
    """The snapshot there is; raises Misuse when it is of something else."""
    found = lake.find(table_name(name))
    if found is None or DOCUMENT not in found.properties:
        return None
    old = Snapshot(found)
    taken = old.taken
    version = taken.version if wanted.version is None else wanted.version
    if (taken.table, taken.version, taken.where) != (wanted.table, version, wanted.where):
        raise Misuse(
            f"snapshot {name}: it exists, of {taken.table} at version {taken.version}, rows {taken.where or 'all'};"
            f" expected one of {wanted.table} at version {version}, rows {wanted.where or 'all'}",
            hint="A snapshot never changes; give the new one another name.",
        )
    return old


def _alone(lake: Lake, target: Table) -> AbstractContextManager[None]:
    """Be the only one who takes this snapshot. In a bucket, two of them see each other by the numbers of the parts."""
    if not lake.location.is_local:
        return nullcontext()
    return locked(lake.location.path(target.name) / _LOCK_FILE)


def _take(source: Table, target: Table, schema: pl.Schema, wanted: _Wanted) -> Snapshot:
    assert wanted.version is not None, "the caller has looked it up"
    erased = source.position(ERASED_WRITER)
    target.retain(Within(ROW, 0))  # what a take that was killed has left
    with translated(f"table {wanted.table}"):
        reader = source.delta(version=wanted.version).scan(predicate=wanted.where)
        rows = _copy((fit(pl.DataFrame(batch), schema, wanted.table) for batch in reader), target)
    if source.refresh().position(ERASED_WRITER) != erased:
        raise Failed(
            f"table {wanted.table}: rows were erased from it while they were taken",
            hint="Nothing was sealed. Take the snapshot again, of the version there is now.",
        )
    sha256 = digest(_read_back(target.refresh(), schema, rows))
    taken = Taken(
        name=target.name.rpartition("/")[2],
        table=wanted.table,
        version=wanted.version,
        where=wanted.where,
        taken_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        rows=rows,
        columns=tuple((column, type_name(kind)) for column, kind in schema.items()),
        sha256=sha256,
    )
    target.set_property(DOCUMENT, write_document(taken).decode())
    return Snapshot(target.refresh())


def _copy(batches: Iterable[pl.DataFrame], target: Table) -> int:
    """Write rows in numbered parts; how many."""
    reached = target.position(_WRITER)
    position = -1 if reached is None else reached
    written = 0
    for number, rows in enumerate(_in_parts(batches)):
        numbered = rows.with_columns(
            pl.lit(number, pl.Int32).alias(PART),
            pl.int_range(written, written + rows.height, dtype=pl.Int64).alias(ROW),
        )
        target.append(numbered, writer=_WRITER, position=position + 1, previous=position)
        position += 1
        written += rows.height
    return written


def _in_parts(batches: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows, PART_ROWS at a time."""
    held: list[pl.DataFrame] = []
    count = 0
    for batch in batches:
        rest = batch
        while count + rest.height >= PART_ROWS:
            taken = PART_ROWS - count
            yield pl.concat([*held, rest.head(taken)])
            rest = rest.slice(taken)
            held, count = [], 0
        held.append(rest)
        count += rest.height
    if count:
        yield pl.concat(held)


def _read_back(target: Table, schema: pl.Schema, rows: int) -> Iterator[bytes]:
    """The canonical bytes of what was written. Raises Failed when it is not every row once, in its order."""
    yield encode_header(schema)
    seen = 0
    for part in numbered_parts(target, rows):
        numbers = part[ROW]
        if not numbers.equals(pl.int_range(seen, seen + part.height, dtype=pl.Int64, eager=True).alias(ROW)):
            break
        seen += part.height
        yield from encode_part(part.drop(PART, ROW))
    if seen != rows:
        raise Failed(
            f"snapshot {target.name}: expected {rows:,} rows in their order, found another order from row {seen:,} on",
            hint="Somebody else takes a snapshot of this name. Nothing was sealed; take it again.",
        )
