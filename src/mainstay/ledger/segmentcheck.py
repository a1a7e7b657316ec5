"""The write-ahead segments of a ledger: what is durable and not in the log yet, held against the sealer's state.

No signature covers it. What is found is any change that does not make all of a segment anew: every group holds by its
checksum, entries count up from the beginning of their segment, bodies are what their leaves commit to, and none is in
the log already. Whole groups cut off the end of a segment whose writer was killed, or a segment made anew from some
point on, are told only by receipts that callers kept; within a seal interval the signed log takes over.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mainstay.errors import Damaged
from mainstay.ledger.entry import commitment, read_id, read_leaf, segment_in_id
from mainstay.ledger.findings import TornTail
from mainstay.ledger.state import DAMAGED_FOLDER, STATE_FILE, WAL_FOLDER, Progress, State, load_state, segment_path
from mainstay.ledger.wal import HEADER_BYTES, SUFFIX, End, SegmentReader, is_live, segments

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.ledger.findings import Findings
    from mainstay.ledger.seen import SeenIds
    from mainstay.ledger.wal import Group

SETTLE_SECONDS = 0.5  # how long a group of a writer that lives may look broken, because it is being written


class SegmentsCheck:
    """Checks every segment against what the sealer's state says of it."""

    def __init__(self, root: Path, state: State | None, seen: SeenIds, findings: Findings) -> None:
        self._root = root
        self._known = state.segments if state else {}
        self._seen = seen
        self._findings = findings
        self.unsealed = 0  # entries
        self.torn: list[TornTail] = []
        self.killed = 0  # segments whose writers are gone and did not mark their end

    def run(self) -> None:
        """Check everything. Raises Enough when there are too many findings."""
        for path in segments(self._root / WAL_FOLDER):
            try:
                self._check(path, self._known.get(path.stem, Progress(0, 0)))
            except FileNotFoundError:
                continue  # sealed and deleted since it was listed
            except OSError as error:
                self._findings.add(f"{WAL_FOLDER}/{path.name}", str(error))
        for segment, progress in self._known.items():
            if not progress.finished and not segment_path(self._root, segment).exists():
                self._check_missing(segment)

    def _check_missing(self, segment: str) -> None:
        """A segment that was there when we began has been sealed meanwhile, or somebody else deleted it."""
        try:
            state = load_state(self._root)
        except (Damaged, OSError):
            return  # a finding already
        progress = None if state is None else state.segments.get(segment)
        aside = self._root / DAMAGED_FOLDER / (segment + SUFFIX)
        if progress is not None and not progress.finished and not aside.exists():
            self._findings.add(
                f"{WAL_FOLDER}/{segment}{SUFFIX}", f"expected a segment sealed up to byte {progress.offset}, found none"
            )

    def _check(self, path: Path, progress: Progress) -> None:
        file = f"{WAL_FOLDER}/{path.name}"
        live = is_live(path)
        reader = SegmentReader(path)
        sealed, met = 0, progress.offset == 0
        count, begin, orderly = 0, HEADER_BYTES, True
        for group in reader.groups():
            orderly = orderly and self._check_order(path, group, count, begin)
            count += len(group.entries)
            if group.end <= progress.offset:
                sealed += len(group.entries)
                met = met or group.end == progress.offset
            else:
                self.unsealed += len(group.entries)
                self._check_unsealed(file, group, begin)
            begin = group.end
        if reader.end is End.DAMAGED or (reader.end is End.BROKEN and not (live and _is_being_written(reader))):
            self._findings.add(file, _WHAT[reader.end], offset=reader.offset)
        elif not (met or reader.offset == progress.offset) or sealed != progress.entries:
            self._findings.add(
                file,
                f"expected {progress.entries} entries in groups up to byte {progress.offset}, as {STATE_FILE} says,"
                f" found {sealed}",
                offset=reader.offset,
            )
        elif progress.finished and count > sealed:
            self._findings.add(
                file,
                f"expected no entries behind byte {progress.offset}, where it ends as {STATE_FILE} says,"
                f" found {count - sealed}",
                offset=progress.offset,
            )
        elif not live and not progress.finished:
            if reader.end is End.TORN:
                self.torn.append(TornTail(file, reader.offset))
            self.killed += reader.end is not End.CLOSED

    def _check_order(self, path: Path, group: Group, count: int, begin: int) -> bool:
        """The entries of a segment count up from zero, whoever writes it; whether they do."""
        for place, entry in enumerate(group.entries, count):
            found = read_id(entry.leaf)
            if found is None or found.segment != path.stem or found.counter != place:
                what = "none" if found is None else f"entry {found.counter} of segment {found.segment}"
                self._findings.add(
                    f"{WAL_FOLDER}/{path.name}", f"expected entry {place} of this segment, found {what}", offset=begin
                )
                return False
        return True

    def _check_unsealed(self, file: str, group: Group, begin: int) -> None:
        for entry in group.entries:
            entry_id = read_id(entry.leaf)
            if entry_id is None:
                continue  # out of order, which is a finding
            if self._seen.add(segment_in_id(entry_id.segment), entry_id.counter):
                self._seen.suspect(entry_id, file)
            found = commitment(entry.salt, entry.body)
            leaf = read_leaf(entry.leaf)
            if leaf is None or leaf.body != found:
                expected = "what is in a leaf" if leaf is None else leaf.body
                what = f"expected a body of entry {entry_id.counter} with the commitment {expected}, found {found}"
                self._findings.add(file, what, offset=begin)


_WHAT = {
    End.DAMAGED: "expected a whole group, found damage: it had been whole, or the segment is another's",
    End.BROKEN: (
        "expected a whole group or the beginning of one, found one that does not hold:"
        " it was changed, or the power failed before anybody was told of it"
    ),
}


def _is_being_written(reader: SegmentReader) -> bool:
    """Whether a broken last group of a writer that lives becomes whole, or at least a beginning, in a moment."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(SETTLE_SECONDS / 20)
        again = SegmentReader(reader.path, reader.offset)
        if next(again.groups(), None) is not None or again.end is not End.BROKEN:
            return True
    return False
