"""A mean over all decisions, when labels are there for some of them, and not by chance.

Whether a decision gets a label hangs on how it ended (a reviewed case is looked up, a refused one never happens) and
on its score. Decisions are put into strata by both; within a stratum, labels are taken to be missing by chance, and
the strata are put together by their own sizes: post-stratification, which is the inverse-propensity estimate of Hajek
(1971) with propensities by stratum (Rosenbaum & Rubin 1983). Where a stratum has no label at all, or labels of another
making, nothing is taken: the answer is the interval between its worst and its best case (Manski 1990, "Nonparametric
bounds on treatment effects").
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl
from msgspec import Struct
from scipy.optimize import brentq
from scipy.stats import norm

from mainstay.errors import Misuse
from mainstay.monitoring.intervals import LEVEL, Estimate, mean, wilson, z_value

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


SCORE_STRATA: Final = 5  # of each outcome kind
_FEWEST: Final = 10  # labels of a stratum; one with fewer is put with its neighbour of the same outcome kind
ASSUMPTION: Final = "within a stratum of outcome and score, whether a decision has a label says nothing of the label"


class Stratum(Struct, frozen=True, kw_only=True):
    """Decisions that ended alike, with neighbouring scores."""

    outcome: str
    lowest_score: float | None  # None: without scores
    highest_score: float | None
    decisions: int
    labels: int  # that are used
    mean: float | None  # None: no label is used, and nothing is known


class SelectiveMean(Struct, frozen=True, kw_only=True):
    """A mean over all decisions. With `identified`, `value` is it; otherwise it is anything in `least`..`most`.

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
    unknown_share: float  # of the decisions: in strata without a label that can be used
    strata: list[Stratum]
    assumption: str = ASSUMPTION


def correct_mean(
    frame: pl.DataFrame,
    values: pl.Series,
    *,
    lowest: float = 0.0,
    highest: float = 1.0,
    made_otherwise: Collection[str] = (),
    score_strata: int = SCORE_STRATA,
    level: float = LEVEL,
) -> SelectiveMean:
    """The mean of `values` (null without a label) over all rows of `frame`, which has `outcome` and `score`.

    `lowest` and `highest` are what a value can be at all. Labels of decisions that ended in one of `made_otherwise`
    (those that a person set who had seen the model's answer, say) are not used. Raises Misuse for a value beyond
    the bounds, and for no rows.
    """
    if frame.is_empty() or len(frame) != len(values):
        raise Misuse(f"expected one value a decision, and some, found {len(frame)} decisions and {len(values)} values")
    rows = frame.select("outcome", "score", value=values.cast(pl.Float64))
    known = rows["value"].drop_nulls().to_numpy()
    if len(known) and (known.min() < lowest or known.max() > highest):
        raise Misuse(f"expected values from {lowest} to {highest}, found {known.min()} to {known.max()}")
    strata = []
    for (outcome,), group in rows.group_by(["outcome"], maintain_order=True):
        usable = outcome not in made_otherwise
        parts = _by_score(group, score_strata)
        strata += [_stratum(str(outcome), part, highest - lowest, usable=usable) for part in parts]
    strata.sort(key=lambda found: (found[0].outcome, found[0].lowest_score or 0.0))
    labelled = rows["value"].drop_nulls().to_numpy()
    naive = mean(labelled, level=level, lowest=lowest, highest=highest) if len(labelled) else None
    return _put_together(strata, naive, lowest, highest, level)


class Cell(NamedTuple):
    """Decisions that ended alike with about the same score, and of how many with a label something is so."""

    outcome: str
    score: float | None
    decisions: int
    labels: int
    yes: int


def correct_counts(cells: Sequence[Cell], *, level: float = LEVEL) -> SelectiveMean:
    """The same of a share, of counts. Each cell with enough labels is a stratum; others go with their neighbours.

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
    return _put_together(strata, naive, 0.0, 1.0, level)


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
    return stratum, _variance(labels, 0.0 if share is None else labels * share * (1 - share), decisions, 1.0)


def _by_score(group: pl.DataFrame, parts: int) -> list[pl.DataFrame]:
    """Parts of one outcome kind with as many labels each, lowest scores first; those without a score by themselves."""
    scored = group.filter(pl.col("score").is_not_null()).sort("score")
    others = group.filter(pl.col("score").is_null())
    found = [others] if len(others) else []
    if scored.is_empty():
        return found
    labelled = scored.filter(pl.col("value").is_not_null())["score"].to_numpy()
    most = min(parts, len(labelled) // _FEWEST)
    cuts = np.unique(np.quantile(labelled, np.linspace(0, 1, most + 1))[1:-1]) if most > 1 else labelled[:0]
    codes = np.searchsorted(cuts, scored["score"].to_numpy(), side="right")
    places = np.searchsorted(codes, np.arange(len(cuts) + 2))
    return found + [scored[int(a) : int(b)] for a, b in pairwise(places) if b > a]


def _stratum(outcome: str, part: pl.DataFrame, possible: float, *, usable: bool) -> tuple[Stratum, float]:
    """A stratum, and the variance of its mean."""
    known = part["value"].drop_nulls().to_numpy() if usable else np.empty(0)
    scores = part["score"].drop_nulls()
    stratum = Stratum(
        outcome=outcome,
        lowest_score=float(scores[0]) if len(scores) else None,
        highest_score=float(scores[-1]) if len(scores) else None,
        decisions=len(part),
        labels=len(known),
        mean=float(known.mean()) if len(known) else None,
    )
    spread = float(((known - known.mean()) ** 2).sum()) if len(known) else 0.0
    return stratum, _variance(len(known), spread, len(part), possible)


def _variance(n: int, spread: float, decisions: int, possible: float) -> float:
    """Of the mean of all, given `n` labels that are `spread` about theirs: what is labelled is not chance any more."""
    if n in {0, decisions}:
        return 0.0
    # One imagined case in the middle of the possible away, so that a few labels alike are not taken for certain.
    return (spread + (possible / 2) ** 2) / n / n * (1 - n / decisions)


def _put_together(
    found: list[tuple[Stratum, float]], naive: Estimate | None, lowest: float, highest: float, level: float
) -> SelectiveMean:
    total = sum(one.decisions for one, _ in found)
    known = [(one, variance) for one, variance in found if one.mean is not None]
    middle = sum(one.decisions / total * one.mean for one, _ in known if one.mean is not None)
    deviation = math.sqrt(sum((one.decisions / total) ** 2 * variance for one, variance in known))
    unknown = sum(one.decisions for one, _ in found if one.mean is None) / total
    least, most = middle + unknown * lowest, middle + unknown * highest
    reach = _reach(most - least, deviation, level) * deviation
    return SelectiveMean(
        value=middle if unknown == 0 else None,
        least=least,
        most=most,
        low=max(lowest, least - reach),
        high=min(highest, most + reach),
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
    return float(brentq(lambda c: norm.cdf(c + ratio) - norm.cdf(-c) - level, 0.0, 10.0))
