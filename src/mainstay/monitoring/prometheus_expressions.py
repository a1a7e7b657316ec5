"""PromQL over what `/metrics` gives, for one capability: the counts of `service_objectives.tally`, over any window."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from mainstay.monitoring.service_counts import NOT_OURS, UNSURE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.monitoring.service_objectives import Objective

DECISIONS: Final = "mainstay_decisions_total"
SECONDS: Final = "mainstay_decision_seconds"

_NOT_OURS: Final = "|".join(sorted(NOT_OURS))
_NOT_LOST: Final = "|".join(sorted(NOT_OURS | UNSURE))


def duration(hours: float) -> str:
    """A time as Prometheus writes it, to the minute: 5m, 6h, 3d."""
    minutes = max(1, round(hours * 60))
    if minutes % 60:
        return f"{minutes}m"
    return f"{minutes // 60}h" if minutes % 1_440 else f"{minutes // 1_440}d"


def number(value: float) -> str:
    """A number as people would write it."""
    return f"{value:.10g}"


def quoted(text: str) -> str:
    """The value of a label, between its quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def selector(metric: str, capability: str, *matchers: str) -> str:
    return f"{metric}{{{','.join([f'capability={quoted(capability)}', *matchers])}}}"


def increase(window: str, *selectors: str, by: str = "capability") -> str:
    """How much counters grew in a window, all of them added up."""
    return f"sum by ({by}) ({' or '.join(f'increase({each}[{window}])' for each in selectors)})"


def or_none(part: str, whole: str) -> str:
    """`part`, and 0 where nothing of the kind was ever counted but something of `whole` was."""
    return f"({part} or on (capability) 0 * {whole})"


def calls_of(objective: Objective, capability: str, window: str) -> str:
    """The calls that an objective speaks of."""
    match objective.name:
        case "availability":
            told = selector(
                DECISIONS, capability, 'outcome=~"answered|fallback|refused"', f"reason!~{quoted(_NOT_OURS)}"
            )
            return increase(window, told, _lost_reviews(capability))
        case "model_answers":
            return increase(window, selector(DECISIONS, capability, f"reason!~{quoted(_NOT_OURS)}"))
        case "latency":
            return increase(window, selector(f"{SECONDS}_count", capability))
        case "review_share":
            return increase(window, selector(DECISIONS, capability))


def bad_of(objective: Objective, capability: str, window: str, calls: str, bounds: Sequence[float]) -> str:
    """The bad ones of `calls`, which is an expression. `bounds` are those of the latency histogram, in seconds."""
    match objective.name:
        case "availability":
            refused = selector(DECISIONS, capability, 'outcome="refused"', f"reason!~{quoted(_NOT_OURS)}")
            return or_none(increase(window, refused, _lost_reviews(capability)), calls)
        case "model_answers":
            others = selector(DECISIONS, capability, 'outcome!="answered"', f"reason!~{quoted(_NOT_OURS)}")
            return or_none(increase(window, others), calls)
        case "latency":
            assert objective.latency_seconds is not None
            within = _within(capability, window, objective.latency_seconds, bounds)
            return f"clamp_min({increase(window, selector(f'{SECONDS}_count', capability))} - {within}, 0)"
        case "review_share":
            return or_none(increase(window, selector(DECISIONS, capability, 'outcome="review"')), calls)


def _lost_reviews(capability: str) -> str:
    """Reviews that nobody asked for: the model was not unsure, it failed."""
    return selector(DECISIONS, capability, 'outcome="review"', f"reason!~{quoted(_NOT_LOST)}")


def _within(capability: str, window: str, seconds: float, bounds: Sequence[float]) -> str:
    """Calls within a time: of the two bounds of the histogram around it, in proportion. At most the last bound."""
    above = bisect_left(bounds, seconds)

    def up_to(bound: float) -> str:
        return increase(window, selector(f"{SECONDS}_bucket", capability, f'le="{bound}"'))

    upper = bounds[above]
    if upper == seconds:
        return up_to(upper)
    lower = bounds[above - 1] if above else 0.0
    weight = (seconds - lower) / (upper - lower)
    most = f"{number(weight)} * {up_to(upper)}"
    return f"({number(1 - weight)} * {up_to(lower)} + {most})" if above else f"({most})"
