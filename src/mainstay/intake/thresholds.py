"""The share of bad rows above which a feed stops: a judge of the door's parts, which is asked before they are written.

The share is of a sliding window: the last `bad_share_rows` rows as they came, whatever items they came in. It is held
against the limit behind every bad row, so that a burst stops the feed however large the part it came in, and in many
items of one row as in one of a million. Before so many rows have come, a handful stops nothing; from FEW bad rows on,
the feed stops where a feed of the declared share would have so many by a chance below ODDS (Chernoff's bound for the
binomial: Hoeffding 1963, theorem 1).

The window is made from the tables when a source begins to be worked on: which rows of an item came, and which of them
broke a rule, stands there for good. Rows that repeat known ones leave no trace there, and count only while the process
lives.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor, log
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl

from mainstay.intake.newest import newest_item, rows_after
from mainstay.intake.types import ITEM, ORIGIN, REASON, REPLAY_OF, ROW, Hold, intake_table, quarantine_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mainstay.capability.sources import Source
    from mainstay.intake.types import PartFacts
    from mainstay.lake.lake import Lake
    from mainstay.lake.tables import Table

FEW: Final = 20
ODDS: Final = 1e-3
CODE: Final = "bad_share"

_BAD: Final = ("rules", "unreadable")  # of the reasons for which a row is in quarantine
_FIRST_LOOK: Final = 4  # items of the tables that are read at first; then four times as many, until there are enough


class Stretch(NamedTuple):
    """Consecutive rows of an item that were taken, and which of them were bad."""

    item: int
    first_row: int
    rows: int
    bad: Any  # numpy array of integers, in order: numbers in the item


class BadShare:
    """The judge of one source."""

    def __init__(self, limit: float, window: int, past: Iterable[Stretch] = (), released_to: int = 0) -> None:
        """`limit` is a share of `window` rows. Items up to `released_to` are let pass, and do not count."""
        self._limit = limit
        self._window = window
        self._allowed = floor(
            Fraction(repr(limit)) * window
        )  # bad rows among so many; as a float, 0.29 of 100 is 28.99…
        self._released_to = released_to
        known = [each for each in past if each.item > released_to]
        self._before = _merged(known[:-1], window)  # the items before the one under way
        self._item = known[-1:]  # what was taken of that one

    def __call__(self, facts: PartFacts) -> Hold | None:
        """Whether the part is one too many; what is let pass counts from then on."""
        number = facts.item.number
        if number <= self._released_to or facts.rejected:
            return None
        if self._item and self._item[0].item != number:
            self._before, self._item = _merged([self._before, *self._item], self._window), []
        taken = _until(self._item, facts.first_row)
        part = Stretch(number, facts.first_row, facts.rows, np.asarray(facts.bad, dtype=np.int64))
        found = self._worst([self._before, *taken], part)
        if found is None:
            self._item = [*taken, part]
        return found

    def _worst(self, before: Sequence[Stretch], part: Stretch) -> Hold | None:
        """Why the feed stops, at the bad row of the part behind which the share is greatest."""
        places, seen = _bad_places([*before, part])
        ends = np.flatnonzero(places > seen - part.rows)
        if not len(ends):
            return None
        ends_at = places[ends]
        bad = ends + 1 - np.searchsorted(places, ends_at - self._window, side="right")
        over = bad > self._allowed
        early = ends_at < self._window
        if early.any():
            over |= early & (bad >= FEW) & self._beyond_chance(bad, ends_at)
        if not over.any():
            return None
        worst = int(np.argmax(np.where(over, bad / np.minimum(ends_at, self._window), -1.0)))
        count, of = int(bad[worst]), min(int(ends_at[worst]), self._window)
        row = int(part.bad[worst])
        share = (
            f"{100 * count / of:.3g} % of the last {of:,} rows are bad ({count:,}), and {100 * self._limit:g} % may be"
        )
        return Hold(CODE, f"{share}; seen at row {row:,} of item {part.item}")

    def _beyond_chance(self, bad: Any, rows: Any) -> Any:
        """Whether so many bad rows are beyond what chance gives a feed of the declared share."""
        if self._limit in (0.0, 1.0):
            return bad > self._limit * rows
        share = bad / rows
        with np.errstate(divide="ignore", invalid="ignore"):
            rest = np.where(share < 1, (1 - share) * np.log((1 - share) / (1 - self._limit)), 0.0)
            nats = rows * (share * np.log(share / self._limit) + rest)
        return (share > self._limit) & (nats > -log(ODDS))


def bad_share_of(lake: Lake, capability: str, source: Source, *, released_to: int = 0) -> BadShare:
    """The judge of a source as it is declared, from where its tables are."""
    past = past_rows(lake, capability, source.name, source.bad_share_rows)
    return BadShare(source.max_bad_share, source.bad_share_rows, past, released_to)


def past_rows(lake: Lake, capability: str, source: str, rows: int) -> list[Stretch]:
    """The newest rows that the tables of a source know of, at least `rows` where there are so many, oldest first.

    Of the tables two columns of the newest items are read, which their files' statistics find.
    """
    found = [lake.find(name) for name in (intake_table(capability, source), quarantine_table(capability, source))]
    tables = [table for table in found if table is not None]
    if not tables:
        return []
    newest = max(newest_item(table) for table in tables)
    items = _FIRST_LOOK
    while True:
        taken = _taken(tables, newest - items)
        if sum(each.rows for each in taken) >= rows or items >= newest:
            return taken
        items *= 4


def _taken(tables: Sequence[Table], after: int) -> list[Stretch]:
    """What the tables say of the items above `after`, but for those that came out of quarantine again."""
    parts = []
    for table in tables:
        is_bad = pl.col(REASON).is_in(_BAD) if REASON in table.schema else pl.lit(value=False)
        newer = rows_after(table, after)
        if ORIGIN in table.schema:
            newer = newer.filter(~pl.col(ORIGIN).str.starts_with(REPLAY_OF))
        parts.append(newer.select(ITEM, ROW, is_bad.alias("bad")).collect())
    found = []
    for (item,), rows in pl.concat(parts).sort(ITEM, ROW).group_by(ITEM, maintain_order=True):
        bad = rows.filter("bad")[ROW].to_numpy()
        found.append(Stretch(item, 1, int(rows[ROW][-1]), bad))
    return found


def _until(stretches: Sequence[Stretch], first_row: int) -> list[Stretch]:
    """Those of an item before a row. What is known of it and behind it is of a time when that was taken before."""
    kept = []
    for each in stretches:
        rows = min(each.rows, first_row - each.first_row)
        if rows > 0:
            kept.append(each._replace(rows=rows, bad=each.bad[each.bad < each.first_row + rows]))
    return kept


def _merged(stretches: Sequence[Stretch], rows: int) -> Stretch:
    """The last `rows` rows of them as one."""
    places, seen = _bad_places(stretches)
    kept = min(seen, rows)
    return Stretch(0, 1, kept, places[places > seen - kept] - (seen - kept))


def _bad_places(stretches: Sequence[Stretch]) -> tuple[Any, int]:
    """Where the bad rows of all stand, counted from 1 over all of them, and how many rows there are."""
    found, seen = [np.empty(0, dtype=np.int64)], 0
    for each in stretches:
        found.append(each.bad - each.first_row + 1 + seen)
        seen += each.rows
    return np.concatenate(found), seen
