"""The drift of versions in one window: every column and segment compared, judged as one family, and explained."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np

from mainstay.monitoring import causes
from mainstay.monitoring.binning import P_VALUE_EDGES, Values
from mainstay.monitoring.causes import Shift
from mainstay.monitoring.drift import Sample, compare, judge
from mainstay.monitoring.earlier import baseline, copies
from mainstay.monitoring.findings import Finding, Interval, severity_of
from mainstay.monitoring.layouts import CONFIDENCE, INPUT, NOVELTY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime, timedelta

    from mainstay.capability.keeping import Monitoring
    from mainstay.monitoring.binning import Column
    from mainstay.monitoring.drift import Comparison, Verdict
    from mainstay.monitoring.findings import Cause, Part, Severity
    from mainstay.monitoring.layouts import Layout
    from mainstay.monitoring.windows import Columns

REFERENCE: Final = "reference"
RECENT: Final = "recent"
LARGE: Final = 0.3  # total variation distance, from which on a drift is critical
CONSTANT_DEVIATION: Final = 0.05  # of the standard deviation before: numbers that vary less have one value
UNIT_MISFIT: Final = 0.1  # of the rows below an edge, between the numbers of before in another unit and those of now
STRANGE_BINS: Final = P_VALUE_EDGES.index(0.01) + 1  # of p-values below .01: stranger than 99 % of the reference rows
UNKNOWN_JUMP: Final = 0.05  # share of rows more, with values that the reference does not name


References: TypeAlias = "dict[tuple[str, str | None, str | None], Sample]"
"""Samples of a reference, by column, segment field and value."""


class Window(NamedTuple):
    """What is judged, and the steps that it is counted in."""

    begin: datetime
    end: datetime
    step: timedelta

    @property
    def starts(self) -> list[datetime]:
        return [self.begin + self.step * place for place in range(round((self.end - self.begin) / self.step))]


class CountedSince(NamedTuple):
    """Since when there are counts to compare with."""

    whole: datetime
    segments: datetime  # counts of segments are many: only so far back are they read


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version that decided in a window, with what was counted of it then and before."""

    layout: Layout
    columns: Columns
    since: CountedSince
    drifted_since: dict[tuple[str, str | None], datetime]  # of columns and segments that are known to have drifted
    references: References  # that were made so far; kept from look to look

    def sample(
        self, column: Column, starts: Sequence[datetime], field: str | None = None, value: str | None = None
    ) -> Sample:
        """The steps that begin then; those without rows are zero."""
        return self.columns.steps(column.name, field, value).sample(starts, column.bins.size)

    def usual_until(self, column: str, segment: str | None, begin: datetime) -> datetime:
        """When a window's past ends that begins at `begin`: what came since a known drift is none."""
        known = (self.drifted_since.get((column, each)) for each in (None, segment))
        return min((each for each in known if each is not None), default=begin)

    def reference(self, column: Column, field: str | None = None, value: str | None = None) -> Sample:
        """What is compared with, made once."""
        place = (column.name, field, value)
        if place not in self.references:
            known = self.layout.reference_of(column.name)
            blocks = known.blocks if field is None or value is None else known.segments[field][value]
            self.references[place] = Sample.of(blocks[column.name])
        return self.references[place]


@dataclass(frozen=True, slots=True)
class Drifted:
    """One comparison of a version in a window, with its verdict."""

    column: str
    segment: str | None  # COLUMN=VALUE
    against: str  # REFERENCE or RECENT
    verdict: Verdict

    @property
    def is_drift(self) -> bool:
        return self.verdict.verdict == "drift"

    def is_over(self, smallest: float) -> bool:
        """Whether a drift that was found before is not there any more, rather than not to be seen in few rows."""
        distance = self.verdict.comparison.distance
        if distance is None or self.is_drift:
            return False
        return self.verdict.verdict in {"steady", "minor"} or distance.value < smallest / 2


