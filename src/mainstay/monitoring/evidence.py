"""What is new in the tables of a capability, by the place in the ledger: each row is read once, in bounded batches.

The exporter says in the table `exports` up to where every table is whole. Below that, the rows of a range of ledger
positions are all there and never change but by erasure, so that whoever remembers one position has read exactly the
rows in front of it. Files that lie outside a range, by what the table's log says of them, are not opened.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import polars as pl

from mainstay.errors import NOT_READ
from mainstay.lake.commits import MAX_POSITION, translated
from mainstay.lake.conditions import AllOf, Within
from mainstay.lake.decision_rows import DAY, DECISIONS, OUTCOMES, SCHEMAS
from mainstay.lake.decisions import EXPORTS, WRITER
from mainstay.lake.schemas import fit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from deltalake import DeltaTable

    from mainstay.contract.types import Property
    from mainstay.contract.validator import ObjectValidator
    from mainstay.lake.conditions import Condition
    from mainstay.lake.lake import Lake
    from mainstay.lake.tables import Table

SHADOWS: Final = "shadows/"
SEQUENCE: Final = "sequence"
RELEASE: Final = "release"
KEY_DAYS: Final = 90  # how old a decision may be that an outcome means by its key
BATCH_POSITIONS: Final = 131_072  # of the ledger, in one batch: memory stays flat however much is new

_PARSED_ROWS: Final = 8_192  # texts that are read at once: what that takes is several times their size
_RESERVED: Final = timedelta(minutes=15)  # that an id may be older, or newer, than its record says
_LAST_MILLIS: Final = 4_102_444_800_000  # of 2099: an id that somebody made up names no day
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FOR_EVER: Final = datetime(2200, 1, 1, tzinfo=UTC)
_PLAIN: Final[dict[str, pl.DataType]] = {
    "number": pl.Float64(),
    "integer": pl.Float64(),  # whole numbers up to 2**53 are exact, and one that came as 3.0 is the same
    "boolean": pl.Boolean(),
    "string": pl.String(),
    "date": pl.String(),
    "timestamp": pl.String(),
    "time": pl.String(),
}
_NOT_READ: Final = ("policy", "principal", "leaf_hash", "source_file")  # columns that nothing here needs


class Batch(NamedTuple):
    """The rows of a range of the ledger, each table in the order of the ledger."""

    first: int
    last: int  # behind the last position
    decisions: pl.DataFrame
    outcomes: pl.DataFrame
    shadows: pl.DataFrame

    @property
    def rows(self) -> int:
        return self.decisions.height + self.outcomes.height + self.shadows.height

    def after(self, position: int) -> Batch:
        """What of it lies at or behind a position."""
        kept = (frame.filter(pl.col(SEQUENCE) >= position) for frame in (self.decisions, self.outcomes, self.shadows))
        return Batch(position, self.last, *kept)


class _Source:
    """One table, and which positions its files hold."""

    def __init__(self, table: Table | None, schema: pl.Schema) -> None:
        self._schema = pl.Schema({name: kind for name, kind in schema.items() if name not in _NOT_READ})
        self._table = table
        self._delta = None if table is None else table.delta()
        self._files = [] if table is None or self._delta is None else _positions(table.name, self._delta)

    @property
    def end(self) -> int:
        return max((high + 1 for _, high in self._files), default=0)

    def next_position(self, first: int) -> int | None:
        """The least position at or behind `first` that may have a row; None when there is none."""
        return min((max(first, low) for low, high in self._files if high >= first), default=None)

    def rows(self, first: int, last: int) -> pl.DataFrame:
        """The rows with positions from `first` to below `last`, in their order."""
        if not any(low < last and high >= first for low, high in self._files):
            return self._fitted([])
        rows = self._fitted(list(self._scan(self._schema, Within(SEQUENCE, first, last))))
        return rows if rows[SEQUENCE].is_sorted() else rows.sort(SEQUENCE)

    def positions_of(self, first_release: int, last_release: int) -> list[tuple[int, int]]:
        """The least and greatest position of each file that may have rows of releases from one to another."""
        if self._table is None or self._delta is None or RELEASE not in self._schema:
            return []
        return _positions(self._table.name, self._delta, (first_release, last_release))

    def matching(self, column: str, values: pl.Series, times: tuple[datetime, datetime], last: int) -> pl.DataFrame:
        """The rows that were recorded between two instants, below a position, whose column has one of the values.

        Files that have none of these instants are not opened, and where no row is wanted only this column is read.
        """
        if not len(values):
            return self._fitted([])
        first, final = times
        bounded = final < _FOR_EVER
        days = Within(DAY, first.date(), final.date() + timedelta(days=1) if bounded else None)
        where = (Within(SEQUENCE, 0, last), days, Within("at", first, final if bounded else None))
        wanted = pl.DataFrame({column: values})
        known = [part[SEQUENCE] for part in self._wanted((SEQUENCE, column), AllOf(where), wanted) if part.height]
        if not known:
            return self._fitted([])
        low, high = min(part.min() for part in known), max(part.max() for part in known)  # type: ignore[type-var]  # numbers
        return self._fitted(
            list(self._wanted(self._schema, AllOf((Within(SEQUENCE, low, high + 1), *where[1:])), wanted))  # type: ignore[operator,arg-type]  # numbers
        )

    def _wanted(self, columns: Iterable[str], where: Condition, wanted: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Of the rows that are meant those whose column has one of the wanted values."""
        parts: list[pl.DataFrame] = []
        for batch in self._scan(columns, where):
            parts.append(batch)
            if sum(part.height for part in parts) >= BATCH_POSITIONS:
                yield pl.concat(parts).join(wanted, on=wanted.columns, how="semi")
                parts.clear()
        if parts:
            yield pl.concat(parts).join(wanted, on=wanted.columns, how="semi")

    def _scan(self, columns: Iterable[str], where: Condition) -> Iterator[pl.DataFrame]:
        """The rows that are meant, of the table as it is now, some at a time; columns that it lacks are left out."""
        if self._table is None or self._delta is None:
            return
        with translated(f"table {self._table.name}"):
            self._delta.update_incremental()  # files that erasure has removed cannot be read any more
            there = {field.name for field in self._delta.schema().fields}
            reader = self._delta.scan(columns=[name for name in columns if name in there], predicate=where.sql())
            for batch in reader:
                if (frame := pl.DataFrame(batch)).height:
                    yield frame

    def _fitted(self, found: Sequence[pl.DataFrame]) -> pl.DataFrame:
        """Rows as this release has them: a table that an older one wrote lacks the newest columns."""
        if self._table is None or not found:
            return pl.DataFrame(schema=self._schema)
        return fit(pl.concat(found), self._schema, self._table.name)


