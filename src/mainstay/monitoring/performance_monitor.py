"""Is a capability still as good as it was: a verdict for each window of decisions, once its labels are there.

Each window is judged once, when its cohort is mature (`maturity.py`). It is held against a declared bound, or against
the reference's own performance at the worse end of its interval: a reference that was lucky is no promise. Windows
differ by more than their labels' chance; how much is learned from the reference's windows and added. The alarm is an
e-detector (`confidence_sequences.py`), so that looking every hour for years keeps the stated rate of false alarms.
"""

from __future__ import annotations

import math
from datetime import datetime  # noqa: TC003 - msgspec reads the types of a struct
from statistics import NormalDist
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from msgspec import Struct

from mainstay.errors import Misuse
from mainstay.monitoring.confidence_sequences import ChangeDetector, MeanSequence, find_change
from mainstay.monitoring.intervals import LEVEL, Estimate, t_value, z_value
from mainstay.monitoring.metrics import BEST_AT_ZERO, SMALLER_IS_BETTER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.capability.keeping import Metric

FEWEST_LABELS: Final = 50  # of a window
FEWEST_WINDOWS: Final = 3  # of a reference
_REMEMBERED: Final = 400  # windows, in which the beginning of a change is looked for
_HOURS_A_MONTH: Final = 730.5
_SUSPICIOUS: Final = 1.645  # standard errors beyond the bound: not fine any more, and no alarm yet


class PerformanceReference(Struct, frozen=True, kw_only=True):
    """A metric when all was well, over several windows."""

    metric: str
    value: float
    low: float
    high: float
    deviation: float  # between windows, beyond the chance of their labels
    windows: int
    labels: int


class MetricWindow(Struct, frozen=True, kw_only=True):
    """A metric of the decisions of one time."""

    start: datetime
    end: datetime
    estimate: Estimate | None
    labels: int
    mature: bool = True
    why_not: str = ""  # mature
    expected: Estimate | None = None  # what was estimated without labels (`estimation.py`), if it was
    level: float = LEVEL


class RetrainEvidence(Struct, frozen=True, kw_only=True):
    """What speaks for retraining.

    The windows that count are those since it became worse, and that time is found by looking at them: the loss is, if
    anything, said too large.
    """

    since: datetime  # when it became worse, most likely
    windows: int
    labels: int
    performance: Estimate  # since then
    loss: Estimate  # against the declared bound or the reference's value, above 0 is worse
    evidence: float  # of the e-detector
    needed: float


class PerformanceVerdict(Struct, frozen=True, kw_only=True):
    """What is known of one window. `unknown` is never `fine`.

    A degradation that is *explained* came with other cases, which are harder, and not with a model that is wrong of the
    cases it knows: retraining on the same columns will hardly mend it.
    """

    state: Literal["degraded", "fine", "unknown"]
    metric: str
    start: datetime
    end: datetime
    estimate: Estimate | None
    bound: float
    labels: int
    evidence: float
    needed: float  # evidence, for an alarm: one in so many windows would be false
    why: str
    explained: bool | None = None  # whether it is as the inputs alone let expect; None: not estimated
    retrain: RetrainEvidence | None = None


class _Seen(Struct, frozen=True):
    start: datetime
    value: float
    deviation: float
    labels: int
    side: int
    z: float


class MonitorState(Struct, frozen=True, kw_only=True):
    """What a monitor remembers between looks; a document of JSON."""

    detectors: tuple[ChangeDetector, ...] = ()  # one for each bound; empty before the first window
    seen: tuple[_Seen, ...] = ()
    last_start: datetime | None = None
    alarms: int = 0


