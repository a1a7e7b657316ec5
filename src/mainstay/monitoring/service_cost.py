"""What decisions cost, from their counts and the prices that are declared now."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec import Struct

from mainstay.monitoring.intervals import LEVEL, Estimate, z_value

if TYPE_CHECKING:
    from mainstay.capability.keeping import Cost
    from mainstay.monitoring.service_counts import ServiceCounts


class CostOfDecisions(Struct, frozen=True, kw_only=True):
    """What some decisions cost, in the declared currency."""

    currency: str
    decisions: int
    total: float
    per_decision: Estimate
    at_most: float | None  # per decision, as declared

    @property
    def is_above(self) -> bool:
        """Whether a decision surely costs more than declared."""
        return self.at_most is not None and self.per_decision.low > self.at_most


def cost_of(counts: ServiceCounts, cost: Cost, at_most: float | None = None) -> CostOfDecisions | None:
    """The cost of decisions; None without any, and where time costs and nothing was timed.

    Decisions that were not timed are taken to have lasted as long as the others. The interval is Student's for large
    numbers, with the deviations of the time and of the reviews added up: wide enough however the two go together.
    """
    n, timed = counts.decisions, counts.timed
    if not n or (cost.per_second and not timed):
        return None
    reviewed = counts.count(outcome="review") / n
    mean_seconds = counts.seconds / timed if timed else 0.0
    variance = max(0.0, counts.squares / timed - mean_seconds**2) if timed else 0.0
    value = cost.per_decision + cost.per_second * mean_seconds + cost.per_review * reviewed
    error = cost.per_review * math.sqrt(reviewed * (1 - reviewed) / n)
    error += cost.per_second * math.sqrt(variance / timed) if timed else 0.0
    reach = z_value(LEVEL) * error
    return CostOfDecisions(
        currency=cost.currency,
        decisions=n,
        total=value * n,
        per_decision=Estimate(value, max(0.0, value - reach), value + reach),
        at_most=at_most,
    )
