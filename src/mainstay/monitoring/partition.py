"""Parts of the input space in which a calibration was off by different amounts: a small regression tree.

Splits are those of CART (Breiman, Friedman, Olshen, Stone 1984), grown best first over columns that were cut into few
bins beforehand; a split is made only where chance alone, given how many splits were tried, would hardly do as well.
"""

from __future__ import annotations

import math
from functools import cached_property
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

import numpy as np
import polars as pl
from msgspec import Struct

from mainstay.monitoring.intervals import z_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from mainstay.monitoring.intervals import Bools, Floats

    Ints: TypeAlias = NDArray[np.int64]

Entry = TypeVar("Entry", bound=np.unsignedinteger[Any])

MOST_LEAVES: Final = 16
FEWEST_ROWS: Final = 200  # of a leaf
_BLOCK: Final = 2**16  # rows whose numbers stay in the processor's cache
_BITS: Final = 8  # answers in a byte
_WHOLE: Final = frozenset((pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64))
_GROWN_ON: Final = 100_000  # rows, at most
_BINS: Final = 32  # of a column, at most; the last is for what is missing
_CHANCE: Final = 0.1  # that a split is made of columns that say nothing


class Split(Struct, frozen=True, kw_only=True):
    """Rows go to `left` or `right`: another split from 0, or, below 0, the leaf `-1 - number`."""

    column: str
    of_texts: bool
    at_most: float | None  # left are numbers of at most that; None: all that are no missing ones
    texts: tuple[str, ...]  # left are these; or, with `missing_left`, all but these
    missing_left: bool
    left: int
    right: int


class Partition(Struct, frozen=True, dict=True):
    """The splits, at most 15, the first one of all rows first. Without any there is one leaf, 0."""

    splits: tuple[Split, ...]

    @property
    def leaves(self) -> int:
        return len(self.splits) + 1

    def leaf_of(self, inputs: pl.DataFrame) -> NDArray[np.uint8]:
        """The leaf, from 0, of each row. A column that is absent is missing in every row."""
        return self.read(inputs).leaf_of(slice(0, len(inputs)))

    def read(self, inputs: pl.DataFrame) -> Read:
        """For whoever asks for some rows after others."""
        by_column = groupby(self._questions, key=_subject)
        return Read([_Asked.of(list(questions), inputs) for _, questions in by_column], self.leaf_of_answers)

    @cached_property
    def _questions(self) -> list[Question]:
        """Each once, those about a column one after another."""
        return sorted({_question(split) for split in self.splits}, key=_subject)

    @cached_property
    def leaf_of_answers(self) -> NDArray[np.uint8]:
        """The leaf for every combination of left and right; the last question is the lowest bit."""
        places = {question: place for place, question in enumerate(reversed(self._questions))}
        shifts = np.array([places[_question(split)] for split in self.splits])
        targets = np.array([(split.right, split.left) for split in self.splits])
        bits = np.arange(1 << len(places))
        found = np.full(len(bits), 0 if self.splits else -1)
        while (found >= 0).any():
            at = np.maximum(found, 0)
            found = np.where(found < 0, found, targets[at, bits >> shifts[at] & 1])
        return (-1 - found).astype(np.uint8)


class Question(NamedTuple):
    """What a split asks of a row, as it says: whether it goes left."""

    column: str
    of_texts: bool
    at_most: float | None
    texts: tuple[str, ...]
    missing_left: bool


def _subject(question: Question) -> tuple[str, bool]:
    return question.column, question.of_texts


def _question(split: Split) -> Question:
    return Question(split.column, split.of_texts, split.at_most, split.texts, split.missing_left)


class Read(NamedTuple):
    """Inputs of which the leaves are found row by row."""

    asked: list[_Asked]
    leaf_of_answers: NDArray[np.uint8]

    def leaf_of(self, rows: slice) -> NDArray[np.uint8]:
        """The leaf of each of these rows, which are some on end."""
        return self.look_up(rows, self.leaf_of_answers)

    def look_up(self, rows: slice, table: NDArray[Entry], last: Bools | None = None) -> NDArray[Entry]:
        """What a table such as `leaf_of_answers` has for the answers of each of these rows.

        `last: (n,)` of all rows is one answer more, and the lowest bit of the table's index.
        """
        found = np.empty(rows.stop - rows.start, dtype=table.dtype)
        for start in range(rows.start, rows.stop, _BLOCK):
            block = slice(start, min(start + _BLOCK, rows.stop))
            answers = chain.from_iterable(asked.answers(block) for asked in self.asked)
            bits = _bits(chain(answers, () if last is None else (last[block],)), block.stop - block.start)
            # No bits are beyond the table; "wrap" writes in place, where "raise" has a copy made.
            table.take(bits, out=found[start - rows.start : block.stop - rows.start], mode="wrap")
        return found