@dataclass(frozen=True, slots=True)
class Looked:
    """All comparisons of a version in a window, and what the counts tell of the columns that drifted."""

    layout: Layout
    window: Window
    comparisons: tuple[Drifted, ...]
    shifts: tuple[Shift, ...]

    def findings(self, capability: str, cause: Cause) -> list[Finding]:
        """A finding for each column that drifted; of its segments only where the whole did not.

        What is held against both is told once: against the reference, where it drifted from that.
        """
        found = []
        shifts = {shift.name: shift for shift in self.shifts}
        drifted = [each for each in self.comparisons if each.is_drift]
        whole = {each.column for each in drifted if each.segment is None}
        from_reference = {(each.column, each.segment) for each in drifted if each.against == REFERENCE}
        for each in drifted:
            is_new = each.against == REFERENCE or (each.column, each.segment) not in from_reference
            if is_new and (each.segment is None or each.column not in whole):
                found.append(self._finding(capability, each, shifts[each.column], cause))
        return found

    def _finding(self, capability: str, each: Drifted, shift: Shift, cause: Cause) -> Finding:
        comparison = each.verdict.comparison
        code = _code(each.column, shift)
        distance = comparison.distance
        assert distance is not None, "a drift has a distance"
        severity: Severity = "critical" if distance.value >= LARGE else severity_of(code)
        numbers = {
            "design_effect": comparison.design_effect,
            "p_shape": comparison.p_shape,
            "p_shift": comparison.p_shift,
        }
        if comparison.shift is not None:
            numbers["mean_shift_in_deviations"] = comparison.shift.value
        if shift.within is not None and each.segment is None:
            numbers["distance_within_segments"] = shift.within
        return Finding(
            code=code,
            severity=severity,
            capability=capability,
            version=self.layout.version,
            segment=each.segment,
            column=each.column,
            against=self._against(each),
            text=_text(each, shift),
            observed=Interval(value=distance.value, low=distance.low, high=distance.high),
            p_value=comparison.p_value,
            window_from=self.window.begin,
            window_to=self.window.end,
            rows=comparison.rows,
            numbers={name: float(value) for name, value in numbers.items() if value is not None},
            cause=cause,
        )

    def _against(self, each: Drifted) -> str:
        if each.against == RECENT:
            return "the same hours of earlier days"
        if each.column == NOVELTY and each.segment is not None:
            return "first decisions"
        return self.layout.reference_of(each.column).of


class _Case(NamedTuple):
    candidate: int
    column: str
    segment: str | None
    against: str
    comparison: Comparison


def look(candidates: Sequence[Candidate], window: Window, monitoring: Monitoring, level: float) -> list[Looked]:
    """Compare all versions of a capability in a window, and judge all comparisons as one family.

    `level` is the false discovery rate of this look (`false_alarms.level_of_pass`).
    """
    cases = [case for place, each in enumerate(candidates) for case in _cases(place, each, window, monitoring.min_rows)]
    verdicts = judge([case.comparison for case in cases], level=level, smallest=monitoring.smallest_drift)
    found = []
    for place, candidate in enumerate(candidates):
        own = tuple(
            Drifted(case.column, case.segment, case.against, verdict)
            for case, verdict in zip(cases, verdicts, strict=True)
            if case.candidate == place
        )
        names = dict.fromkeys(each.column for each in own if each.is_drift)
        shifts = tuple(_shift(candidate, candidate.layout.column(name), window, own) for name in names)
        found.append(Looked(candidate.layout, window, own, shifts))
    return found


def _cases(place: int, candidate: Candidate, window: Window, min_rows: int) -> Iterator[_Case]:
    """Every column, and of it every segment with rows enough, beside the reference and the recent past."""
    starts = window.starts
    # Not the newest: what begins in the middle of one window would be noise to the next, which shows all of it.
    of_whole, of_segments = (copies(starts, window.step, since)[1:] for since in candidate.since)
    for column in candidate.layout.columns:
        parts: list[tuple[str | None, str | None]] = [(None, None)]
        for name, values in candidate.layout.reference_of(column.name).segments.items():
            parts += [(name, each) for each in values if column.name != INPUT + name]
        for field, value in parts:
            sample = candidate.sample(column, starts, field, value)
            if field is not None and sample.rows < min_rows:
                continue
            segment = None if field is None else f"{field}={value}"
            until = candidate.usual_until(column.name, segment, window.begin)
            earlier = of_whole if field is None else of_segments
            copied = (candidate.sample(column, copy, field, value) for copy in earlier if copy[-1] < until)
            past = [each for each in copied if each.rows]
            held_against = [(REFERENCE, candidate.reference(column, field, value))]
            if past:
                held_against.append((RECENT, baseline(past)))
            for against, reference in held_against:
                compared = compare(column, reference, sample, past=past, min_rows=min_rows)
                yield _Case(place, column.name, segment, against, compared)


def _shift(candidate: Candidate, column: Column, window: Window, own: Sequence[Drifted]) -> Shift:
    """What the counts of a column tell beside its distance."""
    before, now = candidate.reference(column), candidate.sample(column, window.starts)
    distances = [e.verdict.comparison.distance for e in own if e.column == column.name and e.is_drift]
    apart = max((each.value for each in distances if each is not None), default=0.0)
    decomposed, parts = _decomposed(candidate, column, window)
    missing = [float(sample.total[-1]) / max(1, sample.rows) for sample in (before, now)]
    unknown = [0.0, 0.0]
    if isinstance(column.bins, Values):
        unknown = [float(sample.total[-2]) / max(1, sample.rows) for sample in (before, now)]
    strange = [0.0, 0.0]
    if column.name == NOVELTY:
        strange = [float(sample.total[:STRANGE_BINS].sum()) / max(1, sample.rows) for sample in (before, now)]
    return Shift(
        name=column.name,
        distance=apart,
        within=None if decomposed is None else decomposed.within,
        mix=None if decomposed is None else decomposed.mix,
        segments=parts,
        missing_before=missing[0],
        missing_now=missing[1],
        unknown_before=unknown[0],
        unknown_now=unknown[1],
        is_constant=column.name != NOVELTY
        and causes.is_constant(_counts(before), _counts(now))
        and _varies_no_more(before, now),
        unit=_unit(column, before, now, apart),
        strange_before=strange[0],
        strange_now=strange[1],
    )


