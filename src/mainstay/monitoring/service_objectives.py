"""What is promised to callers, as shares of calls that may go wrong, and how counts stand against that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from msgspec import Struct
from scipy.special import betainc, betaincinv

from mainstay.monitoring.intervals import LEVEL, Estimate

if TYPE_CHECKING:
    from mainstay.capability.keeping import ServiceLevels
    from mainstay.monitoring.service_counts import ServiceCounts

Promised: TypeAlias = Literal["availability", "model_answers", "latency", "review_share"]

SMALLEST_ALLOWED: Final = 1e-6  # a share of zero leaves no budget to measure; this one never has a call in it


class Objective(Struct, frozen=True, kw_only=True):
    """A promise as the share of its calls that may be bad."""

    name: Promised
    allowed: float  # above 0, below 1
    latency_seconds: float | None = None  # of `latency`: a slower call is bad
    waits: bool = False  # somebody is left without an answer in time: it may wake people


class Tally(Struct, frozen=True):
    """How many of the calls that an objective speaks of were bad."""

    bad: int
    of: int

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.bad + other.bad, self.of + other.of)

    @property
    def share(self) -> float | None:
        """None without calls."""
        return self.bad / self.of if self.of else None

    def chance(self, share: float) -> float:
        """The chance of at least so many bad calls where each is bad with chance `share`: the binomial's exact tail."""
        return 1.0 if self.bad == 0 else float(betainc(self.bad, self.of - self.bad + 1, share))

    def estimate(self) -> Estimate | None:
        """The share of bad calls with the exact interval (Clopper and Pearson 1934); None without calls."""
        if not self.of:
            return None
        tail, good = (1 - LEVEL) / 2, self.of - self.bad
        low = float(betaincinv(self.bad, good + 1, tail)) if self.bad else 0.0
        high = float(betaincinv(self.bad + 1, good, 1 - tail)) if good else 1.0
        return Estimate(self.bad / self.of, low, high)


def objectives_of(levels: ServiceLevels) -> tuple[Objective, ...]:
    """The promises that are declared; what is not declared is none."""
    found = []
    if levels.availability is not None:
        found.append(Objective(name="availability", allowed=_allowed(1 - levels.availability), waits=True))
    if levels.model_answers is not None:
        found.append(Objective(name="model_answers", allowed=_allowed(1 - levels.model_answers)))
    if levels.latency_ms is not None:
        found.append(
            Objective(
                name="latency",
                allowed=_allowed(1 - levels.latency_share),
                latency_seconds=levels.latency_ms / 1000,
                waits=True,
            )
        )
    if levels.review_share is not None and levels.review_share < 1:
        found.append(Objective(name="review_share", allowed=_allowed(levels.review_share)))
    return tuple(found)


def tally(objective: Objective, counts: ServiceCounts) -> Tally:
    """How counts stand against an objective.

    `availability`: of the calls that a promise is made to, those without an answer; what a person is asked because the
    model was not sure is neither. `model_answers`: of the same calls, those that the model itself did not answer.
    `latency`: of the timed calls, the slower ones. `review_share`: of all decisions, batches and all, those that wait
    for a person.
    """
    match objective.name:
        case "availability":
            of = counts.promised - counts.handed_over
            return Tally(of - counts.answered, of)
        case "model_answers":
            return Tally(counts.promised - counts.answered_by_model, counts.promised)
        case "latency":
            assert objective.latency_seconds is not None
            of = sum(counts.latency.values())
            return Tally(of - counts.within(objective.latency_seconds), of)
        case "review_share":
            return Tally(counts.count(outcome="review"), counts.decisions)


def _allowed(share: float) -> float:
    """Without the noise of 1 - 0.999."""
    return max(round(share, 12), SMALLEST_ALLOWED)
