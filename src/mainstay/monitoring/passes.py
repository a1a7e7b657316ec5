"""One monitor pass of a capability: count what is new, judge every window that is complete, tell what is found, once.

Windows are judged on a grid, four times in their length; when many wait, because nobody looked or history is replayed,
once in their length. Each is judged by the counts in the lake and ends in one transaction of the control database, so
that a pass may be killed anywhere: it is made again from the window behind the last that was kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import polars as pl
from msgspec import Struct

from mainstay.catalog.releases import history
from mainstay.intake.declared import sources_in_force
from mainstay.monitoring import judged_labels
from mainstay.monitoring.causes import MOST_PARTS, Picture, cause_of
from mainstay.monitoring.drifting import Candidate, CountedSince, References, Window, look
from mainstay.monitoring.earlier import days_apart
from mainstay.monitoring.estimated_quality import below_finding, find_below, track_of
from mainstay.monitoring.false_alarms import level_of_pass
from mainstay.monitoring.findings import Cause, Finding, Interval, concerns, severity_of
from mainstay.monitoring.folding import Folder
from mainstay.monitoring.intervals import wilson
from mainstay.monitoring.performance_monitor import rate_for
from mainstay.monitoring.service_budget import ServiceStep
from mainstay.monitoring.service_feeds import feed_findings, feeds_of
from mainstay.monitoring.service_report import service_report
from mainstay.monitoring.store import Memory, Told, close, keep, read_findings, read_memory
from mainstay.monitoring.upstream import changes_of
from mainstay.monitoring.windows import BUSINESS, COLUMN, DELAYS, LABELS, SCORES, SERVICE, Counted, read_windows
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mainstay.capability.types import Capability
    from mainstay.intake.declared import InForce
    from mainstay.lake.lake import Lake
    from mainstay.lake.tables import Table
    from mainstay.monitoring.drifting import Looked
    from mainstay.monitoring.estimated_quality import Below
    from mainstay.monitoring.findings import Change, Standing
    from mainstay.monitoring.folding import Folded
    from mainstay.monitoring.judged_labels import Judged
    from mainstay.state.database import Database
    from mainstay.workspace import Workspace

SHORT_DIGEST: Final = 19  # "sha256:" and 12 digits
PARTS: Final = 4  # how often in its length a window is judged
MOST_BEHIND: Final = 8  # of these looks that may wait; with more, each window is judged once
PAST_DAYS: Final = 57.0  # that earlier windows of the same hours are taken from
SEGMENT_COPIES: Final = 9  # earlier windows that segments are held against
MOST_PLACES: Final = 1_000  # columns times values of segment fields, for segments to have a past at all
VIOLATIONS_JUMP: Final = 0.01  # share of decisions more, from which on violations are told


class Passed(Struct, frozen=True, kw_only=True):
    """What a pass did."""

    position: int  # of the ledger, up to where rows are counted
    decisions: int  # counted now
    outcomes: int
    windows: int  # judged now
    opened: tuple[Standing, ...]
    resolved: tuple[Standing, ...]


class Monitor:
    """The monitor of one capability. An object is for one thread."""

    def __init__(self, workspace: Workspace, lake: Lake, database: Database, name: str) -> None:
        self._workspace = workspace
        self._lake = lake
        self._database = database
        self._name = name
        self.folder = Folder(workspace, lake, name)
        self._references: dict[str, References] = {}

    def go(self, now: datetime | None = None, stop: Callable[[], bool] = lambda: False) -> Passed:
        """One pass, until all is done or `stop` says so.

        Raises Misuse when the capability is none, Damaged when what is in force is not what was written, and Failed
        when the storage or the database does not answer. What was kept until then stays.
        """
        instant = now or datetime.now(UTC)
        in_force = sources_in_force(self._workspace, self._name)
        folded = self.folder.fold(stop)
        table = self.folder.table()
        told: list[Told] = []
        closed: tuple[Standing, ...] = ()
        if table is not None and in_force.version is not None:
            releases = history(self._workspace.releases, self._name, load_verifier(self._workspace.keys))
            memory = read_memory(self._database, self._name)
            windows = _due(table, in_force.capability, memory, instant)
            monitoring = in_force.capability.monitoring
            changes = changes_of(self._workspace, self._name, releases, monitoring, table) if windows else ()
            around = _Around(in_force, changes, releases[-1].deciding)
            for place, window in enumerate(windows, 1):
                if stop():
                    break
                waiting = len(windows) - place
                memory, one = self._judge(table, around, window, memory, folded, waiting)
                told.append(one)
            seen = instant if memory is None or memory.judged_until is None else memory.judged_until
            closed = close(self._database, self._name, around.left, seen)
        return Passed(
            position=folded.position,
            decisions=folded.decisions,
            outcomes=folded.outcomes,
            windows=len(told),
            opened=tuple(each for one in told for each in one.opened),
            resolved=(*(each for one in told for each in one.resolved), *closed),
        )

    def _judge(
        self, table: Table, around: _Around, window: Window, memory: Memory | None, folded: Folded, waiting: int
    ) -> tuple[Memory, Told]:
        """Judge one window, and keep what was found. `waiting` is how many wait behind it."""
        in_force = around.in_force
        known = read_findings(self._database, self._name, open_only=True)
        view = _View(self._name, around, window, table, known, self._references)
        last = None if memory is None else memory.judged_until
        since_last = window.end - last if last is not None and last < window.end else window.end - window.begin
        level = level_of_pass(in_force.capability.monitoring.false_alarms_per_month, since_last)
        labels = {} if memory is None else memory.labels
        judged = view.judge_labels(self.folder, labels)
        findings, checked = view.findings(self.folder, judged, level, since_last)
        feeds = feeds_of(self._workspace, self._lake, in_force, window.begin, window.end)
        findings += feed_findings(feeds, window.begin, window.end)
        made = Memory(
            at=datetime.now(UTC),
            judged_until=window.end,
            position=folded.position,
            windows=1 + (0 if memory is None else memory.windows),
            waiting=waiting,
            labels={version: judged_labels.encode(each.memory) for version, each in judged.items()},
        )
        before = None if memory is None else memory.at
        told = keep(self._database, self._name, findings, made, looked_at=checked, left=around.left, before=before)
        return made, told


def _due(table: Table, capability: Capability, memory: Memory | None, now: datetime) -> list[Window]:
    """The windows that are complete and were not judged, in their order; those before the first decision are none."""
    monitoring = capability.monitoring
    step = timedelta(hours=monitoring.step_hours)
    length = max(step, step * math.ceil(monitoring.window_hours / monitoring.step_hours))
    bounds = (
        table.frame()
        .filter(pl.col("kind") == SERVICE)
        .select(pl.col("step").min().alias("first"), pl.col("step").max().alias("last"))
        .collect()
    )
    first, last = bounds.row(0)
    if first is None:
        return []
    # Behind the last decision one window more is judged: that nobody asks any more is worth telling. By event time
    # nobody knows how late it is but from the decisions: a window is complete when one behind it was decided.
    until = min(now, last + step + length) if monitoring.time is None else min(now, last)
    apart = max(step, step * round(length / step / PARTS))
    judged = first if memory is None or memory.judged_until is None else max(memory.judged_until, first)
    if (until - judged) / apart > MOST_BEHIND:
        apart = length
    end = _floor(judged, apart) + apart
    found = []
    while end <= until:
        if end > judged and (end - length >= first or end - first >= length / 2):
            found.append(Window(end - length, end, step))
        end += apart
    return found


def _floor(at: datetime, apart: timedelta) -> datetime:
    zero = datetime(1970, 1, 1, tzinfo=UTC)
    return zero + (at - zero) // apart * apart


@dataclass(frozen=True, slots=True)
class _Around:
    """What stands around the windows of a pass."""

    in_force: InForce
    changes: tuple[Change, ...]
    deciding: frozenset[str]  # the versions that decide now, whenever the windows were

    def left(self, finding: Finding) -> str:
        """Why a finding is of no account any more; empty where it is of some."""
        if concerns(finding, self.deciding):
            return ""
        return f"version {(finding.version or '')[:SHORT_DIGEST]} decides no more"


@dataclass(frozen=True, slots=True)
class _View:
    """One window of a capability, and what is read of it."""

    name: str
    around: _Around
    window: Window
    table: Table
    known: Sequence[Standing]
    references: dict[str, References]  # by version, made so far
    few: list[Counted] = field(default_factory=list)  # what `_read` has read

    @property
    def capability(self) -> Capability:
        return self.around.in_force.capability

    @property
    def changes(self) -> tuple[Change, ...]:
        return self.around.changes

    @property
    def length(self) -> timedelta:
        return self.window.end - self.window.begin

    def findings(
        self, folder: Folder, judged: dict[str, Judged], level: float, since_last: timedelta
    ) -> tuple[list[Finding], Callable[[Finding], bool]]:
        """All that is found about the window; and whether an open finding was looked at."""
        counted = self._read(self.window.begin, [SERVICE, BUSINESS, SCORES])
        looked = self._look(folder, counted, level)
        below, estimated = self._estimate(folder, counted, judged, since_last)
        violations = self._violations()
        found: list[Finding] = []
        for version in dict.fromkeys([*looked, *judged]):
            found += self._of_version(
                version, looked.get(version), judged.get(version), violations, below.get(version, [])
            )
        report = self._service()
        found += report
        cause = Cause(kind="unclear", why="the number is made of inputs, outputs and what became of them")
        metrics = self.capability.monitoring.business
        found += judged_labels.business_findings(self.name, metrics, counted, self.window.begin, self.window.end, cause)
        if violations is not None:
            found.append(violations)
        return found, self._checked(looked, judged, estimated)

    def judge_labels(self, folder: Folder, memory: dict[str, dict[str, object]]) -> dict[str, Judged]:
        """What labels say at the end of the window, of each version that waits for some or has some."""
        monitoring = self.capability.monitoring
        if monitoring.labels is None:
            return {}
        begin, end = self._labelled_since, _floor(self.window.end, self.length)
        counted = self._read(begin, [SERVICE, LABELS, DELAYS, SCORES])
        first = counted.frame["step"].min()
        if first is None:
            return {}
        begin = max(begin, _floor(first, self.length))  # type: ignore[arg-type]  # an instant
        found = {}
        for version in dict.fromkeys(version for version, stage in counted.groups() if stage != "shadow"):
            cohorts = judged_labels.cohorts_of(counted, version, begin, end, self.length)
            state = judged_labels.decode(memory.get(version, {}))
            layout = folder.layout(version)
            estimator = None if layout is None else layout.estimator
            found[version] = judged_labels.judge_version(cohorts, monitoring, state, self.window.end, estimator)
        return found

    def _estimate(
        self, folder: Folder, counted: Counted, judged: dict[str, Judged], since_last: timedelta
    ) -> tuple[dict[str, list[Below]], set[tuple[str, str]]]:
        """The metrics that are probably too bad, of each version; and the versions and metrics that were looked at.

        Where the labels of the window are there, they say it themselves. Estimates that did not hold are not told.
        """
        monitoring = self.capability.monitoring
        found: dict[str, list[Below]] = {}
        seen: set[tuple[str, str]] = set()
        bounded = sum(each.at_least is not None or each.at_most is not None for each in monitoring.metrics)
        rate = rate_for(monitoring.false_alarms_per_month, since_last / timedelta(hours=1), metrics=bounded)
        for version, one in judged.items():
            layout = folder.layout(version)
            mature = any(each.mature and each.cohort.start == self.window.begin for each in one.cohorts)
            if layout is None or layout.estimator is None or mature:
                continue
            rows = counted.frame.filter(pl.col("version") == version, pl.col("stage") != "shadow")
            below, known = find_below(rows, layout.estimator, monitoring.metrics, rate=rate, fewest=monitoring.min_rows)
            tracks = {name: track_of(state.estimates) for name, state in one.memory.items()}
            off = {name for name, track in tracks.items() if track is not None and track.holds is False}
            found[version] = [each for each in below if each.metric.name not in off]
            seen |= {(version, name) for name in known}
        return found, seen

    def _look(self, folder: Folder, counted: Counted, level: float) -> dict[str, Looked]:
        """The drift of each version that decided enough."""
        begin, end = self.window.begin, self.window.end
        versions = dict.fromkeys(version for version, stage in counted.groups() if stage != "shadow")
        layouts = {version: layout for version in versions if (layout := folder.layout(version)) is not None}
        few = sum(each.places for each in layouts.values()) <= MOST_PLACES
        segments_since = begin - (SEGMENT_COPIES * days_apart(self.length) if few else timedelta(0))
        both = read_windows(self.table, begin - timedelta(days=PAST_DAYS), end, [COLUMN], segments_since=segments_since)
        candidates = []
        for version, layout in layouts.items():
            columns = both.columns(version, ("production", "canary"))
            since = min((steps.starts[0] for steps in columns.by_place.values()), default=begin)
            counted_since = CountedSince(since, max(since, segments_since))
            references = self.references.setdefault(version, {})
            candidates.append(Candidate(layout, columns, counted_since, self._drifted_since(version), references))
        looked = look(candidates, self.window, self.capability.monitoring, level)
        return {each.layout.version: each for each in looked}

    def _drifted_since(self, version: str) -> dict[tuple[str, str | None], datetime]:
        """The columns of a version, and the segments of them, that are known to have drifted, and since when."""
        found: dict[tuple[str, str | None], datetime] = {}
        for each in self.known:
            column = each.finding.column
            if each.finding.version == version and column is not None and is_of_column(each.finding):
                place = (column, each.finding.segment)
                found[place] = min(each.since, found.get(place, each.since))
        return found

    def _of_version(
        self,
        version: str,
        looked: Looked | None,
        judged: Judged | None,
        violations: Finding | None,
        below: Sequence[Below],
    ) -> list[Finding]:
        """The findings of a version, which have one cause."""
        fallen = () if judged is None else judged.fallen
        shifts = () if looked is None else looked.shifts
        mine = [each for each in self.known if each.finding.version == version]
        picture = Picture(
            since=min((each.since for each in mine), default=self.window.begin),
            window=self.length,
            smallest_drift=self.capability.monitoring.smallest_drift,
            shifts=shifts,
            falls=tuple(each.fall for each in fallen),
            labels_changed=judged is not None and bool(judged.labels_changed),
            violations="" if violations is None else violations.text,
            changes=self.changes,
        )
        cause = cause_of(picture)
        found = [] if looked is None else looked.findings(self.name, cause)
        found += [judged_labels.fallen_finding(self.name, version, each, cause) for each in fallen]
        found += [below_finding(self.name, version, each, self.window, cause) for each in below]
        if judged is not None:
            late = Cause(kind="data_broken", why="reports do not come, or come later than they used to")
            found += judged_labels.rate_findings(self.name, version, judged, self.length, cause)
            found += judged_labels.late_findings(self.name, version, judged, self.length, late)
        return found

    def _service(self) -> list[Finding]:
        """What is to be told of service levels at the end of the window."""
        counted = self._read(self._served_since, [SERVICE])
        steps = [ServiceStep(begin, counts) for begin, counts in counted.service()]
        return list(service_report(self.capability, steps, self.window.end).findings)

    def _violations(self) -> Finding | None:
        """That more calls than in the window before break the contract."""
        counted = self._read(self.window.begin - self.length, [SERVICE])
        shares = []
        for begin in (self.window.begin - self.length, self.window.begin):
            parts = [counts for at, counts in counted.service() if begin <= at < begin + self.length]
            bad = sum(counts.reasons.get("contract_violation", 0) for counts in parts)
            shares.append((bad, sum(counts.decisions for counts in parts)))
        (bad_before, before), (bad, decisions) = shares
        now, was = wilson(bad, decisions, level=0.9999), wilson(bad_before, before, level=0.9999)
        if now is None or now.low < (0.0 if was is None else was.high) + VIOLATIONS_JUMP:
            return None
        text = f"{now.value:.1%} of calls break the contract of the input"
        text += "" if was is None else f", {was.value:.1%} in the window before"
        return Finding(
            code="contract_violations",
            severity="critical" if now.low > 0.25 else severity_of("contract_violations"),
            capability=self.name,
            against="before",
            text=text,
            observed=Interval(value=now.value, low=now.low, high=now.high),
            window_from=self.window.begin,
            window_to=self.window.end,
            rows=decisions,
            cause=Cause(kind="data_broken", why="callers send what the contract does not allow", changes=self._near()),
        )

    def _near(self) -> tuple[Change, ...]:
        near = [each for each in self.changes if self.window.begin - self.length <= each.at <= self.window.end]
        return tuple(near[-MOST_PARTS:])

    def _checked(
        self, looked: dict[str, Looked], judged: dict[str, Judged], estimated: set[tuple[str, str]]
    ) -> Callable[[Finding], bool]:
        """Whether an open finding that was not found again is over; else nothing says so."""
        over = {
            (version, each.column, each.segment)
            for version, one in looked.items()
            for each in one.comparisons
            if each.is_over(self.capability.monitoring.smallest_drift)
        }
        whole = {
            (version, each.column)
            for version, one in looked.items()
            for each in one.comparisons
            if each.is_drift and each.segment is None
        }
        metrics = {(version, metric) for version, one in judged.items() for metric, _ in one.looked_at}
        shown = self._shown({version: one for version, one in looked.items() if version in self.around.deciding})

        def was(finding: Finding) -> bool:
            if finding.code in {"quality_below", "quality_fell"}:
                return (finding.version or "", finding.column or "") in metrics
            version, column = finding.version or "", finding.column or ""
            is_gone = finding.window_to < self.window.end - 30 * self.length  # a version that decides no more
            if finding.code == "estimate_below":
                return is_gone or (version, column) in estimated
            if is_of_column(finding):
                if version not in self.around.deciding and shown(finding):
                    return True
                is_told = (version, column) in whole  # by another finding: about all, or that says more
                return is_gone or is_told or (version, column, finding.segment) in over
            return True

        return was

    def _shown(self, looked: dict[str, Looked]) -> Callable[[Finding], bool]:
        """Whether the versions that decide have shown what a finding says of the data of another: so, or over.

        What none of them reads is of no account either.
        """
        smallest = self.capability.monitoring.smallest_drift
        comparisons = [each for one in looked.values() for each in one.comparisons]
        known = {each.column for each in comparisons}
        sure = {(each.column, each.segment) for each in comparisons if each.is_drift or each.is_over(smallest)}

        def was(finding: Finding) -> bool:
            column = finding.column or ""
            return bool(known) and (column not in known or bool(sure & {(column, None), (column, finding.segment)}))

        return was

    def _read(self, begin: datetime, kinds: Sequence[str]) -> Counted:
        """Rows of all kinds but those of columns: they are few, and read once for all that is asked of a window."""
        if not self.few:
            self.few.append(read_windows(self.table, self._earliest, self.window.end, _FEW))
        own = pl.col("step") >= begin.astimezone(UTC), pl.col("kind").is_in(list(kinds))
        return Counted(self.few[0].frame.filter(own))

    @property
    def _labelled_since(self) -> datetime:
        """The begin of the first cohort of labels that is looked at."""
        cohorts = math.ceil(timedelta(days=judged_labels.MOST_DAYS) / self.length)
        return _floor(self.window.end, self.length) - self.length * cohorts

    @property
    def _served_since(self) -> datetime:
        """The begin of the period that service levels are promised for."""
        days = timedelta(days=max(self.capability.service_levels.period_days, 9.0))
        return self.window.end - max(days, 2 * self.length)

    @property
    def _earliest(self) -> datetime:
        return min(self._labelled_since, self._served_since)


_FEW: Final = (SERVICE, LABELS, DELAYS, BUSINESS, SCORES)


def is_of_column(finding: Finding) -> bool:
    """Whether it is about the distribution of a column."""
    return finding.code in _OF_COLUMNS


_OF_COLUMNS: Final = frozenset(
    {
        *("input_drift", "output_drift", "confidence_drift", "novelty_rate"),
        *("values_missing", "column_constant", "unit_changed", "values_unknown"),
    }
)
