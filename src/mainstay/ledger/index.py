"""What can be asked of the log quickly: a SQLite file derived from it, which may be deleted and is made again.

It holds where each id stands (as runs, not a row for every entry), decisions by business key, outcomes by decision
and by key, the joined rows that monitoring reads, the decisions that wait for a person, and running counts.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import msgspec

from mainstay.errors import Damaged
from mainstay.ledger.entry import leaf_hash, parse_id, read_id
from mainstay.ledger.log import Log
from mainstay.ledger.review_entries import RESOLVED, ReviewReason, WaitingReview, read_waiting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.ledger.entry import Entry, EntryId

INDEX_FILE = "index.db"
CHUNK_ENTRIES = 4_096  # indexed in one transaction

_VERSION = 2  # of the schema; an index of another version is made anew
_TABLES = ("position", "runs", "decisions", "outcomes", "waiting", "resolutions", "counters")
_SCHEMA = """
CREATE TABLE position (sequence INTEGER NOT NULL, last_leaf_hash BLOB NOT NULL);
INSERT INTO position VALUES (0, x'');

-- Entries that follow each other in a segment and in the log.
CREATE TABLE runs (
    first_sequence INTEGER PRIMARY KEY, segment TEXT NOT NULL, first_counter INTEGER NOT NULL, entries INTEGER NOT NULL
);
CREATE INDEX runs_by_segment ON runs (segment, first_counter);

CREATE TABLE decisions (
    sequence INTEGER PRIMARY KEY, id TEXT NOT NULL, capability TEXT NOT NULL, version TEXT, at TEXT NOT NULL,
    outcome TEXT, key TEXT, output BLOB
);
CREATE INDEX decisions_by_time ON decisions (capability, at);
CREATE INDEX decisions_by_key ON decisions (capability, key) WHERE key IS NOT NULL;

-- Every report is kept, whether or not its decision is known yet.
CREATE TABLE outcomes (
    sequence INTEGER PRIMARY KEY, capability TEXT NOT NULL, decision_id TEXT, key TEXT,
    observed_at TEXT NOT NULL, observed_us INTEGER NOT NULL, outcome BLOB NOT NULL
);
CREATE INDEX outcomes_by_decision ON outcomes (decision_id) WHERE decision_id IS NOT NULL;
CREATE INDEX outcomes_by_key ON outcomes (capability, key) WHERE decision_id IS NULL;

