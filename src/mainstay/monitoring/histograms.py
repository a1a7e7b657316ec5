"""Counting rows into the bins of their columns, in one pass and in memory that does not grow with the rows.

Counts add up: a window is the sum of its steps, in whatever order they were counted. So do moments, kept as number,
mean and sum of squared distances from it (Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance").

A number's bin is the number of edges at or below it. Comparing a block of values that fits in the processor's cache
with one edge after the other costs a tenth of nanoseconds per edge and value, six times less than searching by halves,
whose branches nobody can predict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import numpy as np
import polars as pl
from msgspec import Meta, Struct

from mainstay.errors import Misuse
from mainstay.monitoring.binning import FARTHEST, Column, Numbers, Values, as_texts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Whole: TypeAlias = NDArray[np.int64]
    Places: TypeAlias = NDArray[np.intp]

BLOCK_ROWS: Final = 1 << 14  # whose values and codes stay in the processor's cache
BATCH_ROWS: Final = 1 << 16  # read at once
COLUMNS_AT_ONCE: Final = 8  # of a Parquet file, whose row groups are held whole while they are read

Count: TypeAlias = Annotated[int, Meta(ge=0)]


class Moments(Struct, frozen=True, forbid_unknown_fields=True):
    """Of the finite numbers among the values; what is farther than 1e100 from the centre counts as so far."""

    n: Count = 0
    mean: float = 0.0
    m2: float = 0.0  # the sum of squared distances from the mean

    def __add__(self, other: Moments) -> Moments:
        if not self.n or not other.n:
            return self if self.n else other
        n, apart = self.n + other.n, other.mean - self.mean
        m2 = self.m2 + other.m2 + apart * apart * (self.n * other.n / n)
        return Moments(n, self.mean + apart * (other.n / n), m2)


class Histogram(Struct, frozen=True, forbid_unknown_fields=True):
    """How many values are in each bin of a column, the missing last; and the moments of numbers."""

    counts: tuple[Count, ...]
    moments: Moments | None = None

    @property
    def rows(self) -> int:
        return sum(self.counts)

    def __add__(self, other: Histogram) -> Histogram:
        if len(self.counts) != len(other.counts):
            raise Misuse(f"expected counts of the same bins, found {len(self.counts)} and {len(other.counts)} of them")
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        known = self.moments is not None and other.moments is not None
        return Histogram(counts, self.moments + other.moments if known else None)  # type: ignore[operator]  # known


Histograms: TypeAlias = Mapping[str, Histogram]  # by the name of the column


def merge(parts: Iterable[Histogram]) -> Histogram:
    """The sum of at least one histogram."""
    first, *rest = parts
    return sum(rest, first)


def stack(parts: Sequence[Histogram]) -> Whole:
    """(len(parts), bins) the counts of one column, a row for each part. Raises Misuse when their bins differ."""
    if len({len(part.counts) for part in parts}) > 1:
        raise Misuse("expected counts of the same bins, found different numbers of them")
    return np.array([part.counts for part in parts], np.int64)


class Tally:
    """Counts of some columns in some groups of rows at once, such as the hours of a day or the values of a segment.

    `sizes` says how many groups each grouping has; without any, all rows are one group. A value is given its bin once
    however many groupings there are.
    """

    def __init__(self, columns: Sequence[Column], sizes: Sequence[int] = (1,)) -> None:
        self._columns = tuple(columns)
        self._sizes = tuple(sizes)
        self._counts = [[np.zeros((size, each.bins.size), np.int64) for each in self._columns] for size in sizes]
        self._sums = [[np.zeros((3, size)) for _ in self._columns] for size in sizes]  # n, first and second powers

    def add(self, frame: pl.DataFrame, groups: Sequence[Places] | None = None) -> None:
        """Count the rows of a frame, which has at least the columns.

        `groups`: for each grouping the group of each row, (rows,) from 0; below 0: the row is in none. Left out where
        all rows are one group. Raises Misuse when a column is absent or of another kind.
        """
        if groups is None and self._sizes != (1,):
            raise Misuse(f"expected the groups of {len(self._sizes)} groupings, found none")
        missing = [each.name for each in self._columns if each.name not in frame.columns]
        if missing:
            raise Misuse(f"expected the columns that have bins, found none called {', '.join(missing)}")
        for place, column in enumerate(self._columns):
            series = frame.get_column(column.name)
            if isinstance(column.bins, Numbers):
                self._add_numbers(place, column.bins, _as_numbers(series), groups)
            else:
                self._add_values(place, _codes(series, column.bins), groups)

    def result(self, grouping: int = 0) -> list[dict[str, Histogram]]:
        """For each group of a grouping the histograms of all columns."""
        return [
            {
                column.name: Histogram(
                    tuple(counts[group].tolist()),
                    _moments(sums[:, group], column.bins.centre) if isinstance(column.bins, Numbers) else None,
                )
                for column, counts, sums in zip(
                    self._columns, self._counts[grouping], self._sums[grouping], strict=True
                )
            }
            for group in range(self._sizes[grouping])
        ]

    def _add_values(self, place: int, codes: Places, groups: Sequence[Places] | None) -> None:
        for grouping, counts in enumerate(self._counts):
            _count_codes(codes, counts[place], None if groups is None else groups[grouping])

    def _add_numbers(self, place: int, bins: Numbers, values: NDArray[Any], groups: Sequence[Places] | None) -> None:
        edges = _edges_for(bins, values.dtype)
        codes = np.empty(min(BLOCK_ROWS, len(values)), np.uint8 if bins.size <= 256 else np.intp)
        for start in range(0, len(values), BLOCK_ROWS):
            block = values[start : start + BLOCK_ROWS]
            code = codes[: len(block)]
            _encode(block, edges, code)
            finite = np.isfinite(block)
            away = np.subtract(block, bins.centre, dtype=np.float64)
            np.clip(away, -FARTHEST, FARTHEST, out=away)
            if not finite.all():
                code[np.isnan(block)] = bins.size - 1
                away[~finite] = 0.0
            for grouping, counts in enumerate(self._counts):
                group = None if groups is None else groups[grouping][start : start + BLOCK_ROWS]
                _count_codes(code, counts[place], group)
                _add_powers(away, finite, self._sums[grouping][place], group)


def count(frame: pl.DataFrame, columns: Sequence[Column]) -> dict[str, Histogram]:
    """Histograms of the columns over all rows of a frame."""
    tally = Tally(columns)
    tally.add(frame)
    return tally.result()[0]


def count_batches(frame: pl.LazyFrame, columns: Sequence[Column]) -> dict[str, Histogram]:
    """Histograms of the columns over a lazy frame, which is collected some rows at a time."""
    tally = Tally(columns)
    _add_batches(frame, columns, tally)
    return tally.result()[0]


def count_parquet(source: Path | Sequence[Path], columns: Sequence[Column]) -> dict[str, Histogram]:
    """Histograms of the columns over Parquet files, a few columns of one file at a time.

    Row groups are held whole while they are read, and several are read ahead.
    """
    found: dict[str, Histogram] = {}
    for start in range(0, len(columns), COLUMNS_AT_ONCE):
        chosen = columns[start : start + COLUMNS_AT_ONCE]
        tally = Tally(chosen)
        for file in [source] if isinstance(source, Path) else source:
            _add_batches(pl.scan_parquet(file, low_memory=True), chosen, tally)
        found |= tally.result()[0]
    return found


def _add_batches(frame: pl.LazyFrame, columns: Sequence[Column], tally: Tally) -> None:
    wanted = frame.select([column.name for column in columns])
    for batch in wanted.collect_batches(chunk_size=BATCH_ROWS, maintain_order=False):
        tally.add(batch)


def _as_numbers(series: pl.Series) -> NDArray[Any]:
    """Float32 or float64, NaN where missing."""
    if not series.dtype.is_numeric() and series.dtype != pl.Null:
        raise Misuse(f"expected numbers in the column {series.name}, found {series.dtype}")
    if series.dtype not in {pl.Float32, pl.Float64}:
        series = series.cast(pl.Float64)
    return series.to_numpy()


def _codes(series: pl.Series, bins: Values) -> Places:
    """The bin of each value."""
    if series.dtype not in {pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Null}:
        raise Misuse(f"expected texts or booleans in the column {series.name}, found {series.dtype}")
    texts = as_texts(series)
    others = len(bins.values)
    known = texts.cast(pl.Enum(bins.values), strict=False).to_physical().cast(pl.Int32)
    if known.null_count():
        rest = texts.is_null().cast(pl.Int32) + others
        known = known.fill_null(rest) if len(rest) > 1 else known.fill_null(int(rest[0]))
    return known.to_numpy().astype(np.intp)


def _edges_for(bins: Numbers, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Edges of the values' own type with the same values at or above them: the nearest ones from above."""
    edges = np.array(bins.edges)
    if dtype == np.float64:
        return edges
    with np.errstate(over="ignore"):  # an edge beyond every float32 is infinite there
        narrow = edges.astype(np.float32)
    return np.where(narrow.astype(np.float64) < edges, np.nextafter(narrow, np.float32(np.inf)), narrow)