def learn_reference(metric: str, windows: Sequence[MetricWindow]) -> PerformanceReference:
    """From windows when all was well. Raises Misuse for fewer than 3 with enough labels.

    The variance between windows is that of DerSimonian & Laird (1986), "Meta-analysis in clinical trials", as its mean
    given that it is not below 0; the interval of the mean is Student's.
    """
    usable = [(one.estimate, one) for one in windows if one.estimate is not None and one.labels >= FEWEST_LABELS]
    if len(usable) < FEWEST_WINDOWS:
        raise Misuse(
            f"expected a reference of at least {FEWEST_WINDOWS} windows with {FEWEST_LABELS} labels each, "
            f"found {len(usable)}"
        )
    k = len(usable)
    values = np.array([estimate.value for estimate, _ in usable])
    sizes = np.array([one.labels for _, one in usable], dtype=np.float64)
    noise = np.array([((e.high - e.low) / 2 / z_value(one.level)) ** 2 for e, one in usable])
    weights = sizes / sizes.sum()
    middle = float(weights @ values)
    between = _positive_mean(float(values.var(ddof=1) - noise.mean()), float(values.var(ddof=1)), k)
    error = math.sqrt(float(weights**2 @ (noise + between)))
    reach = t_value(LEVEL, k - 1) * error
    return PerformanceReference(
        metric=metric,
        value=middle,
        low=middle - reach,
        high=middle + reach,
        deviation=math.sqrt(between),
        windows=k,
        labels=int(sizes.sum()),
    )


def rate_for(false_alarms_per_month: float, window_hours: float, *, metrics: int = 1) -> float:
    """The false alarms per window that a monitor of one of several metrics may give."""
    return min(0.5, false_alarms_per_month * window_hours / _HOURS_A_MONTH / max(1, metrics))


class PerformanceMonitor:
    """Judges the windows of one metric of one version, in order. Not for several threads."""

    def __init__(
        self,
        metric: Metric,
        reference: PerformanceReference | None = None,
        *,
        rate: float = 0.005,
        state: MonitorState | None = None,
    ) -> None:
        """`rate` is how many false alarms there may be per window, on average. Raises Misuse without any bound."""
        self._sides = _sides(metric, reference)
        if not self._sides:
            raise Misuse(f"expected a declared bound of `{metric.name}`, or a reference to hold it against")
        if not 0 < rate <= 0.5:
            raise Misuse(f"expected a rate of false alarms above 0 and at most 0.5, found {rate}")
        self.state = state or MonitorState()
        self._metric = metric.name
        self._between = reference.deviation if reference else 0.0
        self._needed = 1 / rate

    def look(self, window: MetricWindow) -> PerformanceVerdict:
        """The verdict on the next window. Raises Misuse for a window that is not later than the last one judged.

        A window that is not mature, or has under 50 labels, is *unknown* and may be shown again.
        """
        if self.state.last_start is not None and window.start <= self.state.last_start:
            raise Misuse(f"expected a window after {self.state.last_start}, found {window.start}: each is judged once")
        estimate = window.estimate
        if estimate is None or not window.mature or window.labels < FEWEST_LABELS:
            return self._unknown(window)
        zs = [side.beyond(estimate, window.level, self._between) for side in self._sides]
        worst = int(np.argmax(zs))
        before = self.state.detectors or (ChangeDetector(),) * len(self._sides)
        detectors = tuple(detector.add(z) for detector, z in zip(before, zs, strict=True))
        evidence = _evidence(detectors)
        spread = self._sides[worst].deviation(estimate, window.level, self._between)
        now = _Seen(window.start, estimate.value, spread, window.labels, worst, zs[worst])
        seen = (*self.state.seen, now)[-_REMEMBERED:]
        alarm = evidence >= self._needed
        retrain = self._speak([one for one in seen if one.side == worst], evidence) if alarm else None
        verdict = self._verdict(window, estimate, evidence, zs[worst], self._sides[worst], retrain)
        self.state = MonitorState(
            detectors=() if alarm else detectors,
            seen=() if alarm else seen,
            last_start=window.start,
            alarms=self.state.alarms + alarm,
        )
        return verdict

    def _unknown(self, window: MetricWindow) -> PerformanceVerdict:
        if window.labels < FEWEST_LABELS:
            why = f"expected at least {FEWEST_LABELS} labels to say anything, found {window.labels}"
        elif not window.mature:
            why = window.why_not or "not enough of its labels have come yet"
        else:
            why = "the labels do not allow to compute it"
        return self._say("unknown", window, why, _evidence(self.state.detectors), self._sides[0])

    def _verdict(
        self,
        window: MetricWindow,
        estimate: Estimate,
        evidence: float,
        z: float,
        side: _Side,
        retrain: RetrainEvidence | None,
    ) -> PerformanceVerdict:
        held = f"{self._metric} {estimate.value:.4g} against {side.bound:.4g}"
        if retrain is not None:
            why = f"{held}; worse since {retrain.since:%Y-%m-%d %H:%M}, by {retrain.loss.value:.4g}"
            return self._say("degraded", window, why, evidence, side, retrain)
        if z > _SUSPICIOUS:
            return self._say("unknown", window, f"{held}: worse, but chance may be why", evidence, side)
        return self._say("fine", window, held, evidence, side)

    def _say(
        self,
        state: Literal["degraded", "fine", "unknown"],
        window: MetricWindow,
        why: str,
        evidence: float,
        side: _Side,
        retrain: RetrainEvidence | None = None,
    ) -> PerformanceVerdict:
        explained = None
        if window.estimate is not None and window.expected is not None:
            explained = window.expected.low <= window.estimate.value <= window.expected.high
        return PerformanceVerdict(
            state=state,
            metric=self._metric,
            start=window.start,
            end=window.end,
            estimate=window.estimate,
            bound=side.bound,
            labels=window.labels,
            evidence=evidence,
            needed=self._needed,
            why=why if not (retrain and explained) else f"{why}; as these inputs let expect",
            explained=explained,
            retrain=retrain,
        )

    def _speak(self, seen: Sequence[_Seen], evidence: float) -> RetrainEvidence:
        since = seen[find_change([one.z for one in seen]) :]
        running = MeanSequence()
        for one in since:
            running = running.add(one.value, one.deviation, one.labels)
        now = running.interval()
        assert now is not None
        side = self._sides[seen[-1].side]
        low, high = sorted(side.sign * (value - side.compared) for value in (now.low, now.high))
        return RetrainEvidence(
            since=since[0].start,
            windows=len(since),
            labels=sum(one.labels for one in since),
            performance=now,
            loss=Estimate(side.sign * (now.value - side.compared), low, high),
            evidence=evidence,
            needed=self._needed,
        )


