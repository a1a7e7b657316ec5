"""Group commit: many decisions wait for one `fdatasync`.

A process has one journal and one thread that writes it. Whoever has records submits them already framed and is
called back when they are on disk, or with the error that kept them off it. While a group is being written, what is
submitted meanwhile gathers into the next one; nothing waits for a timer.

After a failed write the segment is given up for good (a second `fdatasync` may succeed without having written what
the first one lost), everything waiting on it fails, and a new segment is tried until the disk takes one.
"""

from __future__ import annotations

import logging
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from mainstay.errors import Failed
from mainstay.ledger.wal import MAX_GROUP_BYTES, Segment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

logger = logging.getLogger("mainstay.ledger")

SEGMENT_BYTES = 64 << 20  # a longer segment is closed and a new one begun
GROUP_BYTES = 16 << 20  # what one group may hold, so that readers need no more memory
WAITING_BYTES = 64 << 20  # what may wait for a disk that does not answer; then nothing more is taken
REOPEN_SECONDS = 0.25
LOOK_SECONDS = 1.0  # how often a journal without work looks whether its segment is to be left


class Unrecordable(Failed):
    """Nothing can be recorded now, so nothing may be decided."""


class Place(NamedTuple):
    """Where the next entries of this process will stand."""

    segment: Segment
    counter: int


class _Work(NamedTuple):
    segment: Segment
    framed: bytes
    entries: int
    done: Callable[[OSError | None], None]


class _Follow(NamedTuple):
    """A marker in the queue: nothing behind it is for an earlier segment. Without a segment, the end."""

    segment: Segment | None


_STOP = _Follow(None)


class Journal:
    """The write-ahead log of one process. Its methods belong to one thread; `wake` runs a function on that thread."""

    def __init__(
        self,
        directory: Path,
        wake: Callable[[Callable[[], None]], object],
        *,
        on_idle: Callable[[], None] = lambda: None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """Open the first segment. Raises OSError when the disk will not take it."""
        self._directory = directory
        self._wake = wake
        self._on_idle = on_idle
        self._segment_bytes = segment_bytes
        self._queue: SimpleQueue[_Work | _Follow] = SimpleQueue()
        self._segment: Segment | None = Segment(directory)
        self._counter = 0
        self.outstanding = 0  # submissions not yet called back
        self._waiting_bytes = 0  # of those
        self.records = 0
        self.syncs = 0
        self.sync_seconds = 0.0
        self.failures = 0
        self._thread = Thread(target=self._write, args=(self._segment,), name="journal", daemon=True)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        return self._segment is not None

    def next_place(self) -> Place:
        """Where the next submission will stand. What is written for it must be submitted before anything else is.

        Raises Unrecordable while the disk takes nothing, or too slowly.
        """
        if self._segment is None:
            raise Unrecordable("the ledger cannot be written: its disk is full or failing")
        if self._waiting_bytes > WAITING_BYTES:
            raise Unrecordable(f"the ledger's disk is too slow: {self._waiting_bytes >> 20} MiB wait for it")
        return Place(self._segment, self._counter)

    def submit(self, place: Place, framed: bytes, count: int, done: Callable[[OSError | None], None]) -> None:
        """Record `count` framed entries, whose ids count up from `place`.

        `done` is called with None once they are on disk, or with the error that kept them off it.

        Raises ValueError when they are too long for one group.
        """
        if len(framed) > MAX_GROUP_BYTES - GROUP_BYTES:  # as much as `_gather` may have taken before it
            raise ValueError(f"expected at most {MAX_GROUP_BYTES - GROUP_BYTES} bytes at once, found {len(framed)}")
        self._counter += count
        self.outstanding += 1
        self._waiting_bytes += len(framed)
        self._queue.put(_Work(place.segment, framed, count, done))

    def close(self) -> None:
        """Write what was submitted, close the segment in good order and stop. Call-backs still pending are lost."""
        self._queue.put(_STOP)
        self._thread.join()

    # On the owner's thread, through `wake`.

    def _finish(self, work: list[_Work], error: OSError | None) -> None:
        if error is None:
            self.records += sum(each.entries for each in work)
        else:
            self.failures += 1
            if work[0].segment is self._segment:
                self._segment = None
        self.outstanding -= len(work)
        self._waiting_bytes -= sum(len(each.framed) for each in work)
        for each in work:
            each.done(error)
        self._on_idle()

    def _adopt(self, fresh: Segment) -> None:
        """Reserve from a new segment; the marker behind the last work for the old one tells the writer to follow."""
        self._segment = fresh
        self._counter = 0
        self._queue.put(_Follow(fresh))

    # On the journal's thread.

    def _write(self, segment: Segment | None) -> None:
        fresh: Segment | None = None  # made, and not yet followed
        stop = False
        while not stop:
            try:
                first = self._queue.get(timeout=LOOK_SECONDS if segment else REOPEN_SECONDS)
            except Empty:
                if fresh is None and (segment is None or segment.is_to_be_left()):
                    fresh = self._offer()
                continue
            work, marker = self._gather(first)
            if work:
                segment = self._commit(segment, work)
            if segment is not None and fresh is None and self._is_enough(segment):
                fresh = self._offer()
            if marker is not None and marker.segment is not None:
                _close(segment)
                segment, fresh = marker.segment, None
            stop = marker is _STOP
        _close(segment)
        _close(fresh)

    def _is_enough(self, segment: Segment) -> bool:
        return segment.bytes > self._segment_bytes or segment.is_to_be_left()

    def _gather(self, first: _Work | _Follow) -> tuple[list[_Work], _Follow | None]:
        """All that waits now, as far as one group may hold it, and the marker that ended it, if one did."""
        work: list[_Work] = []
        size = 0
        item: _Work | _Follow = first
        while isinstance(item, _Work):
            work.append(item)
            size += len(item.framed)
            if size >= GROUP_BYTES:
                return work, None
            try:
                item = self._queue.get_nowait()
            except Empty:
                return work, None
        return work, item

    def _commit(self, segment: Segment | None, work: list[_Work]) -> Segment | None:
        """Write one group and tell who waits for it; the segment to go on with, None after a failure."""
        error: OSError | None = None
        if segment is None or work[0].segment is not segment:
            error = OSError("the segment this was meant for has failed")
        else:
            begun = monotonic()
            try:
                segment.append([each.framed for each in work], sum(each.entries for each in work))
            except OSError as failure:
                logger.error("ledger write failed: segment=%s error=%s", segment.name, failure)  # noqa: TRY400 - the errno says all
                segment.abandon()
                segment, error = None, failure
            else:
                self.syncs += 1
                self.sync_seconds += monotonic() - begun
        self._wake(lambda: self._finish(work, error))
        return segment

    def _offer(self) -> Segment | None:
        """Make a new segment and offer it to the owner; None while the disk takes none."""
        try:
            fresh = Segment(self._directory)
        except OSError as failure:
            logger.warning("no new ledger segment: error=%s", failure)
            return None
        self._wake(lambda: self._adopt(fresh))
        return fresh


def _close(segment: Segment | None) -> None:
    if segment is None:
        return
    try:
        segment.close()
    except OSError as failure:
        logger.warning("ledger segment not closed in order: segment=%s error=%s", segment.name, failure)
