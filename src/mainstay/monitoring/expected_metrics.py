"""Metrics of yes-or-no predictions when each case is yes with a probability, and how they hang on each of these.

A metric comes as its value at these chances and its derivative by each. With chances of 0 and 1 the value is the metric
itself. The variance that the cases' own chance adds is sum(derivative^2 p (1 - p)): the exact moment of the
Poisson-binomial distribution where the metric is a sum over cases (accuracy, precision, Brier, log loss), and that of
the linear part (Hajek's projection) where it is a ratio (recall, F1, areas).

Cases that were told the same and have the same score, or stand for one another in rank, may be put together as a group:
`counts: (..., g)` cases of each group, of which `yes: (..., g)` are expected to be yes. Leading axes are windows, all
with the same groups; sums go over the last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mainstay.monitoring.intervals import Bools, Floats
    from mainstay.monitoring.partition import Ints

Estimable = Literal["accuracy", "precision", "recall", "f1", "balanced_accuracy", "roc_auc", "brier", "log_loss"]
ESTIMABLE: Final[tuple[Estimable, ...]] = (
    *("accuracy", "precision", "recall", "f1", "balanced_accuracy", "roc_auc", "brier", "log_loss"),
)
BY_ANSWER: Final[frozenset[Estimable]] = frozenset(
    {"accuracy", "precision", "recall", "f1", "balanced_accuracy"}
)  # that need no score, only what was predicted
BY_SCORE: Final[frozenset[Estimable]] = frozenset({"brier", "log_loss"})  # that need each score itself, not its rank
_NEVER_CERTAIN: Final = 1e-15


class Expected(NamedTuple):
    value: float
    derivative: Floats  # (n,) by each chance


class ExpectedOfGroups(NamedTuple):
    """NaN where the metric has no denominator."""

    value: Floats  # (...,)
    derivative: Floats  # (..., g) by the chance of one case of the group


@dataclass(frozen=True)
class Cases:
    """Decisions, or groups of them, about which metrics are asked; their order by score is found once.

    `said: (g,)` is what was predicted, and `scores: (g,)` the score; of groups, anything that rises with it.
    """

    said: Bools
    scores: Floats

    @cached_property
    def told_yes(self) -> Floats:
        return self.said.astype(np.float64)

    @cached_property
    def order(self) -> Ints:
        return np.argsort(self.scores).astype(np.int64, copy=False)

    @cached_property
    def starts(self) -> Ints:
        """Where, in that order, a run of equal scores begins."""
        ordered = self.scores[self.order]
        return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])).astype(np.int64, copy=False)

    @cached_property
    def in_order(self) -> bool:
        """Whether each score is higher than the one before."""
        return bool((self.scores[1:] > self.scores[:-1]).all())

    def expect(self, metric: Estimable, chances: Floats) -> Expected | None:
        """Of single cases. None where the metric has no denominator."""
        if not len(chances):
            return None
        found = self.expect_groups(metric, np.ones(len(chances)), chances)
        value = float(found.value)
        return None if math.isnan(value) else Expected(value, found.derivative)

    def expect_groups(self, metric: Estimable, counts: Floats, yes: Floats) -> ExpectedOfGroups:
        match metric:
            case "accuracy":
                return _mean(counts, yes, self.told_yes, 1 - self.told_yes)
            case "precision":
                return self._precision(counts, yes)
            case "recall":
                return _share(self.told_yes, yes)
            case "f1":
                return self._f1(counts, yes)
            case "balanced_accuracy":
                return self._balanced(counts, yes)
            case "roc_auc":
                return self._area(counts, yes)
            case "brier":
                return _mean(counts, yes, (1 - self.scores) ** 2, self.scores**2)
            case "log_loss":
                sure = np.clip(self.scores, _NEVER_CERTAIN, 1.0), np.clip(1 - self.scores, _NEVER_CERTAIN, 1.0)
                return _mean(counts, yes, -np.log(sure[0]), -np.log(sure[1]))

    def _precision(self, counts: Floats, yes: Floats) -> ExpectedOfGroups:
        told = counts @ self.told_yes
        return ExpectedOfGroups(_over(yes @ self.told_yes, told), _over(self.told_yes, told[..., None]))

    def _f1(self, counts: Floats, yes: Floats) -> ExpectedOfGroups:
        both = counts @ self.told_yes + yes.sum(axis=-1)
        value = _over(2 * (yes @ self.told_yes), both)
        return ExpectedOfGroups(value, _over(2 * self.told_yes - value[..., None], both[..., None]))

    def _balanced(self, counts: Floats, yes: Floats) -> ExpectedOfGroups:
        of_yes, of_no = _share(self.told_yes, yes), _share(1 - self.told_yes, counts - yes)
        return ExpectedOfGroups((of_yes.value + of_no.value) / 2, (of_yes.derivative - of_no.derivative) / 2)

    def _area(self, counts: Floats, yes: Floats) -> ExpectedOfGroups:
        """Under the ROC curve: of a yes and a no, how often the yes has the higher score; ties count half."""
        if self.in_order:
            return ExpectedOfGroups(*_area_of_ranks(yes, counts - yes))
        here = np.add.reduceat(yes[..., self.order], self.starts, axis=-1)
        others = np.add.reduceat((counts - yes)[..., self.order], self.starts, axis=-1)
        area, slopes = _area_of_ranks(here, others)
        derivative = np.empty_like(yes)
        sizes = np.diff(np.append(self.starts, len(self.order)))
        derivative[..., self.order] = np.repeat(slopes, sizes, axis=-1)
        return ExpectedOfGroups(area, derivative)


def _area_of_ranks(yes: Floats, no: Floats) -> tuple[Floats, Floats]:
    """The area of groups in the order of their scores, no two of which are equal, and its derivative."""
    no_below, yes_below = np.cumsum(no, axis=-1), np.cumsum(yes, axis=-1)
    all_no, all_yes = no_below[..., -1:], yes_below[..., -1:]
    no_below = _over(no_below - no / 2, all_no)
    yes_above = 1 - _over(yes_below - yes / 2, all_yes)
    area = _over((yes * no_below).sum(axis=-1, keepdims=True), all_yes)
    # More of a yes here, and less of a no.
    return area[..., 0], _over(no_below - area, all_yes) - _over(yes_above - area, all_no)


def _share(chosen: Floats, yes: Floats) -> ExpectedOfGroups:
    """Of the cases that are yes, the share that is in the chosen groups."""
    expected = yes.sum(axis=-1)
    value = _over(yes @ chosen, expected)
    return ExpectedOfGroups(value, _over(chosen - value[..., None], expected[..., None]))


def _mean(counts: Floats, yes: Floats, if_yes: Floats, if_no: Floats) -> ExpectedOfGroups:
    n = counts.sum(axis=-1)
    value = _over(yes @ (if_yes - if_no) + counts @ if_no, n)
    return ExpectedOfGroups(value, _over(if_yes - if_no, n[..., None]))


def _over(above: NDArray[np.floating[Any]], below: NDArray[np.floating[Any]]) -> Floats:
    """NaN where there is nothing to divide by."""
    return np.asarray(above / np.where(below > 0, below, np.nan), dtype=np.float64)
