"""How much higher a mean is in the canary than in the version in force, and how sure that is at any time.

Three kinds: `share` of decisions, `mean` of values within 0..1, and `unbounded`, of values nobody set bounds to, whose
evidence holds in the limit of many decisions and is not heard before there are 200 of each arm.

The state has sums only. Decisions are kept apart by the step of the canary they were taken in, whenever they arrive: in
every step the canary has another share of the traffic, so that adding steps up would confuse what changed with time
with what the version does (Simpson's paradox). Within a step they enter in blocks, once at least ten of each arm have
come; what arrived before is waiting, so one arm alone, or a trickle, loses nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct

from mainstay.errors import Misuse
from mainstay.rollout.sequential import BETS, bernstein, bernstein_reach, growth, mixed, normal, normal_reach

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Kind: TypeAlias = Literal["share", "mean", "unbounded"]

BLOCK: Final = 10  # decisions of each arm that are judged together, at least
EXPECTED_COUNTS: Final = 50  # decisions that `expected` is worth
ASYMPTOTIC_FROM: Final = 200  # decisions of each arm
LEVEL: Final = 0.95  # of the interval, at all times together
_SHARPEST_AT: Final = 500.0  # the weight for which an unbounded interval is shortest


class Sums(Struct, frozen=True, omit_defaults=True):
    """Of values: how many, their sum, and that of their squares."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def plus(self, other: Sums) -> Sums:
        """The sums of both."""
        return Sums(self.n + other.n, self.total + other.total, self.squares + other.squares)

    def about(self, centre: float) -> float:
        """The sum of squared distances from a centre."""
        return max(0.0, self.squares - 2 * centre * self.total + self.n * centre * centre)

    @property
    def mean(self) -> float | None:
        """None without values."""
        return self.total / self.n if self.n else None


def counted(n: int, hits: int) -> Sums:
    """The sums of n decisions of which so many were hits."""
    return Sums(n, float(hits), float(hits))


class Cohort(Struct, frozen=True, omit_defaults=True):
    """What is known of decisions taken in one step, or in all of them together."""

    canary: Sums = Sums()  # everything that came, waiting or not
    production: Sums = Sums()
    waiting_canary: Sums = Sums()  # too few yet for a block
    waiting_production: Sums = Sums()
    gained: float = 0.0  # sum over blocks of weight x difference
    weight: float = 0.0  # sum of n1 n0/n
    variance: float = 0.0  # of `gained`
    growth: tuple[float, ...] = ()  # of a share: the logarithm of each bet that the canary's is higher

    @property
    def estimate(self) -> float | None:
        """How much higher the canary's mean is, block by block so that drift does not enter; None without a block."""
        return self.gained / self.weight if self.weight else None


class Difference(Struct, frozen=True, omit_defaults=True):
    """The state of one guard: `expected` is what the mean is thought to be before anything came, 0..1."""

    kind: Kind
    expected: float = 0.1
    cohorts: dict[int, Cohort] = {}  # by step


class Part(NamedTuple):
    """A part of the evidence that the canary's mean is higher: all steps together, or one of them."""

    log_share: float  # of the whole evidence that this part has
    log_value: float  # its own e-value
    cohort: Cohort


def fold(state: Difference, step: int, canary: Sums, production: Sums, *, decisions_per_key: float = 1.0) -> Difference:
    """The state with what has arrived of decisions taken in `step`; both arms up to the same moment.

    Keys are sticky, so the decisions of one key are one draw only: with m of them per key, evidence is taken to the
    power 1/m, as Hölder's inequality asks for when nothing is known of how they depend on each other. Where keys
    differ, m is sum(m^2)/sum(m), the design effect of Kish (1965), "Survey sampling".
    Raises Misuse for sums that no values can have.
    """
    for arm, sums in (("canary", canary), ("version in force", production)):
        _check(state.kind, arm, sums)
    if decisions_per_key < 1:
        raise Misuse(f"decisions_per_key: expected at least 1, found {decisions_per_key:g}")
    before = state.cohorts.get(step, Cohort())
    waiting_canary = before.waiting_canary.plus(canary)
    waiting_production = before.waiting_production.plus(production)
    now = msgspec.structs.replace(
        before,
        canary=before.canary.plus(canary),
        production=before.production.plus(production),
        waiting_canary=waiting_canary,
        waiting_production=waiting_production,
    )
    if min(waiting_canary.n, waiting_production.n) >= BLOCK:
        now = _with_block(state, now, 1 / decisions_per_key)
    return msgspec.structs.replace(state, cohorts={**state.cohorts, step: now})


def _check(kind: Kind, arm: str, sums: Sums) -> None:
    finite = math.isfinite(sums.total) and math.isfinite(sums.squares)
    slack = 1e-6 * (1 + abs(sums.squares))
    possible = finite and sums.n >= 0 and sums.total**2 <= sums.n * (sums.squares + slack)
    if kind != "unbounded":
        possible = possible and -slack <= sums.squares <= sums.total + slack and sums.total <= sums.n + slack
    if not possible:
        within = "of any values" if kind == "unbounded" else "of values within 0..1"
        raise Misuse(f"{arm}: expected sums {within}, found n={sums.n}, {sums.total:g}, {sums.squares:g}")


