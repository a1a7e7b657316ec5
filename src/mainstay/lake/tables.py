"""One table of the lake: rows in Delta format, in a folder or a bucket, that any engine can read.

A table has one writer at a time: a lock file in a folder; in a bucket the store itself, which lets nobody put a commit
where one stands. A writer says with each batch which position it reaches, and a batch whose position was reached is
not written again: so a step that was killed anywhere is simply made again. A reader has a whole version of the table
whatever happens; files that no version holds are removed by `vacuum`.
"""

from __future__ import annotations

import itertools
import os
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import polars as pl
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, QueryBuilder, write_deltalake
from deltalake import Schema as DeltaSchema
from deltalake.writer.properties import WriterProperties

from mainstay.errors import Failed, Misuse
from mainstay.lake.commits import (
    MAX_POSITION,
    Notes,
    Superseded,
    newest_notes,
    properties_of,
    read_commit,
    read_notes,
    translated,
)
from mainstay.lake.conditions import quote_name
from mainstay.lake.durable import (
    LAST_CHECKPOINT,
    LOG_FOLDER,
    Stamp,
    commit_name,
    make_durable,
    remove_torn,
    set_torn_aside,
    stamp_of,
)
from mainstay.lake.location import check_name
from mainstay.lake.schemas import arrow_name, differences, fit, storable
from mainstay.locks import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mainstay.lake.conditions import Condition
    from mainstay.lake.location import Location

T = TypeVar("T")

# A batch is dealt out to the engine's writers by the hash of its partition. Beyond the first they help nothing where
# all of it goes to one partition, as a day's rows do, and the queue for the others then has no bound.
os.environ.setdefault("DELTARS_MAX_CONCURRENT_WRITERS", "1")

LOCK_FILE: Final = "_mainstay.lock"  # of whoever commits; engines pass over names that begin so
KEEPER_LOCK_FILE: Final = "_mainstay.keeper.lock"  # of whoever moves or removes files
LOCK_SECONDS: Final = 60.0
KEEPER_LOCK_SECONDS: Final = 600.0
TARGET_FILE_BYTES: Final = 128 << 20
ORPHAN_AGE: Final = timedelta(hours=24)  # no batch takes that long: a file of that age in no version is an orphan
MAX_KEEP: Final = timedelta(days=7)  # a table's log remembers that long which files went, and when

ERASED_WRITER: Final = "mainstay/erased"  # its position is how many times rows were erased
TRIMMED: Final = "mainstay.trimmed"  # the property that says when the log was shortened last

_ATTEMPTS: Final = 8
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_CLEARED_WRITER: Final = "mainstay/cleared"  # for how many of these times the old files are gone too
# A dictionary of many values helps nobody, and costs half the time of writing before it is given up.
_ROW_GROUP: Final = WriterProperties(
    compression="ZSTD", compression_level=1, max_row_group_size=131_072, dictionary_page_size_limit=1 << 16
)
_LOG_RETENTION: Final = "delta.logRetentionDuration"
PROPERTIES: Final = {
    "delta.enableExpiredLogCleanup": "false",  # `trim` does it, once a day rather than with each commit
    "delta.deletedFileRetentionDuration": f"interval {MAX_KEEP.days} days",
    _LOG_RETENTION: f"interval {MAX_KEEP.days} days",
    "delta.checkpointInterval": "50",
}
_NO_CLEANUP: Final = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)


class Appended(NamedTuple):
    """What became of a batch."""

    version: int  # of the table now
    rows: int
    made: bool  # False: the writer had reached this position before, and nothing was written


class Erased(NamedTuple):
    """What became of rows that were to go, and of the files they stood in."""

    rows: int
    files: int  # removed from storage, those of older versions among them


class Commit(NamedTuple):
    """One version of a table."""

    version: int
    at: datetime
    operation: str
    rows: int | None  # added; None where the operation adds none or does not say
    writers: dict[str, int]  # the positions that were known when it was made


