"""Columns that settle others: a city its county, a route its distance.

    1  number the values of every column, and leave out what cannot settle anything
    2  take one column, then pairs, then threes as a determinant of every other column; most fail on the first rows
    3  weigh what is left on all rows                                                    inference_settling
    4  where both columns say something of one thing, as a city and a county of a hospital that has many rows,
       weigh them once more with one row of each thing
    5  where several columns tell the same things apart, keep those that are called as keys: two hospitals may well be
       in one town, though no two of the sample are

Determinants are as small as can be: what one column settles, no pair with it is tried for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl

from mainstay.contract.inference_evidence import DOUBT, is_rising
from mainstay.contract.inference_names import KEYS, NAMES, has_word
from mainstay.contract.inference_settling import contradicted_by_chance, is_judged_enough, together, weigh_dependency

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mainstay.contract.inference_settling import Codes, Weight
    from mainstay.contract.inference_types import InferredColumn

    Places = tuple[int, ...]

MOST_COLUMNS: Final = 3  # of a determinant
MOST_DETERMINANTS: Final = 5_000  # of a size; tables so wide that there are more do without it
MOST_VALUES: Final = 2_000  # of a determinant
MOST_ROWS: Final = 30_000  # that are looked at
MOST_WEIGHED: Final = 200  # candidates with several columns: a table that needs more has accidents among them
FIRST_ROWS: Final = 4_000
FAILING_SHARE: Final = 0.05  # of neighbours among them that disagree


@dataclass(frozen=True, slots=True, eq=False)
class Determinant:
    """Columns that settle others."""

    names: tuple[str, ...]
    places: Places
    groups: Codes  # of each row: the number of its value, or -1
    values: int  # different ones


class Dependency(NamedTuple):
    """A column that a determinant settles."""

    determinant: Determinant
    name: str
    place: int
    weight: Weight


def find_dependencies(columns: Sequence[InferredColumn]) -> tuple[list[Dependency], int]:
    """The dependencies among the columns of a sample, in its order, and how many rows were looked at."""
    search = _Search([made for each in columns if (made := _numbered(each)) is not None])
    return search.run(), search.rows


class _Column(NamedTuple):
    name: str
    codes: Codes  # 0 where there is no value
    determines: bool
    depends: bool


def _numbered(column: InferredColumn) -> _Column | None:
    values = column.values.gather_every(max(1, math.ceil(len(column.values) / MOST_ROWS)))
    codes = values.rank("dense").fill_null(0).cast(pl.Int64).to_numpy()
    if len(codes) == 0 or (codes == codes[0]).all():
        return None
    is_exact = values.dtype != pl.Float64  # what is measured names nothing
    determines = is_exact and int(codes.max()) <= MOST_VALUES and not is_rising(values)
    return _Column(column.name, codes, determines, not column.declared.unique)


class _Search:
    def __init__(self, columns: Sequence[_Column]) -> None:
        self._columns = columns
        self.rows = len(columns[0].codes) if columns else 0
        self._first = np.arange(0, self.rows, max(1, self.rows // FIRST_ROWS))
        firsts = [each.codes[self._first] for each in columns]
        self._matrix = np.stack(firsts, axis=1) if firsts else np.zeros((0, 0), np.int64)
        self._found: list[Dependency] = []
        self._settlers: dict[int, list[set[int]]] = {}  # of each column
        self._left_to_weigh = MOST_WEIGHED

    def run(self) -> list[Dependency]:
        singles = [place for place, each in enumerate(self._columns) if each.determines and self._repeats((place,))]
        sizes = [size for size in range(1, MOST_COLUMNS + 1) if 0 < math.comb(len(singles), size) <= MOST_DETERMINANTS]
        repeating: set[Places] = {(place,) for place in singles}
        for size in sizes:
            # Each size has its share of the doubt, whatever the others need of theirs: small ones are likelier.
            chance = DOUBT / len(sizes) / (len(self._columns) * math.comb(len(singles), size))
            tried = [places for places in combinations(singles, size) if self._is_worth_it(places, repeating)]
            for places in tried:
                self._try_all(places, chance)
            if size < sizes[-1]:
                repeating = {places for places in tried if size == 1 or self._repeats(places)}
        self._found = self._of_many_things()
        return self._of_keys()

    # Determinants.

    def _is_worth_it(self, places: Places, repeating: set[Places]) -> bool:
        """Whether every part of it repeats, and none follows from the rest."""
        size = len(places)
        return size == 1 or (
            all(each in repeating for each in combinations(places, size - 1))
            and not any(self._is_settled(place, set(places) - {place}) for place in places)
        )

    def _codes(self, places: Places) -> list[Codes]:
        return [self._columns[place].codes for place in places]

    def _repeats(self, places: Places) -> bool:
        groups = together(self._codes(places))
        return groups.max(initial=-1) < MOST_VALUES and is_judged_enough(groups)

    def _determinant(self, places: Places) -> Determinant | None:
        """The determinant that some columns are; None where they have too many values, or these hardly repeat."""
        groups = together(self._codes(places))
        values = int(groups.max(initial=-1)) + 1
        if not 2 <= values <= MOST_VALUES or not is_judged_enough(groups):
            return None
        return Determinant(tuple(self._columns[place].name for place in places), places, groups, values)

    # Dependents.

    def _is_settled(self, place: int, by: set[int]) -> bool:
        return any(each <= by for each in self._settlers.get(place, ()))

    def _try_all(self, places: Places, chance: float) -> None:
        """Every other column as a dependent of these."""
        left = [place for place in self._not_failing(places) if not self._is_settled(place, set(places))]
        if len(places) > 1:
            left = [place for place in left if not self._follows(place, places)][: self._left_to_weigh]
            self._left_to_weigh -= len(left)
        made = self._determinant(places) if left else None
        if made is None:
            return
        for place in left:
            weight = weigh_dependency(self._codes(places), made.groups, self._columns[place].codes, chance)
            if weight is not None:
                self._found.append(Dependency(made, self._columns[place].name, place, weight))
                self._settlers.setdefault(place, []).append(set(places))

    def _follows(self, place: int, places: Places) -> bool:
        """Whether one column settles them all: what they say of its things, it says itself."""
        return bool(set.intersection(*(self._single_settlers(each) for each in (place, *places))))

    def _single_settlers(self, place: int) -> set[int]:
        return {other for each in self._settlers.get(place, ()) if len(each) == 1 for other in each}

    def _not_failing(self, places: Places) -> list[int]:
        """The columns that hardly disagree between neighbours of one value, on the first rows."""
        groups = together([self._matrix[:, place] for place in places])
        order = np.argsort(groups, kind="stable")
        order = order[groups[order] >= 0]
        same = groups[order][1:] == groups[order][:-1]
        if not same.any():
            return []
        differing = (self._matrix[order][1:][same] != self._matrix[order][:-1][same]).mean(axis=0)
        depends = [each.depends for each in self._columns]
        return [
            place
            for place, share in enumerate(differing.tolist())
            if share <= FAILING_SHARE and depends[place] and place not in places
        ]

    # Things with many rows.

    def _of_many_things(self) -> list[Dependency]:
        """Those that are no accident of few things with many rows each, such as one county with two hospitals.

        A thing is what settles the dependent and is not settled by the determinant. All its rows agree anyway: of those
        with one value of the determinant, one counts.
        """
        chance = DOUBT / max(1, len(self._found))
        things = list({each.determinant.places: each.determinant for each in self._found}.values())
        reach = {each.places: self._closure(each.places) for each in things}
        return [each for each in self._found if self._holds_of(each, things, reach, chance)]

    def _holds_of(
        self, found: Dependency, things: Sequence[Determinant], reach: Mapping[Places, set[int]], chance: float
    ) -> bool:
        groups, codes = found.determinant.groups, self._columns[found.place].codes
        for thing in things:
            if found.place in reach[thing.places] and not set(thing.places) <= reach[found.determinant.places]:
                _, firsts = np.unique(groups * thing.values + thing.groups, return_index=True)
                rows = np.sort(firsts)
                if contradicted_by_chance(groups[rows], codes[rows], chance) is None:
                    return False
        return True

    def _of_keys(self) -> list[Dependency]:
        """Those whose determinant is called as a key, or tells no other things apart than it does."""
        things = list({each.determinant.places: each.determinant for each in self._found}.values())
        reach = {each.places: self._closure(each.places) for each in things}
        keys = [reach[each.places] for each in things if _is_called_a_key(each)]
        dropped = {each.places for each in things if reach[each.places] in keys and not _is_called_a_key(each)}
        return [each for each in self._found if each.determinant.places not in dropped]

    def _closure(self, places: Places) -> set[int]:
        """All columns that these settle, themselves among them."""
        known = set(places)
        while True:
            more = {each.place for each in self._found if set(each.determinant.places) <= known} - known
            if not more:
                return known
            known |= more


def _is_called_a_key(determinant: Determinant) -> bool:
    return all(has_word(name, KEYS | NAMES) for name in determinant.names)
