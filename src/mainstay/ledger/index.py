"""What can be asked of the log quickly: a SQLite file derived from it, which may be deleted and is made again.

It holds where each id stands (as runs, not a row for every entry), decisions by business key, outcomes by decision
and by key, the joined rows that monitoring reads, the decisions that wait for a person, running counts, and what is to
be erased or has left with an archive. Business keys stand in it as digests under a key of its own.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, Self

from mainstay.errors import Damaged
from mainstay.ledger.archives import Archived, archive_of
from mainstay.ledger.entry import leaf_hash, parse_id, read_id
from mainstay.ledger.index_erasures import ERASURE_SCHEMA, ERASURE_TABLES, ErasureTables
from mainstay.ledger.index_key import load_index_key
from mainstay.ledger.index_rows import Chunk, DecisionRow, OutcomeRow
from mainstay.ledger.log import Log, archived_entries
from mainstay.ledger.review_entries import read_waiting

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mainstay.ledger.entry import EntryId
    from mainstay.ledger.review_entries import WaitingReview

INDEX_FILE = "index.db"
CHUNK_ENTRIES = 4_096  # indexed in one transaction

_VERSION = 5  # of the schema; an index of another version is made anew
_TABLES = (
    "position",
    "runs",
    "decisions",
    "outcomes",
    "shadows",
    "waiting",
    "resolutions",
    "counters",
    *ERASURE_TABLES,
)
_SCHEMA = """
-- `key_check` tells by which key the digests of business keys were made. `traces` is a mark, another each time, that
-- something was erased since the file was last written anew.
CREATE TABLE position (
    sequence INTEGER NOT NULL, last_leaf_hash BLOB NOT NULL, key_check BLOB NOT NULL, traces BLOB
);
INSERT INTO position VALUES (0, x'', x'', NULL);

-- Entries that follow each other in a segment and in the log.
CREATE TABLE runs (
    first_sequence INTEGER PRIMARY KEY, segment TEXT NOT NULL, first_counter INTEGER NOT NULL, entries INTEGER NOT NULL
);
CREATE INDEX runs_by_segment ON runs (segment, first_counter);

CREATE TABLE decisions (
    sequence INTEGER PRIMARY KEY, id TEXT NOT NULL, capability TEXT NOT NULL, version TEXT, at TEXT NOT NULL,
    outcome TEXT, key BLOB, output BLOB
);
CREATE INDEX decisions_by_time ON decisions (capability, at);
CREATE INDEX decisions_by_key ON decisions (capability, key) WHERE key IS NOT NULL;

-- Every report is kept, whether or not its decision is known yet.
CREATE TABLE outcomes (
    sequence INTEGER PRIMARY KEY, capability TEXT NOT NULL, at TEXT NOT NULL, decision_id TEXT, key BLOB,
    observed_at TEXT NOT NULL, observed_us INTEGER NOT NULL, outcome BLOB NOT NULL
);
CREATE INDEX outcomes_by_decision ON outcomes (decision_id) WHERE decision_id IS NOT NULL;
CREATE INDEX outcomes_by_key ON outcomes (capability, key) WHERE decision_id IS NULL;

-- What shadows would have decided, by the decision that they shadowed.
CREATE TABLE shadows (sequence INTEGER PRIMARY KEY, decision_id TEXT NOT NULL);
CREATE INDEX shadows_by_decision ON shadows (decision_id);

-- Decisions that wait for a person, and no others: the table is as long as the queue, whatever the history.
CREATE TABLE waiting (
    sequence INTEGER PRIMARY KEY, id TEXT NOT NULL, capability TEXT NOT NULL, at TEXT NOT NULL
);
CREATE INDEX waiting_by_id ON waiting (id);
CREATE INDEX waiting_by_time ON waiting (at, id);
CREATE INDEX waiting_by_capability ON waiting (capability, at, id);

-- What people decided: a decision may be resolved before it is indexed, and again later.
CREATE TABLE resolutions (sequence INTEGER PRIMARY KEY, decision_id TEXT NOT NULL);
CREATE INDEX resolutions_by_decision ON resolutions (decision_id);

