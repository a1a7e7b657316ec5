"""A report for a terminal: what is the matter, since when, how bad, why most likely, and what to do next."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Final

from mainstay.documents import shorten
from mainstay.monitoring.findings import KINDS, NEXT, SEVERITIES
from mainstay.monitoring.selective import ASSUMPTION as SELECTIVE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime, timedelta

    from mainstay.monitoring.estimation_record import Track
    from mainstay.monitoring.findings import Cause, Part, Severity, Standing
    from mainstay.monitoring.metrics import Measured
    from mainstay.monitoring.report import Business, Corrected, Estimated, LabelTimes, Report, Segmented

MOST_LINES: Final = 6  # findings of one cause that are told one by one
SHORT_DIGEST: Final = 19  # "sha256:" and 12 digits
_CHARACTERS: Final = 160


def lines_of(report: Report) -> list[str]:
    """The report in lines of plain text, the worst first."""
    found = _head(report)
    if not report.judged:
        return [*found, "nothing was judged yet: no window is complete, or no decision reached the lake"]
    groups = grouped(report.open)
    if not groups:
        found.append(f"OK  nothing is found; the newest window that was judged ended {_at(report.until)}")
    for group in groups:
        found += ["", *_group(group, report.until)]
    found += ["", *_well(report)]
    over = [each for each in report.findings if not each.is_open]
    if over:
        found += ["", f"over since {_at(report.since)}:"]
        found += [f"  {_over(each)}" for each in over[:MOST_LINES]]
        found += [f"  and {len(over) - MOST_LINES} more (--json)"] if len(over) > MOST_LINES else []
    return found


def summary(findings: Sequence[Standing]) -> str:
    """In a line, for a status: how many are open, and the worst of them."""
    if not findings:
        return "nothing is found"
    worst = grouped(findings)[0]
    counts = {level: sum(each.finding.severity == level for each in findings) for level in SEVERITIES}
    told = ", ".join(f"{n} {level}" for level, n in reversed(counts.items()) if n)
    first = worst[0]
    return f"{told}: {KINDS[first.finding.cause.kind]} since {_at(min(each.since for each in worst))}"


def grouped(findings: Sequence[Standing]) -> list[list[Standing]]:
    """Findings of one version and kind of cause together, the worst group first, and the worst of each first."""
    groups: dict[tuple[str | None, str], list[Standing]] = {}
    for each in findings:
        groups.setdefault((each.finding.version, each.finding.cause.kind), []).append(each)
    for group in groups.values():
        group.sort(
            key=lambda each: (-SEVERITIES.index(each.finding.severity), each.finding.segment is not None, each.since)
        )
    return sorted(groups.values(), key=lambda group: (-SEVERITIES.index(_worst(group)), min(e.since for e in group)))


def _worst(group: Iterable[Standing]) -> Severity:
    return max((each.finding.severity for each in group), key=SEVERITIES.index)


def _head(report: Report) -> list[str]:
    count = len(report.open)
    what = "no open findings" if not count else f"{count} open finding{'s' if count > 1 else ''}"
    found = [f"{report.capability}  {report.title}: {what}", f"  owner     {report.team} ({report.contact})"]
    for each in report.versions:
        against = "no reference yet" if each.reference is None else f"held against {each.reference}"
        found.append(
            f"  version   {each.version[:SHORT_DIGEST]} ({each.stage}), {each.decisions:,} decisions since"
            f" {_at(report.since)}, {against}"
        )
    return found


def _group(group: Sequence[Standing], until: datetime) -> list[str]:
    first = group[0].finding
    since = min(each.since for each in group)
    cause = first.cause
    found = [f"{_worst(group).upper():<9} {KINDS[cause.kind]}  since {_at(since)} ({_lasted(until - since)})"]
    found += [f"  {_said(each)}" for each in group[:MOST_LINES]]
    if len(group) > MOST_LINES:
        found.append(f"  and {len(group) - MOST_LINES} more (--json)")
    found.append(f"  likely    {cause.why}")
    found += _contributors(cause)
    for change in cause.changes:
        item = "" if change.item is None else f", item {change.item}"
        found.append(f"  near it   {_at(change.at)}  {change.subject}{item}: {shorten(change.text, _CHARACTERS)}")
    found.append(f"  next      {NEXT[cause.kind]}")
    return found


def _contributors(cause: Cause) -> list[str]:
    found = []
    if len(cause.columns) > 1:
        found.append(f"  columns   {_parts(cause.columns)}")
    if cause.segments:
        found.append(f"  segments  {_parts(cause.segments)}")
    return found


def _parts(parts: Iterable[Part]) -> str:
    return ", ".join(f"{part.name} {part.share:.0%}" for part in parts)


def _said(standing: Standing) -> str:
    finding = standing.finding
    interval = f" {finding.interval}" if finding.interval else ""
    against = "" if finding.against is None else f" (against {finding.against}; {finding.rows:,} rows)"
    return f"{finding.code}: {finding.text}{interval}{against}"


def _over(standing: Standing) -> str:
    closed = f"; closed, since {standing.closed}" if standing.closed else ""
    return f"{_at(standing.since)} to {_at(standing.resolved)}  {_said(standing)}{closed}"


def _well(report: Report) -> list[str]:
    """What is known beside the findings, and what is not known."""
    found = []
    for quality in report.labels.quality:
        if quality.points:
            newest = quality.points[-1]
            bound = "" if quality.bound is None else f", declared {quality.bound:g}"
            value = f"{newest.value:.3f} [{newest.low:.3f}, {newest.high:.3f}]"
            found.append(
                f"  quality   {quality.metric} {value} of {newest.rows:,} labels, window of {_at(newest.at)}{bound}"
            )
        else:
            found.append(f"  quality   {quality.metric} unknown: too few labels in any window")
    found += [line for each in report.labels.estimated for line in _estimated(each)]
    found += [f"  all cases {corrected_in_words(each)}" for each in report.labels.corrected]
    if report.labels.corrected:
        found.append(f"            these assume: {SELECTIVE}")
    found += [line for each in report.labels.segments for line in _segments(each)]
    found += [f"  business  {business_in_words(each)}" for each in report.business]
    known = [] if report.labels.times is None else [label_times_in_words(report.labels.times)]
    known += [f"{report.labels.waiting} windows still wait for labels"] if report.labels.waiting else []
    found += [f"  labels    {'; '.join(known)}"] if known else []
    if report.service is not None:
        for budget in report.service.budgets:
            left = "unknown" if budget.left is None else f"{budget.left:.0%}"
            found.append(
                f"  service   {budget.objective.name}: of the error budget of {budget.period_days:g} days {left} left"
            )
        outcomes = ", ".join(f"{name} {n:,}" for name, n in report.service.outcomes.items() if n)
        found.append(f"  decisions {outcomes or 'none'} in {report.service.period_days:g} days")
    return found


def _estimated(estimated: Estimated) -> list[str]:
    """What a metric probably is, marked as an estimate, and how earlier ones held."""
    newest = estimated.points[-1]
    value = (
        f"  estimate  {estimated.metric} probably {newest.value:.3f} [{newest.low:.3f}, {newest.high:.3f}] of"
        f" {newest.rows:,} decisions, window of {_at(newest.at)}; no measurement, it assumes {estimated.assumption}"
    )
    return [value, f"            {track_in_words(estimated.track)}"]


def _segments(segmented: Segmented) -> list[str]:
    """A metric within segments, those that stand out first."""
    whole = segmented.whole.estimate
    assert whole is not None, "a metric within segments has a value of the whole"
    told = sorted(segmented.segments, key=lambda each: not segmented.stands_out(each))
    found = [f"  segments  {segmented.metric} {whole.value:.3f} of all {segmented.whole.n:,} mature labels; of these"]
    for each in told[:MOST_LINES]:
        apart = ", unlike the whole" if segmented.stands_out(each) else ""
        found.append(f"            {segment_in_words(each)}{apart}")
    if len(told) > MOST_LINES:
        found.append(f"            and {len(told) - MOST_LINES} more (--html, --json)")
    return found


def segment_in_words(measured: Measured) -> str:
    """A metric within a segment, in a few words."""
    field, value = measured.segment or ("", "")
    one = measured.estimate
    seen = "unknown" if one is None else f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"
    return f"{field}={value} {seen} of {measured.n:,}"


def business_in_words(business: Business) -> str:
    """A number that the business cares for, of the newest window that has it, in a line."""
    if not business.points:
        return f"{business.name} unknown: too few decisions have a value in any window"
    newest = business.points[-1]
    unit = f" {business.unit}" if business.unit else ""
    interval = "" if newest.low is None or newest.high is None else f" [{newest.low:.4g}, {newest.high:.4g}]"
    bounds = [("at least", business.at_least), ("at most", business.at_most)]
    declared = "".join(f", declared {word} {bound:g}" for word, bound in bounds if bound is not None)
    left_out = f"; {business.left_out:,} more have no value" if business.left_out else ""
    of = "decisions with labels" if business.of_outcomes else "decisions"
    return (
        f"{business.name} {newest.value:.4g}{interval}{unit} a decision, of {newest.rows:,} {of}, window of"
        f" {_at(newest.at)}{declared}{left_out}"
    )


def label_times_in_words(times: LabelTimes) -> str:
    """When labels come, in a line."""
    days, share, *_ = times.points[-1]
    said = f"{share:.0%} of decisions have a label after {days:.1f} days"
    if times.mature_days is not None:
        said += f"; 95 % of the labels that come are there after {times.mature_days:.1f} days"
    return said


def corrected_in_words(corrected: Corrected) -> str:
    """A share over all decisions beside that of the labelled ones, in a line."""
    share, naive = corrected.share, corrected.share.naive
    interval = f"[{share.low:.3f}, {share.high:.3f}]"
    if share.value is not None:
        found = f"{corrected.name} {share.value:.3f} {interval}"
    else:
        found = (
            f"{corrected.name} from {share.least:.3f} to {share.most:.3f} {interval}: {share.unknown_share:.0%}"
            " of decisions ended in a way of which none has a label"
        )
    alone = "" if naive is None else f"; labelled alone {naive.value:.3f} [{naive.low:.3f}, {naive.high:.3f}]"
    return (
        f"{found}, over all {share.decisions:,} decisions of {_at(corrected.begin)}, {share.labels:,} labelled{alone}"
    )


def track_in_words(track: Track | None) -> str:
    """How earlier estimates of a metric held, in a line."""
    if track is None:
        return "no earlier estimate could be held against labels yet"
    off = track.mean_error
    said = {None: "too few windows to say whether they hold", True: "they hold", False: "THEY DO NOT HOLD"}[track.holds]
    return (
        f"earlier estimates against the labels: {said} ({track.windows} windows, {track.covered.value:.0%} of the"
        f" {track.level:.0%} intervals had the truth, mean error {off.value:+.4f}, absolute"
        f" {track.mean_absolute_error:.4f})"
    )


def _lasted(span: timedelta) -> str:
    hours = span.total_seconds() / 3_600
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.0f} h"


def _at(at: datetime | None) -> str:
    return "now" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
