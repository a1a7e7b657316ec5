"""What monitoring knows of a capability, as facts: what a terminal, a page and a program are told alike."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
from msgspec import Struct

from mainstay.catalog.releases import history
from mainstay.intake.declared import sources_in_force
from mainstay.monitoring import causes, judged_labels
from mainstay.monitoring.binning import Values
from mainstay.monitoring.estimated_quality import estimate_cohort, track_of
from mainstay.monitoring.estimation import ASSUMPTION
from mainstay.monitoring.estimation_record import Track  # noqa: TC001 - msgspec reads the types of a struct
from mainstay.monitoring.findings import (  # noqa: TC001 - msgspec reads the types of a struct
    Change,
    Standing,
)
from mainstay.monitoring.folding import Folder
from mainstay.monitoring.histograms import merge
from mainstay.monitoring.intervals import Estimate, wilson
from mainstay.monitoring.label_counts import business_value, measured, measured_segments, reads_outcome, score_bins
from mainstay.monitoring.layouts import INPUT
from mainstay.monitoring.metrics import Measured  # noqa: TC001 - msgspec reads the types of a struct
from mainstay.monitoring.performance_monitor import FEWEST_LABELS
from mainstay.monitoring.selective import SelectiveMean  # noqa: TC001 - msgspec reads the types of a struct
from mainstay.monitoring.selective_counts import ASKED, corrected
from mainstay.monitoring.service_budget import ServiceStep, left_of, tallies_over_time
from mainstay.monitoring.service_objectives import objectives_of
from mainstay.monitoring.service_report import ServiceReport, service_report
from mainstay.monitoring.store import read_findings, read_memory
from mainstay.monitoring.upstream import changes_of
from mainstay.monitoring.windows import (
    BUSINESS,
    COLUMN,
    DELAYS,
    ENDED,
    LABELS,
    SCHEMA,
    SCORES,
    SERVICE,
    TRUTHS,
    Counted,
    read_windows,
)
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mainstay.capability.keeping import Labels, Metric, Monitoring
    from mainstay.capability.types import Capability
    from mainstay.lake.lake import Lake
    from mainstay.lake.tables import Table
    from mainstay.monitoring.binning import Column
    from mainstay.monitoring.estimation import Estimator
    from mainstay.monitoring.layouts import Layout
    from mainstay.monitoring.maturity import CohortVerdict, MaturityCurve
    from mainstay.monitoring.store import Memory
    from mainstay.monitoring.windows import Columns
    from mainstay.state.database import Database
    from mainstay.workspace import Workspace

MOST_COLUMNS: Final = 8  # whose drift is drawn: those that drifted first, then those that moved most
MOST_POINTS: Final = 120  # windows of a series


class At(Struct, frozen=True):
    """A value at the beginning of a window."""

    at: datetime
    value: float
    low: float | None = None
    high: float | None = None
    rows: int = 0


class Served(Struct, frozen=True, kw_only=True):
    """A version that decided."""

    version: str
    stage: str
    decisions: int
    reference: str | None  # what its inputs are compared with; None: it has made too few decisions


class DriftSeries(Struct, frozen=True, kw_only=True):
    """A column window by window, and the newest window beside the reference."""

    version: str
    column: str
    reference: str
    points: tuple[At, ...]  # total variation distance
    bins: tuple[tuple[str, float, float], ...]  # a label, the share of the reference, the share of the window
    ordered: bool
    drifted: bool


class Quality(Struct, frozen=True, kw_only=True):
    """A metric cohort by cohort."""

    version: str
    metric: str
    bound: float | None
    points: tuple[At, ...]
    mature_until: datetime | None  # cohorts from then on still wait for labels


class Estimated(Struct, frozen=True, kw_only=True):
    """What a metric probably was, cohort by cohort, before anybody knew. No measurement: it holds as assumed."""

    version: str
    metric: str
    bound: float | None
    points: tuple[At, ...]
    track: Track | None  # of earlier estimates against the labels that came; None: there is none yet
    assumption: str = ASSUMPTION
    is_estimate: bool = True


class Corrected(Struct, frozen=True, kw_only=True):
    """A share over all decisions of a mature cohort, though labels are there for some of them and not by chance.

    `accuracy`: what was said was right, by the model, by a fallback or as a proposal to a person; `positives`: it came
    true, of refused decisions, too. The naive value beside it is that of the labelled decisions alone.
    """

    version: str
    name: str
    begin: datetime
    share: SelectiveMean


class Reliable(Struct, frozen=True, kw_only=True):
    """A bin of scores, and what came true."""

    stated: float
    found: Estimate
    rows: int


class Segmented(Struct, frozen=True, kw_only=True):
    """A metric of all mature cohorts together, and within each value of the segment fields."""

    version: str
    metric: str
    whole: Measured
    segments: tuple[Measured, ...]  # those with the most labels first; their intervals hold together

    def stands_out(self, segment: Measured) -> bool:
        """Whether the whole's value is out of the segment's interval."""
        one, all_of_it = segment.estimate, self.whole.estimate
        return one is not None and all_of_it is not None and not one.low <= all_of_it.value <= one.high


class Business(Struct, frozen=True, kw_only=True):
    """A number that the business cares for, window by window."""

    name: str
    unit: str | None
    at_least: float | None
    at_most: float | None
    of_outcomes: bool  # whether it needs labels: those of newer windows may be still to come
    points: tuple[At, ...]
    left_out: int  # decisions of the newest of these windows for which it has no value


class LabelTimes(Struct, frozen=True, kw_only=True):
    """When labels come."""

    points: tuple[tuple[float, float, float, float], ...]  # days, share, and its interval
    mature_days: float | None


class BudgetSeries(Struct, frozen=True, kw_only=True):
    """What was left of an error budget, step by step."""

    name: str
    points: tuple[At, ...]


class LabelFacts(Struct, frozen=True, kw_only=True):
    """What labels say."""

    quality: tuple[Quality, ...] = ()
    estimated: tuple[Estimated, ...] = ()
    corrected: tuple[Corrected, ...] = ()  # of the newest mature cohort, where decisions lack labels
    segments: tuple[Segmented, ...] = ()  # of the mature cohorts
    reliability: tuple[Reliable, ...] = ()  # of the version with the most decisions
    times: LabelTimes | None = None  # of the same
    waiting: int = 0  # its cohorts that still wait for labels


class Report(Struct, frozen=True, kw_only=True):
    """What is known of a capability from `since` to `until`."""

    capability: str
    title: str
    team: str
    contact: str
    at: datetime
    since: datetime
    until: datetime  # the end of the newest window that was judged
    judged: bool  # whether any window was judged yet
    window_hours: float
    smallest_drift: float
    false_alarms_per_month: float
    versions: tuple[Served, ...]
    findings: tuple[Standing, ...]  # the open ones first
    decisions: tuple[At, ...]
    drift: tuple[DriftSeries, ...]
    labels: LabelFacts
    business: tuple[Business, ...]
    service: ServiceReport | None
    budgets: tuple[BudgetSeries, ...]
    changes: tuple[Change, ...]

    @property
    def open(self) -> list[Standing]:
        return [each for each in self.findings if each.is_open]


def gather(workspace: Workspace, lake: Lake, database: Database, name: str, since: datetime | None = None) -> Report:
    """Everything about a capability; without `since`, of thirty windows. Reads the windows, and no decisions.

    Raises Misuse when there is no such capability, Failed when the storage or the database does not answer.
    """
    in_force = sources_in_force(workspace, name)
    capability = in_force.capability
    memory = read_memory(database, name)
    folder = Folder(workspace, lake, name)
    table = folder.table()
    until = datetime.now(UTC) if memory is None or memory.judged_until is None else memory.judged_until
    length = timedelta(hours=max(capability.monitoring.window_hours, capability.monitoring.step_hours))
    begin = until - 30 * length if since is None else since
    findings = read_findings(database, name, since=begin)
    releases = () if in_force.version is None else history(workspace.releases, name, load_verifier(workspace.keys))
    changes = changes_of(workspace, name, releases, capability.monitoring, table) if releases else ()
    view = _Facts(capability.monitoring, table, folder, memory, begin, until, length)
    counted = view.read(begin, [SERVICE])
    return Report(
        capability=name,
        title=capability.title,
        team=capability.owner.team,
        contact=capability.owner.contact,
        at=datetime.now(UTC),
        since=begin,
        until=until,
        judged=memory is not None and memory.judged_until is not None,
        window_hours=length / timedelta(hours=1),
        smallest_drift=capability.monitoring.smallest_drift,
        false_alarms_per_month=capability.monitoring.false_alarms_per_month,
        versions=view.versions(counted),
        findings=tuple(findings),
        decisions=tuple(_decisions(counted, begin, until)),
        drift=view.drift(counted, findings),
        labels=view.labels(counted),
        business=view.business(),
        service=view.service(capability),
        budgets=view.budgets(capability),
        changes=tuple(change for change in changes if begin <= change.at <= until + length),
    )


class _Facts:
    """What is read of the windows."""

    def __init__(
        self,
        monitoring: Monitoring,
        table: Table | None,
        folder: Folder,
        memory: Memory | None,
        begin: datetime,
        until: datetime,
        length: timedelta,
    ) -> None:
        self._monitoring, self._table, self._folder = monitoring, table, folder
        self._remembered = {} if memory is None else memory.labels
        self._begin, self._until, self._length = begin, until, length

    def read(self, begin: datetime, kinds: Sequence[str]) -> Counted:
        if self._table is None:
            return Counted(pl.DataFrame(schema=SCHEMA))
        return read_windows(self._table, begin, self._until, kinds)

    def versions(self, counted: Counted) -> tuple[Served, ...]:
        found = []
        for version, stage in counted.groups():
            own = counted.frame.filter(pl.col("version") == version, pl.col("stage") == stage)
            layout = self._folder.layout(version)
            of = None if layout is None else layout.inputs.of
            found.append(Served(version=version, stage=stage, decisions=int(own["rows"].sum()), reference=of))
        return tuple(found)

    def drift(self, counted: Counted, findings: Sequence[Standing]) -> tuple[DriftSeries, ...]:
        versions = [version for version, stage in counted.groups() if stage != "shadow"]
        if not versions or (layout := self._folder.layout(versions[0])) is None:
            return ()
        rows = self.read(self._begin, [COLUMN])
        whole = Counted(rows.frame.filter(pl.col("segment").is_null()))
        columns = whole.columns(versions[0], ("production", "canary"))
        drifted = [each.finding.column for each in findings if each.is_open and each.finding.version == versions[0]]
        found = [self._series(layout, name.name, columns, drifted=name.name in drifted) for name in layout.columns]
        found = [each for each in found if each.points]
        found.sort(key=lambda each: (not each.drifted, not each.column.startswith(INPUT), -each.points[-1].value))
        return tuple(found[:MOST_COLUMNS])

    def _series(self, layout: Layout, name: str, columns: Columns, *, drifted: bool) -> DriftSeries:
        reference = layout.reference_of(name)
        before = merge(reference.blocks[name])
        steps = columns.steps(name)
        points: list[At] = []
        newest: NDArray[np.int64] | None = None
        for begin, places in self._windows(steps.starts):
            newest = steps.counts[places].sum(0)
            if newest.sum() >= self._monitoring.min_rows:
                apart = causes.distance(np.array(before.counts, float), newest.astype(float))
                points.append(At(begin, apart, rows=int(newest.sum())))
        column = layout.column(name)
        bins: tuple[tuple[str, float, float], ...] = ()
        if newest is not None and before.rows and newest.sum():
            shares = zip(_labels(column), before.counts, newest.tolist(), strict=True)
            bins = tuple((label, one / before.rows, other / int(newest.sum())) for label, one, other in shares)
        return DriftSeries(
            version=layout.version,
            column=name,
            reference=reference.of,
            points=tuple(points[-MOST_POINTS:]),
            bins=bins,
            ordered=column.ordered,
            drifted=drifted,
        )

    def _windows(self, starts: Sequence[datetime]) -> list[tuple[datetime, list[int]]]:
        """The places of steps by whole windows that end at `until`, in their order."""
        found: dict[datetime, list[int]] = {}
        for place, at in enumerate(starts):
            back = math.ceil((self._until - at) / self._length)
            found.setdefault(self._until - back * self._length, []).append(place)
        return sorted(found.items())

    def labels(self, counted: Counted) -> LabelFacts:
        labels = self._monitoring.labels
        versions = list(dict.fromkeys(version for version, stage in counted.groups() if stage != "shadow"))
        if labels is None or not versions:
            return LabelFacts()
        rows = self.read(self._begin, [SERVICE, LABELS, DELAYS, SCORES, ENDED, TRUTHS])
        zero = datetime(1970, 1, 1, tzinfo=UTC)
        begin, end = (zero + (at - zero) // self._length * self._length for at in (self._begin, self._until))
        facts = LabelFacts()
        for version in reversed(versions):  # the one with the most decisions comes last, and its facts stay
            cohorts = judged_labels.cohorts_of(rows, version, begin, end, self._length)
            curve = judged_labels.learn(cohorts, self._until)
            verdicts = judged_labels.mature_of(cohorts, curve, labels, self._until)
            young = [each.cohort.start for each in verdicts if not each.mature]
            mature = None if curve is None else min(young, default=self._until)
            quality = [self._quality(version, metric, labels, cohorts, mature) for metric in self._monitoring.metrics]
            whole = [each.labels.filter(pl.col("segment").is_null()) for each in cohorts]
            facts = LabelFacts(
                quality=(*quality, *facts.quality),
                estimated=(*self._estimated(version, cohorts), *facts.estimated),
                corrected=(*_corrected(version, cohorts, verdicts), *facts.corrected),
                segments=(*_segmented(version, self._monitoring, cohorts, verdicts), *facts.segments),
                reliability=tuple(_reliable(pl.concat(whole))) if labels.kind == "binary" and whole else (),
                times=None if curve is None else _times(curve),
                waiting=len(young),
            )
        return facts

    def _quality(
        self,
        version: str,
        metric: Metric,
        labels: Labels,
        cohorts: Sequence[judged_labels.CohortCounts],
        mature: datetime | None,
    ) -> Quality:
        points = []
        for cohort in cohorts:
            one = measured(metric, labels, cohort.labels.filter(pl.col("segment").is_null()))
            if one.estimate is not None and one.n >= FEWEST_LABELS:
                points.append(At(cohort.begin, one.estimate.value, one.estimate.low, one.estimate.high, one.n))
        return Quality(
            version=version, metric=metric.name, bound=_bound(metric), points=tuple(points), mature_until=mature
        )

    def _estimated(self, version: str, cohorts: Sequence[judged_labels.CohortCounts]) -> list[Estimated]:
        """What each metric probably was, where the version's reference rows allow to say so."""
        layout = self._folder.layout(version)
        estimator: Estimator | None = None if layout is None else layout.estimator
        memory = judged_labels.decode(self._remembered.get(version, {}))
        found = []
        for metric in self._monitoring.metrics:
            points = []
            for cohort in cohorts:
                one = estimate_cohort(cohort.scores, estimator, metric.name)
                if one is not None and one.n >= FEWEST_LABELS:
                    points.append(At(cohort.begin, one.value, one.low, one.high, one.n))
            if points:
                state = memory.get(metric.name, judged_labels.LabelMemory())
                usual = None if state.reference is None else state.reference.value
                track = track_of(state.estimates, usual)
                found.append(
                    Estimated(
                        version=version,
                        metric=metric.name,
                        bound=_bound(metric),
                        points=tuple(points[-MOST_POINTS:]),
                        track=track,
                    )
                )
        return found

    def service(self, capability: Capability) -> ServiceReport | None:
        steps = self._steps(timedelta(days=capability.service_levels.period_days))
        return service_report(capability, steps, self._until) if steps else None

    def budgets(self, capability: Capability) -> tuple[BudgetSeries, ...]:
        """What is left of each budget at the end of each window."""
        levels = capability.service_levels
        steps = self._steps(timedelta(days=levels.period_days) + (self._until - self._begin))
        count = min(MOST_POINTS, max(0, math.floor((self._until - self._begin) / self._length)))
        moments = [self._until - back * self._length for back in range(count, -1, -1)]
        found = []
        for objective in objectives_of(levels):
            tallies = tallies_over_time(objective, steps, moments, levels.period_days)
            left = [(at, left_of(objective, whole), whole.of) for at, whole in zip(moments, tallies, strict=True)]
            points = tuple(At(at, share, rows=rows) for at, share, rows in left if share is not None)
            if points:
                found.append(BudgetSeries(name=objective.name, points=points))
        return tuple(found)

    def business(self) -> tuple[Business, ...]:
        rows = self.read(self._begin, [BUSINESS]).frame.sort("step")
        found = []
        for metric in self._monitoring.business:
            own = rows.filter(pl.col("name") == metric.name)
            points, left_out = [], 0
            for begin, places in self._windows(own["step"].to_list()):
                one, n, without = business_value(own[places])
                if one is not None and n >= FEWEST_LABELS:
                    points.append(At(begin, one.value, one.low, one.high, n))
                    left_out = without
            found.append(
                Business(
                    name=metric.name,
                    unit=metric.unit,
                    at_least=metric.at_least,
                    at_most=metric.at_most,
                    of_outcomes=reads_outcome(metric),
                    points=tuple(points[-MOST_POINTS:]),
                    left_out=left_out,
                )
            )
        return tuple(found)

    def _steps(self, back: timedelta) -> list[ServiceStep]:
        return [ServiceStep(at, counts) for at, counts in self.read(self._until - back, [SERVICE]).service()]


