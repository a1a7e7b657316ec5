"""A workspace in which persons are decided about, so that they can be forgotten."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from ledger.samples import Writer, make_entry
from mainstay.cli.init import create_workspace
from mainstay.ledger.change import Change, record_change
from mainstay.ledger.erasure import ErasureDesk, Sought
from mainstay.ledger.erasure_entries import COMPLETED
from mainstay.ledger.index import Index
from mainstay.ledger.log import Log
from mainstay.ledger.review_entries import RESOLVED
from mainstay.ledger.sealer import Sealer
from mainstay.ledger.steward import Hand, Steward
from mainstay.ledger.verify import Report, verify_ledger
from mainstay.signing import load_signing_key

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.ledger.entry import Entry
    from mainstay.ledger.erasure import Carried
    from mainstay.ledger.retention import Declared
    from mainstay.workspace import Workspace

NAME = "late-arrival"
LOG = "tests.example.com/persons"


class Persons:
    """Records what concerns persons, each known by a business key; their data says `secret of` its number."""

    def __init__(self, directory: Path, workspace: Workspace | None = None) -> None:
        self.workspace = workspace or create_workspace(directory, LOG)[0]
        self.ledger = self.workspace.ledger
        self.key = load_signing_key(self.workspace.keys, None)
        self.writer = Writer(self.ledger)
        self._pending: list[Entry] = []  # written in one group: a disk is slow

    @property
    def log(self) -> Log:
        return Log(self.ledger)

    def decide(self, key: str | None = None, **fields: Any) -> str:
        secret = secret_of(key)
        body = {"key": key, "input": {"name": secret}, "output": {"said": secret}, "confidence": None}
        return self._add(body=body, **fields)

    def report(self, key: str, *, decision_id: str | None = None, **fields: Any) -> None:
        named = None if decision_id else key
        outcome = {"late": True, "said": secret_of(key)}
        body = {"decision_id": decision_id, "key": named, "outcome": outcome, "observed_at": "2026-01-02T00:00:00Z"}
        self._add(kind="outcome", body=body, **fields)

    def shadow(self, decision_id: str, key: str, **fields: Any) -> None:
        """What a shadow would have decided instead."""
        body = {
            "output": {"said": secret_of(key)},
            "confidence": None,
            "novelty": None,
            "seconds": 0.5,
            "details": None,
        }
        self._add(kind="shadow", body=body, **{"decision_id": decision_id, "outcome": "review", **fields})

    def resolve(self, decision_id: str, key: str, *, capability: str = NAME, **fields: Any) -> None:
        details = {"capability": capability, "verdict": "changed", "output": {"p": secret_of(key)}, "revises": None}
        body = {"reason": secret_of(key), "details": details}
        self._add(kind="change", body=body, action=RESOLVED, subject=decision_id, **fields)

    def _add(self, **fields: Any) -> str:
        entry_id = self.writer.next_id()
        entry = make_entry(entry_id, **fields)
        self.writer.entries.append(entry)
        self._pending.append(entry)
        return entry_id

    def flush(self) -> None:
        """All that was said until now is durable."""
        if self._pending:
            self.writer.append_entries(self._pending)
            self._pending = []

    def fill(self, count: int = 40, **fields: Any) -> list[str]:
        """Decisions about ten persons, with what was reported, decided, and would have been, of some of them."""
        ids = []
        for place in range(count):
            key = f"K-{place % 10}"
            ids.append(self.decide(key, outcome="review" if place % 4 == 1 else "answered", **fields))
            if place % 3 == 0:
                self.report(key, decision_id=ids[-1], **fields)
            if place % 5 == 0:
                self.report(key, **fields)
            if place % 2 == 0:
                self.shadow(ids[-1], key, **fields)
            if place % 8 == 1:
                self.resolve(ids[-1], key, **fields)
        return ids

    def change(self) -> str:
        change = Change(action="release.published", subject="x", principal="os:ops", reason="r", details={})
        return record_change(self.ledger, change)

    def leave_segment(self) -> None:
        """What was recorded stands in a segment of its own, that its writer has left."""
        self.flush()
        self.writer.segment.close()
        self.writer = Writer(self.ledger)

    def seal(self) -> None:
        self.flush()
        with Sealer(self.ledger, self.key, self.workspace.settings.log) as sealer, Index(self.ledger) as index:
            sealer.seal_once()
            index.catch_up(self.log)

    def hand(self) -> Hand:
        return Hand(self.workspace, self.key, "os:ops")

    def desk(self) -> ErasureDesk:
        return ErasureDesk(self.workspace, self.hand(), "os:ops")

    def request(self, key: str | None = None, *, decision_id: str | None = None) -> list[str]:
        """Ask for a person to be forgotten; nothing is carried out."""
        self.leave_segment()
        self.seal()
        return self.desk().request(sought(key, decision_id), "request 2026-118")

    def erase(self, key: str | None = None, *, decision_id: str | None = None) -> list[Carried]:
        ids = self.request(key, decision_id=decision_id)
        return self.desk().carry_out(ids)

    def turns(self, declared: Declared | None = None) -> None:
        """What a control process does, until there is nothing more to do."""
        with Sealer(self.ledger, self.key, self.workspace.settings.log) as sealer, Index(self.ledger) as index:
            steward = Steward(self.workspace, sealer, index, "control", declared)
            more = True
            while more:
                sealer.seal_once()
                index.catch_up(self.log)
                more = steward.turn()

    def verify(self) -> Report:
        return verify_ledger(self.ledger, self.key.verifier)

    def bodies(self) -> list[bytes]:
        log = self.log
        return [entry.body for entry in log.entries(0, log.size)]

    def receipts(self) -> list[bytes]:
        """The leaves of all receipts."""
        return [leaf for leaf in self.log.leaves(0, self.log.size) if COMPLETED.encode() in leaf]

    def files_with(self, text: str) -> list[str]:
        """The files of the workspace in which a text stands."""
        paths = (path for path in self.workspace.root.rglob("*") if path.is_file())
        return sorted(path.name for path in paths if text.encode() in path.read_bytes())

    def index_content(self) -> dict[str, list[tuple[Any, ...]]]:
        """All that the index holds, in order."""
        with Index(self.ledger) as index:
            index.catch_up(self.log)
        database = sqlite3.connect(self.ledger / "index.db")
        try:
            names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            content = {
                name: sorted(database.execute(f"SELECT * FROM {name}"), key=repr)  # noqa: S608 - a name of our schema
                for name in names
            }
        finally:
            database.close()
        content["runs"] = _joined(sorted(content["runs"]))
        return content


def _joined(runs: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Runs of ids as one, where one goes on with the other: where a chunk of the log ended does not matter."""
    joined: list[tuple[Any, ...]] = []
    for sequence, segment, counter, entries in runs:
        last = joined[-1] if joined else None
        if last and (last[0] + last[3], last[1], last[2] + last[3]) == (sequence, segment, counter):
            joined[-1] = (*last[:3], last[3] + entries)
        else:
            joined.append((sequence, segment, counter, entries))
    return joined


def sought(key: str | None, decision_id: str | None = None, capability: str | None = NAME) -> Sought:
    return Sought(capability, key, decision_id, None if key is None else "pseudonym:0123")


def secret_of(key: str | None) -> str:
    """What is recorded of a person, in which the key does not stand."""
    return f"secret of {(key or '').removeprefix('K-')}."
