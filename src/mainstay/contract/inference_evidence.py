"""How much a sample says: how many independent draws its rows are worth, and what has probably not been seen.

Nothing is declared that rows like these would break more than once in a hundred, as far as the sample can show: a rule
that n independent draws all keep is kept by at least 0.05^(1/n) of all such rows, with a certainty of 95 % (Clopper and
Pearson 1934; for n of 300 or more this is the "rule of three"). So 299 draws are the fewest that declare anything.

Rows are seldom independent. Where equal values stand side by side more often than in random order, a run of them counts
as one draw (Wald and Wolfowitz 1940). What is new from row to row has a trend, and then no extreme holds (Rényi 1962:
in random order n rows have about ln n records).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import polars as pl

DOUBT: Final = 0.05  # the chance that what is claimed of a share of the rows is not so
LEAST_CONFIDENCE: Final = 0.99
MOST_UNSEEN: Final = 0.005  # of the rows, by a closed set of values; several columns have one
ROWS_PER_VALUE: Final = 10  # of a closed set, at least, on average
RUNS_PER_VALUE: Final = 5
RECORD_DEVIATIONS: Final = 4.0
RECORD_BLOCKS: Final = 256

_EULER: Final = 0.5772156649
_ONE_SIDED_Z: Final = 1.6448536270  # of 95 %


def confidence_of(draws: int) -> float:
    """The least share of rows that keep a rule which so many draws all kept, with a certainty of 95 %.

    Rounded down to four digits, and never 1.
    """
    return min(0.9999, math.floor(1e4 * DOUBT ** (1 / draws)) / 1e4) if draws > 0 else 0.0


def is_enough(draws: int) -> bool:
    """Whether so many draws may declare a rule."""
    return confidence_of(draws) >= LEAST_CONFIDENCE


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the values of one column are worth; missing ones are not among them."""

    values: int
    distinct: int
    runs: int  # of equal values
    draws: int  # independent ones, that the values are worth
    seen_once: int  # values that stand in one run only
    new_later: float = 0.0  # share of the later half of the rows, with a value that no earlier one has

    @property
    def unseen_share(self) -> float:
        """The share of rows that hold a value never seen, at most, with a certainty of 95 %.

        The expected share is that of the values seen once (Good 1953, "The population frequencies of species and the
        estimation of population parameters"); their number is taken as Poisson's.
        """
        return min(1.0, poisson_upper(self.seen_once) / self.draws) if self.draws else 1.0

    @property
    def is_closed(self) -> bool:
        """Whether the values seen are as good as all there are."""
        return (
            max(self.unseen_share, self.new_later) <= MOST_UNSEEN
            and self.draws >= ROWS_PER_VALUE * self.distinct
            and self.runs >= RUNS_PER_VALUE * self.distinct
            and self.distinct > 1  # a constant shows nothing of what it could have been
        )


def weigh(values: pl.Series) -> Evidence:
    """The evidence in a column, in the order of its rows."""
    present = values.drop_nulls()
    rows = len(present)
    if not rows:
        return Evidence(0, 0, 0, 0, 0)
    starts = present.filter((present != present.shift(1)).fill_null(value=True))
    counts = present.value_counts(name="rows")["rows"].to_numpy()
    of_runs = starts.value_counts(name="runs")["runs"]
    changes = 1 - float(((counts / rows) ** 2).sum())  # the chance that two rows differ
    draws = 1 if len(counts) == 1 else min(rows, 1 + round((len(starts) - 1) / changes))
    later = present.tail(rows - rows // 2)
    new_later = later.filter(~later.is_in(present.head(rows // 2).unique().implode()))
    return Evidence(
        rows, len(counts), len(starts), draws, int((of_runs == 1).sum()), len(new_later) / max(1, len(later))
    )


def poisson_upper(events: int) -> float:
    """The largest mean of which so few events are no surprise: one-sided, 95 % (Wilson and Hilferty 1931)."""
    more = events + 1
    return float(more * (1 - 1 / (9 * more) + _ONE_SIDED_Z / (3 * math.sqrt(more))) ** 3)


def is_rising(values: pl.Series) -> bool:
    """Whether a column sets more records than one in random order would: its largest value says nothing of the next."""
    present = values.drop_nulls()
    blocks = min(len(present), RECORD_BLOCKS)
    if blocks < 3:
        return False
    # of blocks of rows: what only climbs from morning to evening does so every day
    starts = [place * len(present) // blocks for place in range(blocks + 1)]
    maxima = pl.Series([present[one:other].max() for one, other in pairwise(starts)])
    highest = maxima.cum_max()
    records = 1 + int((highest > highest.shift(1)).sum())
    expected = math.log(blocks) + _EULER
    spread = math.sqrt(max(1.0, expected - math.pi**2 / 6))
    return records > expected + RECORD_DEVIATIONS * spread