def _corrected(
    version: str, cohorts: Sequence[judged_labels.CohortCounts], verdicts: Sequence[CohortVerdict]
) -> list[Corrected]:
    mature = [each for each, verdict in zip(cohorts, verdicts, strict=False) if verdict.mature]
    found = []
    for name in ASKED if mature else ():
        share = corrected(mature[-1].ended, name)
        if share is not None and share.labels < share.decisions:
            found.append(Corrected(version=version, name=name, begin=mature[-1].begin, share=share))
    return found


def _segmented(
    version: str,
    monitoring: Monitoring,
    cohorts: Sequence[judged_labels.CohortCounts],
    verdicts: Sequence[CohortVerdict],
) -> list[Segmented]:
    mature = [each.labels for each, verdict in zip(cohorts, verdicts, strict=False) if verdict.mature]
    if monitoring.labels is None or not mature:
        return []
    rows = pl.concat(mature)
    found = []
    for metric in monitoring.metrics:
        parts = measured_segments(metric, monitoring.labels, rows, fewest=judged_labels.SEGMENT_LABELS)
        whole = measured(metric, monitoring.labels, rows.filter(pl.col("segment").is_null()))
        if parts and whole.estimate is not None:
            found.append(Segmented(version=version, metric=metric.name, whole=whole, segments=tuple(parts)))
    return found


