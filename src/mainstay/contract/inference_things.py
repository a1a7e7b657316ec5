"""Things that keep coming: what a sample of few of them says of the rows of others.

A thing, such as a brewery, has many rows, and settles columns of them: its name, its state. Of what it settles, its
rows are one draw and not many, and where rows of new things are to be expected, what is declared must hold for these.
How much that is, leaving out one thing after the other says: the share of things with a value that no other thing has
(Good 1953), or with a contradiction of what others show.

Things of which hardly a row can bring a new one, as airlines, are no such things: `Evidence.is_closed`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl

from mainstay.contract.inference_evidence import DOUBT, poisson_upper, weigh
from mainstay.contract.inference_names import KEYS, NAMES, has_word
from mainstay.contract.inference_settling import BY_CHANCE, contradicted_by_chance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.contract.inference_settling import Codes

MOST_ROWS: Final = 30_000  # that are looked at
MOST_REFUSED: Final = 0.005  # of things never seen, by a rule, as leaving out one after the other estimates


class Spread(NamedTuple):
    """How the values of a column stand in the things that settle it."""

    name: str  # of the column that tells the things apart
    things: int
    alone: int  # things with a value that no other one has

    @property
    def unseen_share(self) -> float:
        """The expected share of new things that have a value never seen."""
        return self.alone / self.things

    @property
    def unseen_share_upper(self) -> float:
        """The same at most, with a certainty of 95 %."""
        return min(1.0, poisson_upper(self.alone) / self.things)


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    name: str
    codes: Codes  # 0 where there is no value
    kinds: int
    keeps_coming: bool


class Things:
    """The columns of a sample that tell apart things that keep coming, and what each of them settles."""

    def __init__(self, columns: Sequence[pl.Series]) -> None:
        self._columns = {each.name: _numbered(each) for each in columns}
        chance = DOUBT / max(1, len(columns)) ** 2
        self._settlers = {
            name: [
                other
                for other in self._columns.values()
                if other.keeps_coming and other.name != name and _settles(other, each, chance)
            ]
            for name, each in self._columns.items()
        }

    def spread_of(self, name: str) -> Spread | None:
        """How the values of a column stand in things that keep coming, the worst for them; None where none do."""
        found = [_spread(thing, self._columns[name]) for thing in self._settlers.get(name, ())]
        return max(found, key=lambda each: each.unseen_share_upper, default=None)

    def is_key(self, name: str) -> bool:
        """Whether a column tells things apart, and another does as well."""
        return any(
            name == back.name for thing in self._settlers.get(name, ()) for back in self._settlers.get(thing.name, ())
        )

    def contradicted_share(self, determinant: str, dependent: str) -> float:
        """The expected share of new things that break a dependency which the others show.

        A thing that one of its names settles, when two things have the name, is known by the wrong one.
        """
        one, other = self._columns[determinant], self._columns[dependent]
        settled = [
            thing
            for thing in self._settlers[determinant]
            if thing.name == dependent or thing in self._settlers[dependent]
        ]
        return max((_contradicted_share(thing, one, other) for thing in settled), default=0.0)


def _numbered(column: pl.Series) -> _Column:
    values = column.gather_every(max(1, math.ceil(len(column) / MOST_ROWS)))
    codes = values.rank("dense").fill_null(0).cast(pl.Int64).to_numpy()
    evidence = weigh(column)
    repeats = 1 < evidence.distinct < evidence.values
    return _Column(
        column.name,
        codes,
        int(codes.max(initial=0)),
        _names(column) and repeats and not evidence.is_closed,
    )


def _names(column: pl.Series) -> bool:
    """Whether values may be what things are called: what is measured or counted, such as seats, names nothing."""
    return column.dtype == pl.String or (column.dtype == pl.Int64 and has_word(column.name, KEYS | NAMES))


def _settles(thing: _Column, column: _Column, chance: float) -> bool:
    groups = thing.codes - 1
    there = groups >= 0
    if column.kinds < 2 or not there.any():
        return False
    pairs = len(np.unique(groups[there] * (column.kinds + 1) + column.codes[there]))
    kinds = len(np.unique(groups[there]))
    if pairs - kinds > BY_CHANCE * (int(there.sum()) - kinds):
        return False
    return contradicted_by_chance(groups, column.codes, chance) is not None


def _firsts(thing: _Column, *columns: _Column) -> list[Codes]:
    """What the first row of each thing has in some columns, of the rows that have a value in all of them."""
    whole = np.logical_and.reduce([each.codes > 0 for each in (thing, *columns)])
    _, rows = np.unique(thing.codes[whole], return_index=True)
    return [each.codes[whole][rows] for each in columns]


def _spread(thing: _Column, column: _Column) -> Spread:
    (values,) = _firsts(thing, column)
    _, counts = np.unique(values, return_counts=True)
    return Spread(thing.name, max(1, len(values)), int((counts == 1).sum()))


def _contradicted_share(thing: _Column, determinant: _Column, dependent: _Column) -> float:
    known, told = _firsts(thing, determinant, dependent)
    pairs = np.unique(known * (dependent.kinds + 1) + told) // (dependent.kinds + 1)
    several, counts = np.unique(pairs, return_counts=True)
    return float(np.isin(known, several[counts > 1]).mean()) if len(known) else 0.0