def _with_block(state: Difference, cohort: Cohort, power: float) -> Cohort:
    """The cohort with what was waiting judged as one block."""
    one, zero = cohort.waiting_canary, cohort.waiting_production
    n = one.n + zero.n
    weight = one.n * zero.n / n
    if state.kind == "unbounded":
        centre = 0.0
        own = [sums.about(sums.total / sums.n) / (sums.n - 1) / sums.n for sums in (one, zero)]
        variance = weight**2 * sum(own)
    else:
        centre = _centre(state)
        variance = (zero.n / n) ** 2 * one.about(centre) + (one.n / n) ** 2 * zero.about(centre)
    grown = cohort.growth
    if state.kind == "share":
        added = growth(one.n, one.total, zero.n, zero.total, centre=centre)
        grown = tuple(a + power * float(b) for a, b in zip(grown or (0.0,) * len(BETS), added, strict=True))
    return msgspec.structs.replace(
        cohort,
        waiting_canary=Sums(),
        waiting_production=Sums(),
        gained=cohort.gained + power * weight * (one.total / one.n - zero.total / zero.n),
        weight=cohort.weight + power * weight,
        variance=cohort.variance + power * variance,
        growth=grown,
    )


def _centre(state: Difference) -> float:
    """The mean of what was judged before: known before the block, as a centre has to be."""
    n, total = float(EXPECTED_COUNTS), EXPECTED_COUNTS * state.expected
    for cohort in state.cohorts.values():
        n += cohort.canary.n + cohort.production.n - cohort.waiting_canary.n - cohort.waiting_production.n
        total += cohort.canary.total + cohort.production.total
        total -= cohort.waiting_canary.total + cohort.waiting_production.total
    return min(1.0, max(0.0, total / n))


def whole(cohorts: Iterable[Cohort]) -> Cohort:
    """All steps together."""
    parts = list(cohorts)

    def over(field: Callable[[Cohort], Sums]) -> Sums:
        found = Sums()
        for part in parts:
            found = found.plus(field(part))
        return found

    grown = [part.growth for part in parts if part.growth]
    return Cohort(
        canary=over(lambda part: part.canary),
        production=over(lambda part: part.production),
        waiting_canary=over(lambda part: part.waiting_canary),
        waiting_production=over(lambda part: part.waiting_production),
        gained=math.fsum(part.gained for part in parts),
        weight=math.fsum(part.weight for part in parts),
        variance=math.fsum(part.variance for part in parts),
        growth=tuple(math.fsum(column) for column in zip(*grown, strict=True)),
    )


def parts_of(state: Difference, steps: int) -> list[Part]:
    """The evidence that the canary is worse: half of it over all steps, half of it over each step by itself.

    The parts by step see a harm that only a larger share brings, past all the good that smaller ones have shown. Their
    average, each with its share, is an e-process against "not higher in the canary, in no block".
    """
    parts = [_part(math.log(0.5), state.kind, whole(state.cohorts.values()))]
    parts += [_part(-math.log(2 * steps), state.kind, cohort) for cohort in state.cohorts.values()]
    return parts


def _part(log_share: float, kind: Kind, cohort: Cohort) -> Part:
    return Part(log_share, higher(kind, cohort), cohort)


def higher(kind: Kind, cohort: Cohort) -> float:
    """The logarithm of the e-value against "the canary's mean is not higher"."""
    if kind == "share":
        return float(mixed(cohort.growth)) if cohort.growth else 0.0
    return _evidence(kind, cohort, cohort.gained)


def lower_than(kind: Kind, cohort: Cohort, tolerance: float) -> float:
    """The logarithm of the e-value against "the canary's mean is higher by the tolerance or more": not inferior."""
    return _evidence(kind, cohort, tolerance * cohort.weight - cohort.gained)


def _evidence(kind: Kind, cohort: Cohort, excess: float) -> float:
    if not heard(kind, cohort):
        return 0.0
    if kind == "unbounded":
        return float(normal(excess, cohort.variance, _unit(cohort)))
    return float(bernstein(excess, cohort.variance))


def heard(kind: Kind, cohort: Cohort) -> bool:
    """Whether there is enough to say anything at all."""
    fewest = min(cohort.canary.n, cohort.production.n)
    return cohort.weight > 0 and (kind != "unbounded" or fewest >= ASYMPTOTIC_FROM)


def _unit(cohort: Cohort) -> float:
    scale = abs(cohort.production.mean or 0.0) + abs(cohort.canary.mean or 0.0)
    return _SHARPEST_AT * max(cohort.variance / cohort.weight, (1e-6 * scale) ** 2, 1e-300)


def interval(kind: Kind, cohort: Cohort) -> tuple[float, float] | None:
    """Where the difference is, at all times together with 95 %; None before there is enough to say.

    What the sharper test of a share has settled is part of it: once that calls the canary's share higher, 0 is the
    lowest. The chance of being wrong below is divided between the two.
    """
    if not heard(kind, cohort):
        return None
    chance = (1 - LEVEL) / 2
    below = chance / 2 if kind == "share" else chance
    middle = cohort.gained / cohort.weight
    if kind == "unbounded":
        either = normal_reach(cohort.variance, chance, _unit(cohort)) / cohort.weight
        return middle - either, middle + either
    low = middle - bernstein_reach(cohort.variance, below) / cohort.weight
    high = middle + bernstein_reach(cohort.variance, chance) / cohort.weight
    if kind == "share" and higher(kind, cohort) >= -math.log(below):
        low = max(low, 0.0)
    return max(low, -1.0), min(high, 1.0)
