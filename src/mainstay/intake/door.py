"""The door: what landed goes into the tables, with a verdict for every record, exactly once.

    door = Door(lake, "late-arrival", source, contract, declared, judge=judge)
    taken = door.take(item, landing.path(item))
    landing.drop(item)

An item is taken in parts that fit into memory. Of each part the judge is told the facts first; then what is to be
quarantined is committed, and then what is accepted, with the position of the part and all that the door has to know
(`door_tables`). Killed anywhere, it goes on from there: a part whose quarantine was committed ends where that says, and
what is in it stays there, whatever the contract has become meanwhile. So each record is in one table, once, or known
and counted.

A file that is none of its kind, or stops being one, is kept beside the landing in `rejected`, and what could not be
read of it is one row in quarantine.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from mainstay.contract.columns import compile_columns
from mainstay.contract.tables_sifting import sift
from mainstay.documents import shorten
from mainstay.errors import Failed, Misuse
from mainstay.files import sync_directory
from mainstay.intake.coercion import Coercer
from mainstay.intake.door_known import known_records
from mainstay.intake.door_rows import Part, Rules
from mainstay.intake.door_tables import DONE, Counts, DoorTables, Place, Reached, check_number
from mainstay.intake.lateness import Watermark
from mainstay.intake.types import Finding, Held, Taken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from mainstay.capability.sources import Source
    from mainstay.contract.columns import ColumnValidator
    from mainstay.contract.types import Contract, SchemaObject
    from mainstay.intake.door_columns import Origin
    from mainstay.intake.landing import Item, Kind
    from mainstay.intake.types import Judge, PartFacts
    from mainstay.lake.lake import Lake

REJECTED: Final = "rejected"  # the folder beside the landing
MOST_REJECTED: Final = 1_000  # files that are kept there; the oldest go first
MAX_REJECTED_BYTES: Final = 16 << 30  # likewise, of all of them but the newest
KEYS: Final = "keys"  # likewise; a cache
MAX_RAW_BYTES: Final = 1 << 20  # of a rejected file that stand in its row

_ORIGINS: Final[dict[Kind, Origin]] = {"parquet": "columns", "csv": "cells", "jsonl": "records"}
_DATED: Final = frozenset({"date", "timestamp"})
_MOST_COLUMNS: Final = 20  # that findings name
_ENOUGH_RECORDS: Final = 1_000  # of JSON, to say that a field does not come any more


class _Feed(NamedTuple):
    """What a door has of its source."""

    source: Source
    contract: str  # id@version
    validator: ColumnValidator
    coercer: Coercer
    judge: Judge | None
    tables: DoorTables


class Door:
    """The door of one source. One process at a time has one open."""

    def __init__(
        self,
        lake: Lake,
        capability: str,
        source: Source,
        contract: Contract,
        declared: SchemaObject,
        *,
        judge: Judge | None = None,
    ) -> None:
        """`declared` is the object of the contract that the source's records are. No table is made yet.

        Raises Misuse when the source names fields that the object does not have.
        """
        label = f"{contract.id}@{contract.version}"
        tables = DoorTables(lake, capability, source.name)
        self._feed = _Feed(source, label, compile_columns(declared), Coercer(declared), judge, tables)
        kinds = {name: node.kind for name, node in self._feed.validator.nodes}
        for name in source.key:
            if name not in kinds:
                raise Misuse(f"source {source.name}: expected key fields of {declared.name}, found {name!r}")
        if source.event_time is not None and kinds.get(source.event_time) not in _DATED:
            raise Misuse(
                f"source {source.name}: expected event_time to be a date or timestamp of {declared.name},"
                f" found {source.event_time!r}"
            )

    @property
    def reached(self) -> int:
        """The number of the newest item that is in the tables to its end; 0: none."""
        done = self._feed.tables.done()
        return done.item if done.rows == DONE else done.item - 1

    @property
    def cursor(self) -> Any:
        """Where the source goes on behind that item."""
        return self._feed.tables.reached().cursor

    @property
    def totals(self) -> Counts:
        """What became of all rows that were ever taken."""
        said = self._feed.tables.reached()
        return said.totals.plus(said.counts)

    def refresh(self) -> None:
        """Read how far the tables have come; another process may have taken items."""
        self._feed.tables.refresh()

    def take(
        self, item: Item, path: Path, *, on_part: Callable[[PartFacts], None] | None = None, refused: str | None = None
    ) -> Taken:
        """Take what is not in the tables yet of an item, whose data are in the file `path` of its landing.

        `on_part` is told of each part that was committed. Of an item that is in the tables already nothing is taken.
        With `refused`, a person's reason, no judge is asked, and every row goes into quarantine for that.

        Raises Held when the judge holds a part: nothing of that part is written then, and the item may be taken again.
        Raises Failed when the disk or a table fails, or somebody else writes it.
        """
        check_number(item.number)
        self.refresh()
        if item.number <= self.reached:
            return Taken(item=item.number, rows=0, accepted=0, coerced=0, quarantined=0, late=0, repeated=0)
        taking = _Taking(self._feed, item, path, refused)
        taking.run(on_part or (lambda _: None))
        return taking.taken(whole=True)


class _Taking:
    """The taking of one item."""

    def __init__(self, feed: _Feed, item: Item, path: Path, refused: str | None) -> None:
        self._feed, self._item, self._path = feed, item, path
        self._judge = feed.judge if refused is None else None
        nodes = feed.validator.nodes
        columns = feed.tables.prepare(nodes)
        done, said = feed.tables.done(), feed.tables.reached()
        self._begin = done.rows if done.item == item.number else 0
        totals = said.totals.plus(said.counts)
        anew = Reached(cursor=said.cursor, before=said.newest, newest=said.newest, totals=totals)
        self._said = said if self._begin else anew
        known = known_records(feed.tables, path.parent.parent / KEYS, feed.source.key, nodes, columns)
        watermark = Watermark(feed.source.allowed_lateness_seconds, self._said.before, self._said.newest)
        coercer = feed.coercer
        self._rules = Rules(feed.source, feed.validator, feed.contract, columns, coercer, known, watermark, refused)
        self._cursor_before = said.cursor
        self._columns: dict[str, str] = {}
        self._unknown: dict[str, None] = {}
        self._rejected = ""

    def run(self, on_part: Callable[[PartFacts], None]) -> None:
        """Take the item to its end."""
        tables = self._feed.tables
        begun = tables.begun(self._item.number)
        if begun is not None:
            healed = tables.quarantined(self._item.number, self._begin, begun)
            for part, _ in self._parts(begun, healed):
                on_part(self._commit(part, Place(self._item.number, DONE if part.rejected else begun)))
                if part.rejected:
                    return  # the row that stands for what cannot be read is there already
            self._begin = begun
        for part, last in self._parts(None, {}):
            facts = part.facts(last=last)
            hold = self._judge(facts) if self._judge is not None and part.counts.rows else None
            if hold is not None:
                raise Held(hold, self.taken(whole=False))
            if part.quarantined:
                tables.put_aside(part.quarantined, Place(self._item.number, part.end))
                part.quarantined = []
            on_part(self._commit(part, Place(self._item.number, DONE if last else part.end)))

    def _parts(self, end: int | None, healed: Mapping[int, str]) -> Iterator[tuple[Part, bool]]:
        """The parts from where the tables stand, and of each whether it is the last; with `end`, one that ends there.

        `healed` are the rows of it that are in quarantine already.
        """
        part = Part(self._rules, self._item, self._begin, healed)
        kind, delimiter = self._item.kind, self._item.delimiter
        try:
            for sifted in sift(kind, self._path, self._feed.validator, delimiter=delimiter, begin=self._begin, end=end):
                part.add(sifted, _ORIGINS[kind])
                del sifted  # and its memory, while the part is written
                if part.is_full and end is None:
                    yield part, False
                    part = Part(self._rules, self._item, part.end, {})
        except (Failed, pl.exceptions.PanicException) as error:  # the latter: a file the engine never thought of
            if isinstance(error.__cause__, OSError):
                raise
            self._reject(part, str(error))
        yield part, True

    def _reject(self, part: Part, why: str) -> None:
        """Keep the file, and have what follows in it as one row."""
        folder = self._path.parent.parent / REJECTED
        folder.mkdir(mode=0o700, exist_ok=True)
        kept = folder / self._path.name
        if not kept.exists():
            os.link(self._path, kept)
        _forget_oldest(folder)
        sync_directory(folder)
        sync_directory(folder.parent)
        why = shorten(why.removeprefix(f"{self._path}: ").splitlines()[0], 300)
        self._rejected = f"{why}; kept as {REJECTED}/{kept.name}"
        with self._path.open("rb") as file:
            part.reject(self._rejected, file.read(MAX_RAW_BYTES))

    def _commit(self, part: Part, place: Place) -> PartFacts:
        """Commit what was found to be bad after the quarantine was committed, and what is accepted."""
        tables, said = self._feed.tables, self._said
        facts = part.facts(last=place.rows == DONE)
        tables.put_aside_more(part.quarantined)
        self._said = Reached(
            cursor=self._item.cursor if place.rows == DONE else said.cursor,
            before=said.before,
            newest=self._rules.watermark.newest,
            counts=said.counts.plus(part.counts),
            totals=said.totals,
            contract=self._feed.contract,
        )
        tables.accept(part.accepted, place, self._said)
        if self._rules.known is not None:
            self._rules.known.commit(place.position)
        self._columns |= part.columns
        self._unknown |= part.unknown
        return facts

    def taken(self, *, whole: bool) -> Taken:
        """What became of the item so far; `whole`: all of it was taken."""
        counts = self._said.counts
        return Taken(
            item=self._item.number,
            rows=counts.rows,
            accepted=counts.accepted,
            coerced=counts.coerced,
            quarantined=counts.quarantined,
            late=counts.late,
            repeated=counts.repeated,
            findings=tuple(self._findings(counts, whole=whole)),
            rejected=bool(self._rejected),
        )

    def _findings(self, counts: Counts, *, whole: bool) -> Iterator[Finding]:
        number = self._item.number
        if self._rejected and whole:
            yield Finding("file_rejected", f"{self._item.origin}: {self._rejected}", 1, number)
        for name in list(self._unknown)[:_MOST_COLUMNS]:
            yield Finding("column_new", f"the contract does not know {shorten(name)!r}", 1, number, name)
        enough = self._item.kind != "jsonl" or counts.rows >= _ENOUGH_RECORDS
        if whole and self._columns and enough:
            missing = [name for name, _ in self._feed.validator.nodes if name not in self._columns]
            for name in missing[:_MOST_COLUMNS]:
                yield Finding("column_missing", f"{shorten(name)!r} did not come", 1, number, name)
        for code, count, what in (
            ("rows_quarantined", counts.quarantined, "are in quarantine"),
            ("rows_repeated", counts.repeated, "were known"),
            ("late_rows", counts.late, "are behind the watermark"),
        ):
            if count:
                yield Finding(code, f"{count:,} of {counts.rows:,} rows {what}", count, number)
        if whole and counts.rows and counts.repeated == counts.rows and self._item.cursor != self._cursor_before:
            yield Finding("repeated_page", "every record of it was known, and yet the cursor went on", 1, number)


def _forget_oldest(folder: Path) -> None:
    """Keep the folder of rejected files within its bounds. Their names are the numbers of their items."""
    files = sorted(folder.iterdir(), reverse=True)
    total = 0
    for count, path in enumerate(files):
        total += path.stat().st_size
        if count and (count >= MOST_REJECTED or total > MAX_REJECTED_BYTES):
            path.unlink()
