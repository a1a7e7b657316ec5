"""Where events are kept until somebody reads them: a file of lines, or a queue of files that waits for an endpoint.

Both take an event durably and at once, are bounded, and say how many events they could not take.
"""

from __future__ import annotations

import contextlib
import os
import re
from time import time_ns
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

from mainstay.errors import NOT_READ
from mainstay.files import sync_directory, write_all, write_atomic
from mainstay.locks import locked

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE_BYTES: Final = 16 << 20  # of a file of events, before another one is begun
KEPT_FILES: Final = 8  # full ones, the newest
MAX_WAITING: Final = 10_000  # events for an endpoint that does not take them
LOCK_SECONDS: Final = 2.0  # a run does not wait longer for others who write events
TORN_BYTES: Final = 1 << 20  # an event is shorter
BEGIN: Final = b'{"eventType":"'  # of every event

_STATE: Final = "state.json"
_LOCK: Final = "lineage.lock"
_WAITING = re.compile(r"[0-9]{20}-[0-9]+-[0-9]+\.json\Z")


class Sink(Protocol):
    """Takes events as JSON, one at a time, in the order in which they happened."""

    def take(self, event: bytes) -> None:
        """Keep an event durably. Raises OSError or Failed when it cannot be kept now."""


class State(msgspec.Struct, frozen=True):
    """What is known of events that did not arrive."""

    lost: int = 0  # events that could not be kept, or that the endpoint refused
    problem: str = ""  # what keeps events waiting now, or lost the last one; empty: nothing


class EventFile:
    """Events in a file, a line each. A full file is put aside under a number; of these the newest are kept."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self, event: bytes) -> None:
        """Append a line, durably. What a process that was killed left of a line is cut off first."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(self._path.with_name(f".{self._path.name}.lock"), timeout_seconds=LOCK_SECONDS):
            fresh = not self._path.exists()
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                write_all(descriptor, _mended(descriptor) + event + b"\n")
                os.fsync(descriptor)
                size = os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
            if size >= MAX_FILE_BYTES:
                self._put_aside()
            elif fresh:
                sync_directory(self._path.parent)

    def _put_aside(self) -> None:
        stem, ending = self._path.stem, self._path.suffix
        form = re.compile(rf"{re.escape(stem)}-([0-9]{{6,}}){re.escape(ending)}\Z")
        numbers = sorted(int(found[1]) for each in self._path.parent.iterdir() if (found := form.match(each.name)))
        newest = numbers[-1] if numbers else 0
        self._path.rename(self._path.with_name(f"{stem}-{newest + 1:06}{ending}"))
        for number in numbers[: len(numbers) + 1 - KEPT_FILES]:
            self._path.with_name(f"{stem}-{number:06}{ending}").unlink(missing_ok=True)
        sync_directory(self._path.parent)


def _mended(descriptor: int) -> bytes:
    """Go to the end of the file, behind its last whole line; what is to stand before the next line.

    The rest of a line is cut off only where it began as an event: the file may be somebody else's by mistake.
    """
    size = os.lseek(descriptor, 0, os.SEEK_END)
    begin = max(0, size - TORN_BYTES)
    tail = os.pread(descriptor, size - begin, begin)
    rest = tail[tail.rfind(b"\n") + 1 :]
    if not rest.startswith(BEGIN[: len(rest)]):
        return b"\n"
    os.ftruncate(descriptor, size - len(rest))
    os.lseek(descriptor, 0, os.SEEK_END)
    return b""


class Waiting(NamedTuple):
    """An event in the queue."""

    path: Path
    content: bytes


class Queue:
    """Events that wait for an endpoint, a file each, at most MAX_WAITING."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = 0

    def take(self, event: bytes) -> None:
        """Put an event behind those that wait. Raises OSError when the queue is full or the disk will not take it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if len(self._names()) >= MAX_WAITING:
            raise OSError(f"{MAX_WAITING:,} events wait already")
        self._number += 1
        write_atomic(self.folder / f"{time_ns():020}-{os.getpid()}-{self._number}.json", event, mode=0o600)

    def oldest(self) -> Waiting | None:
        """The event that has waited longest; None when there is none."""
        for name in self._names():
            path = self.folder / name
            with contextlib.suppress(FileNotFoundError):  # somebody else has sent it meanwhile
                return Waiting(path, path.read_bytes())
        return None

    @property
    def length(self) -> int:
        """How many events wait."""
        return len(self._names())

    def _names(self) -> list[str]:
        try:
            names = os.listdir(self.folder)  # noqa: PTH208 - only the names
        except FileNotFoundError:
            return []
        return sorted(name for name in names if _WAITING.match(name))


class Account:
    """How many events were lost and why, in a file, for whoever asks how it is going."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _STATE
        self._lock = folder / _LOCK

    def read(self) -> State:
        """What was written last; nothing lost when that is gone or unreadable."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=State)
        except (OSError, *NOT_READ):
            return State()

    def add(self, *, lost: int, problem: str) -> None:
        """Count events as lost, and say what the matter is. Raises OSError or Failed when the disk will not take it."""
        with locked(self._lock, timeout_seconds=LOCK_SECONDS):
            known = self.read()
            new = State(known.lost + lost, problem)
            if new != known:
                write_atomic(self._path, msgspec.json.encode(new))
