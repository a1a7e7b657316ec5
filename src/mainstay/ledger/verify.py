"""Verifying a ledger: everything is read again and held against the signed head of the log."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mainstay.errors import Damaged
from mainstay.ledger.entry import EntryId, read_id
from mainstay.ledger.findings import Enough, Finding, Findings
from mainstay.ledger.merkle import EMPTY_ROOT, HASH_BYTES, tree_root
from mainstay.ledger.note import Checkpoint, verify_checkpoint
from mainstay.ledger.state import (
    CHECKPOINT_FILE,
    DAMAGED_FOLDER,
    LOCK_FILE,
    STATE_FILE,
    WAL_FOLDER,
    Progress,
    State,
    decode_state,
    load_state,
    segment_path,
)
from mainstay.ledger.tiles import (
    BODIES,
    ENTRIES,
    WIDTH,
    WIDTH_BITS,
    TileName,
    files_below,
    node_in_tiles,
    parse_name,
    read_hashes,
    split_leaves,
)
from mainstay.ledger.treecheck import TreeCheck, read_file
from mainstay.ledger.wal import SUFFIX, UNBORN_SUFFIX, End, SegmentReader, is_live, segments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mainstay.signing import Verifier

_OWN = frozenset({CHECKPOINT_FILE, STATE_FILE, LOCK_FILE, "tile", BODIES, WAL_FOLDER})
_DERIVED = frozenset({"index.db", "index.db-wal", "index.db-shm", "index.db-journal"})
_SETTLE_SECONDS = 0.5  # how long to wait for the checkpoint of a state just saved


@dataclass(frozen=True, slots=True)
class TornTail:
    """Where the last group of a writer that died is not whole. Nobody was told of what it held: no evidence is lost."""

    file: str
    offset: int


@dataclass(slots=True)
class Report:
    """The result of verifying. Only findings are bad; the rest says what there is."""

    ok: bool = True
    size: int = 0  # entries under the checkpoint
    checkpoint_at: str | None = None  # when it was signed, as far as the sealer's state says; RFC 3339
    kinds: dict[str, int] = field(default_factory=dict)  # entries by kind
    unsealed: int = 0  # durable entries that the checkpoint does not cover yet
    torn: list[TornTail] = field(default_factory=list)
    unreferenced: int = 0  # files the checkpoint does not need: a sealer is writing them, or was killed doing so
    findings: list[Finding] = field(default_factory=list)
    complete: bool = True  # False when there were too many findings to go on

    def lines(self) -> list[str]:
        """The report for people, a fact a line."""
        kinds = ", ".join(f"{count:,} {kind}s" for kind, count in sorted(self.kinds.items())) or "nothing"
        signed = f", signed {self.checkpoint_at}" if self.checkpoint_at else ""
        lines = [f"{self.size:,} entries in the log{signed}: {kinds}", f"{self.unsealed:,} entries not sealed yet"]
        lines += [
            f"{tail.file}, byte {tail.offset}: a torn tail; nobody was told of what it held" for tail in self.torn
        ]
        if self.unreferenced:
            lines.append(f"{self.unreferenced} files not needed by the checkpoint: left by a sealer, or being written")
        lines += [str(finding) for finding in self.findings]
        if not self.complete:
            lines.append("there may be more: verifying stopped here")
        lines.append(
            "the ledger verifies" if self.ok else f"THE LEDGER DOES NOT VERIFY: findings: {len(self.findings)}"
        )
        return lines


def verify_ledger(
    ledger_dir: Path,
    verifier: Verifier,
    *,
    origin: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    kept_checkpoint: bytes | None = None,
) -> Report:
    """Check everything in `ledger_dir` against the checkpoint signed by `verifier`, in memory that stays flat.

    Read are the checkpoint (of the log `origin`, the verifier's name when None), every entry, every hash tile of every
    level, every body against the commitment in its leaf, the uniqueness of ids, the sealer's state, the write-ahead
    segments, and what other files there are. With `kept_checkpoint`, a signed checkpoint from elsewhere, the log must
    extend it. Without its folder `wal` a directory is taken as a copy of the log alone. `index.db` is derived and no
    evidence; it is not read. The ledger may be sealed meanwhile. `progress` is called with entries checked and in all.

    Never raises for what it finds; verifying goes on behind a finding where it can and stops at the twentieth.
    """
    findings = Findings()
    report = Report(findings=findings.all)
    try:
        _Verification(ledger_dir, verifier, origin or verifier.name, findings, report).run(progress, kept_checkpoint)
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

    def run(self, progress: Callable[[int, int], None] | None, kept: bytes | None) -> None:
        checkpoint, state = self._heads()
        size = checkpoint.size if checkpoint else state.size if state else 0
        head = checkpoint.root if checkpoint else bytes.fromhex(state.root) if state else EMPTY_ROOT
        self._report.size = size
        check = TreeCheck(self._root, size, head, self._findings, progress)
        try:
            check.run()
        finally:
            self._report.kinds = {kind.decode(): count for kind, count in sorted(check.kinds.items())}
        if kept is not None:
            self._check_kept(kept, size)
        self._check_files(check, size, state.swept if state else 0)
        if (self._root / WAL_FOLDER).is_dir():
            self._check_segments(check, state)
        self._check_suspects(check, size, state)

    # The heads: what is said to be there.

    def _heads(self) -> tuple[Checkpoint | None, State | None]:
        """The checkpoint and the state. A state just saved has its checkpoint in a moment, unless the sealer died."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            note, saved = self._content(CHECKPOINT_FILE), self._content(STATE_FILE)
            if self._are_settled(note, saved) or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        checkpoint = self._try_checkpoint(note)
        state = self._try_state(saved)
        self._compare_heads(checkpoint, state, there=(note is not None, saved is not None))
        return checkpoint, state

    def _are_settled(self, note: bytes | None, saved: bytes | None) -> bool:
        if saved is None:
            return True
        try:
            checkpoint = None if note is None else verify_checkpoint(note, self._verifier, self._origin)
            return checkpoint is not None and checkpoint.size >= decode_state(saved).size
        except Damaged:
            return True

    def _content(self, name: str) -> bytes | None:
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None

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

    def _compare_heads(self, checkpoint: Checkpoint | None, state: State | None, *, there: tuple[bool, bool]) -> None:
        note_there, state_there = there
        log_there = (self._root / "tile").exists() or (self._root / BODIES).exists()
        if not note_there and (log_there if state is None else state.size > 0):
            self._findings.add(CHECKPOINT_FILE, "expected a checkpoint of the log, found none")
        if not state_there and note_there:
            self._findings.add(STATE_FILE, "expected the state of the sealer, found none")
        if checkpoint is None or state is None:
            return
        if state.size < checkpoint.size:
            self._findings.add(STATE_FILE, f"expected at least {checkpoint.size} entries, found {state.size}")
        self._report.unsealed = max(0, state.size - checkpoint.size)  # in tiles, not signed, and their segments kept
        if state.size == checkpoint.size:
            self._report.checkpoint_at = state.sealed_at
            if state.root != checkpoint.root.hex():
                self._findings.add(STATE_FILE, f"expected the head {checkpoint.root.hex()}, found {state.root}")

    def _check_kept(self, note: bytes, size: int) -> None:
        name = "kept checkpoint"
        try:
            kept = verify_checkpoint(note, self._verifier, self._origin)
            if kept.size > size:
                self._findings.add(name, f"expected at least {kept.size} entries in the log, found {size}")
                return
            head = tree_root(kept.size, node_in_tiles(lambda level, at: read_hashes(self._root, level, at, size)))
        except (Damaged, OSError) as error:
            self._findings.add(name, str(error))
            return
        if head != kept.root:
            self._findings.add(
                name,
                f"expected the log to extend {kept.size} entries with the head {kept.root.hex()}, found {head.hex()}",
            )

    # The files: nothing may be there that nobody knows.

    def _check_files(self, check: TreeCheck, size: int, swept: int) -> None:
        for each in sorted(os.scandir(self._root), key=lambda each: each.name):
            if each.name.startswith(".") and each.name.endswith(".tmp"):
                self._report.unreferenced += 1
            elif each.name not in _OWN | _DERIVED:
                self._findings.add(each.name, "expected only files of the ledger, found another")
        for folder in ("tile", BODIES):
            for path in files_below(self._root, folder):
                self._check_file(path, check, size, swept)
        for path in files_below(self._root, WAL_FOLDER):
            if path.startswith(DAMAGED_FOLDER + "/"):
                self._findings.add(path, "a damaged segment, kept aside: entries from it are missing in the log")
            elif path.endswith(UNBORN_SUFFIX):
                self._report.unreferenced += 1
            elif not path.endswith(SUFFIX) or path.count("/") != 1:
                self._findings.add(path, "expected only write-ahead segments, found another file")

    def _check_file(self, path: str, check: TreeCheck, size: int, swept: int) -> None:
        name = parse_name(path)
        if name is None or (name.folder == BODIES and name.width != WIDTH):
            self._findings.add(path, "expected only tiles and bodies, found another file")
            return
        level = int(name.folder.rpartition("/")[2]) if name.folder not in {ENTRIES, BODIES} else 0
        shift = WIDTH_BITS * (level + 1)
        edge, width = size >> shift, (size >> (shift - WIDTH_BITS)) % WIDTH
        if name.folder == BODIES:
            self._report.unreferenced += name.number >= edge + bool(width)
        elif name.width == WIDTH or name.number > edge:
            self._report.unreferenced += name.number >= edge
        elif name.number == edge:
            if name.width < width:
                self._check_narrow(name, check.edges.get(name.folder, b""))
            self._report.unreferenced += name.width > width
        elif name.number >= swept >> shift:  # its full tile is there, and the sealer has not come to deleting it
            self._report.unreferenced += 1
        else:
            self._findings.add(path, "expected a full tile only, found a partial one beside it")

    def _check_narrow(self, name: TileName, edge: bytes) -> None:
        """A partial tile of an earlier checkpoint must be the beginning of the present one."""
        content = self._content(name.path)
        if content is None:  # superseded and deleted since it was listed
            return
        length = name.width * HASH_BYTES
        if name.folder == ENTRIES:
            try:
                length = sum(2 + len(leaf) for leaf in split_leaves(edge, name.width))
            except Damaged:
                return  # a finding already
        if content != edge[:length]:
            self._findings.add(
                name.path, "expected the beginning of the wider partial tile beside it, found other bytes"
            )

    # The write-ahead segments: what is durable and not in the log yet.

    def _check_segments(self, check: TreeCheck, state: State | None) -> None:
        known = state.segments if state else {}
        for path in segments(self._root / WAL_FOLDER):
            try:
                self._check_segment(path, known.get(path.stem, Progress(0, 0)), check)
            except FileNotFoundError:
                continue  # sealed and deleted since it was listed
        for segment, progress in known.items():
            if not progress.finished and not segment_path(self._root, segment).exists():
                self._check_missing(segment)

    def _check_missing(self, segment: str) -> None:
        """A segment that was there when we began has been sealed meanwhile, or somebody else deleted it."""
        try:
            state = load_state(self._root)
        except Damaged:
            return  # a finding already
        progress = None if state is None else state.segments.get(segment)
        aside = self._root / DAMAGED_FOLDER / (segment + SUFFIX)
        if progress is not None and not progress.finished and not aside.exists():
            self._findings.add(
                f"{WAL_FOLDER}/{segment}{SUFFIX}", f"expected a segment sealed up to byte {progress.offset}, found none"
            )

    def _check_segment(self, path: Path, progress: Progress, check: TreeCheck) -> None:
        file = f"{WAL_FOLDER}/{path.name}"
        live = is_live(path)
        reader = SegmentReader(path)
        sealed, met = 0, progress.offset == 0
        for group in reader.groups():
            if group.end <= progress.offset:
                sealed += len(group.entries)
                met = met or group.end == progress.offset
                continue
            self._report.unsealed += len(group.entries)
            for entry in group.entries:
                self._check_unsealed(file, read_id(entry.leaf), check)
        if reader.end is End.DAMAGED:
            self._findings.add(
                file,
                "expected a whole group, found damage: later groups prove that it had been whole",
                offset=reader.offset,
            )
        elif not (met or reader.offset == progress.offset) or sealed != progress.entries:
            self._findings.add(
                file,
                f"expected {progress.entries} entries in groups up to byte {progress.offset}, as {STATE_FILE} says,"
                f" found {sealed}",
                offset=reader.offset,
            )
        elif reader.end is End.TORN and not live:
            self._report.torn.append(TornTail(file, reader.offset))

    def _check_unsealed(self, file: str, entry_id: EntryId | None, check: TreeCheck) -> None:
        if entry_id is None:
            self._findings.add(file, "expected an entry with an id, found none")
            return
        segment = entry_id.segment
        if check.seen.add(f"7{segment[:3]}-8{segment[3:6]}-{segment[6:]}".encode(), entry_id.counter):
            check.seen.suspect(entry_id, file)

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
        for index in range(-(-size // WIDTH)):
            name = TileName(ENTRIES, index, min(WIDTH, size - index * WIDTH))
            try:
                leaves = split_leaves(read_file(self._root, name), name.width)
            except (OSError, Damaged):
                continue  # a finding already
            for place, leaf in enumerate(leaves):
                found = read_id(leaf)
                if found is not None:
                    yield found, f"{name.path}, entry {index * WIDTH + place}"
        known = state.segments if state else {}
        for path in segments(self._root / WAL_FOLDER):
            begin = known[path.stem].offset if path.stem in known else 0
            with contextlib.suppress(FileNotFoundError):  # sealed and deleted since it was listed
                for group in SegmentReader(path, begin).groups():
                    ids = (read_id(entry.leaf) for entry in group.entries)
                    yield from ((found, f"{WAL_FOLDER}/{path.name}") for found in ids if found is not None)
