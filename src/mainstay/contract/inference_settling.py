"""Whether one column settles another: what the rows of a sample say for it, and what they would say by chance.

Three things can make a dependency out of nothing, and each is answered.

*Too few repeats.* A determinant whose values hardly come twice contradicts nothing. A row counts only when the value of
its determinant also stands in another part of the sample, neither its own nor a neighbour: what happened together may
have been the same for another reason. Of the rows that others judge so, at least 99 % must be judged rightly, with a
certainty of 95 %; where none is judged wrongly that takes 299 (`inference_evidence`).

*A dependent that hardly varies* agrees with everything. The same two columns, shifted against one another, keep their
frequencies and their runs and lose their connection. They must contradict themselves so often that it is no accident
that the unshifted ones do not, among all the candidates that were looked at (Bonferroni).

*Columns that only move slowly* seem to settle each other while they stand still. Shifted, they do as well.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np
import polars as pl

from mainstay.contract.inference_evidence import LEAST_CONFIDENCE, is_enough, poisson_upper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Codes: TypeAlias = NDArray[np.int64]
    """The values of a column by number, a row each. In a determinant, -1 where there is no value."""

PARTS: Final = 16  # of the sample, one after the other
NOT_BESIDE: Final = 2  # parts from one to another
SHIFTS: Final = 6
BY_CHANCE: Final = 0.05  # of the contradictions that shifted columns have, at most
MIXED_SHARE: Final = 0.02  # of a determinant's values, that settle nothing, at most
CLUMPED_DEVIATIONS: Final = 4.0
LEAST_ROWS: Final = (1, 2, 3, 5, 10)  # that a determinant's value must have shown before it is believed

_GOLDEN: Final = 0.3819660113  # its multiples keep clear of the periods that data have


class Weight(NamedTuple):
    """What speaks for a dependency."""

    rows: int  # that other rows could judge
    wronged: int  # of them, that these would have judged wrongly
    least: int  # rows that a determinant's value must have shown before it is believed
    by_chance: float  # contradictions of the shifted columns, in the mean
    apart: bool = False  # whether a value is believed only where rows of it stand in parts that are not side by side

    @property
    def confidence(self) -> float:
        """The least share of judged rows that keep it, with a certainty of 95 %, rounded down to four digits."""
        return math.floor(1e4 * (1 - min(1.0, poisson_upper(self.wronged) / self.rows))) / 1e4


def weigh_dependency(columns: Sequence[Codes], groups: Codes, codes: Codes, chance: float) -> Weight | None:
    """What the rows say for a dependent, or None where that is too little.

    `groups` numbers what the `columns` of the determinant have together. The agreement must have had at most this
    `chance` to come about without a dependency, and without any one of the columns.
    """
    believed = _believed(groups, codes)
    if believed is None:
        return None
    least, rows, wronged = believed
    by_chance = contradicted_by_chance(groups, codes, chance)
    if by_chance is None or not all(_is_needed(place, columns, groups, codes, chance) for place in range(len(columns))):
        return None
    return Weight(rows, wronged, least, round(by_chance, 1), stands_together(groups))


def contradicted_by_chance(groups: Codes, codes: Codes, chance: float) -> float | None:
    """How many contradictions there are when the dependent is shifted; None where that fewer are seen may be an
    accident.

    They are counted over all rows, and within parts of the sample, where what happened long ago does not count: either
    may be the clearer.
    """
    shifted = [np.roll(codes, move) for move in _moves(len(codes))]
    for parts in (1, PARTS):
        known = np.where(groups >= 0, _parts(len(codes), parts) * (groups.max() + 1) + groups, -1)
        expected = float(np.mean([_contradictions(known, each).found for each in shifted]))
        if _is_no_accident(_contradictions(known, codes), expected, chance / 2):
            return expected
    return None


def _is_needed(place: int, columns: Sequence[Codes], groups: Codes, codes: Codes, chance: float) -> bool:
    """Whether the determinant is worse with one of its columns shifted, and the others as they are."""
    if len(columns) == 1:
        return True
    expected = []
    for move in _moves(len(codes)):
        moved = [np.roll(each, move) if at == place else each for at, each in enumerate(columns)]
        expected.append(_contradictions(_combined(moved), codes).found)
    return _is_no_accident(_contradictions(groups, codes), float(np.mean(expected)), chance)


def together(columns: Sequence[Codes]) -> Codes:
    """What columns have together, numbered from 0; -1 where one of them has no value, which is 0 in them."""
    values, groups = np.unique(_combined(columns), return_inverse=True)
    numbered: Codes = groups.astype(np.int64)
    return numbered - 1 if len(values) and values[0] < 0 else numbered


def _combined(columns: Sequence[Codes]) -> Codes:
    """One number for what columns have together, and -1 where one of them has no value."""
    made = np.zeros(len(columns[0]), np.int64)
    missing = np.zeros(len(columns[0]), np.bool_)
    for each in columns:
        made = made * (each.max(initial=0) + 1) + each
        missing |= each == 0
    return np.where(missing, -1, made)


def rows_judged(groups: Codes) -> int:
    """How many rows have a value of the determinant that also stands in another part, not beside their own."""
    there = groups >= 0
    if not there.any():
        return 0
    known, own = groups[there], _parts(len(groups))[there]
    first = np.full(known.max() + 1, PARTS, np.int64)
    last = np.full(known.max() + 1, -1, np.int64)
    np.minimum.at(first, known, own)
    np.maximum.at(last, known, own)
    return int(((own - first[known] >= NOT_BESIDE) | (last[known] - own >= NOT_BESIDE)).sum())


def stands_together(groups: Codes) -> bool:
    """Whether rows with one value of the determinant stand side by side more often than in random order.

    Then rows in one place are one witness, whose word has not been tested: a file sorted by aeroplane begins with the
    aeroplanes of some airlines, and those of others may have other seats.
    """
    there = groups[groups >= 0]
    if not len(there):
        return False
    shares = np.bincount(there) / len(there)
    usual = (len(there) - 1) * float((shares**2).sum())
    seen = int((there[1:] == there[:-1]).sum())
    return seen > usual + CLUMPED_DEVIATIONS * math.sqrt(max(1.0, usual))


def is_judged_enough(groups: Codes) -> bool:
    """Whether so many rows can be judged by others that they may declare anything."""
    return is_enough(rows_judged(groups))


def _parts(rows: int, parts: int = PARTS) -> Codes:
    return np.arange(rows, dtype=np.int64) * parts // max(1, rows)


def _moves(rows: int) -> list[int]:
    return [round(rows * ((each + 1) * _GOLDEN % 1)) for each in range(SHIFTS)]


def _believed(groups: Codes, codes: Codes) -> tuple[int, int, int] | None:
    """The fewest rows that make a value of the determinant believed; how many rows are judged then, and how many of
    them wrongly.
    """
    pure, lonely, mixed = _agreement(groups, codes)
    if mixed > MIXED_SHARE * (len(pure) + mixed):
        return None
    judged = rows_judged(groups)
    for least in LEAST_ROWS:
        wronged = int((lonely >= least).sum())
        if least == 1:
            wronged += int((lonely == 1).sum())  # of two rows that disagree, each would wrong the other
        rows = min(judged, int(pure[pure > least].sum()) + wronged)
        if rows and poisson_upper(wronged) / rows <= 1 - LEAST_CONFIDENCE:
            return least, rows, wronged
    return None


def _agreement(groups: Codes, codes: Codes) -> tuple[Codes, Codes, int]:
    """Of each value of the determinant whose rows agree, their number; of each that one row alone disagrees with, that
    of the others; and how many values have rows that disagree.
    """
    there = groups >= 0
    width = codes.max() + 1
    pairs, counts = np.unique(groups[there] * width + codes[there], return_counts=True)
    owners = pairs // width
    kinds = np.bincount(owners)
    rows = np.bincount(owners, weights=counts).astype(np.int64)
    fewest = np.full(len(kinds), np.iinfo(np.int64).max)
    np.minimum.at(fewest, owners, counts)
    return rows[kinds == 1], rows[(kinds == 2) & (fewest == 1)] - 1, int((kinds > 1).sum())


class _Contradictions(NamedTuple):
    found: int  # how often what is known of the determinant comes with one more value of the dependent
    repeats: int  # how often it comes again


def _contradictions(known: Codes, codes: Codes) -> _Contradictions:
    there = known >= 0
    kinds = _different(known[there])
    return _Contradictions(
        _different(known[there] * (codes.max() + 1) + codes[there]) - kinds, int(there.sum()) - kinds
    )


def _different(values: Codes) -> int:
    return pl.Series(values).n_unique()  # by hashing: a fifth of the time of sorting


def _is_no_accident(seen: _Contradictions, expected: float, chance: float) -> bool:
    """Whether there are far fewer contradictions than `expected`, with at most this chance to be so few.

    Binomial, of as many tries as there are repeats, by Chernoff's bound, which is exact where there are none.
    """
    if seen.found > BY_CHANCE * expected or not expected:
        return False
    share, usual = seen.found / seen.repeats, min(expected / seen.repeats, 1 - 1e-9)
    told = share * math.log(share / usual) if share else 0.0
    return -seen.repeats * (told + (1 - share) * math.log((1 - share) / (1 - usual))) <= math.log(chance)