def _bound(metric: Metric) -> float | None:
    return metric.at_least if metric.at_least is not None else metric.at_most


def _labels(column: Column) -> list[str]:
    """A short name for each bin."""
    bins = column.bins
    if isinstance(bins, Values) or not bins.edges:
        return bins.labels()
    points = {float(np.searchsorted(bins.edges, point, "right")): point for point in bins.points}
    between = [f"{low:.3g} to {high:.3g}" for low, high in pairwise(bins.edges)]
    labels = [f"< {bins.edges[0]:.3g}", *between, f"> {bins.edges[-1]:.3g}"]
    return [*(f"{points[place]:.3g}" if place in points else label for place, label in enumerate(labels)), "missing"]


def _decisions(counted: Counted, begin: datetime, until: datetime) -> list[At]:
    """Decisions of each step; of many steps together where there are more than are drawn."""
    steps = [(at, counts.decisions) for at, counts in counted.service() if at >= begin]
    apart = (until - begin) / MOST_POINTS
    found: dict[datetime, int] = {}
    for at, decisions in steps:
        place = begin + (at - begin) // apart * apart if len(steps) > MOST_POINTS else at
        found[place] = found.get(place, 0) + decisions
    return [At(at, float(decisions), rows=decisions) for at, decisions in sorted(found.items())]


def _reliable(rows: pl.DataFrame) -> list[Reliable]:
    found = []
    for stated, n, yes in score_bins(rows):
        share = wilson(yes, n)
        if share is not None:
            found.append(Reliable(stated=stated, found=share, rows=n))
    return found


def _times(curve: MaturityCurve) -> LabelTimes:
    day = 86_400.0
    points = [(0.0, 0.0, 0.0, 0.0)]
    for seconds in curve.seconds:
        share = curve.interval_at(seconds)
        points.append((seconds / day, share.value, share.low, share.high))
    mature = curve.age_of(0.95)
    return LabelTimes(points=tuple(points), mature_days=None if mature is None else mature / day)
