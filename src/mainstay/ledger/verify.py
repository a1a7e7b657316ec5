"""Verifying a ledger: everything is read again and held against the signed head of the log."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mainstay.errors import Damaged
from mainstay.ledger.anchored import Against, Coverage, Ledger, NoteSource, check_anchors
from mainstay.ledger.archive_files import Manifest, is_archive
from mainstay.ledger.archivecheck import Around, look_around, proven_erasures
from mainstay.ledger.entry import EntryId, read_id
from mainstay.ledger.erasedcheck import ErasedCheck, Trusted
from mainstay.ledger.filescheck import FilesCheck
from mainstay.ledger.findings import Enough, Finding, Findings, TornTail
from mainstay.ledger.merkle import EMPTY_ROOT
from mainstay.ledger.note import MAX_NOTE_BYTES, Checkpoint, verify_checkpoint
from mainstay.ledger.reading import read_regular
from mainstay.ledger.segmentcheck import SegmentsCheck
from mainstay.ledger.state import (
    CHECKPOINT_FILE,
    MAX_STATE_BYTES,
    STATE_FILE,
    WAL_FOLDER,
    State,
    decode_state,
    segment_path,
)
from mainstay.ledger.tiles import BODIES, ENTRIES, WIDTH, TileName, split_leaves
from mainstay.ledger.treecheck import TreeCheck, read_file
from mainstay.ledger.wal import SegmentReader, segments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from mainstay.ledger.archives import Gone
    from mainstay.signing import Verifier

_SETTLE_SECONDS = 0.5  # how long to wait for the checkpoint of a state just saved


@dataclass(slots=True)
class Report:
    """The result of verifying. Only findings are bad; the rest says what there is."""

    ok: bool = True
    size: int = 0  # entries under the checkpoint
    checkpoint_at: str | None = None  # when it was signed, as far as the sealer's state says; RFC 3339
    kinds: dict[str, int] = field(default_factory=dict)  # entries by kind
    unsealed: int = 0  # durable entries that the checkpoint does not cover yet
    torn: list[TornTail] = field(default_factory=list)
    killed: int = 0  # segments whose writers are gone and did not mark their end
    erased: int = 0  # bodies that are gone, each on the word of an entry
    gone: list[Gone] = field(default_factory=list)  # archives that entries left with; only their hashes are here
    archive: Manifest | None = None  # what the directory is, where it is an archive
    unreferenced: int = 0  # files the checkpoint does not need: a sealer is writing them, or was killed doing so
    findings: list[Finding] = field(default_factory=list)
    complete: bool = True  # False when there were too many findings to go on
    coverage: Coverage | None = None  # what is anchored; None when the ledger was held to nothing outside it

    def lines(self) -> list[str]:
        """The report for people, a fact a line."""
        kinds = (
            ", ".join(f"{count:,} {kind}{'s' if count != 1 else ''}" for kind, count in sorted(self.kinds.items()))
            or "nothing"
        )
        signed = f", signed {self.checkpoint_at}" if self.checkpoint_at else ""
        lines = [f"{self.size:,} entries in the log{signed}: {kinds}", f"{self.unsealed:,} entries not sealed yet"]
        lines += [
            f"{tail.file}, byte {tail.offset}: a torn tail; nobody was told of what it held" for tail in self.torn
        ]
        if self.killed:
            lines.append(
                f"{self.killed} of the segments not sealed yet end without a mark, as when a writer is killed:"
                " whether the end was cut off, receipts tell"
            )
        lines += self._absences()
        if self.unreferenced:
            lines.append(f"{self.unreferenced} files not needed by the checkpoint: left by a sealer, or being written")
        lines += [] if self.coverage is None else self.coverage.lines(self.size)
        lines += [str(finding) for finding in self.findings]
        if not self.complete:
            lines.append("there may be more: verifying stopped here")
        lines.append(
            "the ledger verifies" if self.ok else f"THE LEDGER DOES NOT VERIFY: findings: {len(self.findings)}"
        )
        return lines

    def _absences(self) -> list[str]:
        """What is not here, and why not."""
        hashes = "; their hashes verify" if self.ok else ""
        lines = [
            f"entries {each.first:,} to {each.size - 1:,} are archived at {each.place}{hashes}" for each in self.gone
        ]
        if self.archive is not None:
            lines.append(f"an archive of the entries {self.archive.first:,} to {self.archive.size - 1:,}")
        if self.erased:
            lines.append(f"{self.erased:,} bodies are erased, each on the word of an entry of the log")
        return lines


def verify_ledger(
    ledger_dir: Path,
    verifier: Verifier,
    *,
    origin: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    kept_checkpoint: bytes | None = None,
    against: Against | None = None,
) -> Report:
    """Check everything in `ledger_dir` against the checkpoint signed by `verifier`, in memory that stays flat.

    Read are the checkpoint (of the log `origin`, the verifier's name when None), every entry, every hash tile of every
    level, every body against the commitment in its leaf, the uniqueness of ids, the sealer's state, the write-ahead
    segments, and what other files there are. The log must extend the checkpoints of it that are kept elsewhere: one in
    `kept_checkpoint`, and all those that `against` leads to. Without its folder `wal` a directory is taken as a copy of
    the log alone. `index.db` is derived and no evidence; it is not read. The ledger may be sealed meanwhile. `progress`
    is called with entries checked and in all.

    Never raises for what it finds; verifying goes on behind a finding where it can and stops at the twentieth.
    """
    findings = Findings()
    report = Report(findings=findings.all)
    held_to = [] if kept_checkpoint is None else [Against((NoteSource("kept checkpoint", kept_checkpoint),))]
    held_to += [] if against is None else [against]
    try:
        _Verification(ledger_dir, verifier, origin or verifier.name, findings, report).run(progress, held_to)
    except Enough:
        report.complete = False
    report.ok = not report.findings
    return report


class _Verification:
    """One run."""

    def __init__(self, root: Path, verifier: Verifier, origin: str, findings: Findings, report: Report) -> None:
        self._root = root
        self._verifier = verifier
        self._origin = origin
        self._findings = findings
        self._report = report

    def run(self, progress: Callable[[int, int], None] | None, held_to: Sequence[Against]) -> None:
        checkpoint, state = self._heads()
        size = checkpoint.size if checkpoint else state.size if state else 0
        head = checkpoint.root if checkpoint else bytes.fromhex(state.root) if state else EMPTY_ROOT
        self._report.size = size
        trusted = Trusted(checkpoint or Checkpoint(self._origin, size, head), self._verifier, self._origin)
        around = look_around(self._root, trusted, self._findings)
        self._report.gone, self._report.archive = list(around.gone), around.archive
        known = proven_erasures(self._root, trusted, self._findings) if around.archive else ()
        erased = ErasedCheck(self._root, trusted, self._findings, first=around.first, known=known)
        check = TreeCheck(self._root, size, head, self._findings, progress, erased=erased)
        try:
            check.run()
            erased.finish(any_erasure=check.any_erasure)
        finally:
            self._report.kinds = {kind.decode(): count for kind, count in sorted(check.kinds.items())}
            self._report.erased = erased.erased
        if checkpoint and state:
            self._compare_heads(checkpoint, state)
        for against in held_to:
            self._check_anchors(against, size)
        if checkpoint and state and checkpoint.size < state.size:
            check = self._check_unsigned(check, checkpoint, state)
            size = state.size
        self._check_files(check, size, state.swept if state else 0, around)
        if (self._root / WAL_FOLDER).is_dir():
            self._check_segments(check, state)
        self._check_suspects(check, size, state)

    # The heads: what is said to be there.

    def _heads(self) -> tuple[Checkpoint | None, State | None]:
        """The checkpoint and the state. A state just saved has its checkpoint in a moment, unless the sealer died."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            found = Findings()  # of this look; the last one counts
            note = self._content(CHECKPOINT_FILE, MAX_NOTE_BYTES, found)
            saved = self._content(STATE_FILE, MAX_STATE_BYTES, found)
            if found.all or self._are_settled(note, saved) or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        for each in found.all:
            self._findings.add(each.file, each.what)
        checkpoint = self._try_checkpoint(note)
        state = self._try_state(saved)
        self._check_presence(state)
        return checkpoint, state

    def _are_settled(self, note: bytes | None, saved: bytes | None) -> bool:
        if saved is None:
            return True
        try:
            checkpoint = None if note is None else verify_checkpoint(note, self._verifier, self._origin)
            return checkpoint is not None and checkpoint.size >= decode_state(saved).size
        except Damaged:
            return True

    def _content(self, name: str, limit_bytes: int, findings: Findings) -> bytes | None:
        """What is in a file; None when it is not there, or no such file as it should be, which is a finding."""
        try:
            return read_regular(self._root / name, limit_bytes)
        except FileNotFoundError:
            return None
        except (Damaged, OSError) as error:
            findings.add(name, str(error))
            return None

    def _is_there(self, name: str) -> bool:
        return os.path.lexists(self._root / name)

    def _try_checkpoint(self, note: bytes | None) -> Checkpoint | None:
        try:
            return None if note is None else verify_checkpoint(note, self._verifier, self._origin)
        except Damaged as error:
            self._findings.add(CHECKPOINT_FILE, error.message)
            return None

    def _try_state(self, saved: bytes | None) -> State | None:
        try:
            return None if saved is None else decode_state(saved)
        except Damaged as error:
            self._findings.add(STATE_FILE, error.message.removeprefix(f"{STATE_FILE}: "))
            return None

    def _check_presence(self, state: State | None) -> None:
        note_there, state_there = self._is_there(CHECKPOINT_FILE), self._is_there(STATE_FILE)
        log_there = (self._root / "tile").exists() or (self._root / BODIES).exists()
        if not note_there and (log_there if state is None else state.size > 0):
            self._findings.add(CHECKPOINT_FILE, "expected a checkpoint of the log, found none")
        if not state_there and note_there and not is_archive(self._root):
            self._findings.add(STATE_FILE, "expected the state of the sealer, found none")

    def _compare_heads(self, checkpoint: Checkpoint, state: State) -> None:
        if state.size < checkpoint.size:
            self._findings.add(STATE_FILE, f"expected at least {checkpoint.size} entries, found {state.size}")
        if checkpoint.size < state.swept:
            self._findings.add(
                CHECKPOINT_FILE,
                f"expected at least {state.swept} entries, which had been signed as {STATE_FILE} says,"
                f" found {checkpoint.size}: an earlier checkpoint",
            )
        self._report.unsealed = max(0, state.size - checkpoint.size)  # in tiles, not signed, and their segments kept
        if state.size == checkpoint.size:
            self._report.checkpoint_at = state.sealed_at
            if state.root != checkpoint.root.hex():
                self._findings.add(STATE_FILE, f"expected the head {checkpoint.root.hex()}, found {state.root}")

    def _check_anchors(self, against: Against, size: int) -> None:
        ledger = Ledger(self._root, size, self._verifier, self._origin)
        found = check_anchors(ledger, against, self._findings)
        coverage = self._report.coverage or Coverage()
        self._report.coverage = Coverage(coverage.anchored + found.anchored, coverage.unread + found.unread)

    # What the state says is in the log, and no checkpoint covers: a sealer was killed between the two.

    def _check_unsigned(self, signed: TreeCheck, checkpoint: Checkpoint, state: State) -> TreeCheck:
        """Check the entries behind those of the checkpoint, as one more log that the state is the head of."""
        check = TreeCheck(
            self._root,
            state.size,
            bytes.fromhex(state.root),
            self._findings,
            after=signed,
        )
        check.run()
        if (self._root / WAL_FOLDER).is_dir():
            gone = next((name for name in self._segments_of(checkpoint.size, state.size) if not self._has(name)), None)
            note = None if gone is None else self._content(CHECKPOINT_FILE, MAX_NOTE_BYTES, self._findings)
            if note is not None and self._size_of(note) < state.size:
                self._findings.add(
                    CHECKPOINT_FILE,
                    f"expected {state.size} entries, found {checkpoint.size}: segment {gone} of the rest is gone, so"
                    " that they had been signed",
                )
        return check

    def _segments_of(self, first: int, last: int) -> set[str]:
        """The segments that the entries [first, last) come from."""
        ids = (entry_id for sequence, entry_id, _ in self._ids_in_log(first, last) if sequence >= first)
        return {each.segment for each in ids}

    def _has(self, segment: str) -> bool:
        return segment_path(self._root, segment).exists()

    def _size_of(self, note: bytes) -> int:
        try:
            return verify_checkpoint(note, self._verifier, self._origin).size
        except Damaged:
            return 0

    # The files, and the write-ahead segments.

    def _check_files(self, check: TreeCheck, size: int, swept: int, around: Around) -> None:
        files = FilesCheck(self._root, size, swept, check.edges, around, self._findings)
        try:
            files.run()
        finally:
            self._report.unreferenced = files.unreferenced + check.trailing

    def _check_segments(self, check: TreeCheck, state: State | None) -> None:
        found = SegmentsCheck(self._root, state, check.seen, self._findings)
        try:
            found.run()
        finally:
            self._report.unsealed += found.unsealed
            self._report.torn, self._report.killed = found.torn, found.killed

    # Ids that may have occurred twice: all is read once more to be sure.

    def _check_suspects(self, check: TreeCheck, size: int, state: State | None) -> None:
        wanted = check.seen.suspects
        if not wanted:
            return
        places: dict[EntryId, list[str]] = {entry_id: [] for entry_id in wanted}
        for entry_id, place in self._all_ids(size, state):
            if entry_id in places and len(places[entry_id]) < 3:
                places[entry_id].append(place)
        for entry_id, found in places.items():
            if len(found) > 1:
                self._findings.add(found[1], f"expected an id of its own, found that of {found[0]}: {entry_id}")

    def _all_ids(self, size: int, state: State | None) -> Iterator[tuple[EntryId, str]]:
        for _, entry_id, place in self._ids_in_log(0, size):
            yield entry_id, place
        known = state.segments if state else {}
        for path in segments(self._root / WAL_FOLDER):
            begin = known[path.stem].offset if path.stem in known else 0
            with contextlib.suppress(OSError):  # sealed and deleted since it was listed, or a finding already
                for group in SegmentReader(path, begin).groups():
                    ids = (read_id(entry.leaf) for entry in group.entries)
                    yield from ((found, f"{WAL_FOLDER}/{path.name}") for found in ids if found is not None)

    def _ids_in_log(self, first: int, size: int) -> Iterator[tuple[int, EntryId, str]]:
        """The sequence, id and place of every entry of a log of `size`, from the bundle on that holds `first`."""
        for index in range(first // WIDTH, -(-size // WIDTH)):
            name = TileName(ENTRIES, index, min(WIDTH, size - index * WIDTH))
            try:
                leaves = split_leaves(read_file(self._root, name), name.width)
            except (OSError, Damaged):
                continue  # a finding already
            for sequence, leaf in enumerate(leaves, index * WIDTH):
                found = read_id(leaf)
                if found is not None:
                    yield sequence, found, f"{name.path}, entry {sequence}"
