"""The bins of a column, made once from reference values and kept for as long as windows are compared with them.

Fixed bins add up: the counts of two hours are the counts of both together, whoever counted them. A quantile sketch
would be as small, but its own error reads as drift when windows are large.

Numbers are cut by edges `e[0] < e[1] < …`; bin i has the values with `i` edges at or below them, so bin 0 is what lies
below every reference value and the last bin what lies above. A value that is frequent has a bin of its own. Texts and
booleans have a bin for each frequent value and one for all others. Whatever is missing, null or NaN, has the last bin.

What is chosen for its count is likely to have been counted high by accident (the winner's curse), and would then be
found to have become rarer. Where a column has many rare values its named ones are therefore chosen from every other row
and the reference counts are taken from the rest: `Values.chosen_from_even_rows`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import numpy as np
import polars as pl
from msgspec import Meta, Struct

from mainstay.errors import Misuse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

EQUAL_BINS: Final = 32  # of a number, about
POINT_SHARE: Final = 1 / EQUAL_BINS  # of the values that are there, from which on one value has a bin of its own
POINT_ROWS: Final = 30  # that it occurs in, at least
MOST_POINTS: Final = 64  # whole numbers with no more values than this have a bin for each
MOST_VALUES: Final = 64  # named, of a text
ENOUGH_ROWS: Final = 20  # of each value of a text, for all of them to be named without choosing
NAMED_ROWS: Final = 5  # of the rows chosen from, for a value to be named
NAME_CHARACTERS: Final = 256  # longer texts are never named: their bin would show what nobody can read
FARTHEST: Final = 1e100  # from the centre, for moments: squares of what is farther could not be added up
P_VALUE_EDGES: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

# Float32 values of the same number lie within this, relatively; a point is so wide, where nothing else is near.
_POINT_WIDTH: Final = 2.0**-22


class Numbers(Struct, frozen=True, tag="numbers", forbid_unknown_fields=True):
    """Bins of a number: `len(edges) + 1` of them, and one for what is missing."""

    edges: Annotated[tuple[float, ...], Meta(max_length=255)]  # ascending; a bin begins with its edge
    points: Annotated[tuple[float, ...], Meta(max_length=MOST_POINTS)] = ()  # values whose bin is theirs alone
    centre: float = 0.0  # about which moments are taken: the median of the reference values
    whole: bool = False  # whether the values are whole numbers

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (*self.edges, *self.points, self.centre))):
            raise ValueError("expected finite edges, points and centre")
        if any(after <= before for before, after in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError("expected edges in ascending order")

    @property
    def size(self) -> int:
        """How many counts a histogram has."""
        return len(self.edges) + 2

    def labels(self) -> list[str]:
        """A name for each bin, such as `2 to 3.5`, `= 0`, `below 2`."""
        return list(_labels(self.edges, self.points))


@lru_cache(maxsize=4_096)  # the bins of a version are named for each of its windows
def _labels(edges: tuple[float, ...], points: tuple[float, ...]) -> tuple[str, ...]:
    if not edges:
        return ("any", "missing")
    pointed = {int(np.searchsorted(edges, point, "right")): point for point in points}
    found = [f"below {edges[0]:.6g}"]
    for i, (low, high) in enumerate(pairwise(edges), start=1):
        between = f"{low:.6g} to {high:.6g}"
        found.append(f"= {pointed[i]:.6g}" if i in pointed else between)
    last = len(edges)
    found.append(f"= {pointed[last]:.6g}" if last in pointed else f"above {edges[-1]:.6g}")
    return (*found, "missing")


class Values(Struct, frozen=True, tag="values", forbid_unknown_fields=True):
    """Bins of a text or a boolean: the named values, the most frequent first, all others, and what is missing."""

    values: Annotated[tuple[str, ...], Meta(max_length=MOST_VALUES)]  # booleans are `true` and `false`
    chosen_from_even_rows: bool = False  # then reference counts are those of rows 1, 3, 5, … alone

    def __post_init__(self) -> None:
        if len(set(self.values)) != len(self.values):
            raise ValueError("expected each value once")

    @property
    def size(self) -> int:
        return len(self.values) + 2

    def labels(self) -> list[str]:
        return [*self.values, "others", "missing"]


class Column(Struct, frozen=True, forbid_unknown_fields=True):
    """A column by name, and its bins."""

    name: str
    bins: Numbers | Values

    @property
    def ordered(self) -> bool:
        """Whether neighbouring bins are near each other, so that values can shift; the missing are beside the order."""
        return isinstance(self.bins, Numbers)


def make_bins(frame: pl.DataFrame) -> tuple[Column, ...]:
    """Bins of every column of reference rows that numbers, texts or booleans are in, in the order of the columns.

    Dates and times have none, since time always moves on; nor have lists and records. The same rows give the same bins.
    Raises Misuse when there are no rows.
    """
    if not frame.height:
        raise Misuse("expected reference rows to make bins from, found none")
    made = ((series.name, _bins_of(series)) for series in frame)
    return tuple(Column(name, bins) for name, bins in made if bins is not None)


def p_value_column(name: str) -> Column:
    """Bins of p-values, such as those of the novelty of inputs: fine where they are small."""
    return Column(name, Numbers(P_VALUE_EDGES, centre=0.5))


def as_texts(series: pl.Series) -> pl.Series:
    """What the bins of a text column name values by."""
    if series.dtype == pl.Boolean:
        return series.cast(pl.UInt8).replace_strict({0: "false", 1: "true"}, return_dtype=pl.String)
    return series if series.dtype == pl.String else series.cast(pl.String)


def _bins_of(series: pl.Series) -> Numbers | Values | None:
    kind = series.dtype
    if kind.is_numeric():
        return _numbers(series)
    if kind == pl.Boolean:
        return Values(("false", "true"))
    if kind == pl.Null:
        return Values(())
    return _values(series) if kind in {pl.String, pl.Categorical, pl.Enum} else None


def _numbers(series: pl.Series) -> Numbers:
    values = series.drop_nulls().cast(pl.Float64).to_numpy()
    present = np.sort(values[np.isfinite(values)])
    whole = series.dtype.is_integer()
    if not len(present):
        return Numbers((), whole=whole)
    centre = float(present[len(present) // 2])
    distinct, starts, counts = np.unique(present, return_index=True, return_counts=True)
    if whole and len(distinct) <= MOST_POINTS:
        points = distinct
    else:
        points = distinct[counts >= max(POINT_ROWS, math.ceil(POINT_SHARE * len(present)))]
    edges: set[float] = set()
    for point in points.tolist():
        edges |= _around(point, distinct, whole)
    if distinct[0] not in points:
        edges.add(float(distinct[0]))
    if distinct[-1] not in points:
        edges.add(_just_above(float(distinct[-1]), math.inf, whole))
    if len(points) < len(distinct):
        edges |= _between(distinct, starts, counts, points)
    finite = sorted(edge for edge in edges if math.isfinite(edge))
    return Numbers(tuple(finite), tuple(points.tolist()), centre, whole)


def _between(distinct: Floats, starts: NDArray[np.intp], counts: NDArray[np.intp], points: Floats) -> set[float]:
    """Edges that cut what is no point into bins of equal mass, in as many as leave about EQUAL_BINS in all."""
    others = ~np.isin(distinct, points)
    rest, weights = distinct[others], counts[others]
    total = int(weights.sum())
    share = total / int(starts[-1] + counts[-1])
    wanted = max(2, round(EQUAL_BINS * share))
    below = np.cumsum(weights) - weights  # rows of the rest that lie below each value
    cuts = np.arange(1, wanted) * total / wanted
    return set(rest[np.minimum(np.searchsorted(below, cuts), len(rest) - 1)].tolist())


def _around(point: float, distinct: Floats, whole: bool) -> set[float]:
    """The edges of a point's own bin, which nothing else of the reference is in."""
    place = int(np.searchsorted(distinct, point))
    before = float(distinct[place - 1]) if place else -math.inf
    after = float(distinct[place + 1]) if place + 1 < len(distinct) else math.inf
    low = point if whole else point - abs(point) * _POINT_WIDTH
    return {float(low if low > before else point), _just_above(point, after, whole)}


def _just_above(point: float, after: float, whole: bool) -> float:
    """The end of a bin that begins at or below a point; infinite when no number lies above it."""
    high = float(point + 1 if whole else point + abs(point) * _POINT_WIDTH)
    return high if point < high <= after else math.nextafter(point, math.inf)


def _values(series: pl.Series) -> Values:
    texts = as_texts(series)
    if _few(texts):
        return Values(_most_frequent(texts, 1))
    return Values(_most_frequent(texts.gather_every(2), NAMED_ROWS), chosen_from_even_rows=True)


def _few(texts: pl.Series) -> bool:
    counts = texts.drop_nulls().value_counts()["count"]
    return len(counts) <= MOST_VALUES and (not len(counts) or bool(counts.min() >= ENOUGH_ROWS))  # type: ignore[operator]  # counts are numbers


def _most_frequent(texts: pl.Series, rows: int) -> tuple[str, ...]:
    counted = texts.drop_nulls().rename("value").value_counts(name="rows")
    named = counted.filter((pl.col("rows") >= rows) & (pl.col("value").str.len_chars() <= NAME_CHARACTERS))
    chosen = named.sort(["rows", "value"], descending=[True, False]).head(MOST_VALUES)
    return tuple(chosen["value"].to_list())