-- Decisions that wait for a person, and no others: the table is as long as the queue, whatever the history.
CREATE TABLE waiting (
    sequence INTEGER PRIMARY KEY, id TEXT NOT NULL, capability TEXT NOT NULL, at TEXT NOT NULL, key TEXT, policy TEXT,
    reasons BLOB NOT NULL
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

_WAITING = "SELECT id, capability, at, key, policy, reasons FROM waiting"

# For each decision, the report observed last; of several at one instant, the one recorded last.
_JOINED = """
SELECT d.sequence, d.id, d.capability, d.version, d.at, d.outcome, d.key, d.output,
       o.sequence, o.capability, o.decision_id, o.key, o.observed_at, o.observed_us, o.outcome
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


class DecisionRow(NamedTuple):
    """A decision as far as monitoring needs it. None stands for what its record left out."""

    sequence: int
    id: str
    capability: str
    version: str | None
    at: str
    outcome: str | None
    key: str | None
    output: bytes | None  # JSON


class OutcomeRow(NamedTuple):
    """A reported label. Exactly one of `decision_id` and `key` is used to join it: the id when there is one."""

    sequence: int
    capability: str
    decision_id: str | None
    key: str | None
    observed_at: str  # as reported, or when it was recorded
    observed_us: int  # the same, microseconds since 1970
    outcome: bytes  # JSON


class _WaitingRow(NamedTuple):
    """A decision that waits for a person, as it stands in its table."""

    sequence: int
    id: str
    capability: str
    at: str
    key: str | None
    policy: str | None
    reasons: bytes  # JSON


class Counts(NamedTuple):
    """Running totals of a capability."""

    decisions: dict[str, int]  # by outcome
    reasons: dict[str, int]  # by code; a decision may have several
    outcomes: int  # reports of labels


class _Leaf(msgspec.Struct):
    kind: str
    id: str
    at: str
    capability: str | None = None
    version: str | None = None
    outcome: str | None = None
    reasons: list[str] = []
    action: str | None = None  # of a change, as is the next
    subject: str | None = None


class _DecisionBody(msgspec.Struct):
    key: str | None = None
    output: msgspec.Raw = msgspec.Raw(b"null")


class _OutcomeBody(msgspec.Struct):
    decision_id: str | None = None
    key: str | None = None
    outcome: msgspec.Raw = msgspec.Raw(b"null")
    observed_at: str | None = None


_encode = msgspec.json.Encoder().encode
_reasons = msgspec.json.Decoder(list[ReviewReason]).decode
_leaf = msgspec.json.Decoder(_Leaf).decode
_decision_body = msgspec.json.Decoder(_DecisionBody).decode
_outcome_body = msgspec.json.Decoder(_OutcomeBody).decode


class Index:
    """The index of the ledger in `ledger_dir`. Several processes may read and catch up; an object is for one thread."""

    def __init__(self, ledger_dir: Path) -> None:
        """Open it, making it when absent. Raises Damaged when the file is no index."""
        self._log = Log(ledger_dir)
        path = ledger_dir / INDEX_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, isolation_level=None, timeout=60.0)
        try:
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")  # losing the last chunks costs indexing them again
            with self._transaction():
                if self._database.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
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

    def catch_up(self, log: Log) -> int:
        """Index what is sealed and not yet indexed; the number of entries. Raises Damaged when the log is not whole.

        Each chunk is one transaction together with the position it reaches, so every entry counts once. An index of
        another log, such as one from before a backup was restored, is made anew.
        """
        size = log.size
        total = 0
        while added := self._index_chunk(log, size):
            total += added
        return total

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
            if self._id_at(sequence) == wanted:
                return int(sequence)
        return None

    def _id_at(self, sequence: int) -> EntryId | None:
        row = self._database.execute("SELECT id FROM decisions WHERE sequence = ?", (sequence,)).fetchone()
        return parse_id(row[0]) if row else read_id(next(self._log.leaves(sequence, sequence + 1)))

    def decisions_by_key(self, capability: str, key: str) -> list[int]:
        """The sequences of the decisions with a business key, oldest first."""
        rows = self._database.execute(
            "SELECT sequence FROM decisions WHERE capability = ? AND key = ? ORDER BY sequence", (capability, key)
        )
        return [row[0] for row in rows]

    def outcomes_of(self, decision_id: str | None, capability: str, key: str | None) -> list[OutcomeRow]:
        """All that was reported for a decision, by its id or its key, in the order it was observed."""
        names = {"id": decision_id, "capability": capability, "key": key}
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
        return list(map(_waiting_review, rows))

    def count_waiting(self, capability: str | None = None) -> int:
        """How many decisions wait for a person: of one capability, or of all."""
        row = self._database.execute(
            "SELECT count(*) FROM waiting WHERE :name IS NULL OR capability = :name", {"name": capability}
        ).fetchone()
        return int(row[0])

    def find_waiting(self, decision_id: str) -> WaitingReview | None:
        """A decision that waits for a person; None when it does not, or is not indexed."""
        row = self._database.execute(f"{_WAITING} WHERE id = ?", (decision_id,)).fetchone()
        return None if row is None else _waiting_review(row)

    def resolutions_of(self, decision_id: str) -> list[int]:
        """The sequences of what people decided about a decision that waited for them."""
        rows = self._database.execute(
            "SELECT sequence FROM resolutions WHERE decision_id = ? ORDER BY sequence", (decision_id,)
        )
        return [row[0] for row in rows]

    def _position(self) -> tuple[int, bytes]:
        sequence, last = self._database.execute("SELECT sequence, last_leaf_hash FROM position").fetchone()
        return sequence, last

    @contextmanager
    def _transaction(self) -> Iterator[None]:
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
        for statement in _SCHEMA.split(";"):
            self._database.execute(statement)
        self._database.execute(f"PRAGMA user_version = {_VERSION}")

    def _index_chunk(self, log: Log, size: int) -> int:
        with self._transaction():
            first, last_hash = self._position()
            if first and (first > size or log.leaf_hash_at(first - 1) != last_hash):
                self._clear()
                first = 0
            last = min(size, first + CHUNK_ENTRIES)
            if first == last:
                return 0
            chunk = _Chunk()
            leaf = b""
            for sequence, entry in enumerate(log.entries(first, last), first):
                leaf = entry.leaf
                chunk.add(sequence, entry)
            self._store(chunk)
            self._database.execute("UPDATE position SET sequence = ?, last_leaf_hash = ?", (last, leaf_hash(leaf)))
        return last - first

    def _store(self, chunk: _Chunk) -> None:
        write = self._database.executemany
        write("INSERT INTO runs (segment, first_counter, first_sequence, entries) VALUES (?, ?, ?, ?)", chunk.runs)
        write("INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", chunk.decisions)
        write("INSERT INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?)", chunk.outcomes)
        write("INSERT INTO resolutions VALUES (?, ?)", chunk.resolutions)
        write(
            "INSERT INTO waiting SELECT ?, ?, ?, ?, ?, ?, ?"
            " WHERE NOT EXISTS (SELECT 1 FROM resolutions WHERE decision_id = ?)",
            [(*row, row.id) for row in chunk.waiting],
        )
        write("DELETE FROM waiting WHERE id = ?", [(decision_id,) for _, decision_id in chunk.resolutions])
        write(
            "INSERT INTO counters VALUES (?, ?, ?, ?)"
            " ON CONFLICT (capability, kind, name) DO UPDATE SET n = n + excluded.n",
            [(*name, count) for name, count in chunk.counters.items()],
        )


class _Chunk:
    """Rows to be stored together."""

    def __init__(self) -> None:
        self.runs: list[list[str | int]] = []  # segment, first counter, first sequence, entries
        self.decisions: list[DecisionRow] = []
        self.outcomes: list[OutcomeRow] = []
        self.waiting: list[_WaitingRow] = []
        self.resolutions: list[tuple[int, str]] = []
        self.counters: Counter[tuple[str, str, str]] = Counter()
        self._next: tuple[str, int] | None = None

    def add(self, sequence: int, entry: Entry) -> None:
        """Index one entry. One that Mainstay did not write has its place in the log and nothing to be found by."""
        found = read_id(entry.leaf)
        if found is None:
            self._next = None
            return
        if self._next == found[:2]:
            self.runs[-1][3] += 1  # type: ignore[operator] # the fourth of each is a number
        else:
            self.runs.append([found.segment, found.counter, sequence, 1])
        self._next = (found.segment, found.counter + 1)
        try:
            leaf = _leaf(entry.leaf)
            if leaf.capability is not None and leaf.kind == "decision":
                self._add_decision(sequence, leaf, leaf.capability, entry)
            elif leaf.capability is not None and leaf.kind == "outcome":
                self._add_outcome(sequence, leaf, leaf.capability, entry.body)
            elif leaf.action == RESOLVED and leaf.kind == "change" and leaf.subject is not None:
                self.resolutions.append((sequence, leaf.subject))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return

    def _add_decision(self, sequence: int, leaf: _Leaf, capability: str, entry: Entry) -> None:
        body = _decision_body(entry.body)
        output = None if body.output == b"null" else bytes(body.output)
        self.decisions.append(
            DecisionRow(sequence, leaf.id, capability, leaf.version, leaf.at, leaf.outcome, body.key, output)
        )
        self.counters[capability, "decision", leaf.outcome or ""] += 1
        for code in leaf.reasons:
            self.counters[capability, "reason", code] += 1
        review = read_waiting(entry) if leaf.outcome == "review" else None
        if review is not None:
            self.waiting.append(_WaitingRow(sequence, *review[:5], _encode(review.reasons)))

    def _add_outcome(self, sequence: int, leaf: _Leaf, capability: str, content: bytes) -> None:
        body = _outcome_body(content)
        observed = body.observed_at or leaf.at
        microseconds = _microseconds(observed)
        if microseconds is None:  # not a time: then when it was recorded
            observed, microseconds = leaf.at, _microseconds(leaf.at) or 0
        self.outcomes.append(
            OutcomeRow(sequence, capability, body.decision_id, body.key, observed, microseconds, bytes(body.outcome))
        )
        self.counters[capability, "outcome", ""] += 1


def _waiting_review(row: tuple[Any, ...]) -> WaitingReview:
    entry_id, capability, at, key, policy, reasons = row
    return WaitingReview(entry_id, capability, at, key, policy, tuple(_reasons(reasons)))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _microseconds(text: str) -> int | None:
    """RFC 3339 as microseconds since 1970; without an offset it is UTC. None when it is no time."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    since = instant - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