def _varies_no_more(before: Sample, now: Sample) -> bool:
    """Whether the rows of one bin may have one value: of numbers, all may lie beyond the last edge and still differ."""
    one, other = before.moments, now.moments
    if one is None or other is None or not one.n or not other.n:
        return True
    return bool(other.m2 / other.n <= (CONSTANT_DEVIATION**2) * one.m2 / one.n)


def _unit(column: Column, before: Sample, now: Sample, apart: float) -> str:
    first, last = before.moments, now.moments
    if first is None or last is None or not first.n or not last.n:
        return ""
    one, other = (causes.Moments(each.n, each.mean, (each.m2 / each.n) ** 0.5) for each in (first, last))
    return causes.unit_change(one, other, apart, partial(_is_rescaled, column, _counts(before), _counts(now)))


def _is_rescaled(column: Column, before: causes.Counts, now: causes.Counts, factor: float, shift: float) -> bool:
    """Whether the numbers of before, in the other unit, lie below each edge as often as those of now."""
    if isinstance(column.bins, Values) or len(column.bins.edges) < 2:
        return True
    edges = np.array(column.bins.edges, dtype=np.float64)
    below, below_now = (np.cumsum(counts[:-1])[: len(edges)] / max(1.0, counts[:-1].sum()) for counts in (before, now))
    at = (edges - shift) / factor
    known = (at >= edges[0]) & (at <= edges[-1])
    if not known.any():
        return True
    return bool(np.abs(np.interp(at[known], edges, below) - below_now[known]).max() <= UNIT_MISFIT)


def _decomposed(
    candidate: Candidate, column: Column, window: Window
) -> tuple[causes.Decomposition | None, tuple[Part, ...]]:
    """The parts of the distance by the segment field that leaves the least within, and who contributes to that."""
    best: causes.Decomposition | None = None
    parts: tuple[Part, ...] = ()
    for field, values in candidate.layout.reference_of(column.name).segments.items():
        if column.name == INPUT + field:  # its own distribution is the mix
            apart = causes.distance(
                _counts(candidate.reference(column)), _counts(candidate.sample(column, window.starts))
            )
            return causes.Decomposition(apart, 0.0, apart), ()
        before = np.array([_counts(candidate.reference(column, field, value)) for value in values])
        parts_now = [candidate.sample(column, window.starts, field, value) for value in values]
        since = np.array([_counts(each) for each in parts_now])
        found = causes.decompose(before, since)
        if found is not None and (best is None or found.within < best.within):
            best = found
            parts = causes.contributions(before, since, [f"{field}={value}" for value in values])
    return best, parts


def _counts(sample: Sample) -> causes.Counts:
    return sample.total.astype(np.float64)


def _code(column: str, shift: Shift) -> str:
    if shift.is_constant:
        return "column_constant"
    if shift.is_missing:
        return "values_missing"
    if column.startswith(INPUT):
        if shift.unit:
            return "unit_changed"
        jump = shift.unknown_now - shift.unknown_before
        return "values_unknown" if jump >= max(UNKNOWN_JUMP, shift.distance / 2) else "input_drift"
    return {CONFIDENCE: "confidence_drift", NOVELTY: "novelty_rate"}.get(column, "output_drift")


def _text(each: Drifted, shift: Shift) -> str:
    comparison = each.verdict.comparison
    assert comparison.distance is not None, "a drift has a distance"
    where = "" if each.segment is None else f" where {each.segment}"
    if each.column == NOVELTY and each.segment is None:
        more = f"{shift.strange_now:.1%} of inputs are stranger than 99% of the reference rows"
        return f"{more}, before {shift.strange_before:.1%}: {comparison.distance.value:.0%} of rows are elsewhere"
    what = shift.broken or f"{each.column} is distributed otherwise"
    moved = ""
    if comparison.shift is not None and not shift.broken:
        value = comparison.shift.value
        moved = f", its mean {abs(value):.2g} standard deviations {'higher' if value > 0 else 'lower'}"
    elif comparison.bins and not shift.broken:
        most = comparison.bins[0]
        moved = f", most of all {most.bin}: {most.window_share:.1%}, before {most.reference_share:.1%}"
    return f"{what}{where}: {comparison.distance.value:.0%} of rows are elsewhere{moved}"
