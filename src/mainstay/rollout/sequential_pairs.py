"""Two versions that decided the same cases: what the shadow stage knows, and a canary never does.

Where both are right, or both wrong, nothing is learned about which is better, and nothing is lost either: only the
cases on which they differ count, so that far fewer are needed than with two arms (McNemar 1947, "Note on the sampling
error of the difference between correlated proportions"). Each case is worth -1 (the new version alone is right), 0 or 1
(it alone is wrong), and the product of 1 + v (worth - d) over all cases is an e-process against "the mean worth is at
most d" for every bet v of a grid; so is the average over the grid (Waudby-Smith & Ramdas 2024, "Estimating means of
bounded random variables by betting"). It depends on three counts only: batches may be folded in any order and portions.

The cases must not depend on each other, beyond what `decisions_per_key` says; see `sequential_differences.fold`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

from mainstay.errors import Misuse
from mainstay.rollout.sequential import mixed

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.rollout.sequential import Floats

LEVEL: Final = 0.95
_BETS: Final[Floats] = 0.95 * 2.0 ** -np.arange(12.0)  # of the largest possible


class Pairs(Struct, frozen=True, omit_defaults=True):
    """Cases that both versions decided and whose truth is known.

    With `worse` the cases on which two versions disagree, and `better` 0, it is the share of disagreement.
    """

    cases: float = 0.0
    worse: float = 0.0  # of them, those that the new version alone has wrong
    better: float = 0.0  # and those that it alone has right


def fold(state: Pairs, cases: int, worse: int, better: int, *, decisions_per_key: float = 1.0) -> Pairs:
    """The state with more cases. Raises Misuse when more of them differ than there are."""
    if min(cases, worse, better, cases - worse - better) < 0 or decisions_per_key < 1:
        raise Misuse(f"expected worse and better cases among {cases}, found {worse} and {better}")
    power = 1 / decisions_per_key
    return Pairs(state.cases + power * cases, state.worse + power * worse, state.better + power * better)


def estimate(state: Pairs) -> float | None:
    """By what share the new version is wrong more often; None without cases."""
    return (state.worse - state.better) / state.cases if state.cases else None


def higher_than(state: Pairs, tolerance: float = 0.0) -> float:
    """The logarithm of the e-value against "the new version is wrong more often by at most the tolerance"."""
    return _above(state.cases, state.worse, state.better, tolerance)


def lower_than(state: Pairs, tolerance: float) -> float:
    """The logarithm of the e-value against "the new version is wrong more often by the tolerance or more"."""
    return _above(state.cases, state.better, state.worse, -tolerance)


def _above(cases: float, up: float, down: float, d: float) -> float:
    if not -1 < d < 1:
        return 0.0
    bets = _BETS / (1 + abs(d))
    alike = max(0.0, cases - up - down)
    return float(mixed(up * np.log1p(bets * (1 - d)) + down * np.log1p(-bets * (1 + d)) + alike * np.log1p(-bets * d)))


def interval(state: Pairs) -> tuple[float, float] | None:
    """Where the difference of the shares of wrong cases is, at all times together with 95 %; None without cases."""
    middle = estimate(state)
    if middle is None:
        return None
    wanted = -math.log((1 - LEVEL) / 2)
    low = _edge(lambda d: higher_than(state, d) < wanted, middle, -1.0)
    high = _edge(lambda d: lower_than(state, d) < wanted, middle, 1.0)
    return low, high


def _edge(inside: Callable[[float], bool], within: float, beyond: float) -> float:
    """The last difference, from `within` towards `beyond`, that is not ruled out."""
    for _ in range(50):
        middle = (within + beyond) / 2
        within, beyond = (middle, beyond) if inside(middle) else (within, middle)
    return beyond
