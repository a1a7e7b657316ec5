"""Champion and challenger on rows that neither was fitted to: whether the challenger is better, and where it is not.

    better      the whole interval lies above the margin, and no declared segment loses
    not better  the interval does not, or a segment loses
    unknown     too few rows with a truth and two answers, or too few of a class that the metric is of, to say either

A segment loses when it is surely worse there (at the level shared between all segments, Bonferroni) or when the
estimate is worse by more than `segment_margin`. Segments with fewer rows than MIN_SEGMENT are looked at together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
from msgspec import Struct

from mainstay.capability.keeping import METRICS, MetricName
from mainstay.monitoring.intervals import Estimate  # noqa: TC001 - msgspec reads the types of a struct
from mainstay.retraining.paired import TOP, Difference, compare, lacking

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from mainstay.capability.keeping import Retraining
    from mainstay.retraining.cases import Cases

Judged: TypeAlias = Literal["better", "not_better", "unknown"]

MIN_ROWS: Final = 200  # of the holdout, with an answer of both
MIN_SEGMENT: Final = 100
MOST_VALUES: Final = 50  # of a segment's column that are looked at by themselves, the most frequent
MOST_UNANSWERED: Final = 0.01  # by how much more often the challenger may have no answer than the champion
OTHERS: Final = "(others)"


class Segment(Struct, frozen=True, kw_only=True):
    """One value of a declared segment."""

    column: str
    value: str
    rows: int
    better: Estimate | None  # at the level shared between all segments; None where there is no interval
    verdict: Literal["holds", "loses", "unknown"]


class Challenge(Struct, frozen=True, kw_only=True):
    """How a challenger did beside the champion, on the holdout."""

    metric: MetricName
    champion: float | None
    challenger: float | None
    better: Estimate | None  # of the challenger over the champion: more is better, whatever the metric
    required: float  # that the lower end has to be above
    level: float  # of the interval
    rows: int  # with a truth and an answer of both
    blocks: int  # that were taken for independent, such as days
    unanswered: tuple[float, float]  # the share of rows without an answer, of champion and challenger
    segments: tuple[Segment, ...]
    verdict: Judged
    why: str
    top: int | None = None  # of a list that count, for metrics of lists


def judge(
    declared: Retraining,
    metric: MetricName,
    champion: Cases,
    challenger: Cases,
    *,
    blocks: NDArray[Any],
    segments: Mapping[str, Sequence[str]],
    top: int = TOP,
) -> Challenge:
    """Hold the challenger against the champion; all are of the same n rows, in one order.

    A score or prediction of None (NaN, for numbers) is no answer. `segments` has the value of each row for every
    declared segment. Of rankings, rows for which nothing was relevant are left out; `top` is how many of a list count.
    """
    have = _answered(champion), _answered(challenger)
    is_ranked = metric in METRICS["ranking"]
    both = have[0] & have[1]
    if is_ranked:
        both &= np.fromiter((len(each) > 0 for each in champion.truth), np.bool_, len(both))
    missing = float((~have[0]).mean()), float((~have[1]).mean())
    first, second = champion.taken(both), challenger.taken(both)
    parts = list(_parts({name: np.asarray(values)[both] for name, values in segments.items()}))
    found = compare(metric, first, second, blocks[both], level=declared.confidence, top=top)
    lacks = lacking(metric, first, second)
    shared = 1 - (1 - declared.confidence) / max(1, len(parts))
    judged = []
    for column, value, chosen in parts:
        one, two = first.taken(chosen), second.taken(chosen)
        apart = None
        if not lacking(metric, one, two):
            apart = compare(metric, one, two, blocks[both][chosen], level=shared, top=top)
        judged.append(_segment(column, value, int(chosen.sum()), apart, declared.segment_margin))
    verdict, why = _verdict(found, int(both.sum()), missing, lacks, judged, declared)
    return Challenge(
        metric=metric,
        champion=None if found is None else found.champion,
        challenger=None if found is None else found.challenger,
        better=None if found is None else found.better,
        required=declared.margin,
        level=declared.confidence,
        rows=int(both.sum()),
        blocks=0 if found is None else found.blocks,
        unanswered=missing,
        segments=tuple(judged),
        verdict=verdict,
        why=why,
        top=top if is_ranked else None,
    )


def _verdict(
    found: Difference | None,
    rows: int,
    missing: tuple[float, float],
    lacks: str,
    segments: list[Segment],
    declared: Retraining,
) -> tuple[Judged, str]:
    if missing[1] > missing[0] + MOST_UNANSWERED:
        return "not_better", f"it has no answer for {missing[1]:.1%} of the rows, the champion for {missing[0]:.1%}"
    if rows < MIN_ROWS:
        return "unknown", f"expected at least {MIN_ROWS} rows with a truth and two answers to compare, found {rows}"
    if lacks or found is None:
        return "unknown", f"it cannot be decided: {lacks or 'the metric has no value, or no interval, on these rows'}"
    low, high = found.better.low, found.better.high
    if low <= declared.margin:
        surely = "and is surely worse" if high < 0 else "which may be chance"
        said = f"it is better by {found.better.value:+.4f}, {surely}: the interval is {low:+.4f} to {high:+.4f}"
        return "not_better", f"{said}, and more than {declared.margin:g} is required"
    losing = [each for each in segments if each.verdict == "loses"]
    if losing:
        named = ", ".join(f"{each.column}={each.value}" for each in losing[:5])
        return "not_better", f"it is better over all, and loses on {named}"
    return "better", f"better by {found.better.value:+.4f} ({low:+.4f} to {high:+.4f}), and no segment loses"


def _segment(column: str, value: str, rows: int, apart: Difference | None, margin: float) -> Segment:
    verdict: Literal["holds", "loses", "unknown"] = "unknown"
    if apart is not None and rows >= MIN_SEGMENT:
        verdict = "loses" if apart.better.high < 0 or apart.better.value < -margin else "holds"
    return Segment(
        column=column, value=value, rows=rows, better=None if apart is None else apart.better, verdict=verdict
    )


def _parts(segments: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Every value of every segment that is frequent enough, and the rest of each together."""
    for column, values in segments.items():
        names, counts = np.unique(values, return_counts=True)
        frequent = names[np.argsort(-counts, kind="stable")][:MOST_VALUES]
        kept = [name for name in frequent if counts[names == name][0] >= MIN_SEGMENT]
        for name in kept:
            yield column, str(name), values == name
        rest = ~np.isin(values, kept)
        if rest.any():
            yield column, OTHERS, rest


def _answered(cases: Cases) -> NDArray[np.bool_]:
    given = np.ones(len(cases.truth), dtype=np.bool_)
    for values in (cases.prediction, cases.score):
        if values is not None:
            # What is no number differs from itself.
            given &= np.fromiter((each is not None and each == each for each in values), np.bool_, len(values))  # noqa: PLR0124
    return given