class _Side(Struct, frozen=True):
    """A bound, and which way is worse: above it (1), or below it (-1)."""

    sign: float
    bound: float
    compared: float  # what a loss is counted from: the bound declared, or the reference's own value

    def deviation(self, estimate: Estimate, level: float, between: float) -> float:
        """Of a window, by the arm of its interval that points to the bound, and of windows among each other."""
        arms = (estimate.value - estimate.low, estimate.high - estimate.value)
        arm = arms[0] if estimate.value > self.bound else arms[1]
        return math.hypot((arm or max(arms)) / z_value(level), between)

    def beyond(self, estimate: Estimate, level: float, between: float) -> float:
        """Standard errors beyond the bound, to the bad side."""
        deviation = self.deviation(estimate, level, between)
        return self.sign * (estimate.value - self.bound) / deviation if 0 < deviation < math.inf else 0.0


def _sides(metric: Metric, reference: PerformanceReference | None) -> list[_Side]:
    """The declared bounds; without any, the worse end of the reference's interval, or both where neither is better."""
    sides = []
    if metric.at_least is not None:
        sides.append(_Side(-1.0, metric.at_least, metric.at_least))
    if metric.at_most is not None:
        sides.append(_Side(1.0, metric.at_most, metric.at_most))
    if sides or reference is None:
        return sides
    if metric.name not in SMALLER_IS_BETTER:
        sides.append(_Side(-1.0, reference.low, reference.value))
    if metric.name in SMALLER_IS_BETTER | BEST_AT_ZERO:
        sides.append(_Side(1.0, reference.high, reference.value))
    return sides


def _evidence(detectors: Sequence[ChangeDetector]) -> float:
    """Over all sides: the mean of e-detectors is one."""
    return sum(detector.evidence for detector in detectors) / max(1, len(detectors))


def _positive_mean(found: float, scale: float, k: int) -> float:
    """The mean of a variance that is found to be `found`, given that it is at least 0."""
    deviation = scale * math.sqrt(2 / (k - 1))
    if deviation == 0:
        return 0.0
    above, normal = found / deviation, NormalDist()
    return max(0.0, deviation * (above + normal.pdf(above) / max(normal.cdf(above), 1e-12)))