class Table:
    """One table. An object is for one thread; any number of processes may have one."""

    def __init__(self, location: Location, name: str) -> None:
        """Raises Misuse when there is no such table, Failed when it cannot be read."""
        self.name = check_name(name)
        self._location = location
        self._uri = location.uri(name)
        self._healed = not location.is_local
        self._read_newest()

    # What it holds.

    @property
    def version(self) -> int:
        """The version that was read last."""
        return self._delta.version()

    @property
    def schema(self) -> pl.Schema:
        """The columns as of the version that was read last."""
        return pl.Schema(self._delta.schema().to_arrow())

    @property
    def partition_by(self) -> list[str]:
        return list(self._delta.metadata().partition_columns)

    @property
    def rows(self) -> int:
        """How many rows the version that was read last has, by what its files say."""
        return self._delta.count()

    @property
    def properties(self) -> dict[str, str]:
        """The table's own settings, and what was put beside them with `set_property`."""
        return dict(self._delta.metadata().configuration)

    def is_surely_newest(self) -> bool:
        """Whether the version that was read last is the newest, by a look at three file names; no log is read.

        False where that does not say it: in a bucket, and when anything of the log is other than it was.
        """
        if not self._location.is_local:
            return False
        log = self._location.path(self.name) / LOG_FOLDER
        with translated(f"table {self.name}"):
            # A commit has the next number. Where the log was shortened behind it, there is a newer checkpoint.
            following = stamp_of(log / commit_name(self.version + 1))
            return following is None and self._stamps == self._stamps_at(log, stamp_of(log / LAST_CHECKPOINT))

    def refresh(self) -> Table:
        """Read the newest version; returns the table itself."""
        self._read_newest()
        return self

    def position(self, writer: str) -> int | None:
        """How far a writer has come, as of the version that was read last; None when it never wrote."""
        with translated(self.name):
            return self._delta.transaction_version(writer)

    def cursor(self, writer: str) -> dict[str, Any] | None:
        """What the writer said with its last batch; None when it never wrote, or another engine dropped it."""
        said = self._notes().writers.get(writer)
        return None if said is None else said.metadata

    def frame(self, *, version: int | None = None, at: datetime | None = None) -> pl.LazyFrame:
        """The rows, lazily: of the newest version, of another one, or of the one that was in force at an instant.

        Raises Misuse when the table has no such version, or it was cleared away. Old versions can be read for as long
        as `vacuum` keeps their files; a frame of one whose files have gone fails when it is collected.
        """
        return pl.scan_delta(self.delta(version=version, at=at), storage_options=self._location.options or None)

    def delta(self, *, version: int | None = None, at: datetime | None = None) -> DeltaTable:
        """The same as the engine's own object, for what is not wrapped here. Raises as `frame` does."""
        if at is not None:
            return self._open(self._version_at(at))
        try:
            return self._open(version)
        except Failed as error:
            raise Misuse(
                f"table {self.name}: expected version {version}, found up to version {self._open().version()}:"
                f" {error.message}"
            ) from None

    def _version_at(self, at: datetime) -> int:
        """The newest version that was committed by then, as commits say; the times of files may be those of a copy."""
        newest, oldest = self._open(), self._open()
        with translated(f"table {self.name}"):
            oldest.load_as_version(at)
        low, high = oldest.version(), newest.version()
        while low and self._committed_at(low) > at:
            low -= 1  # a file's time comes from a coarser clock than the commit's own, and may be earlier
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._committed_at(middle) <= at else (low, middle - 1)
        if self._committed_at(low) > at:
            raise Misuse(f"table {self.name}: expected a version of {at.isoformat()} or before, found none")
        return low

    def _committed_at(self, version: int) -> datetime:
        commit = read_commit(self._location, self.name, version)
        return _EARLIEST if commit is None else _shown(version, commit).at

    def history(self, limit: int = 100) -> list[Commit]:
        """The newest versions, newest first."""
        found = itertools.islice(self._commits(self._open().version()), limit)
        return [_shown(version, commit) for version, commit in found]

    def _commits(self, newest: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for version in range(newest, -1, -1):
            commit = read_commit(self._location, self.name, version)
            if commit is None:
                return
            yield version, commit

    # Writing.

    def append(
        self,
        batches: pl.DataFrame | Sequence[pl.DataFrame],
        *,
        writer: str,
        position: int,
        metadata: Mapping[str, Any] | None = None,
        previous: int | None = None,
    ) -> Appended:
        """Write rows in one commit, unless the writer has reached `position` before; durable when it returns.

        `metadata` is what `cursor` gives back. With `previous`, the writer must stand exactly there (-1: nowhere yet).
        Rows are fitted to the columns. What is given is held in memory: who has more, writes it in several batches.

        Raises Misuse when a batch does not fit, Failed when the writer stands elsewhere or the storage refuses.
        """
        if not 0 <= position <= MAX_POSITION:
            raise Misuse(f"writer {writer}: expected a position of at least 0, found {position}")
        given = [batches] if isinstance(batches, pl.DataFrame) else list(batches)

        def write(notes: Notes) -> Appended:
            reached = self._delta.transaction_version(writer)
            if reached is not None and reached >= position:
                return Appended(self.version, 0, made=False)
            if previous is not None and (-1 if reached is None else reached) != previous:
                raise Failed(f"table {self.name}: expected {writer} at {previous}, found it at {reached}")
            rows = pl.concat(
                [fit(each, self.schema, self.name) for each in given] or [pl.DataFrame(schema=self.schema)]
            )
            properties = properties_of(notes.with_writer(writer, position, metadata or {}), (writer, position))
            write_deltalake(
                self._delta,
                rows,
                mode="append",
                target_file_size=TARGET_FILE_BYTES,
                writer_properties=_ROW_GROUP,
                commit_properties=properties,
                post_commithook_properties=_NO_CLEANUP,
            )
            return Appended(self.version, rows.height, made=True)

        return self._committed(write)

    def evolve(self, wanted: pl.Schema) -> bool:
        """Give the table the columns it lacks and the wider types it needs; whether anything was changed.

        New columns are null in old rows, and a column that is not wanted any more stays. Widening rewrites the table
        in one commit. Raises Misuse, naming each column, when one cannot hold what another held.
        """
        target = storable(wanted)

        def change(notes: Notes) -> bool:
            changes = differences(self.schema, target)
            if changes.refused:
                raise Misuse(
                    "\n".join([f"table {self.name}: the columns cannot be changed so:", *changes.refused]),
                    hint="Nothing was changed. Give the column another name, or the new rows another table.",
                )
            if changes.added:
                fields = DeltaSchema.from_arrow(pl.Schema(changes.added)).fields
                self._delta.alter.add_columns(fields, commit_properties=properties_of(notes))
            if changes.widened:
                self._rewrite(changes.widened, notes)
            return bool(changes)

        return self._committed(change)

    def _rewrite(self, widened: Mapping[str, pl.DataType], notes: Notes) -> None:
        names = {name: quote_name(name) for name in self.schema}
        columns = [
            f"arrow_cast({quoted}, '{arrow_name(widened[name])}') AS {quoted}" if name in widened else quoted
            for name, quoted in names.items()
        ]
        query = f"SELECT {', '.join(columns)} FROM narrow"  # noqa: S608 - names of columns, quoted
        rows = QueryBuilder().register("narrow", self._delta).execute(query)
        write_deltalake(
            self._delta,
            rows,
            mode="overwrite",
            schema_mode="overwrite",
            partition_by=self.partition_by,
            writer_properties=_ROW_GROUP,
            commit_properties=properties_of(notes, retries=0),  # rows that came meanwhile have the old types
            post_commithook_properties=_NO_CLEANUP,
        )

    def set_property(self, key: str, value: str) -> None:
        """Keep a text with the table; it stays when old versions go."""

        def change(notes: Notes) -> None:
            self._delta.alter.set_table_properties(
                {key: value}, raise_if_not_exists=False, commit_properties=properties_of(notes)
            )

        self._committed(change)

    # Rows that go.

    def retain(self, condition: Condition) -> int:
        """Drop the rows that a rule of retention names; how many. Their files go with the next `vacuum`.

        A condition on the partitions alone drops whole files, and reads none.
        """

        def drop(notes: Notes) -> int:
            metrics = self._delta.delete(
                condition.sql(),
                commit_properties=properties_of(notes),
                writer_properties=_ROW_GROUP,
                post_commithook_properties=_NO_CLEANUP,
            )
            return int(metrics.get("num_deleted_rows", 0))

        return self._committed(drop)

    def erase(self, condition: Condition) -> Erased:
        """Remove rows for good: from the table, and with the files and commits of all older versions.

        Where rows were erased, only the newest version can be read afterwards; where none was found, nothing changes.
        It may be killed anywhere and is made again with the same result. What a bucket with versioning, a backup or
        another table keeps is not in reach. Raises Failed when a longer work on the table does not end.
        """

        def remove(properties: CommitProperties) -> int:
            metrics = self._delta.delete(
                condition.sql(),
                commit_properties=properties,
                writer_properties=_ROW_GROUP,
                post_commithook_properties=_NO_CLEANUP,
            )
            return int(metrics.get("num_deleted_rows", 0))

        return self._for_good(remove)

    def blank(self, condition: Condition, columns: Sequence[str]) -> Erased:
        """Make columns null for good in the rows meant, as `erase` removes rows; those that are null stay.

        Which are null is told by the columns that are not nested: conditions of the engine know no others.
        """
        there = [column for column in columns if column in self.schema]
        if not there:
            return Erased(0, 0)
        plain = [column for column in there if not self.schema[column].is_nested()]
        full = " OR ".join(f"{quote_name(column)} IS NOT NULL" for column in plain) or "TRUE"

        def clear(properties: CommitProperties) -> int:
            metrics = self._delta.update(
                updates={quote_name(column): "NULL" for column in there},
                predicate=f"({condition.sql()}) AND ({full})",
                commit_properties=properties,
                writer_properties=_ROW_GROUP,
                post_commithook_properties=_NO_CLEANUP,
            )
            return int(metrics.get("num_updated_rows", 0))

        return self._for_good(clear)

    def _for_good(self, change: Callable[[CommitProperties], int]) -> Erased:
        def once(notes: Notes) -> int:
            times = (self._delta.transaction_version(ERASED_WRITER) or 0) + 1
            return change(properties_of(notes, (ERASED_WRITER, times)))

        with self._keeping():
            rows = self._committed(once)
            return Erased(rows, self._clear_away())

    def _clear_away(self) -> int:
        """Remove the files of older versions where rows were erased and these files are still there; how many."""

        def clear(notes: Notes) -> int:
            erased = self._delta.transaction_version(ERASED_WRITER)
            if erased is None or erased == self._delta.transaction_version(_CLEARED_WRITER):
                return 0
            # In a folder we hold both locks: what is in no version now never will be. In a bucket it may be about to.
            files = self._vacuum(timedelta(), notes, full=self._location.is_local)
            self._forget_statistics()
            self._delta.alter.set_table_properties(
                {"mainstay.cleared": str(erased), _LOG_RETENTION: PROPERTIES[_LOG_RETENTION]},
                raise_if_not_exists=False,
                commit_properties=properties_of(self._notes(), (_CLEARED_WRITER, erased)),
            )
            return files

        return self._committed(clear)

    def _forget_statistics(self) -> None:
        """Shorten the table's log to now: its commits hold the least and greatest values of files that are gone."""
        self._delta.alter.set_table_properties(
            {_LOG_RETENTION: "interval 0 seconds"},
            raise_if_not_exists=False,
            commit_properties=properties_of(self._notes()),
        )
        self._delta.create_checkpoint()
        if self._location.is_local:
            make_durable(self._location.path(self.name), self.version, self.version)
            remove_torn(self._location.path(self.name))
        self._delta.cleanup_metadata()

    # Keeping it in shape.

    def compact(self, target_bytes: int = TARGET_FILE_BYTES) -> int:
        """Join small files into larger ones, a partition at a time; how many files went into them."""
        with self._keeping(), translated(self.name):
            before = self.refresh().version
            metrics = self._delta.optimize.compact(
                target_size=target_bytes,
                max_concurrent_tasks=1,
                min_commit_interval=0,
                writer_properties=_ROW_GROUP,
                commit_properties=properties_of(self._notes()),
                post_commithook_properties=_NO_CLEANUP,
            )
            self._settle(before)
        return int(metrics["numFilesRemoved"])

    def vacuum(self, keep: timedelta) -> int:
        """Remove the files that only versions older than `keep` hold, and those of batches that were never committed.

        How many. Whoever reads an older version at that moment fails. Raises Misuse when `keep` is negative or over
        MAX_KEEP; below ORPHAN_AGE, files of batches that were never committed stay until they are that old.
        """
        if not timedelta() <= keep <= MAX_KEEP:
            raise Misuse(f"expected versions to be kept for 0 to {MAX_KEEP.days} days, found {keep}")
        with self._keeping():
            full = keep >= ORPHAN_AGE
            files = self._committed(lambda notes: self._vacuum(keep, notes, full=full))
            if not full:
                files += self._committed(lambda notes: self._vacuum(ORPHAN_AGE, notes, full=True))
        return files

    def _vacuum(self, keep: timedelta, notes: Notes, *, full: bool) -> int:
        options: dict[str, Any] = {
            "retention_hours": int(keep.total_seconds() // 3_600),
            "enforce_retention_duration": False,
            "full": full,
        }
        gone = self._delta.vacuum(dry_run=True, **options)
        if self._location.is_local:  # the log names files for as long as it remembers that they went
            folder = self._location.path(self.name)
            gone = [path for path in gone if (folder / path).exists()]
        if gone:
            self._delta.vacuum(
                dry_run=False,
                commit_properties=properties_of(notes),
                post_commithook_properties=_NO_CLEANUP,
                **options,
            )
        return len(gone)

    def trim(self, now: datetime) -> None:
        """Shorten the table's log: what is older than MAX_KEEP goes, and a checkpoint stands for it."""
        with self._keeping():
            # The commits that say how far the writers have come are among those that may go.
            self.set_property(TRIMMED, now.isoformat(timespec="seconds"))
            with translated(self.name):
                self._delta.create_checkpoint()
                if self._location.is_local:
                    make_durable(self._location.path(self.name), self.version, self.version)
                self._delta.cleanup_metadata()

    # How it is read.

    def _read_newest(self) -> None:
        if not self._location.is_local:
            self._delta = self._open()
            return
        log = self._location.path(self.name) / LOG_FOLDER
        with translated(f"table {self.name}"):
            # Before the log is read: one that is written meanwhile is then seen to be another.
            checkpoint = stamp_of(log / LAST_CHECKPOINT)
            self._delta = self._open()
            self._stamps = self._stamps_at(log, checkpoint)

    def _stamps_at(self, log: Path, checkpoint: Stamp | None) -> tuple[Stamp | None, Stamp | None]:
        return checkpoint, stamp_of(log / commit_name(self.version))

    def _open(self, version: int | None = None) -> DeltaTable:
        with translated(f"table {self.name}"):
            return DeltaTable(self._uri, version=version, storage_options=self._location.options or None)

    # How a commit is made.

    def _notes(self) -> Notes:
        """What all writers said, as of the version that was read last."""
        read = self._delta.version()
        return newest_notes(self._commits(read), read)

    def _committed(self, work: Callable[[Notes], T]) -> T:
        """Do work on the newest version, again when another commit came first; durable when it returns."""
        with self._writing():
            for attempt in itertools.count(1):
                before = self.refresh().version
                try:
                    with translated(f"table {self.name}"):
                        done = work(self._notes())
                except Superseded:
                    if attempt == _ATTEMPTS:
                        raise
                    continue
                self._settle(before)
                return done
        raise AssertionError("counting does not end")  # pragma: no cover

    def _settle(self, before: int) -> None:
        if self._location.is_local and self.refresh().version > before:
            make_durable(self._location.path(self.name), before + 1, self.version)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Be the one who commits. In a bucket, the store keeps two apart when they do."""
        with self._lock(LOCK_FILE, LOCK_SECONDS):
            if not self._healed:
                set_torn_aside(self._location.path(self.name))
                self._healed = True
            yield

    def _keeping(self) -> AbstractContextManager[None]:
        """Be the one who moves or removes files."""
        return self._lock(KEEPER_LOCK_FILE, KEEPER_LOCK_SECONDS)

    def _lock(self, file: str, seconds: float) -> AbstractContextManager[None]:
        if not self._location.is_local:
            return nullcontext()
        return locked(self._location.path(self.name) / file, timeout_seconds=seconds)


def _shown(version: int, commit: Mapping[str, Any]) -> Commit:
    notes = read_notes(commit)
    rows = commit.get("operationMetrics", {}).get("num_added_rows")
    return Commit(
        version=version,
        at=datetime.fromtimestamp(commit.get("timestamp", 0) / 1_000, UTC),
        operation=str(commit.get("operation", "")),
        rows=int(rows) if rows is not None else None,
        writers={} if notes is None else {writer: said.position for writer, said in notes.writers.items()},
    )
