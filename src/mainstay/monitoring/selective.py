"""A share of all decisions, when labels are there for some of them, and not by chance.

Whether a decision gets a label hangs on how it ended (a reviewed case is looked up, a refused one never happens) and
on its score. Decisions are put into strata by both; within a stratum, labels are taken to be missing by chance, and
the strata are put together by their own sizes: post-stratification, which is the inverse-propensity estimate of Hajek
(1971) with propensities by stratum (Rosenbaum & Rubin 1983). Where a stratum has no label at all, nothing is
taken: the answer is the interval between its worst and its best case (Manski 1990, "Nonparametric bounds on treatment
effects").
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct
from scipy.optimize import brentq
from scipy.special import ndtr

from mainstay.errors import Misuse
from mainstay.monitoring.intervals import LEVEL, Estimate, wilson, z_value

if TYPE_CHECKING:
    from collections.abc import Sequence

_FEWEST: Final = 10  # labels of a stratum; one with fewer is put with its neighbour of the same outcome kind
ASSUMPTION: Final = "within a stratum of outcome and score, whether a decision has a label says nothing of the label"


class Stratum(Struct, frozen=True, kw_only=True):
    """Decisions that ended alike, with neighbouring scores."""

    outcome: str
    lowest_score: float | None  # None: without scores
    highest_score: float | None
    decisions: int
    labels: int
    mean: float | None  # None: there is no label, and nothing is known


class SelectiveMean(Struct, frozen=True, kw_only=True):
    """A share of all decisions. With `identified`, `value` is it; otherwise it is anything in `least`..`most`.

    `low` and `high` are the ends of the confidence interval: of the value, or, when it is not identified, of that
    value wherever it is between the two (Imbens & Manski 2004, "Confidence intervals for partially identified
    parameters").
    """

    value: float | None
    least: float
    most: float
    low: float
    high: float
    level: float
    identified: bool
    naive: Estimate | None  # the mean of what has a label, which is what a plain join gives
    decisions: int
    labels: int
    unknown_share: float  # of the decisions: in strata without a label
    strata: list[Stratum]
    assumption: str = ASSUMPTION


class Cell(NamedTuple):
    """Decisions that ended alike with about the same score, and of how many with a label something is so."""

    outcome: str
    score: float | None
    decisions: int
    labels: int
    yes: int


def correct_counts(cells: Sequence[Cell], *, level: float = LEVEL) -> SelectiveMean:
    """A share of all decisions. Each cell with enough labels is a stratum; others go with their neighbours.

    Raises Misuse for no decisions, and for a cell with more labels than decisions.
    """
    if not cells or any(not 0 <= each.yes <= each.labels <= each.decisions or not each.decisions for each in cells):
        raise Misuse("expected cells of some decisions, with no more labels than decisions")
    strata = []
    for outcome in sorted({each.outcome for each in cells}):
        own = [each for each in cells if each.outcome == outcome]
        scored = sorted((each for each in own if each.score is not None), key=lambda each: each.score or 0.0)
        parts = [[each] for each in own if each.score is None] + _alike(scored)
        strata += [_stratum_of(outcome, part) for part in parts]
    naive = wilson(sum(each.yes for each in cells), sum(each.labels for each in cells), level=level)
    return _put_together(strata, naive, level)


def _alike(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Runs of cells in the order of their scores, as short as they can be with enough labels each."""
    if not cells:
        return []
    found: list[list[Cell]] = [[]]
    for each in cells:
        if sum(one.labels for one in found[-1]) >= _FEWEST:
            found.append([])
        found[-1].append(each)
    if len(found) > 1 and sum(one.labels for one in found[-1]) < _FEWEST:
        found[-2] += found.pop()
    return found


def _stratum_of(outcome: str, part: Sequence[Cell]) -> tuple[Stratum, float]:
    decisions, labels, yes = (sum(getattr(each, name) for each in part) for name in ("decisions", "labels", "yes"))
    share = yes / labels if labels else None
    stratum = Stratum(
        outcome=outcome,
        lowest_score=part[0].score,
        highest_score=part[-1].score,
        decisions=decisions,
        labels=labels,
        mean=share,
    )
    return stratum, _variance(labels, 0.0 if share is None else share, decisions)


def _variance(n: int, share: float, decisions: int) -> float:
    """Of the share of all, given that of `n` labels: what is labelled is not chance any more."""
    if n in {0, decisions}:
        return 0.0
    # One imagined case half a one away, so that a few labels alike are not taken for certain.
    return (n * share * (1 - share) + 0.25) / n / n * (1 - n / decisions)


def _put_together(found: list[tuple[Stratum, float]], naive: Estimate | None, level: float) -> SelectiveMean:
    total = sum(one.decisions for one, _ in found)
    known = [(one, variance) for one, variance in found if one.mean is not None]
    middle = sum(one.decisions / total * one.mean for one, _ in known if one.mean is not None)
    deviation = math.sqrt(sum((one.decisions / total) ** 2 * variance for one, variance in known))
    unknown = sum(one.decisions for one, _ in found if one.mean is None) / total
    least, most = middle, middle + unknown
    reach = _reach(most - least, deviation, level) * deviation
    return SelectiveMean(
        value=middle if unknown == 0 else None,
        least=least,
        most=most,
        low=max(0.0, least - reach),
        high=min(1.0, most + reach),
        level=level,
        identified=unknown == 0,
        naive=naive,
        decisions=total,
        labels=sum(one.labels for one, _ in found),
        unknown_share=unknown,
        strata=[one for one, _ in found],
    )


def _reach(width: float, deviation: float, level: float) -> float:
    """Standard errors to go beyond each end, so that every value between is covered with `level` (Imbens & Manski)."""
    if deviation == 0 or width == 0:
        return z_value(level)
    ratio = width / deviation
    return float(brentq(lambda c: ndtr(c + ratio) - ndtr(-c) - level, 0.0, 10.0))