def grow(inputs: pl.DataFrame, residuals: Floats, *, fewest: int = FEWEST_ROWS) -> Partition:
    """The partition of `inputs` in whose leaves `residuals: (n,)` have the most different means.

    Of more than 100,000 rows, so many drawn at random decide.
    """
    if len(residuals) > _GROWN_ON:
        drawn = np.sort(np.random.default_rng(0).choice(len(residuals), _GROWN_ON, replace=False))
        inputs, residuals = inputs[drawn], residuals[drawn]
    columns = [_Column.cut(inputs[name], residuals) for name in inputs.columns]
    columns = [column for column in columns if column.bins > 1]
    if not columns or len(residuals) < 2 * fewest:
        return Partition(())
    tried = sum(column.bins - 1 for column in columns)
    # A difference of means as large by chance alone: z^2 times the variance, with z for all that is tried.
    least = float(residuals.var()) * z_value(1 - _CHANCE / tried) ** 2
    best = _best_split(columns, residuals, np.arange(len(residuals)), fewest)
    open_leaves: dict[int, _Candidate] = {0: best} if best and best.gain > least else {}
    made: list[Split] = []
    parents: dict[int, tuple[int, bool]] = {}  # of a leaf: the split above it, and whether it is its left
    numbers = 1
    while open_leaves and numbers < MOST_LEAVES:
        leaf = max(open_leaves, key=lambda number: open_leaves[number].gain)
        chosen = open_leaves.pop(leaf)
        _hang(made, parents.get(leaf), len(made))
        made.append(chosen.split(left=-1 - leaf, right=-1 - numbers))
        for number, rows, is_left in ((leaf, chosen.left, True), (numbers, chosen.right, False)):
            parents[number] = (len(made) - 1, is_left)
            candidate = _best_split(columns, residuals, rows, fewest)
            if candidate and candidate.gain > least:
                open_leaves[number] = candidate
        numbers += 1
    return Partition(tuple(made))


def _hang(made: list[Split], parent: tuple[int, bool] | None, number: int) -> None:
    """Puts split `number` where a leaf was."""
    if parent is None:
        return
    above, is_left = parent
    split = made[above]
    made[above] = Split(
        column=split.column,
        of_texts=split.of_texts,
        at_most=split.at_most,
        texts=split.texts,
        missing_left=split.missing_left,
        left=number if is_left else split.left,
        right=split.right if is_left else number,
    )


class _Column(NamedTuple):
    """A column cut into bins in an order in which it may be split; the last bin is for what is missing."""

    name: str
    codes: Ints
    bins: int
    edges: Floats | None  # between the bins of numbers
    texts: tuple[str, ...]  # of the bins of texts

    @classmethod
    def cut(cls, series: pl.Series, residuals: Floats) -> _Column:
        if series.dtype.is_numeric() or series.dtype.is_temporal():
            values = _numbers(series).astype(np.float64, copy=False)
            there = np.isfinite(values)
            edges = np.unique(np.quantile(values[there], np.linspace(0, 1, _BINS)[1:-1])) if there.any() else values[:0]
            # The edges are values of the column: a split is "at most the edge".
            codes = np.where(there, np.searchsorted(edges, values, side="left"), len(edges) + 1)
            return cls(series.name, codes, len(edges) + 2, edges, ())
        texts = series.cast(pl.String, strict=False)
        frame = pl.DataFrame({"text": texts, "residual": residuals}).drop_nulls("text")
        groups = frame.group_by("text").agg(pl.len(), pl.col("residual").mean())
        groups = groups.sort(["len", "text"], descending=[True, False]).head(_BINS - 2).sort("residual", "text")
        names = groups["text"].to_list()
        # What is rare is with what is missing: neither has rows enough to be judged.
        coded = texts.replace_strict(names, list(range(len(names))), default=len(names), return_dtype=pl.Int64)
        return cls(series.name, coded.fill_null(len(names)).to_numpy(), len(names) + 1, None, tuple(names))


class _Candidate(NamedTuple):
    gain: float  # of the sum of squares
    column: _Column
    last: int  # bin that goes left
    missing_left: bool
    left: Ints
    right: Ints

    def split(self, *, left: int, right: int) -> Split:
        edges = self.column.edges
        return Split(
            column=self.column.name,
            of_texts=edges is None,
            at_most=float(edges[self.last]) if edges is not None and self.last < len(edges) else None,
            texts=self.column.texts[self.last + 1 :] if self.missing_left else self.column.texts[: self.last + 1],
            missing_left=self.missing_left,
            left=left,
            right=right,
        )


