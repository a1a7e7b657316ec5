"""What the index knows of bodies: which stand in which bundle, which are to go, and which have left with an archive.

When a request is indexed, what the index took from the bodies concerned goes in the same transaction. So an index that
knows of a request holds nothing of what it names, whenever and from whatever copy of the log it was made. Its file may
still hold traces, which is noted in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mainstay.ledger.tiles import WIDTH

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

    from mainstay.ledger.erasure_entries import Request, Run
    from mainstay.ledger.index_key import KeyDigests
    from mainstay.ledger.index_rows import Chunk

ERASURE_TABLES = ("kept", "erasures", "erased", "rules", "archives")
ERASURE_SCHEMA = """
-- Of each bundle of entries that holds bodies of a capability, when the oldest of them was recorded, or before that.
CREATE TABLE kept (
    capability TEXT NOT NULL, bundle INTEGER NOT NULL, oldest TEXT NOT NULL, PRIMARY KEY (capability, bundle)
) WITHOUT ROWID;
CREATE INDEX kept_by_age ON kept (capability, oldest);

-- Requests to erase, by their entry, and the entry of the receipt once there is one.
CREATE TABLE erasures (sequence INTEGER PRIMARY KEY, id TEXT NOT NULL, receipt INTEGER);
CREATE INDEX erasures_pending ON erasures (sequence) WHERE receipt IS NULL;
CREATE INDEX erasures_by_id ON erasures (id);

-- Entries [first, last) of a bundle that the request at `request` lists.
CREATE TABLE erased (
    bundle INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, request INTEGER NOT NULL
);
CREATE INDEX erased_by_bundle ON erased (bundle);

CREATE TABLE rules (
    request INTEGER PRIMARY KEY, capability TEXT NOT NULL, since TEXT NOT NULL, before TEXT NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL
);
CREATE INDEX rules_by_time ON rules (capability, before);

