"""How far the canary's outputs are distributed from those of the version in force, over bins, at any time.

The distance is that of total variation: the largest difference, over all sets of bins, of how often an output is in the
set. That makes both tests tests of a share:

*too far*     for every set the difference is at most the distance, so that a test of "share1 - share0 <= tolerance" may
              take another set for every block, as long as it is chosen before. The bins that were more frequent in the
              canary so far are (Shekhar & Ramdas 2024, "Nonparametric two-sample testing by betting": the set is the
              witness). The first block only teaches which they are.
*near enough* were the distance the tolerance or more, some set would have that difference; evidence against that set is
              at least the evidence computed from the largest difference seen, whichever it is, so that no price is paid
              for the number of sets.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
from msgspec import Struct

from mainstay.errors import Misuse
from mainstay.rollout.sequential import BETS, growth, hoeffding, hoeffding_reach, mixed
from mainstay.rollout.sequential_differences import BLOCK, LEVEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


MOST_BINS: Final = 1_000
_WIDEST: Final = 0.99  # a tolerance beyond which nothing can be too far


class Binned(Struct, frozen=True, omit_defaults=True):
    """What is known of the outputs of one step, or of all of them together."""

    canary: tuple[int, ...] = ()  # everything that came, per bin, waiting or not
    production: tuple[int, ...] = ()
    waiting_canary: tuple[int, ...] = ()
    waiting_production: tuple[int, ...] = ()
    gained: tuple[float, ...] = ()  # per bin: sum over blocks of weight x difference of shares
    weight: float = 0.0
    growth: tuple[float, ...] = ()

    @property
    def decisions(self) -> tuple[int, int]:
        """Of the canary, and of the version in force."""
        return sum(self.canary), sum(self.production)


class Outputs(Struct, frozen=True, omit_defaults=True):
    """The state of the guard of one output."""

    tolerance: float
    cohorts: dict[int, Binned] = {}  # by step


def fold(
    state: Outputs, step: int, canary: Sequence[int], production: Sequence[int], *, decisions_per_key: float = 1.0
) -> Outputs:
    """The state with the bins of what has arrived of decisions taken in `step`, as `sequential_differences.fold`.

    Raises Misuse when the bins are not those of before.
    """
    bins = max(len(canary), len(production), *(len(each.canary) for each in state.cohorts.values()), 0)
    for counts in (canary, production):
        if len(counts) not in {0, bins} or not bins <= MOST_BINS or min(counts, default=0) < 0:
            raise Misuse(f"expected {min(bins, MOST_BINS)} counts of outputs, found {len(counts)}")
    before = state.cohorts.get(step, Binned())
    waiting_canary = _plus(before.waiting_canary, canary, bins)
    waiting_production = _plus(before.waiting_production, production, bins)
    now = msgspec.structs.replace(
        before,
        canary=_plus(before.canary, canary, bins),
        production=_plus(before.production, production, bins),
        waiting_canary=waiting_canary,
        waiting_production=waiting_production,
    )
    if min(sum(waiting_canary), sum(waiting_production)) >= BLOCK:
        now = _with_block(state, now, 1 / decisions_per_key)
    return msgspec.structs.replace(state, cohorts={**state.cohorts, step: now})


def _plus(one: Sequence[int], other: Sequence[int], bins: int) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one or (0,) * bins, other or (0,) * bins, strict=True))


def _with_block(state: Outputs, cohort: Binned, power: float) -> Binned:
    one, zero = np.asarray(cohort.waiting_canary, float), np.asarray(cohort.waiting_production, float)
    n1, n0 = one.sum(), zero.sum()
    weight = float(power * n1 * n0 / (n1 + n0))
    known = whole(state.cohorts.values())
    grown = np.asarray(cohort.growth or (0.0,) * len(BETS))
    if known.weight and state.tolerance <= _WIDEST:
        witness = np.asarray(known.gained) > 0
        usual = np.asarray(known.production, float) - np.asarray(known.waiting_production, float)
        centre = (usual[witness].sum() + 0.5) / (usual.sum() + 1)
        grown = grown + power * growth(
            n1, one[witness].sum(), n0, zero[witness].sum(), centre=centre, tolerance=state.tolerance
        )
    gained = np.asarray(cohort.gained or (0.0,) * len(one)) + weight * (one / n1 - zero / n0)
    return msgspec.structs.replace(
        cohort,
        waiting_canary=(),
        waiting_production=(),
        gained=tuple(gained.tolist()),
        weight=cohort.weight + weight,
        growth=tuple(grown.tolist()),
    )


def whole(cohorts: Iterable[Binned]) -> Binned:
    """All steps together."""
    found = Binned()
    for each in cohorts:
        bins = len(each.canary)
        found = Binned(
            canary=_plus(found.canary, each.canary, bins),
            production=_plus(found.production, each.production, bins),
            waiting_canary=_plus(found.waiting_canary, each.waiting_canary, bins),
            waiting_production=_plus(found.waiting_production, each.waiting_production, bins),
            gained=_sum(found.gained, each.gained),
            weight=found.weight + each.weight,
            growth=_sum(found.growth, each.growth),
        )
    return found


def _sum(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    if not one or not other:
        return one or other
    return tuple(a + b for a, b in zip(one, other, strict=True))


def further(cohort: Binned) -> float:
    """The logarithm of the e-value against "the distance is at most the tolerance"."""
    return float(mixed(cohort.growth)) if cohort.growth else 0.0


def nearer(cohort: Binned, tolerance: float) -> float:
    """The logarithm of the e-value against "the distance is the tolerance or more"."""
    if not cohort.weight:
        return 0.0
    return float(hoeffding(tolerance * cohort.weight - _gained(cohort), cohort.weight))


def _gained(cohort: Binned) -> float:
    return float(np.abs(cohort.gained).sum()) / 2


def distance(cohort: Binned) -> float | None:
    """The distance over the bins that differ by two standard errors or more; None without blocks.

    Noise never cancels within an absolute value, so that all bins together would look far apart while they are few.
    """
    if not cohort.weight:
        return None
    seen = np.abs(cohort.gained) / cohort.weight
    counts = np.asarray(cohort.canary, float) + np.asarray(cohort.production, float) + 0.5
    shares = counts / counts.sum()
    errors = np.sqrt(shares * (1 - shares) / cohort.weight)
    return min(1.0, float(seen[seen >= 2 * errors].sum()) / 2)


def interval(cohort: Binned, tolerance: float) -> tuple[float, float] | None:
    """Where the distance is, at all times together with 95 %; None without blocks.

    Below, half of the chance goes to a bound over all sets at once, half to the test against the tolerance.
    """
    if not cohort.weight:
        return None
    chance = (1 - LEVEL) / 2
    seen = _gained(cohort) / cohort.weight
    sets = max(0, len(cohort.gained) - 1) * math.log(2)
    low = max(0.0, seen - hoeffding_reach(cohort.weight, math.log(chance / 2) - sets) / cohort.weight)
    if further(cohort) >= -math.log(chance / 2):
        low = max(low, tolerance)
    return min(low, 1.0), min(1.0, seen + hoeffding_reach(cohort.weight, math.log(chance)) / cohort.weight)