def _best_split(columns: Sequence[_Column], residuals: Floats, rows: Ints, fewest: int) -> _Candidate | None:
    here, best = residuals[rows], None
    total, n = float(here.sum()), len(rows)
    for column in columns:
        codes = column.codes[rows]
        counts = np.bincount(codes, minlength=column.bins)
        sums = np.bincount(codes, weights=here, minlength=column.bins)
        for missing_left in (False, True) if counts[-1] else (False,):
            lefts = np.cumsum(counts[:-1]) + missing_left * counts[-1]
            left_sums = np.cumsum(sums[:-1]) + missing_left * sums[-1]
            allowed = (lefts >= fewest) & (n - lefts >= fewest)
            if not allowed.any():
                continue
            sizes = np.where(allowed, lefts * (n - lefts), 1)
            gains = np.where(allowed, (left_sums * n - total * lefts) ** 2 / (n * sizes), -1.0)
            last = int(np.argmax(gains))
            if best is None or gains[last] > best.gain:
                goes_left = (codes <= last) | (missing_left & (codes == column.bins - 1))
                best = _Candidate(float(gains[last]), column, last, missing_left, rows[goes_left], rows[~goes_left])
    return best


class _Asked(NamedTuple):
    """The questions about one column, all of them of its texts or all of its numbers."""

    questions: list[Question]
    series: pl.Series | None  # None: what is asked for is missing in every row
    plain: NDArray[Any] | None  # its numbers, where they are there without a copy

    @classmethod
    def of(cls, questions: list[Question], inputs: pl.DataFrame) -> _Asked:
        series = inputs.get_column(questions[0].column, default=None)
        if series is None or questions[0].of_texts:
            return cls(questions, series, None)
        if not (series.dtype.is_numeric() or series.dtype.is_temporal()):
            return cls(questions, None, None)
        return cls(questions, series, _numbers(series) if _is_plain(series) else None)

    def answers(self, rows: slice) -> Iterator[Bools]:
        """Whether each of these rows goes left, by each question."""
        if self.series is None:
            return (np.full(rows.stop - rows.start, asked.missing_left) for asked in self.questions)
        if self.questions[0].of_texts:
            return self._of_texts(self.series[rows].cast(pl.String, strict=False))
        values = _numbers(self.series[rows]) if self.plain is None else self.plain[rows]
        return self._of_floats(values) if values.dtype.kind == "f" else self._of_whole(values)

    def _of_texts(self, texts: pl.Series) -> Iterator[Bools]:
        for asked in self.questions:
            known = texts.is_in(list(asked.texts)).fill_null(value=False).to_numpy()
            yield np.asarray(~known if asked.missing_left else known, dtype=np.bool_)

    def _of_whole(self, values: NDArray[Any]) -> Iterator[Bools]:
        for asked in self.questions:
            most = math.inf if asked.at_most is None else asked.at_most
            # Compared with a whole number, so that nothing is converted; larger ones there are none.
            yield np.asarray(values <= (math.floor(most) if most < 2**64 else 2**64), dtype=np.bool_)

    def _of_floats(self, values: NDArray[Any]) -> Iterator[Bools]:
        there = np.isfinite(values)
        none_missing = bool(there.all())
        for asked in self.questions:
            low = values <= (math.inf if asked.at_most is None else asked.at_most)
            if not none_missing:
                low = low | ~there if asked.missing_left else low & there
            yield np.asarray(low, dtype=np.bool_)


def _is_plain(series: pl.Series) -> bool:
    whole_or_double = series.dtype in _WHOLE or series.dtype == pl.Float64 or series.dtype.is_temporal()
    return whole_or_double and series.null_count() == 0 and series.n_chunks() == 1


def _numbers(series: pl.Series) -> NDArray[Any]:
    """Whole numbers without gaps as they are; otherwise floats, NaN where one is missing."""
    plain = series.to_physical() if series.dtype.is_temporal() else series
    if plain.null_count() == 0 and plain.dtype in _WHOLE:
        return plain.to_numpy()
    floats = plain if plain.dtype == pl.Float64 else plain.cast(pl.Float64)
    return (floats.fill_null(math.nan) if floats.null_count() else floats).to_numpy()


def _bits(answers: Iterator[Bools], rows: int) -> NDArray[np.uint16]:
    """Of each row at most 16 answers, the last one as the lowest bit.

    As long as a byte holds them they are put together as bytes, of which the processor takes many at once.
    """
    found, bits, held = np.zeros(rows, dtype=np.uint16), np.zeros(rows, dtype=np.uint8), 0
    for answer in answers:
        bits += bits
        bits |= answer.view(np.uint8)
        held += 1
        if held == _BITS:
            found <<= np.uint16(_BITS)
            found |= bits
            bits, held = np.zeros(rows, dtype=np.uint8), 0
    found <<= np.uint16(held)
    found |= bits
    return found
