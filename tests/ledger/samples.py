"""Ledgers for tests: entries of every kind, segments that end in every way."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mainstay.ledger.entry import SALT_BYTES, Entry, commitment, format_id
from mainstay.ledger.log import Log
from mainstay.ledger.sealer import Sealed, Sealer
from mainstay.ledger.verify import Report, verify_ledger
from mainstay.ledger.wal import Segment, frame_entry
from mainstay.signing import SigningKey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

ORIGIN = "log.example.com/lending"
KEY = SigningKey(ORIGIN, Ed25519PrivateKey.from_private_bytes(sha256(b"a key for tests").digest()))
MILLISECONDS = 1_767_225_600_000


def make_entry(entry_id: str, kind: str = "decision", body: Any = None, **fields: Any) -> Entry:
    """An entry with the leaf fields its kind has, any of them replaced by `fields`."""
    content = msgspec.json.encode(body if body is not None else {"key": None, "output": {"p": 0.5}, "note": entry_id})
    salt = sha256(entry_id.encode()).digest()[:SALT_BYTES]
    leaf: dict[str, Any] = {"kind": kind, "id": entry_id, "at": "2026-01-01T00:00:00.000000Z"}
    if kind != "change":
        leaf["capability"] = "late-arrival"
    if kind == "decision":
        leaf |= {"version": "sha256:v1", "release": 1, "stage": "production", "outcome": "answered", "reasons": []}
    leaf |= {"principal": "ops", **fields, "body": commitment(salt, content)}
    return Entry(msgspec.json.encode(leaf), salt, content)


class Writer:
    """Writes a segment, giving each entry the id of its place."""

    def __init__(self, ledger: Path) -> None:
        self.segment = Segment(ledger / "wal")
        self.entries: list[Entry] = []

    def next_id(self) -> str:
        counter = len(self.entries)
        return format_id(self.segment.name, counter, MILLISECONDS + counter)

    def append(self, count: int = 1, **fields: Any) -> list[Entry]:
        """One group of `count` entries."""
        entries = []
        for _ in range(count):
            entries.append(make_entry(self.next_id(), **fields))
            self.entries.append(entries[-1])
        self.append_entries(entries)
        return entries

    def append_entries(self, entries: Sequence[Entry]) -> None:
        self.segment.append([frame_entry(*entry) for entry in entries], len(entries))


def write_segment(ledger: Path, count: int, *, group: int = 50, close: bool = True) -> list[Entry]:
    """A whole segment; its writer has stopped in good order, or was killed."""
    writer = Writer(ledger)
    for begin in range(0, count, group):
        writer.append(min(group, count - begin))
    if close:
        writer.segment.close()
    else:
        writer.segment.abandon()
    return writer.entries


def seal(ledger: Path) -> Sealed:
    with Sealer(ledger, KEY, ORIGIN) as sealer:
        return sealer.seal_once()


def check(ledger: Path, **options: Any) -> Report:
    return verify_ledger(ledger, KEY.verifier, **options)


def sealed_leaves(ledger: Path) -> list[bytes]:
    log = Log(ledger)
    return list(log.leaves(0, log.size))


def fork(run: Callable[[], object]) -> int:
    """Run something in a child process; its process id."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        run()
        status = 0
    except BaseException:  # noqa: BLE001 - a child must not fall back into pytest, whatever happened
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def die_at(step: int) -> None:
    """From now on, end this process in front of its `step`th call that opens, changes or syncs something."""
    left = [step]

    def counted(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: object, **options: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        setattr(os, name, call)

    for name in ("open", "write", "fsync", "link", "unlink", "mkdir", "rename", "replace"):
        counted(name)


def reap(child: int) -> bool:
    """Wait for a child; whether it ended by itself, in order. Fails when it failed; False when it was killed."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True