def _times_of(ids: pl.Series) -> tuple[datetime, datetime]:
    """When decisions of these ids were recorded: an id begins with its milliseconds (RFC 9562)."""
    texts = ids.str.replace_all("-", "", literal=True).str.head(12)
    millis = texts.str.to_integer(base=16, strict=False).drop_nulls()
    known = millis.filter((millis >= 0) & (millis < _LAST_MILLIS)) if len(millis) else millis
    if not len(known):
        return _EPOCH, _EPOCH
    low, high = (datetime.fromtimestamp(int(each) / 1_000, UTC) for each in (known.min(), known.max()))  # type: ignore[arg-type]  # whole numbers
    return low - _RESERVED, high + _RESERVED


def _positions(name: str, delta: DeltaTable, releases: tuple[int, int] | None = None) -> list[tuple[int, int]]:
    """The least and greatest position of each file, by what the table's log says of it; of those releases, if named."""
    with translated(f"table {name}"):
        files = pl.DataFrame(delta.get_add_actions(flatten=True))
    low, high = f"min.{SEQUENCE}", f"max.{SEQUENCE}"
    oldest, newest = f"min.{RELEASE}", f"max.{RELEASE}"
    if releases is not None and {oldest, newest} <= set(files.columns):  # without statistics every file may have some
        older, newer = pl.col(oldest) > releases[1], pl.col(newest) < releases[0]
        files = files.filter(~(older | newer).fill_null(value=False))
    if not files.height:
        return []
    if low not in files.columns or files[low].null_count():  # another engine wrote it without statistics
        return [(0, MAX_POSITION)]
    return files.select(low, high).rows()