CREATE TABLE archives (
    sequence INTEGER PRIMARY KEY, first INTEGER NOT NULL, size INTEGER NOT NULL, place TEXT NOT NULL,
    remove INTEGER NOT NULL
);
"""

_LISTED_DECISIONS = """
UPDATE decisions SET key = NULL, output = NULL
WHERE sequence >= ? AND sequence < ? AND (key IS NOT NULL OR output IS NOT NULL)
"""
_RULED_DECISIONS = """
UPDATE decisions SET key = NULL, output = NULL
WHERE capability = :capability AND at >= :since AND at < :before AND sequence >= :first AND sequence < :last
AND (key IS NOT NULL OR output IS NOT NULL)
AND (outcome IS NOT 'review' OR EXISTS (
    SELECT 1 FROM resolutions r WHERE r.decision_id = decisions.id AND r.sequence < :request
))
"""
_RULED_OUTCOMES = """
DELETE FROM outcomes
WHERE sequence >= :first AND sequence < :last AND capability = :capability AND at >= :since AND at < :before
"""
_OUTCOMES_OF_KEY = "SELECT sequence FROM outcomes WHERE capability = ? AND key = ?"
_OUTCOMES_OF_DECISION = "SELECT sequence FROM outcomes WHERE decision_id = ?"
_SHADOWS_OF = "SELECT sequence FROM shadows WHERE decision_id = ?"
_RESOLUTIONS_OF = "SELECT sequence FROM resolutions WHERE decision_id = ?"


class ArchiveRow(NamedTuple):
    """An archive that was made of the entries [first, size), and the entry that says so."""

    sequence: int
    first: int
    size: int
    place: str
    remove: bool


class ErasureTables:
    """A part of the index, on its connection."""

    def __init__(self, database: sqlite3.Connection, digests: KeyDigests) -> None:
        self._database = database
        self._digests = digests

    # Within the transaction in which a chunk of the log is indexed.

    def store(self, chunk: Chunk) -> None:
        """Take in what a chunk says; the rows of its entries are stored already."""
        self._database.executemany(
            "INSERT INTO kept VALUES (?, ?, ?)"
            " ON CONFLICT (capability, bundle) DO UPDATE SET oldest = min(oldest, excluded.oldest)",
            [(*place, oldest) for place, oldest in chunk.kept.items()],
        )
        for request in chunk.requests:
            self._store_request(request)
        for receipt in chunk.receipts:
            self._database.execute(
                "UPDATE erasures SET receipt = ? WHERE id = ? AND receipt IS NULL", (receipt.sequence, receipt.request)
            )
        self._database.executemany(
            "INSERT INTO archives VALUES (?, ?, ?, ?, ?)",
            [
                (each.sequence, each.departure.first, each.departure.size, each.departure.place, each.departure.remove)
                for each in chunk.departed
            ],
        )

    def _store_request(self, request: Request) -> None:
        execute, wish, gone = self._database.execute, request.wish, 0
        execute("INSERT INTO erasures VALUES (?, ?, NULL)", (request.sequence, request.id))
        for first, last in wish.entries:
            gone += execute(_LISTED_DECISIONS, (first, last)).rowcount
            gone += execute("DELETE FROM outcomes WHERE sequence >= ? AND sequence < ?", (first, last)).rowcount
            self._database.executemany(
                "INSERT INTO erased VALUES (?, ?, ?, ?)",
                [(bundle, *run, request.sequence) for bundle, run in by_bundle(first, last)],
            )
        if wish.rule is not None:
            rule = wish.rule
            names = {"request": request.sequence, **{name: getattr(rule, name) for name in rule.__struct_fields__}}
            execute("INSERT INTO rules VALUES (:request, :capability, :since, :before, :first, :last)", names)
            gone += execute(_RULED_DECISIONS, names).rowcount
            gone += execute(_RULED_OUTCOMES, names).rowcount
        if gone:
            execute("UPDATE position SET traces = randomblob(16)")

    # What is to be erased for somebody.

    def concerned_by_key(self, capability: str | None, key: str) -> list[int]:
        """The entries with a business key and about decisions with it, ascending: of one capability, or of all."""
        digest = self._digests.of(key)
        found: set[int] = set()
        for name in self._capabilities() if capability is None else [capability]:
            rows = self._database.execute(
                "SELECT sequence, id FROM decisions WHERE capability = ? AND key = ?", (name, digest)
            ).fetchall()
            for sequence, decision_id in rows:
                found.add(sequence)
                found.update(self.about(decision_id))
            found.update(row[0] for row in self._database.execute(_OUTCOMES_OF_KEY, (name, digest)))
        return sorted(found)

    def about(self, decision_id: str) -> list[int]:
        """The entries that name a decision: what was reported of it, what people decided, what shadows would have."""
        rows = self._database.execute(
            f"{_OUTCOMES_OF_DECISION} UNION {_RESOLUTIONS_OF} UNION {_SHADOWS_OF}", (decision_id,) * 3
        ).fetchall()
        return [row[0] for row in rows]

    def waited(self, decision_id: str, request: int) -> bool:
        """Whether a decision left to a person had not been resolved when the entry `request` was recorded."""
        row = self._database.execute(
            "SELECT 1 FROM resolutions WHERE decision_id = ? AND sequence < ?", (decision_id, request)
        ).fetchone()
        return row is None

    def _capabilities(self) -> list[str]:
        return [row[0] for row in self._database.execute("SELECT DISTINCT capability FROM counters")]

    # Requests and their receipts.

    def pending(self) -> list[int]:
        """The requests that have no receipt, oldest first."""
        return [
            row[0] for row in self._database.execute("SELECT sequence FROM erasures WHERE receipt IS NULL ORDER BY 1")
        ]

    def receipt_of(self, request: int) -> int | None:
        """The entry of the receipt for the request at an entry; None while there is none."""
        row = self._database.execute("SELECT receipt FROM erasures WHERE sequence = ?", (request,)).fetchone()
        return None if row is None else row[0]

    def find_request(self, request_id: str) -> int | None:
        """The entry of a request, by its id."""
        row = self._database.execute("SELECT sequence FROM erasures WHERE id = ?", (request_id,)).fetchone()
        return None if row is None else int(row[0])

    def listing(self, sequence: int) -> list[int]:
        """The requests that list an entry, oldest first."""
        rows = self._database.execute(
            "SELECT DISTINCT request FROM erased WHERE bundle = ? AND first <= ? AND last > ? ORDER BY request",
            (sequence // WIDTH, sequence, sequence),
        )
        return [row[0] for row in rows]

    def ruling(self, capability: str, at: str, sequence: int) -> list[int]:
        """The requests with a rule that covers an entry."""
        rows = self._database.execute(
            "SELECT request FROM rules WHERE capability = ? AND before > ? AND since <= ? AND first <= ? AND last > ?"
            " ORDER BY before LIMIT 1",
            (capability, at, at, sequence, sequence),
        )
        return [row[0] for row in rows]

    def listed_in(self, bundle: int) -> list[Run]:
        """The entries of a bundle that any request lists."""
        rows = self._database.execute("SELECT first, last FROM erased WHERE bundle = ?", (bundle,))
        return [(row[0], row[1]) for row in rows]

    def requests_since(self, sequence: int) -> list[int]:
        """The requests at `sequence` and behind it."""
        return [
            row[0]
            for row in self._database.execute(
                "SELECT sequence FROM erasures WHERE sequence >= ? ORDER BY 1", (sequence,)
            )
        ]

    # Where bodies stand, for retention.

    def ruled_until(self, capability: str) -> str:
        """The instant before which rules have seen to a capability; empty when there was none."""
        row = self._database.execute("SELECT max(before) FROM rules WHERE capability = ?", (capability,)).fetchone()
        return row[0] or ""

    def bundles_older(self, capability: str, before: str, *, above: int = -1, limit: int = 256) -> list[int]:
        """Bundles behind `above` whose oldest body of the capability was recorded before an instant, ascending."""
        rows = self._database.execute(
            "SELECT bundle FROM kept WHERE capability = ? AND oldest < ? AND bundle > ? ORDER BY bundle LIMIT ?",
            (capability, before, above, limit),
        )
        return [row[0] for row in rows]

    def window(self, capability: str, since: str, before: str, limit: int) -> tuple[str, int, int] | None:
        """The bundles whose oldest body is from `since` on and before `before`, the oldest `limit` of them.

        Given are the instant before which these are, and the first and the last bundle; None when there is none.
        """
        names = {"capability": capability, "since": since, "before": before, "limit": limit}
        row = self._database.execute(
            "SELECT oldest FROM kept WHERE capability = :capability AND oldest >= :since AND oldest < :before"
            " ORDER BY oldest LIMIT 1 OFFSET :limit",
            names,
        ).fetchone()
        if row is not None and row[0] > since:
            names["before"] = row[0]
        first, last = self._database.execute(
            "SELECT min(bundle), max(bundle) FROM kept"
            " WHERE capability = :capability AND oldest >= :since AND oldest < :before",
            names,
        ).fetchone()
        return None if first is None else (str(names["before"]), first, last)

    def set_kept(self, capability: str, bundle: int, oldest: str | None) -> None:
        """Say anew when the oldest body of a capability in a bundle was recorded; None where there is none."""
        if oldest is None:
            self._database.execute("DELETE FROM kept WHERE capability = ? AND bundle = ?", (capability, bundle))
        else:
            self._database.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", (capability, bundle, oldest))

    # Segments and archives.

    def sealed_from(self, segment: str) -> list[Run]:
        """The entries of the log that were sealed from a segment."""
        rows = self._database.execute(
            "SELECT first_sequence, first_sequence + entries FROM runs WHERE segment = ? ORDER BY 1", (segment,)
        )
        return [(row[0], row[1]) for row in rows]

    def counters_from(self, segment: str, first: int, last: int) -> list[Run]:
        """The counters within a segment of those of the entries [first, last) that were sealed from it."""
        rows = self._database.execute(
            "SELECT max(first_sequence, :first) - first_sequence + first_counter,"
            " min(first_sequence + entries, :last) - first_sequence + first_counter FROM runs"
            " WHERE segment = :segment AND first_sequence < :last AND first_sequence + entries > :first",
            {"segment": segment, "first": first, "last": last},
        )
        return [(row[0], row[1]) for row in rows]

    def archives(self) -> list[ArchiveRow]:
        """Every archive that was made, oldest first."""
        rows = self._database.execute("SELECT sequence, first, size, place, remove FROM archives ORDER BY sequence")
        return [ArchiveRow(row[0], row[1], row[2], row[3], bool(row[4])) for row in rows]

    def first_waiting(self, before: int) -> tuple[int, str] | None:
        """The first decision that waits for a person among the entries below `before`: its place and its id."""
        row = self._database.execute(
            "SELECT sequence, id FROM waiting WHERE sequence < ? ORDER BY sequence LIMIT 1", (before,)
        ).fetchone()
        return None if row is None else (row[0], row[1])


def by_bundle(first: int, last: int) -> Iterator[tuple[int, Run]]:
    """The entries [first, last), cut where bundles end: the bundle and the part of it."""
    while first < last:
        bundle = first // WIDTH
        end = min(last, (bundle + 1) * WIDTH)
        yield bundle, (first, end)
        first = end


def overlap(runs: Iterable[Run], others: Iterable[Run]) -> bool:
    """Whether two ascending lists of runs have an entry in common."""
    rest = iter(others)
    other = next(rest, None)
    for first, last in runs:
        while other is not None and other[1] <= first:
            other = next(rest, None)
        if other is not None and other[0] < last:
            return True
    return False
