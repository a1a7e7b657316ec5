"""Which ids occurred in a log and its segments, in memory that grows with segments and not with entries."""

from __future__ import annotations

from bisect import bisect_right
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mainstay.ledger.entry import EntryId

MAX_SUSPECTS = 20


class Seen(IntEnum):
    """What taking note of an id showed. Entries are sealed in the order of their segment, none left out."""

    NEXT = 0  # it follows the one before it in its segment
    AGAIN = 1  # it was there before, unless two segments drew the same 40 bits
    ASTRAY = 2  # those before it in its segment are not all there


class SeenIds:
    """Ids as intervals of counters per segment."""

    def __init__(self) -> None:
        # By the bytes of the segment in an id: disjoint [first, behind last], sorted.
        self._segments: dict[bytes, list[list[int]]] = {}
        self.suspects: dict[EntryId, str] = {}  # ids that may have occurred before, and where they did again

    def add(self, segment: bytes, counter: int) -> Seen:
        """Take note of a counter of a segment; what is to be said of it."""
        intervals = self._segments.get(segment)
        if intervals is None:
            self._segments[segment] = [[counter, counter + 1]]
            return Seen.ASTRAY if counter else Seen.NEXT
        if intervals[-1][1] == counter:
            intervals[-1][1] += 1
            return Seen.NEXT
        return _insert(intervals, counter)

    def suspect(self, entry_id: EntryId, place: str) -> None:
        """Two segments may draw the same 40 bits by chance, so whether the whole id repeats is asked later."""
        if len(self.suspects) < MAX_SUSPECTS:
            self.suspects[entry_id] = place

    def last(self, segment: bytes) -> int:
        """The counter that would be next in a segment before the last one added went astray."""
        intervals = self._segments.get(segment, [])
        return intervals[0][1] if intervals and intervals[0][0] == 0 else 0


def _insert(intervals: list[list[int]], counter: int) -> Seen:
    at = bisect_right(intervals, [counter, 1 << 64])
    if at and intervals[at - 1][1] > counter:
        return Seen.AGAIN
    joins_left = at > 0 and intervals[at - 1][1] == counter
    joins_right = at < len(intervals) and intervals[at][0] == counter + 1
    if joins_left and joins_right:
        intervals[at - 1][1] = intervals.pop(at)[1]
    elif joins_left:
        intervals[at - 1][1] += 1
    elif joins_right:
        intervals[at][0] = counter
    else:
        intervals.insert(at, [counter, counter + 1])
    return Seen.ASTRAY
