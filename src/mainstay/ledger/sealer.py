"""The sealer: moves what is durable in write-ahead segments into the one Merkle log, exactly once.

It may be killed at any instant. Per segment, the state holds how far it is sealed, and is replaced in the same step
in which the log grows; a segment is deleted only after that.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Self

from mainstay.errors import Misuse
from mainstay.files import sync_directory
from mainstay.ledger.state import DAMAGED_FOLDER, LOCK_FILE, WAL_FOLDER, Progress, segment_path
from mainstay.ledger.tiles import make_directories
from mainstay.ledger.wal import SUFFIX, End, SegmentReader, is_live, segments
from mainstay.ledger.writer import LogWriter

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.ledger.entry import Entry
    from mainstay.signing import SigningKey

logger = logging.getLogger("mainstay.ledger")

BATCH_ENTRIES = 16_384  # what is sealed in one step, so that memory stays flat
BATCH_BYTES = 16 << 20


class Place(NamedTuple):
    """Where a segment stops being whole."""

    segment: str
    offset: int  # bytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """What one pass did."""

    entries: int  # sealed now
    size: int  # entries in the log
    finished: int  # segments sealed to their end and deleted
    torn: tuple[Place, ...]  # tails of writers that died; nobody was told of what they held
    damaged: tuple[Place, ...]  # entries from here on could not be read: evidence was lost or changed


@dataclass(slots=True)
class _Pass:
    """One pass, under way."""

    segments: dict[str, Progress]
    batch: list[Entry] = field(default_factory=list)
    batch_bytes: int = 0
    changed: bool = False  # since the state was last saved
    entries: int = 0
    finished: list[Path] = field(default_factory=list)
    aside: list[Path] = field(default_factory=list)
    torn: list[Place] = field(default_factory=list)
    damaged: list[Place] = field(default_factory=list)


class Sealer:
    """Seals the ledger in `ledger_dir`, holding its lock until closed."""

    def __init__(self, ledger_dir: Path, key: SigningKey, origin: str) -> None:
        """Raises Misuse when another sealer is at work, Damaged when the log is not as it was written."""
        self._root = ledger_dir
        self._key = key
        self._origin = origin
        self._loud: set[str] = set()  # damaged segments already logged
        make_directories(ledger_dir)
        self._lock = os.open(ledger_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        if not _take(self._lock):
            os.close(self._lock)
            raise Misuse(
                f"{ledger_dir} is being sealed by another process: expected to be the only one",
                hint="`mainstay up` seals by itself; stop the other process first.",
            )
        try:
            self._writer: LogWriter | None = LogWriter(ledger_dir, key, origin)
        except BaseException:  # whatever it was, the lock must not outlive it
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Let go of the lock."""
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reopen(self) -> None:
        """Say that the holder of this lock is about to change files of the log; the next pass reads them again."""
        self._writer = None

    def seal_once(self) -> Sealed:
        """Seal all that is durable now.

        Raises OSError when the disk fails and Damaged when the log is not as it was written; what was sealed before
        that stays sealed, and the next call begins from there.
        """
        writer = self._writer or LogWriter(self._root, self._key, self._origin)
        self._writer = None  # an exception anywhere below leaves memory and disk apart: then recover
        sealed = self._seal(writer)
        self._writer = writer
        return sealed

    def _seal(self, writer: LogWriter) -> Sealed:
        paths = segments(self._root / WAL_FOLDER)
        known = writer.state.segments
        work = _Pass({path.stem: known[path.stem] for path in paths if path.stem in known})
        work.damaged += self._missing(known)
        work.changed = bool(work.damaged)  # said once: the state is saved without them
        for path in paths:
            if path.stem in work.segments and work.segments[path.stem].finished:
                work.finished.append(path)  # killed before it was deleted
            else:
                self._read(path, work, writer)
        if work.changed:
            _flush(work, writer)
        if work.finished:
            for path in work.finished:
                path.unlink()
            sync_directory(self._root / WAL_FOLDER)  # gone for good before the state forgets that they were sealed
        if work.aside:
            self._set_aside(work.aside)
        return Sealed(work.entries, writer.state.size, len(work.finished), tuple(work.torn), tuple(work.damaged))

    def _missing(self, known: dict[str, Progress]) -> list[Place]:
        """Segments that were not sealed to their end and are gone; nobody but the sealer may delete one."""
        missing = []
        for segment, progress in known.items():
            aside = self._root / DAMAGED_FOLDER / (segment + SUFFIX)
            if not progress.finished and not segment_path(self._root, segment).exists() and not aside.exists():
                logger.error("segment gone before it was sealed: segment=%s offset=%d", segment, progress.offset)
                missing.append(Place(segment, progress.offset))
        return missing

    def _read(self, path: Path, work: _Pass, writer: LogWriter) -> None:
        live = is_live(path)  # asked first: what a writer that is dead now has written is all there
        before = work.segments.get(path.stem, Progress(0, 0))
        entries = before.entries
        reader = SegmentReader(path, before.offset)
        for group in reader.groups():
            work.batch += group.entries
            work.batch_bytes += group.end - before.offset
            entries += len(group.entries)
            before = Progress(group.end, entries)
            work.segments[path.stem] = before
            work.changed = True
            if len(work.batch) >= BATCH_ENTRIES or work.batch_bytes >= BATCH_BYTES:
                _flush(work, writer)
        place = Place(path.stem, reader.offset)
        if reader.end is End.DAMAGED or (reader.end is End.BROKEN and not live):
            self._report_damage(place, live=live)
            work.damaged.append(place)
            if not live:
                work.aside.append(path)
        elif reader.end is End.CLOSED or not live:
            if reader.end is End.TORN:
                logger.warning("torn tail of a writer that died: segment=%s offset=%d", *place)
                work.torn.append(place)
            work.segments[path.stem] = Progress(reader.offset, entries, finished=True)
            work.changed = True
            work.finished.append(path)

    def _report_damage(self, place: Place, *, live: bool) -> None:
        if place.segment not in self._loud:
            self._loud.add(place.segment)
            logger.error(
                "damaged segment: entries from here on are not sealed: segment=%s offset=%d live=%s", *place, live
            )

    def _set_aside(self, paths: list[Path]) -> None:
        folder = self._root / DAMAGED_FOLDER
        make_directories(folder)
        for path in paths:
            path.rename(folder / path.name)
        sync_directory(folder)
        sync_directory(self._root / WAL_FOLDER)


def _flush(work: _Pass, writer: LogWriter) -> None:
    writer.append(work.batch, dict(work.segments))
    work.entries += len(work.batch)
    work.batch.clear()
    work.batch_bytes = 0
    work.changed = False


def _take(lock: int) -> bool:
    """Take the sealer's lock, if nobody keeps it: who only asks whether a sealer is at work holds it for an instant."""
    for wait_seconds in (0.01, 0.05, 0.2, None):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if wait_seconds is not None:
                time.sleep(wait_seconds)
        else:
            return True
    return False


def is_sealing(ledger_dir: Path) -> bool:
    """Whether a sealer is at work on the ledger in `ledger_dir`."""
    try:
        descriptor = os.open(ledger_dir / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