def _encode(block: NDArray[Any], edges: NDArray[Any], out: NDArray[Any]) -> None:
    out[:] = 0
    above = np.empty(len(block), np.bool_)
    for edge in edges:
        np.greater_equal(block, edge, out=above)
        np.add(out, above.view(np.uint8), out=out)


def _count_codes(codes: NDArray[Any], counts: Whole, group: Places | None) -> None:
    groups, size = counts.shape
    if group is None:
        counts[0] += np.bincount(codes, minlength=size)
        return
    cells = group * size + codes
    kept = group >= 0
    found = np.bincount(cells if kept.all() else cells[kept], minlength=groups * size)
    counts += found.reshape(groups, size)


def _add_powers(away: Floats, finite: NDArray[np.bool_], sums: Floats, group: Places | None) -> None:
    if group is None:
        # Not the dot product of the two: that would wake the threads of the linear algebra library.
        sums[:, 0] += (np.count_nonzero(finite), away.sum(), np.square(away).sum())
        return
    kept = group >= 0
    if not kept.all():
        group, away, finite = group[kept], away[kept], finite[kept]
    size = sums.shape[1]
    sums[0] += np.bincount(group, finite, size)
    sums[1] += np.bincount(group, away, size)
    sums[2] += np.bincount(group, away * away, size)


def _moments(sums: Floats, centre: float) -> Moments:
    n, first, second = sums.tolist()
    if not n:
        return Moments()
    return Moments(int(n), centre + first / n, max(0.0, second - first * first / n))
