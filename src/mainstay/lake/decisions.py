"""Decisions, outcomes and what shadows would have decided reach the lake from the sealed log, each exactly once.

A step reads a batch of entries behind those exported last, appends their rows, a table per capability, and then says in
the table `exports` how far that went. Each table knows by itself how far it has come: a step that was killed is made
again from the same place, and what was committed is passed over. Nothing else remembers anything.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl

from mainstay.errors import Failed, Misuse
from mainstay.lake.decision_erasures import Erasures
from mainstay.lake.decision_rows import DAY, DECISIONS, OUTCOMES, SCHEMAS, SHADOWS, Rows
from mainstay.lake.lagging import Lag, lag_behind
from mainstay.lake.location import check_name
from mainstay.ledger.archives import archived_until
from mainstay.ledger.erasure_entries import ERASURE_MARK, read_request
from mainstay.ledger.log import Log
from mainstay.ledger.merkle import HASH_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mainstay.lake.lake import Lake
    from mainstay.lake.tables import Table
    from mainstay.ledger.erasure_entries import Request
    from mainstay.ledger.index_key import KeyDigests

logger = logging.getLogger("mainstay.lake")

EXPORTS: Final = "exports"
WRITER: Final = "ledger"
BATCH_ENTRIES: Final = 32_768  # of one step, so that memory stays flat
BATCH_BYTES: Final = 64 << 20

_EXPORTS_SCHEMA: Final = pl.Schema(
    {
        DAY: pl.Date(),
        "first": pl.Int64(),
        "last": pl.Int64(),  # behind the last entry
        "decisions": pl.Int64(),
        "outcomes": pl.Int64(),
        "shadows": pl.Int64(),
        "blanked": pl.Int64(),  # rows exported before that an erasure emptied
        "exported_at": pl.Datetime("us", "UTC"),
    }
)


class Exported(NamedTuple):
    """What one step did."""

    first: int
    last: int  # behind the last entry that was looked at
    decisions: int
    outcomes: int
    shadows: int
    blanked: int


class _Batch(NamedTuple):
    last: int
    rows: Rows
    requests: list[Request]


class Exporter:
    """Exports one ledger into one lake. An object is for one thread; two at work at once do no harm."""

    def __init__(
        self, lake: Lake, ledger_dir: Path, digests: KeyDigests, wrote: Callable[[Table, int], None] | None = None
    ) -> None:
        """`digests` makes the digests of business keys. `wrote` is told of rows that were appended to a table."""
        self._lake = lake
        self._ledger = ledger_dir
        self._log = Log(ledger_dir)
        self._digests = digests
        self._wrote = wrote
        self._tables: dict[str, Table] = {}

    def catch_up(self, stop: Callable[[], bool] = lambda: False) -> Exported:
        """Export all that is sealed now, or until `stop` says so; what the steps did together. Raises as `step`."""
        done = self.step()
        while done.last < self._log.size and not stop():
            more = self.step()
            sums = (a + b for a, b in zip(done[2:], more[2:], strict=True))
            done = Exported(done.first, more.last, *sums)
        return done

    def step(self, limit: int = BATCH_ENTRIES) -> Exported:
        """Export the next entries, at most `limit`; nothing happens when there are none.

        Raises Failed when the storage refuses, when another exporter is ahead, or when the lake holds another log.
        """
        exports = self._table(EXPORTS, _EXPORTS_SCHEMA)
        reached = exports.refresh().position(WRITER)
        first = 0 if reached is None else reached
        size = self._log.size
        self._check_same_log(exports, first, size)
        begin = max(first, archived_until(self._ledger))
        if begin > first:
            logger.warning("not exported, because they left with an archive: entries %d to %d", first, begin - 1)
        if begin >= size:
            return Exported(first, max(first, begin), 0, 0, 0, 0)
        batch = self._read(begin, min(size, begin + limit))
        erasures = Erasures(self._ledger, batch.requests)
        frames = batch.rows.frames()
        blanked = erasures.blank_tables(self._lake, frames, below=batch.last, writer=WRITER)
        counts = {DECISIONS: 0, OUTCOMES: 0, SHADOWS: 0}
        for (kind, capability), rows in frames.items():
            counts[kind] += self._append(kind, capability, erasures.blank_rows(kind, capability, rows), batch.last)
        done = Exported(begin, batch.last, counts[DECISIONS], counts[OUTCOMES], counts[SHADOWS], blanked)
        self._say(exports, done, -1 if reached is None else reached)
        return done

    def _read(self, first: int, last: int) -> _Batch:
        rows = Rows(self._digests)
        requests: list[Request] = []
        hashes = self._log.leaf_hashes(first, last).hex()
        read_bytes, behind, width = 0, first, 2 * HASH_BYTES
        for sequence, entry in enumerate(self._log.entries(first, last), first):
            at = (sequence - first) * width
            rows.add(sequence, entry, hashes[at : at + width])
            if ERASURE_MARK in entry.leaf and (request := read_request(entry, sequence)) is not None:
                requests.append(request)
            read_bytes += len(entry.leaf) + len(entry.body)
            behind = sequence + 1
            if read_bytes >= BATCH_BYTES:
                break
        if rows.unread:
            logger.warning("bodies not as Mainstay writes them: entries %d to %d: %d", first, behind - 1, rows.unread)
        return _Batch(behind, rows, requests)

    def _append(self, kind: str, capability: str, rows: pl.DataFrame, last: int) -> int:
        """Append to a table what it does not have; how many rows."""
        try:
            name = check_name(kind + capability)
        except Misuse:
            logger.warning("not exported: %d rows of a capability called %.80r", rows.height, capability)
            return 0
        table = self._table(name, SCHEMAS[kind])
        reached = table.refresh().position(WRITER)
        if reached is not None:
            if reached >= last:
                return 0
            rows = rows.filter(pl.col("sequence") >= reached)
        done = table.append(rows, writer=WRITER, position=last, previous=-1 if reached is None else reached)
        if self._wrote is not None and done.made:
            self._wrote(table, done.rows)
        return done.rows

    def _say(self, exports: Table, done: Exported, previous: int) -> None:
        now = datetime.now(UTC)
        row = pl.DataFrame([{DAY: now.date(), **done._asdict(), "exported_at": now}], schema=_EXPORTS_SCHEMA)
        last_leaf = self._log.leaf_hash_at(done.last - 1).hex()
        exports.append(row, writer=WRITER, position=done.last, previous=previous, metadata={"leaf": last_leaf})

    def _check_same_log(self, exports: Table, first: int, size: int) -> None:
        cursor = exports.cursor(WRITER) if first else None
        if not first or (
            first <= size and (cursor is None or self._log.leaf_hash_at(first - 1).hex() == cursor.get("leaf"))
        ):
            return
        raise Failed(
            f"the lake holds {first:,} entries of a log that is not this one, which has {size:,}",
            hint="Give this ledger a lake of its own, or move the tables exports, decisions/*, outcomes/* and"
            " shadows/* away: they are made anew from the log.",
        )

    def _table(self, name: str, schema: pl.Schema) -> Table:
        if name not in self._tables:
            found = self._lake.find(name)
            if found is not None:
                found.evolve(schema)  # an older release may have made it with fewer columns
            self._tables[name] = found or self._lake.create(name, schema, partition_by=[DAY])
        return self._tables[name]


def lag(lake: Lake, ledger_dir: Path) -> Lag:
    """How far the tables are behind the log. Raises Failed when the storage does not answer."""
    exports = lake.find(EXPORTS)
    return lag_behind(ledger_dir, 0 if exports is None else exports.position(WRITER) or 0)
