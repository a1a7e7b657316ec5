"""How good chosen classes were: of two classes, by four counts; of many, by the table of true and chosen classes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mainstay.errors import Misuse
from mainstay.monitoring.intervals import LEVEL, Estimate, in_unit, mean, mean_of_shares, wilson
from mainstay.monitoring.performance import parse_labels_and_scores

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from mainstay.monitoring.intervals import Floats

MOST_CLASSES = 10_000
_NEVER_CERTAIN = 1e-15  # of log loss: a probability of 0 would cost infinitely much


class Counts(NamedTuple):
    """Of a yes or no: how often it was right and wrong, each way."""

    true_yes: int
    false_yes: int
    true_no: int
    false_no: int


def count(truth: ArrayLike, said: ArrayLike) -> Counts:
    """`truth` and `said` are `(n,) bool`."""
    was, chosen = np.asarray(truth, dtype=np.bool_), np.asarray(said, dtype=np.bool_)
    both, either = int((was & chosen).sum()), int((was | chosen).sum())
    return Counts(both, int(chosen.sum()) - both, len(was) - either, int(was.sum()) - both)


def accuracy(counts: Counts, *, level: float = LEVEL) -> Estimate | None:
    return wilson(counts.true_yes + counts.true_no, sum(counts), level=level)


def precision(counts: Counts, *, level: float = LEVEL) -> Estimate | None:
    return wilson(counts.true_yes, counts.true_yes + counts.false_yes, level=level)


def recall(counts: Counts, *, level: float = LEVEL) -> Estimate | None:
    return wilson(counts.true_yes, counts.true_yes + counts.false_no, level=level)


def f1(counts: Counts, *, level: float = LEVEL) -> Estimate | None:
    """2 p / (1 + p), with p the share of hits among the cases that were, or were said to be, yes (Jaccard's index).

    Given how many such cases there are, hits are binomial, and the interval is that of p, carried over.
    """
    shared = wilson(counts.true_yes, counts.true_yes + counts.false_yes + counts.false_no, level=level)
    return shared and Estimate(*(2 * p / (1 + p) for p in (shared.value, shared.low, shared.high)))


def balanced_accuracy(counts: Counts, *, level: float = LEVEL) -> Estimate | None:
    """The mean of the shares found of the cases that were yes, and of those that were no. None without both."""
    shares = [recall(counts, level=level), wilson(counts.true_no, counts.true_no + counts.false_yes, level=level)]
    known = [share for share in shares if share is not None]
    return mean_of_shares(known) if len(known) == len(shares) else None


def log_loss(labels: ArrayLike, scores: ArrayLike, *, level: float = LEVEL) -> Estimate | None:
    """Mean of -log(probability given to what happened), with the normal interval of a mean. None for no rows."""
    truth, said = parse_labels_and_scores(labels, scores)
    if not len(truth):
        return None
    losses = -np.log(np.clip(np.where(truth, said, 1 - said), _NEVER_CERTAIN, 1.0))
    return mean(losses, level=level, lowest=0.0, highest=-math.log(_NEVER_CERTAIN))


def average_precision(labels: ArrayLike, scores: ArrayLike, *, level: float = LEVEL) -> Estimate | None:
    """Mean, over the true cases, of the precision among the cases scored at least as high. None without true cases.

    The interval is the logit interval of Boyd, Eng, Page (2013), "Area under the precision-recall curve: point
    estimates and confidence intervals", 4: its standard error in the logit is 1 / sqrt(m a (1 - a)) for m true cases.
    """
    truth, said = parse_labels_and_scores(labels, scores)
    m = int(truth.sum())
    if m == 0:
        return None
    order = np.argsort(-said, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(said[order]) != 0, True))
    hits = np.cumsum(truth[order])[ends]
    area = float((np.diff(hits, prepend=0) * hits / (ends + 1)).sum() / m)
    if area >= 1:
        return Estimate(1.0, (1 - level) ** (1 / m), 1.0)
    return in_unit(area, math.sqrt(area * (1 - area) / m), level=level)


class Table(NamedTuple):
    """`counts: (classes, classes)` of true class (rows) and chosen class (columns)."""

    classes: tuple[str, ...]
    counts: Floats

    @property
    def right(self) -> Floats:
        return np.asarray(np.diagonal(self.counts), dtype=np.float64)


def tabulate(truth: ArrayLike, said: ArrayLike) -> Table:
    """The table of `(n,)` true and chosen classes. Raises Misuse for more than 10,000 classes."""
    was, chosen = np.asarray(truth), np.asarray(said)
    names: NDArray[Any]
    names, codes = np.unique(np.concatenate([was, chosen]), return_inverse=True)
    k = len(names)
    if k > MOST_CLASSES:
        raise Misuse(f"expected at most {MOST_CLASSES} classes, found {k}; is the label a number?")
    counts = np.bincount(codes[: len(was)] * k + codes[len(was) :], minlength=k * k).reshape(k, k)
    return Table(tuple(str(name) for name in names), counts.astype(np.float64))


def accuracy_of_classes(table: Table, *, level: float = LEVEL) -> Estimate | None:
    return wilson(int(table.right.sum()), int(table.counts.sum()), level=level)


def balanced_accuracy_of_classes(table: Table, *, level: float = LEVEL) -> Estimate | None:
    """The mean, over the classes that occurred, of the share of each that was found."""
    true = table.counts.sum(axis=1)
    shares = [wilson(int(hits), int(n), level=level) for hits, n in zip(table.right, true, strict=True) if n]
    known = [share for share in shares if share is not None]
    return mean_of_shares(known) if known else None


def macro_f1(table: Table, *, level: float = LEVEL) -> Estimate | None:
    """The mean of F1 over the classes that occurred or were chosen; every class counts the same.

    Standard error by the delta method over the multinomial table: Takahashi, Yamamoto, Kuchiba, Koyama (2022),
    "Confidence interval for micro-averaged F1 and macro-averaged F1 scores"; symmetric in the logit. The influence of a
    row on class c's F1 = 2 h / s is (2 [hit] - F1 ([true is c] + [chosen is c])) / s.
    """
    n = table.counts.sum()
    if not n:
        return None
    sizes = table.counts.sum(axis=0) + table.counts.sum(axis=1)
    each = 2 * table.right / sizes
    pull = each / sizes  # what a row takes from F1 by being of the class, or said to be
    gain = -(pull[:, None] + pull[None, :])
    gain[np.diag_indices_from(gain)] += 2 / sizes
    variance = float((table.counts * gain**2).sum() - (table.counts * gain).sum() ** 2 / n) / len(sizes) ** 2
    value = float(each.mean())
    if variance <= 0:
        # Every row counted alike (all right, all wrong): as far as a share of that many rows would reach.
        reach = wilson(round(value * n), int(n), level=level)
        return reach and Estimate(value, min(value, reach.low), max(value, reach.high))
    return in_unit(value, math.sqrt(variance), level=level)
