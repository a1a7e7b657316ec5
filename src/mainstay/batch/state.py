"""What a run remembers, so that it goes on where it was killed and decides no row twice.

    <data>/batch/<name of the run>/
        run.json         what is decided, by what, to where: what has to be the same for the run to go on
        steps.jsonl      a line for each step, on disk before its records are: the rows, and the ids they will have
        parts/           rows of output that are not in their place yet
        finished.json    the summary, once all is done
        lock             held by whoever works on it

A step is one group of the write-ahead log, which is whole or void. Its line is written first, with its output prepared
beside; then its records; then its output is put in place; and only then the next line is written. So at most the last
line is in doubt, and the ledger says whether its records are there: if they are, the output that was prepared for them
is put in place; if not, the line and the output are thrown away, and nobody was told anything of them.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from msgspec import Struct

from mainstay.batch.inputs import Part  # noqa: TC001 - msgspec reads the types of a struct
from mainstay.batch.types import OutputKind, Place, Summary
from mainstay.errors import NOT_READ, Damaged
from mainstay.files import write_all, write_atomic
from mainstay.ledger.archives import Archived
from mainstay.ledger.entry import parse_id
from mainstay.ledger.find import find_entry
from mainstay.ledger.state import segment_path

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")

FORMAT: Final = "mainstay-batch/1"

_RUN: Final = "run.json"
_STEPS: Final = "steps.jsonl"
_FINISHED: Final = "finished.json"
LOCK: Final = "lock"
PARTS: Final = "parts"


class Run(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run is: who asks what about which rows."""

    format: str = FORMAT
    batch: str  # its id, which each of its records has
    capability: str
    release: int
    version: str
    parts: tuple[Part, ...]
    since: Place
    key: str | None
    output: str
    kind: OutputKind
    principal: str  # who began it
    began_at: str
    position: int = 0  # of a table: where its writer stood when the run began

    def differences(self, other: Run) -> list[str]:
        """What another run would do otherwise, for people."""
        found = []
        if self.parts != other.parts or self.since != other.since:
            before = {part.name: part.identity for part in self.parts}
            now = {part.name: part.identity for part in other.parts}
            changed = [name for name in (*before, *now) if before.get(name) != now.get(name)]
            names = ", ".join(list(dict.fromkeys(changed))[:3]) or "where it begins"
            found.append(f"the input: {names}")
        if self.release != other.release:
            found.append(f"the release: {self.release} then, {other.release} now")
        if self.key != other.key:
            found.append(f"the key: {self.key or 'none'} then, {other.key or 'none'} now")
        if self.capability != other.capability:
            found.append(f"the capability: {self.capability} then, {other.capability} now")
        if self.kind != other.kind:
            found.append(f"the kind of output: {self.kind} then, {other.kind} now")
        return found


class Step(Struct, frozen=True, kw_only=True):
    """Some consecutive rows that are recorded and put out together."""

    number: int  # from 0
    last: Place
    first_id: str
    last_id: str
    rows: int
    outcomes: dict[str, int]
    reasons: dict[str, int]
    sha256: str  # of the prepared output


_steps = msgspec.json.Decoder(Step)


def new_run(**facts: object) -> Run:
    """A run that begins now, under an id of its own."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return msgspec.convert({**facts, "batch": secrets.token_hex(8), "began_at": now}, Run)


def folder_of(data: Path, capability: str, output: str) -> Path:
    """Where the run stands that puts out to `output`; there is at most one."""
    return data / "batch" / f"{capability}-{sha256(output.encode()).hexdigest()[:16]}"


class Memory:
    """The files of one run. Whoever has one holds its lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts = folder / PARTS

    def run(self) -> Run | None:
        """What was begun here; None: nothing. Raises Damaged when it cannot be read."""
        return self._read(_RUN, Run)

    def finished(self) -> Summary | None:
        """What the run did, once it is finished."""
        return self._read(_FINISHED, Summary)

    def begin(self, run: Run) -> None:
        """Remember a run, and nothing of one before it."""
        for name in (_RUN, _FINISHED, _STEPS):  # what is left of it counts for nothing without the first
            (self.folder / name).unlink(missing_ok=True)
        self.clear_parts()
        self.parts.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(self.folder / _STEPS, b"", mode=0o600)
        write_atomic(self.folder / _RUN, msgspec.json.encode(run), mode=0o600)

    def finish(self, summary: Summary) -> None:
        write_atomic(self.folder / _FINISHED, msgspec.json.encode(summary), mode=0o600)
        self.clear_parts()

    def clear_parts(self) -> None:
        if self.parts.is_dir():
            for path in self.parts.iterdir():
                path.unlink(missing_ok=True)

    def steps(self) -> list[Step]:
        """Every step whose line is whole. One that was being written when its writer was killed is cut off."""
        path = self.folder / _STEPS
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return []
        whole = content.rpartition(b"\n")[0]
        try:
            found = _steps.decode_lines(whole) if whole else []
        except NOT_READ as error:
            raise Damaged(f"{path}: expected a step in each line, found: {error}") from None
        kept = len(whole) + 1 if whole else 0
        if kept < len(content):
            self._cut(kept)
        return found

    def add(self, step: Step) -> None:
        """Say that a step is about to be recorded; on disk when this returns."""
        descriptor = os.open(self.folder / _STEPS, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, msgspec.json.encode(step) + b"\n")
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def drop_last(self) -> None:
        """Forget the last step: nothing of it was recorded."""
        content = (self.folder / _STEPS).read_bytes()
        self._cut(content[:-1].rfind(b"\n") + 1)

    def _cut(self, size: int) -> None:
        with (self.folder / _STEPS).open("r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())

    def _read(self, name: str, kind: type[T]) -> T | None:
        path = self.folder / name
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except NOT_READ as error:
            raise Damaged(f"{path}: expected what is known of a run, found: {error}") from None


def is_recorded(ledger: Path, step: Step) -> bool:
    """Whether the records of a step are in the ledger, for good: they were written in one group.

    Raises Damaged when the ledger cannot be read.
    """
    place = parse_id(step.first_id)
    if place is None:
        raise Damaged(f"step {step.number}: expected the id of an entry, found {step.first_id[:80]!r}")
    path = segment_path(ledger, place.segment)
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)  # its writer may have been killed before it had done so
        finally:
            os.close(descriptor)
    try:
        return find_entry(ledger, step.first_id) is not None
    except Archived:
        return True
