"""Archives: whole bundles of entries from the beginning of the log, copied with all it takes to verify them elsewhere.

1. The hash tiles, entries and bodies are copied. Bodies may be erased meanwhile.
2. What has been asked to be erased since is carried out in the copy too, and the requests behind the copy's end go with
   it, with their proofs. Then the archive is signed: from here on it is one.
3. All of it is read again and verified.
4. An entry of the log says where it is; where the entries are to leave the ledger, that entry is what they leave by.

Killed anywhere, the same command begins again at 1, or finds the archive whole and goes on at 2.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from mainstay.errors import Failed, Misuse
from mainstay.files import write_atomic
from mainstay.ledger.archive_files import (
    ERASURES_FILE,
    MANIFEST_FILE,
    Manifest,
    is_archive,
    read_manifest,
    write_erasures,
    write_manifest,
)
from mainstay.ledger.archives import Archived, archived_until, load_archives
from mainstay.ledger.bodies import BATCH_FILES, BodiesBatch, read_bundle
from mainstay.ledger.change import Change, record_change
from mainstay.ledger.entry import read_leaf
from mainstay.ledger.eraser import LOCK_FILE, bundles_of, chosen_in
from mainstay.ledger.erasure_entries import ARCHIVED, Departure, read_departed, read_request
from mainstay.ledger.index import Index
from mainstay.ledger.index_erasures import overlap
from mainstay.ledger.log import Log, archived_entries
from mainstay.ledger.merkle import HASH_BYTES, tree_root
from mainstay.ledger.note import Checkpoint, sign_checkpoint
from mainstay.ledger.reading import open_regular
from mainstay.ledger.recovery import now
from mainstay.ledger.state import CHECKPOINT_FILE
from mainstay.ledger.steward import WAIT_SECONDS
from mainstay.ledger.tiles import (
    BODIES,
    ENTRIES,
    MAX_LEVEL,
    WIDTH,
    WIDTH_BITS,
    FileBatch,
    TileName,
    hashes_of,
    read_hashes,
)
from mainstay.ledger.verify import verify_ledger
from mainstay.locks import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mainstay.ledger.entry import Entry
    from mainstay.ledger.erasure_entries import Request
    from mainstay.ledger.steward import Hand
    from mainstay.ledger.verify import Report
    from mainstay.signing import SigningKey
    from mainstay.workspace import Workspace

ARCHIVE_UPDATED = "archive.updated"  # the action of a change: what was erased in the ledger was erased in an archive
_CHUNK_BYTES = 4 << 20


class Made(NamedTuple):
    """An archive, made, verified and recorded."""

    entry: str  # the id of the entry that says so
    departure: Departure
    report: Report


class Updated(NamedTuple):
    """An archive in which what was erased since is erased too."""

    entry: str
    bodies: int  # emptied now
    manifest: Manifest
    report: Report


class Archivist:
    """Makes archives of the ledger of a workspace, and keeps them as erased as it is."""

    def __init__(self, workspace: Workspace, key: SigningKey, hand: Hand, principal: str) -> None:
        self._workspace = workspace
        self._ledger = workspace.ledger
        self._key = key
        self._hand = hand
        self._principal = principal
        self._log = Log(workspace.ledger)

    def make(
        self,
        directory: Path,
        *,
        before: str | None = None,
        entries: int | None = None,
        remove: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Made:
        """Archive whole bundles of entries into a directory, record it, and with `remove` let them leave the ledger.

        They begin with the first entry that has not left and reach to the first bundle that ends at the instant
        `before` (as leaves write it) or later, to entry `entries`, or to the last whole bundle. A directory that holds
        what a killed archivist left is gone on with.

        Raises Misuse when there is no whole bundle, the directory holds anything else, or an entry that is to leave
        waits for a person; Failed when the copy does not verify, or the entries are not gone within WAIT_SECONDS.
        """
        place = _place(directory)
        self._hand.settle()
        if is_archive(directory):
            manifest = self._continue(directory)
        else:
            first, size = self._choose(before, entries)
            self._check_waiting(size, remove=remove)
            _check_empty(directory, self._ledger)
            manifest = self._copy(directory, first, size, progress)
        report = self._verified(directory, manifest, progress)
        departure = Departure(
            first=manifest.first,
            size=manifest.size,
            head=manifest.head,
            place=place,
            remove=remove,
            earlier=tuple(each for each in load_archives(self._ledger) if each.size <= manifest.first),
        )
        entry, departure = self._recorded(departure)
        while entry is None:
            with locked(self._workspace.data / LOCK_FILE):
                if not self._erase(directory, manifest):
                    self._check_waiting(manifest.size, remove=remove)
                    entry = self._record(departure)
            report = self._verified(directory, manifest, progress) if entry is None else report
        if departure.remove and not self._hand.until(lambda: self._has_left(manifest.size)):
            raise Failed(
                f"archived and recorded as {entry}, and still here after {WAIT_SECONDS:g} s: {self._hand.held_by()}",
                hint="Nothing need be done again: whoever seals removes them.",
            )
        return Made(entry, departure, report)

    def _choose(self, before: str | None, entries: int | None) -> tuple[int, int]:
        """The entries to be archived, [first, size)."""
        first, size = archived_until(self._ledger), self._log.size // WIDTH * WIDTH
        if entries is not None:
            size = min(size, entries // WIDTH * WIDTH)
        elif before is not None:
            size = self._first_bundle_from(before, first // WIDTH, size // WIDTH) * WIDTH
        if size <= first:
            raise Misuse(
                f"nothing to archive: expected at least one whole bundle of {WIDTH} entries behind the {first:,} that"
                " have left, found none",
                hint="Entries are archived in whole bundles, once they are sealed.",
            )
        return first, size

    def _record(self, departure: Departure) -> str:
        leave = ", to leave the ledger" if departure.remove else ""
        change = Change(
            action=ARCHIVED,
            subject=f"{departure.first}-{departure.size - 1}",
            principal=self._principal,
            reason=f"entries {departure.first:,} to {departure.size - 1:,} archived{leave}",
            details=departure,
        )
        return record_change(self._ledger, change)

    def _recorded(self, departure: Departure) -> tuple[str | None, Departure]:
        """The id of the entry that says so already, or even that the entries leave, and what it says; else None."""
        with Index(self._ledger) as index:
            index.catch_up(self._log)
            rows = index.erasures.archives()
        for row in rows:
            found = read_departed(self._entry(row.sequence), row.sequence)
            leaving = msgspec.structs.replace(departure, remove=True)
            if found is not None and found.departure in {departure, leaving}:
                return found.id, found.departure
        return None, departure

    def _first_bundle_from(self, before: str, low: int, high: int) -> int:
        """The first of the bundles [low, high) whose last entry is not before an instant. They are in time's order."""
        while low < high:
            middle = (low + high) // 2
            last = (middle + 1) * WIDTH - 1
            leaf = read_leaf(next(self._log.leaves(last, last + 1)))
            if leaf is not None and leaf.at < before:
                low = middle + 1
            else:
                high = middle
        return low

    def _check_waiting(self, size: int, *, remove: bool) -> None:
        with Index(self._ledger) as index:
            index.catch_up(self._log)
            waiting = index.erasures.first_waiting(size)
        if remove and waiting is not None:
            raise Misuse(
                f"entry {waiting[0]:,} waits for a person and cannot leave: {waiting[1]}",
                hint=f"Resolve it, or archive what is before it: --entries {waiting[0] // WIDTH * WIDTH}",
            )

    def _continue(self, directory: Path) -> Manifest:
        """What a directory holds already, where it is of this log."""
        manifest = read_manifest(directory, self._key.verifier)
        here = self._log.size
        if (
            manifest.log != self._workspace.settings.log
            or manifest.size > here
            or manifest.head != tree_root(manifest.size, self._log.node(here)).hex()
        ):
            raise Misuse(
                f"{directory} is an archive of {manifest.log[:200]}: expected one of this log, or none",
                hint="Name another directory.",
            )
        return manifest

    def _has_left(self, size: int) -> bool:
        last = TileName(ENTRIES, size // WIDTH - 1)
        return archived_until(self._ledger) >= size and not (self._ledger / last.path).exists()

    def update(self, directory: Path, progress: Callable[[int, int], None] | None = None) -> Updated:
        """Erase in an archive what has been erased in the ledger, verify it, and record that.

        Raises Misuse when it is no archive of this log, Failed when it does not verify then.
        """
        if not is_archive(directory):
            raise Misuse(f"{directory}: expected an archive, found no {MANIFEST_FILE}")
        self._hand.settle()
        manifest = self._continue(directory)
        with locked(self._workspace.data / LOCK_FILE):
            bodies = self._erase(directory, manifest)
        report = self._verified(directory, manifest, progress)
        change = Change(
            action=ARCHIVE_UPDATED,
            subject=f"{manifest.first}-{manifest.size - 1}",
            principal=self._principal,
            reason="what was erased in the ledger is erased in the archive",
            details={"place": _place(directory), "bodies": bodies},
        )
        return Updated(record_change(self._ledger, change), bodies, manifest, report)

    # 1. The copy.

    def _copy(self, directory: Path, first: int, size: int, progress: Callable[[int, int], None] | None) -> Manifest:
        here = self._log.size
        batch = FileBatch()
        try:
            for name in _hash_tiles(size):
                level = int(name.folder.rpartition("/")[2])
                hashes = read_hashes(self._ledger, level, name.number, here)
                batch.write(directory / name.path, hashes[: name.width * HASH_BYTES])
            for number in range(first // WIDTH, size // WIDTH):
                for folder in (ENTRIES, BODIES):
                    self._copy_file(TileName(folder, number), directory, batch)
                if progress is not None:
                    progress((number + 1) * WIDTH - first, size - first)
            batch.sync()
        finally:
            batch.abandon()
        head = tree_root(size, self._log.node(here))
        origin = self._workspace.settings.log
        write_atomic(directory / CHECKPOINT_FILE, sign_checkpoint(Checkpoint(origin, size, head), self._key))
        manifest = Manifest(
            format="mainstay-archive/1", log=origin, first=first, size=size, head=head.hex(), made_at=now()
        )
        with locked(self._workspace.data / LOCK_FILE):
            self._erase(directory, manifest)
            write_manifest(directory, manifest, self._key)
        return manifest

    def _copy_file(self, name: TileName, directory: Path, batch: FileBatch) -> None:
        descriptor = open_regular(self._ledger / name.path)  # one file to the end, though it may be replaced meanwhile
        try:
            at = 0
            while (content := os.pread(descriptor, _CHUNK_BYTES, at)) or not at:
                batch.write(directory / name.path, content, offset=at)
                at += len(content)
        finally:
            os.close(descriptor)

    # 2. What has been erased.

    def _erase(self, directory: Path, manifest: Manifest) -> int:
        """Carry out in the archive what was asked for; how many bodies were emptied by that.

        The requests go with it first, so that no body of it is ever empty on nobody's word.
        """
        emptied = 0
        for path in directory.glob(".*.tmp"):  # what a killed archivist left may hold bodies
            path.unlink()
        with Index(self._ledger) as index:
            index.catch_up(self._log)
            about = [
                request
                for sequence in index.erasures.requests_since(0)
                if (request := self._request(sequence)) is not None
                and overlap(request.wish.runs, [(manifest.first, manifest.size)])
            ]
            behind = [request.sequence for request in about if request.sequence >= manifest.size]
            if behind:
                entries = ((sequence, self._entry(sequence)) for sequence in behind)
                write_erasures(directory, self._log, manifest.size, entries)
            for request in about:
                emptied += _empty(directory, manifest, index, request)
        return emptied

    def _request(self, sequence: int) -> Request | None:
        return read_request(self._entry(sequence), sequence)

    def _entry(self, sequence: int) -> Entry:
        """An entry, from the archive it left with where it is not here."""
        try:
            return self._log.entry(sequence)
        except Archived as error:
            return next(archived_entries(self._log, error.gone, (), sequence, sequence + 1))

    # 3. Is it whole?

    def _verified(self, directory: Path, manifest: Manifest, progress: Callable[[int, int], None] | None) -> Report:
        report = verify_ledger(directory, self._key.verifier, origin=self._workspace.settings.log, progress=progress)
        if not report.ok or (report.size, report.archive) != (manifest.size, manifest):
            what = report.findings[0] if report.findings else f"found {report.size} entries"
            raise Failed(
                f"{directory} does not verify: {what}",
                hint="Nothing was recorded or removed. Verify the ledger, and archive into another directory.",
            )
        return report


def _place(directory: Path) -> str:
    """Where an archive stands, for the record."""
    place = str(directory.resolve())
    try:
        place.encode()
    except UnicodeEncodeError:
        raise Misuse(f"{directory!a}: expected a path in UTF-8") from None
    return place


def _hash_tiles(size: int) -> Iterator[TileName]:
    """The hash tiles of a log of `size` entries."""
    for level in range(MAX_LEVEL + 1):
        hashes = size >> (WIDTH_BITS * level)
        for number in range(hashes // WIDTH):
            yield TileName(hashes_of(level), number)
        if hashes % WIDTH:
            yield TileName(hashes_of(level), hashes // WIDTH, hashes % WIDTH)


def _empty(directory: Path, manifest: Manifest, index: Index, request: Request) -> int:
    """Empty in an archive the bodies that a request is about; how many were not."""
    emptied = 0
    batch = BodiesBatch(directory)
    capability = None if request.wish.rule is None else request.wish.rule.capability
    try:
        for number in bundles_of(request.wish):
            if not manifest.first <= number * WIDTH < manifest.size:
                continue
            bundle = read_bundle(directory, number, manifest.size, capability)
            chosen = 0 if bundle is None else chosen_in(index, request, bundle)
            if bundle is not None and chosen & bundle.full:
                batch.empty(number, bundle.places, chosen)
                emptied += (chosen & bundle.full).bit_count()
            if len(batch) >= BATCH_FILES:
                batch.put_in_place()
        batch.put_in_place()
    finally:
        batch.abandon()
    return emptied


def _check_empty(directory: Path, ledger_dir: Path) -> None:
    """Raises Misuse unless a directory is absent, empty, or holds what a killed archivist left."""
    if directory.resolve().is_relative_to(ledger_dir.resolve()):
        raise Misuse(f"{directory} is inside the ledger: expected another place")
    own = {"tile", BODIES, CHECKPOINT_FILE, ERASURES_FILE}
    try:
        others = sorted(each.name for each in os.scandir(directory) if each.name not in own)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise Misuse(f"{directory}: expected a directory, found something else") from None
    others = [name for name in others if not (name.startswith(".") and name.endswith(".tmp"))]
    if others:
        raise Misuse(
            f"{directory}: expected an empty directory, or none, found {', '.join(others[:5])}",
            hint="Name another directory.",
        )
