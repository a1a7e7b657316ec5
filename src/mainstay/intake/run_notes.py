"""What a run notes in the state of its source, as it goes: what landed, what became of rows, what was found.

The state is written at most once in WRITE_SECONDS, and at the end. Whoever is killed loses some notes, and no row.
"""

from __future__ import annotations

from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from mainstay.intake.state import Counts, noted
from mainstay.intake.types import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mainstay.intake.door_tables import Counts as DoorCounts
    from mainstay.intake.landing import Item
    from mainstay.intake.state import State, StateFile
    from mainstay.intake.types import Taken

WRITE_SECONDS: Final = 1.0


class Notes:
    """What is noted of one run."""

    def __init__(self, file: StateFile, contract: str) -> None:
        self.items = 0  # that landed
        self.counts = Counts()  # of the rows that were taken
        self.totals: Counts | None = None  # of all rows that the source ever gave; None: not known by now
        self.watermark: datetime | None = None
        self._file = file
        self._contract = contract
        self._arrived_at: datetime | None = None
        self._found: list[Finding] = []
        self._written_at = monotonic()

    def landed(self, item: Item) -> None:
        """An item has landed."""
        self.items += 1
        self._found += [Finding(each.code, each.detail, item=item.number) for each in item.noticed]
        self._arrived(item)
        self._write_sometimes()

    def took(self, taken: Taken, findings: Iterable[Finding]) -> None:
        """An item, or a part of one, was taken; `findings` are those of its judges."""
        self.counts = _sum(self.counts, counts_of(taken))
        once = {(each.code, each.field): each for each in (*taken.findings, *findings)}  # the door and a judge say some
        self._found += once.values()
        self._write_sometimes()

    def write(self) -> None:
        """Write what is not yet in the state."""
        now, totals, found = datetime.now(UTC), self.totals, self._found
        arrived_at, watermark = self._arrived_at, self.watermark

        def note(before: State) -> State:
            after = replace(
                before,
                counts=totals or before.counts,
                last_arrival_at=_later(before.last_arrival_at, arrived_at),
                watermark=watermark or before.watermark,
                contract=self._contract if self.counts.rows else before.contract,
            )
            for each in found:
                after = noted(after, [each], now)
            return after

        self._file.change(note)
        self._found, self._written_at = [], monotonic()

    def _write_sometimes(self) -> None:
        if monotonic() - self._written_at >= WRITE_SECONDS:
            self.write()

    def _arrived(self, item: Item) -> None:
        if item.bytes and not item.replayed:
            self._arrived_at = _later(self._arrived_at, item.arrived_at)


def counts_of(counted: Taken | DoorCounts) -> Counts:
    """The same counts, as the state has them."""
    return Counts(**{name: getattr(counted, name) for name in Counts.__struct_fields__})


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    given = [each for each in (one, other) if each is not None]
    return max(given, default=None)


def _sum(counts: Counts, more: Counts) -> Counts:
    return Counts(**{name: getattr(counts, name) + getattr(more, name) for name in Counts.__struct_fields__})