-- kind is decision (by outcome), reason (by code) or outcome (reports of labels).
CREATE TABLE counters (
    capability TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, n INTEGER NOT NULL,
    PRIMARY KEY (capability, kind, name)
) WITHOUT ROWID;
"""

_OUTCOMES_OF = """
SELECT * FROM outcomes WHERE capability = :capability AND decision_id = :id
UNION ALL
SELECT * FROM outcomes WHERE capability = :capability AND key = :key AND decision_id IS NULL
ORDER BY observed_us, sequence
"""

_WAITING = "SELECT sequence FROM waiting"

# For each decision, the report observed last; of several at one instant, the one recorded last.
_JOINED = """
SELECT d.sequence, d.id, d.capability, d.version, d.at, d.outcome, d.key, d.output,
       o.sequence, o.capability, o.at, o.decision_id, o.key, o.observed_at, o.observed_us, o.outcome
FROM (
    SELECT * FROM decisions WHERE capability = ? AND at >= ? ORDER BY at DESC, sequence DESC LIMIT ?
) d LEFT JOIN outcomes o ON o.sequence = (
    SELECT sequence FROM (
        SELECT sequence, observed_us FROM outcomes WHERE decision_id = d.id AND capability = d.capability
        UNION ALL
        SELECT sequence, observed_us FROM outcomes
        WHERE capability = d.capability AND key = d.key AND decision_id IS NULL
    ) ORDER BY observed_us DESC, sequence DESC LIMIT 1
)
ORDER BY d.at, d.sequence
"""


class Counts(NamedTuple):
    """Running totals of a capability."""

    decisions: dict[str, int]  # by outcome
    reasons: dict[str, int]  # by code; a decision may have several
    outcomes: int  # reports of labels


class Index:
    """The index of the ledger in `ledger_dir`. Several processes may read and catch up; an object is for one thread."""

    def __init__(self, ledger_dir: Path) -> None:
        """Open it, making it when absent. Raises Damaged when the file is no index."""
        self._root = ledger_dir
        self._log = Log(ledger_dir)
        path = ledger_dir / INDEX_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        self._digests = load_index_key(ledger_dir)
        self._database = sqlite3.connect(path, isolation_level=None, timeout=60.0)
        self.erasures = ErasureTables(self._database, self._digests)
        try:
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")  # losing the last chunks costs indexing them again
            self._database.execute("PRAGMA secure_delete = ON")  # not enough by itself: see `leave_nothing_behind`
            with self.transaction():
                if not self._is_ours():
                    self._clear()
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise Damaged(f"{path}: expected an index, found: {error}", hint="Delete it; it is made again.") from None

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def size(self) -> int:
        """How many entries of the log are indexed."""
        return self._position()[0]

    def catch_up(self, log: Log, archives: Sequence[Path] = ()) -> int:
        """Index what is sealed and not yet indexed; the number of entries. Raises Damaged when the log is not whole.

        Each chunk is one transaction together with the position it reaches, so every entry counts once. An index of
        another log, such as one from before a backup was restored, is made anew. Entries that have left the ledger are
        then read from where they were archived, or from one of `archives`; raises Failed where they cannot be.
        """
        size = log.size
        total = 0
        while added := self._index_chunk(log, size, archives):
            total += added
        return total

    def begin_again(self) -> None:
        """Forget everything; the next `catch_up` indexes the log from its beginning."""
        with self.transaction():
            self._clear()

    def leave_nothing_behind(self) -> bool:
        """See to it that nothing of what was erased is left in the file, nor in its own write-ahead log.

        The file is written anew where something was erased since it last was, which takes as long as the index is, and
        room for two copies of it. False while another process is in the way: then it is to be tried again.
        Raises OSError when the disk fails or is full.
        """
        try:
            if (mark := self._traces()) is not None:
                # `secure_delete` overwrites a row where it stands, and no copy that stayed in the unused part of a page
                # when the b-tree was balanced and the row moved to another.
                self._database.execute("VACUUM")
                self._database.execute("UPDATE position SET traces = NULL WHERE traces = ?", (mark,))
            busy, _, _ = self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:  # the rest of the code says why
                return False
            raise OSError(f"{self._root / INDEX_FILE}: cannot be written anew: {error}") from error
        return not busy

    def has_traces(self) -> bool:
        """Whether something was erased from the file, and may have left traces in it."""
        return self._traces() is not None

    def _traces(self) -> bytes | None:
        (mark,) = self._database.execute("SELECT traces FROM position").fetchone()
        return mark  # type: ignore[no-any-return]  # a column of our schema

    def find(self, entry_id: str) -> int | None:
        """The sequence of an entry, or None when it is not indexed."""
        wanted = parse_id(entry_id)
        if wanted is None:
            return None
        rows = self._database.execute(
            "SELECT first_sequence + ? - first_counter FROM runs"
            " WHERE segment = ? AND first_counter <= ? AND first_counter + entries > ?",
            (wanted.counter, wanted.segment, wanted.counter, wanted.counter),
        ).fetchall()
        for (sequence,) in rows:  # one, unless two segments drew the same 40 bits
            if self._is_at(wanted, sequence):
                return int(sequence)
        return None

    def _is_at(self, wanted: EntryId, sequence: int) -> bool:
        row = self._database.execute("SELECT id FROM decisions WHERE sequence = ?", (sequence,)).fetchone()
        if row is not None:
            return parse_id(row[0]) == wanted
        try:
            return read_id(next(self._log.leaves(sequence, sequence + 1))) == wanted
        except Archived:
            return True  # its segment and counter are

    def capability_of(self, sequence: int) -> str | None:
        """The capability of a decision; None when the entry is none."""
        row = self._database.execute("SELECT capability FROM decisions WHERE sequence = ?", (sequence,)).fetchone()
        return None if row is None else str(row[0])

    def decisions_by_key(self, capability: str, key: str) -> list[int]:
        """The sequences of the decisions with a business key, oldest first."""
        rows = self._database.execute(
            "SELECT sequence FROM decisions WHERE capability = ? AND key = ? ORDER BY sequence",
            (capability, self._digests.of(key)),
        )
        return [row[0] for row in rows]

    def outcomes_of(self, decision_id: str | None, capability: str, key: str | None) -> list[OutcomeRow]:
        """All that was reported for a decision, by its id or its key, in the order it was observed."""
        digest = None if key is None else self._digests.of(key)
        names = {"id": decision_id, "capability": capability, "key": digest}
        return [OutcomeRow(*row) for row in self._database.execute(_OUTCOMES_OF, names)]

    def joined(
        self, capability: str, since: datetime | None = None, *, newest: int | None = None
    ) -> Iterator[tuple[DecisionRow, OutcomeRow | None]]:
        """Each decision made at or after `since`, oldest first, with the outcome observed last; None while unknown.

        With `newest`, only that many of them, the last ones: the cost is then bounded whatever the history.
        """
        begin = "" if since is None else since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        for row in self._database.execute(_JOINED, (capability, begin, -1 if newest is None else newest)):
            yield DecisionRow(*row[:8]), None if row[8] is None else OutcomeRow(*row[8:])

    def counts(self, capability: str) -> Counts:
        """Running totals; reading them costs the same however long the history is."""
        found: dict[str, dict[str, int]] = {"decision": {}, "reason": {}, "outcome": {}}
        rows = self._database.execute("SELECT kind, name, n FROM counters WHERE capability = ?", (capability,))
        for kind, name, count in rows:
            found[kind][name] = count
        return Counts(found["decision"], found["reason"], sum(found["outcome"].values()))

    def waiting(self, capability: str | None = None, *, limit: int) -> list[WaitingReview]:
        """Decisions that wait for a person, oldest first: of one capability, or of all."""
        if capability is None:
            rows = self._database.execute(f"{_WAITING} ORDER BY at, id LIMIT ?", (limit,))
        else:
            rows = self._database.execute(
                f"{_WAITING} WHERE capability = ? ORDER BY at, id LIMIT ?", (capability, limit)
            )
        return [found for (sequence,) in rows if (found := read_waiting(self._log.entry(sequence))) is not None]

    def count_waiting(self, capability: str | None = None) -> int:
        """How many decisions wait for a person: of one capability, or of all."""
        row = self._database.execute(
            "SELECT count(*) FROM waiting WHERE :name IS NULL OR capability = :name", {"name": capability}
        ).fetchone()
        return int(row[0])

    def find_waiting(self, decision_id: str) -> WaitingReview | None:
        """A decision that waits for a person; None when it does not, or is not indexed."""
        row = self._database.execute(f"{_WAITING} WHERE id = ?", (decision_id,)).fetchone()
        return None if row is None else read_waiting(self._log.entry(row[0]))

    def resolutions_of(self, decision_id: str) -> list[int]:
        """The sequences of what people decided about a decision that waited for them."""
        rows = self._database.execute(
            "SELECT sequence FROM resolutions WHERE decision_id = ? ORDER BY sequence", (decision_id,)
        )
        return [row[0] for row in rows]

    def shadows_of(self, decision_id: str) -> list[int]:
        """The sequences of what shadows would have decided instead of a decision."""
        rows = self._database.execute(
            "SELECT sequence FROM shadows WHERE decision_id = ? ORDER BY sequence", (decision_id,)
        )
        return [row[0] for row in rows]

    def _position(self) -> tuple[int, bytes]:
        sequence, last = self._database.execute("SELECT sequence, last_leaf_hash FROM position").fetchone()
        return sequence, last

    def _is_ours(self) -> bool:
        """Whether the file has this schema, and digests under the key beside it."""
        if self._database.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            return False
        (check,) = self._database.execute("SELECT key_check FROM position").fetchone()
        return bool(check == self._digests.check)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is done within happens whole or not at all."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:  # whatever it was, nothing of it may stay
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def _clear(self) -> None:
        for table in _TABLES:
            self._database.execute(f"DROP TABLE IF EXISTS {table}")
        for statement in (_SCHEMA + ERASURE_SCHEMA).split(";\n"):
            self._database.execute(statement)
        self._database.execute("UPDATE position SET key_check = ?", (self._digests.check,))
        self._database.execute(f"PRAGMA user_version = {_VERSION}")

    def _index_chunk(self, log: Log, size: int, archives: Sequence[Path]) -> int:
        with self.transaction():
            first, last_hash = self._position()
            if first and (first > size or log.leaf_hash_at(first - 1) != last_hash):
                self._clear()
                first = 0
            last = min(size, first + CHUNK_ENTRIES)
            if first == last:
                return 0
            gone = archive_of(self._root, first)
            if gone is None:
                entries = log.entries(first, last)
            else:
                last = min(last, gone.size)
                entries = archived_entries(log, gone, archives, first, last)
            chunk = Chunk(self._digests)
            leaf = b""
            for sequence, entry in enumerate(entries, first):
                leaf = entry.leaf
                chunk.add(sequence, entry)
            self._store(chunk)
            self._database.execute("UPDATE position SET sequence = ?, last_leaf_hash = ?", (last, leaf_hash(leaf)))
        return last - first

    def _store(self, chunk: Chunk) -> None:
        write = self._database.executemany
        write("INSERT INTO runs (segment, first_counter, first_sequence, entries) VALUES (?, ?, ?, ?)", chunk.runs)
        write("INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", chunk.decisions)
        write("INSERT INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", chunk.outcomes)
        write("INSERT INTO shadows VALUES (?, ?)", chunk.shadows)
        write("INSERT INTO resolutions VALUES (?, ?)", chunk.resolutions)
        write(
            "INSERT INTO waiting SELECT ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM resolutions WHERE decision_id = ?)",
            [(*row, row.id) for row in chunk.waiting],
        )
        write("DELETE FROM waiting WHERE id = ?", [(decision_id,) for _, decision_id in chunk.resolutions])
        write(
            "INSERT INTO counters VALUES (?, ?, ?, ?)"
            " ON CONFLICT (capability, kind, name) DO UPDATE SET n = n + excluded.n",
            [(*name, count) for name, count in chunk.counters.items()],
        )
        self.erasures.store(chunk)