class Reach:
    """Up to where in the ledger every table is whole, asked again and again at little cost. For one thread."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._exports: Table | None = None
        self._until = 0

    def look(self) -> int:
        """The position behind the last one whose rows are there. Raises Failed when the storage does not answer."""
        if self._exports is None or not self._exports.is_surely_newest():
            exports = self._lake.find(EXPORTS)
            self._until = 0 if exports is None else exports.position(WRITER) or 0
            self._exports = exports
        return self._until


class Evidence:
    """The tables of one capability as they are now. An object is for one pass."""

    def __init__(self, lake: Lake, capability: str) -> None:
        """Raises Failed when the storage does not answer."""
        exports = lake.find(EXPORTS)
        self.until = 0 if exports is None else exports.position(WRITER) or 0  # first: what it says is there, is there
        shadows = SCHEMAS.get(SHADOWS, pl.Schema({"sequence": pl.Int64()}))
        self._sources = [
            _Source(lake.find(kind + capability), schema)
            for kind, schema in ((DECISIONS, SCHEMAS[DECISIONS]), (OUTCOMES, SCHEMAS[OUTCOMES]), (SHADOWS, shadows))
        ]

    @property
    def end(self) -> int:
        """The position behind the last row that is there; 0 where there is none."""
        return max((source.end for source in self._sources), default=0)

    def batches(self, first: int, positions: int = BATCH_POSITIONS) -> Iterator[Batch]:
        """Every row from `first` on, in batches that follow each other; positions without rows are passed over."""
        at = first
        while (begin := self._next_position(at)) is not None and begin < self.until:
            at = min(begin + positions, self.until)
            batch = Batch(begin, at, *(source.rows(begin, at) for source in self._sources))
            if batch.rows:
                yield batch
            del batch  # before the next one is read

    def positions_of(self, first_release: int, last_release: int) -> tuple[int, int]:
        """The least position, and the one behind the greatest, of files that may have rows of these releases.

        The two are the same where there is none.
        """
        ranges = [each for source in self._sources for each in source.positions_of(first_release, last_release)]
        if not ranges:
            return 0, 0
        return min(low for low, _ in ranges), min(self.until, max(high for _, high in ranges) + 1)

    def decisions(self, first: int, last: int, version: str, most: int) -> pl.DataFrame:
        """The first `most` decisions of a version from `first` to below `last`."""
        found = []
        at, left = first, most
        while left > 0 and (begin := self._sources[0].next_position(at)) is not None and begin < last:
            at = min(begin + BATCH_POSITIONS, last)
            rows = self._sources[0].rows(begin, at).filter(pl.col("version") == version).head(left)
            found.append(rows)
            left -= rows.height
        return pl.concat(found) if found else self._sources[0].rows(0, 0)

    def decisions_of(self, outcomes: pl.DataFrame, last: int) -> pl.DataFrame:
        """The decisions below `last` that outcomes may be of: those whose ids they name, and all with their keys.

        Where an outcome names a key only, decisions of KEY_DAYS before it was observed are looked at.
        """
        ids = outcomes["decision_id"].drop_nulls().unique()
        keyed = outcomes.filter(pl.col("decision_id").is_null(), pl.col("key").is_not_null())
        found = [self._sources[0].rows(0, 0)]
        if len(ids):
            found.append(self._sources[0].matching("id", ids, _times_of(ids), last))
        if keyed.height:
            # A replay reports today what was observed long ago: when it was reported counts as well.
            said = pl.concat([keyed["observed_at"], keyed["at"]])
            # Whoever reports may say any time: no engine's instants reach from the year 1 to 9999.
            said = said.clip(_EPOCH, _FOR_EVER)
            oldest: datetime = said.min()  # type: ignore[assignment]  # an instant
            newest: datetime = said.max()  # type: ignore[assignment]  # an instant
            times = (oldest - timedelta(days=KEY_DAYS), newest + _RESERVED)
            found.append(self._sources[0].matching("key", keyed["key"].unique(), times, last))
        return pl.concat(found).unique(SEQUENCE).sort(SEQUENCE)

    def outcomes_of(self, decisions: pl.DataFrame, last: int) -> pl.DataFrame:
        """The outcomes below `last` that are of decisions, by their ids or by their keys."""
        if not decisions.height:
            return self._sources[1].rows(0, 0)
        oldest: datetime = decisions["at"].min()  # type: ignore[assignment]  # an instant
        # Nobody knows an id before the decision is made; an outcome that names a key may be there before.
        by_id = self._sources[1].matching("decision_id", decisions["id"], (oldest - _RESERVED, _FOR_EVER), last)
        keys = decisions["key"].drop_nulls().unique()
        if not len(keys):
            return by_id
        since = oldest - timedelta(days=1)
        by_key = (
            self._sources[1].matching("key", keys, (since, _FOR_EVER), last).filter(pl.col("decision_id").is_null())
        )
        return pl.concat([by_id, by_key]).sort(SEQUENCE)

    def _next_position(self, first: int) -> int | None:
        found = [each for source in self._sources if (each := source.next_position(first)) is not None]
        return min(found, default=None)


# What stands in them.


def columns_of(declared: ObjectValidator) -> pl.Schema:
    """The columns that the JSON text of an object is read into: plain values, and lists of plain values.

    Numbers are Float64, dates and times text. Objects, and lists of them, are not read.
    """
    found = {each.name: kind for each in declared.properties if (kind := _kind(each)) is not None}
    return pl.Schema(found)


def _kind(declared: Property) -> pl.DataType | None:
    if declared.logical_type == "array" and declared.items is not None:
        inner = _PLAIN.get(declared.items.logical_type or "")
        return None if inner is None else pl.List(inner)
    return _PLAIN.get(declared.logical_type or "")


def parse(texts: pl.Series, schema: pl.Schema) -> pl.DataFrame:
    """A row for each JSON text, with a column for each name of `schema`.

    A value that is absent, or of another type than its column, is null, and so is all of a row that is null itself or
    no object. Texts are those of the ledger: whoever called may have put anything there.
    """
    if not schema:
        return pl.DataFrame({"": texts}).select()
    if not len(texts):
        return pl.DataFrame(schema=schema)
    starts = range(0, len(texts), _PARSED_ROWS)
    return pl.concat([_parse(texts.slice(start, _PARSED_ROWS), schema) for start in starts])


def _parse(texts: pl.Series, schema: pl.Schema) -> pl.DataFrame:
    lines = texts.fill_null("{}")
    whole = _joined(lines)
    if whole.count(b"\n") >= len(lines) or b"\r" in whole:
        # Between its tokens JSON may have line ends, and in them none.
        lines = lines.str.replace_all("[\r\n]", " ")
        whole = _joined(lines)
    try:
        found = pl.read_ndjson(whole, schema=schema, ignore_errors=True)
        if found.height == len(texts):
            return found
    except pl.exceptions.PolarsError:  # a number beyond all floats, or no JSON, in one of them
        pass
    return _parse_singly(lines, schema)


def _joined(lines: pl.Series) -> bytes:
    """Bytes as they are: a text of Python's own would be made, looked through and encoded again."""
    whole: bytes = lines.str.join("\n").cast(pl.Binary)[0]
    return whole


def _parse_singly(lines: pl.Series, schema: pl.Schema) -> pl.DataFrame:
    """The same, a text at a time: where one of them cannot be read, the others still are."""
    readable = pl.Series([line if _is_readable(line) else "{}" for line in lines], dtype=pl.String)
    return pl.concat(_parse_halves(readable, schema))


def _parse_halves(lines: pl.Series, schema: pl.Schema) -> list[pl.DataFrame]:
    """Objects, of which some may hold what no column does, such as a whole number of 400 digits: those are null."""
    try:
        return [pl.read_ndjson(_joined(lines), schema=schema, ignore_errors=True)]
    except pl.exceptions.PolarsError:
        half = len(lines) // 2
        if not half:
            return [pl.DataFrame({name: [None] for name in schema}, schema=schema)]
        return _parse_halves(lines[:half], schema) + _parse_halves(lines[half:], schema)


def _is_readable(line: str) -> bool:
    try:
        return isinstance(_decode(line), dict)
    except NOT_READ:
        return False


_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
