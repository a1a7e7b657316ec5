"""A report as one HTML file that needs nothing else: for light and dark, for paper, and in words what it draws."""

from __future__ import annotations

from datetime import UTC
from html import escape
from typing import TYPE_CHECKING, Final

from mainstay.monitoring.findings import CODES, KINDS, NEXT
from mainstay.monitoring.plots import (
    STYLE,
    Bar,
    Bin,
    Bound,
    Event,
    Point,
    Series,
    histogram,
    lines,
    named_levels,
    reliability,
)
from mainstay.monitoring.report_lines import (
    SHORT_DIGEST,
    business_in_words,
    corrected_in_words,
    grouped,
    label_times_in_words,
    track_in_words,
)
from mainstay.monitoring.selective import ASSUMPTION as SELECTIVE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from mainstay.monitoring.findings import Cause, Change, Standing
    from mainstay.monitoring.report import At, DriftSeries, Estimated, Quality, Report, Segmented

_PAGE: Final = """\
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:56rem;margin:0 auto;padding:1.5rem 1.25rem 4rem}h1{font-size:1.6rem;margin:.2rem 0}
h2{font-size:1.2rem;margin:2.2rem 0 .4rem;border-bottom:1px solid var(--line);padding-bottom:.2rem;break-after:avoid}
h3{font-size:1rem;margin:0 0 .3rem}p{margin:.35rem 0}.soft{color:var(--soft)}code{font-size:.9em}
table{border-collapse:collapse;width:100%;font-size:.9rem;margin:.5rem 0}
th{text-align:left;color:var(--soft);font-weight:600}
th,td{padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}td.n,th.n{text-align:right}
.wide{overflow-x:auto}
.card{border:1px solid var(--line);border-left-width:.4rem;border-radius:.4rem;background:var(--panel);
padding:.8rem 1rem;margin:.8rem 0;break-inside:avoid}.card.critical{border-left-color:var(--bad)}
.card.warning{border-left-color:var(--warn)}.card.info{border-left-color:var(--quiet)}
.card.ok{border-left-color:var(--good)}
.mark{display:inline-block;border-radius:.25rem;padding:0 .45rem;font-size:.8rem;font-weight:700;margin-right:.4rem}
.mark.critical{background:var(--bad-back);color:var(--bad)}.mark.warning{background:var(--warn-back);color:var(--warn)}
.mark.info{background:var(--page);color:var(--soft)}.mark.ok{background:var(--good-back);color:var(--good)}
dl{display:grid;grid-template-columns:7.5rem 1fr;gap:.15rem .8rem;margin:.5rem 0 0;font-size:.92rem}
dt{color:var(--soft)}dd{margin:0}
ul.said-list{margin:.3rem 0 .3rem 1.1rem;padding:0;font-size:.95rem}
@media(max-width:40rem){dl{grid-template-columns:1fr}dt{margin-top:.3rem}}
@media print{main{max-width:none;padding:0}body{font-size:11pt}a{color:inherit}}
"""


def page_of(report: Report) -> str:
    """The whole page."""
    title = f"{report.capability}: monitoring, {_at(report.until)}"
    parts = [
        _head(report),
        _findings(report),
        _quality(report),
        _business(report),
        _drift(report),
        _service(report),
        _over(report.findings),
        _changes(report.changes),
        _how(report),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{_PAGE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _head(report: Report) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(each.version[:SHORT_DIGEST])}</code></td><td>{escape(each.stage)}</td>"
        f'<td class="n">{each.decisions:,}</td><td>{escape(each.reference or "none yet: too few decisions")}</td></tr>'
        for each in report.versions
    )
    table = (
        '<div class="wide"><table><thead><tr><th scope="col">version</th><th scope="col">stage</th>'
        '<th scope="col" class="n">decisions</th><th scope="col">inputs are held against</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
    return (
        f"<header><h1>{escape(report.title)}</h1>"
        f'<p class="soft"><code>{escape(report.capability)}</code>, {_at(report.since)} to {_at(report.until)}.'
        f" Owner: {escape(report.team)} ({escape(report.contact)}).</p></header>" + (table if rows else "")
    )


def _findings(report: Report) -> str:
    if not report.judged:
        said = "Nothing was judged yet: no window is complete, or no decision has reached the lake."
        return f'<h2>Findings</h2><div class="card info"><p>{said}</p></div>'
    groups = grouped(report.open)
    if not groups:
        return (
            '<h2>Findings</h2><div class="card ok"><p><span class="mark ok">OK</span>Nothing is found. The newest'
            f" window that was judged ended {_at(report.until)}.</p></div>"
        )
    return "<h2>Findings</h2>" + "".join(_card(group) for group in groups)


def _card(group: Sequence[Standing]) -> str:
    first = group[0].finding
    since = min(each.since for each in group)
    items = "".join(
        f'<li title="{escape(CODES[each.finding.code].text)}">{escape(each.finding.text)}{_interval(each)}'
        f' <span class="soft">({escape(each.finding.code)}, {each.finding.rows:,} rows'
        f"{'' if each.finding.against is None else f', against {escape(each.finding.against)}'})</span></li>"
        for each in group
    )
    return (
        f'<section class="card {first.severity}"><h3><span class="mark {first.severity}">{first.severity}</span>'
        f'{escape(_capital(KINDS[first.cause.kind]))}</h3><ul class="said-list">{items}</ul><dl>'
        f"<dt>since</dt><dd>{_at(since)}</dd>{_cause(first.cause)}"
        f"<dt>next</dt><dd>{_code(NEXT[first.cause.kind])}</dd></dl></section>"
    )


def _interval(standing: Standing) -> str:
    interval = standing.finding.interval
    return f' <span class="soft">{interval}</span>' if interval else ""


def _cause(cause: Cause) -> str:
    found = f"<dt>likely cause</dt><dd>{escape(cause.why)}</dd>"
    for name, parts in (("columns", cause.columns), ("segments", cause.segments)):
        if parts:
            told = ", ".join(f"{escape(part.name)} {part.share:.0%}" for part in parts)
            found += f"<dt>{name}</dt><dd>{told}</dd>"
    for change in cause.changes:
        found += f"<dt>near it</dt><dd>{_change(change)}</dd>"
    return found


def _change(change: Change) -> str:
    item = "" if change.item is None else f", item {change.item}"
    return f"{_at(change.at)}: {escape(change.subject)}{item}: {escape(change.text)}"


def _quality(report: Report) -> str:
    labels = report.labels
    probable = {(each.version, each.metric): each for each in labels.estimated}
    plots = [_metric(each, probable.get((each.version, each.metric)), report) for each in labels.quality]
    if labels.reliability:
        bins = [
            Bin(each.stated, each.found.value, each.found.low, each.found.high, each.rows)
            for each in labels.reliability
        ]
        rows = sum(each.rows for each in bins)
        off = max(bins, key=lambda each: abs(each.stated - each.found))
        said = (
            f"What was stated against what came true, {rows:,} labels in {len(bins)} groups. Farthest apart: stated"
            f" {off.stated:.0%}, true in {off.found:.0%}."
        )
        plots.append(reliability("Is a stated probability what comes true?", said, bins))
    if labels.times is not None:
        points = [Point(days, share, low, high) for days, share, low, high in labels.times.points]
        said = f"{label_times_in_words(labels.times)}."
        plots.append(lines("When labels come", said, [Series("share with a label", points)], over="days", percent=True))
    shown = [plot for plot in plots if plot]
    if not shown:
        return ""
    told = "".join(f"<li>{escape(_capital(corrected_in_words(each)))}.</li>" for each in labels.corrected)
    if told:
        shown.append(
            f'<h3>Over all decisions, labelled or not</h3><ul class="said-list">{told}</ul>'
            f'<p class="soft">These assume: {escape(SELECTIVE)}.</p>'
        )
    shown += [_segments(each) for each in labels.segments]
    note = f'<p class="soft">{labels.waiting} windows still wait for labels.</p>' if labels.waiting else ""
    title = "Quality: measured by labels, estimated without" if labels.estimated else "Quality, once labels are there"
    return f"<h2>{title}</h2>{note}{''.join(shown)}"


def _metric(quality: Quality, estimated: Estimated | None, report: Report) -> str:
    drawn, said = [], []
    if quality.points:
        drawn.append(Series("measured" if estimated else quality.metric, [_point(each) for each in quality.points]))
        newest = quality.points[-1]
        said.append(f"Newest window with labels: {_value(newest)}, of {newest.rows:,} labels.")
        if quality.mature_until is not None and newest.at >= quality.mature_until:
            said.append(f"Windows from {_at(quality.mature_until)} on still wait for labels.")
    if estimated is not None:
        drawn.append(Series("estimated", [_point(each) for each in estimated.points], "other"))
        newest = estimated.points[-1]
        said.append(
            f"Estimated without labels, newest window: {_value(newest)}, of {newest.rows:,} decisions. An estimate is"
            f" no measurement; it assumes {estimated.assumption}. {_capital(track_in_words(estimated.track))}."
        )
    if not drawn:
        return ""
    bound = None if quality.bound is None else Bound(quality.bound, f"declared {quality.bound:g}")
    title = f"{quality.metric.replace('_', ' ')}, version {quality.version[:SHORT_DIGEST]}"
    return lines(title, " ".join(said), drawn, events=_events(report), bound=bound)


def _segments(segmented: Segmented) -> str:
    """A table of a metric within segments."""
    whole = segmented.whole.estimate
    assert whole is not None, "a metric within segments has a value of the whole"
    rows = ""
    for each in segmented.segments:
        field, value = each.segment or ("", "")
        one = each.estimate
        seen = ("unknown", "") if one is None else (f"{one.value:.3f}", f"{one.low:.3f} to {one.high:.3f}")
        rows += (
            f'<tr><td><code>{escape(field)}</code></td><td>{escape(value)}</td><td class="n">{seen[0]}</td>'
            f'<td class="n">{seen[1]}</td><td class="n">{each.n:,}</td>'
            f"<td>{'unlike the whole' if segmented.stands_out(each) else ''}</td></tr>"
        )
    head = "".join(
        f'<th scope="col"{kind}>{name}</th>'
        for name, kind in (
            *(("segment", ""), ("value", ""), ("metric", ' class="n"'), ("interval", ' class="n"')),
            *(("labels", ' class="n"'), ("verdict", "")),
        )
    )
    name = segmented.metric.replace("_", " ")
    return (
        f"<h3>{escape(_capital(name))} by segment, version {escape(segmented.version[:SHORT_DIGEST])}</h3>"
        f'<p class="soft">Of the mature windows together; {whole.value:.3f}, interval {whole.low:.3f} to'
        f" {whole.high:.3f}, of all {segmented.whole.n:,} labels. The intervals of the segments hold all at once.</p>"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _business(report: Report) -> str:
    plots = []
    for each in report.business:
        bounds = [bound for bound in (each.at_least, each.at_most) if bound is not None]
        bound = Bound(bounds[0], f"declared {bounds[0]:g}") if bounds else None
        said = f"{_capital(business_in_words(each))}."
        title = each.name.replace("-", " ")
        series = [Series(each.name, [_point(point) for point in each.points])]
        plots.append(lines(title, said, series, events=_events(report), bound=bound) or f"<p>{escape(said)}</p>")
    return f"<h2>What the business cares for</h2>{''.join(plots)}" if plots else ""


def _value(at: At) -> str:
    low, high = (at.value if each is None else each for each in (at.low, at.high))
    return f"{at.value:.3f}, interval {low:.3f} to {high:.3f}"


def _drift(report: Report) -> str:
    if not report.drift:
        return ""
    bound = Bound(report.smallest_drift, f"matters from {report.smallest_drift:.0%}")
    drawn = [each for each in report.drift if each.drifted][:3] or list(report.drift[:3])
    tones = ("main", "other", "third")
    series = [
        Series(each.column, [_point(point) for point in each.points], tone)  # type: ignore[arg-type]  # one of them
        for each, tone in zip(drawn, tones, strict=False)
    ]
    said = "The share of rows that are elsewhere than in the reference, beyond chance. Newest window: " + ", ".join(
        f"{each.column} {each.points[-1].value:.1%}" for each in drawn
    )
    parts = [lines("How far columns have moved", f"{said}.", series, events=_events(report), bound=bound, percent=True)]
    parts += [_bins(each) for each in report.drift if each.drifted or each is report.drift[0]]
    rows = "".join(
        f'<tr><td><code>{escape(each.column)}</code></td><td class="n">{each.points[-1].value:.1%}</td>'
        f'<td class="n">{each.points[-1].rows:,}</td><td>{"drifted" if each.drifted else ""}</td>'
        f"<td>{escape(each.reference)}</td></tr>"
        for each in report.drift
    )
    table = (
        '<div class="wide"><table><thead><tr><th scope="col">column</th><th scope="col" class="n">distance</th>'
        '<th scope="col" class="n">rows</th><th scope="col">verdict</th><th scope="col">reference</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
    return f"<h2>Drift</h2>{''.join(parts)}{table}"


def _bins(series: DriftSeries) -> str:
    bars = [Bar(*each) for each in series.bins if each[1] or each[2]]
    most = max(bars, key=lambda bar: abs(bar.window - bar.reference), default=None)
    if most is None:
        return ""
    said = f"Most different: {most.label}, {most.window:.1%} of rows in the newest window, {most.reference:.1%} before."
    shown = bars if series.ordered else named_levels(bars)
    return histogram(f"{series.column} in the newest window", said, shown, names=(series.reference, "newest window"))


def _service(report: Report) -> str:
    parts = []
    if report.decisions:
        total = sum(each.rows for each in report.decisions)
        series = [Series("decisions", [_point(each) for each in report.decisions])]
        parts.append(lines("Decisions", f"{total:,} decisions in all.", series, events=_events(report)))
    for budget in report.budgets:
        left = budget.points[-1].value
        said = f"{left:.0%} of what may go wrong in the period is left." if left >= 0 else "The budget is spent."
        series = [Series("left", [_point(each) for each in budget.points])]
        title = f"Error budget: {budget.name.replace('_', ' ')}"
        parts.append(lines(title, said, series, events=_events(report), bound=Bound(0.0, "spent"), percent=True))
    if report.service is not None:
        rows = "".join(
            f'<tr><td>{escape(name)}</td><td class="n">{n:,}</td></tr>'
            for name, n in [*report.service.outcomes.items(), *report.service.reasons.items()]
            if n
        )
        latency = ", ".join(
            f"{name} {1_000 * seconds:.1f} ms" for name, seconds in report.service.latency_seconds.items()
        )
        parts.append(f'<p class="soft">Latency: {latency}.</p>' if latency else "")
        parts.append(
            '<div class="wide"><table><thead><tr><th scope="col">outcome or reason</th>'
            f'<th scope="col" class="n">decisions in {report.service.period_days:g} days</th></tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )
    return f"<h2>Service</h2>{''.join(parts)}" if any(parts) else ""


def _over(findings: Iterable[Standing]) -> str:
    rows = "".join(
        f"<tr><td>{_at(each.since)}</td><td>{_at(each.resolved)}</td><td>{escape(each.finding.code)}</td>"
        f"<td>{escape(each.finding.text)}{escape(f'; closed, since {each.closed}' if each.closed else '')}</td></tr>"
        for each in findings
        if each.resolved is not None
    )
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("since", "over", "code", "what"))
    return (
        f'<h2>Findings that are over</h2><div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _changes(changes: Sequence[Change]) -> str:
    if not changes:
        return ""
    rows = "".join(f"<li>{_change(each)}</li>" for each in changes)
    return f'<h2>What changed</h2><ul class="said-list">{rows}</ul>'


def _how(report: Report) -> str:
    return (
        '<h2>How this is judged</h2><p class="soft">A drift is told when it is sure and when it matters: a two-sample'
        " test that knows how far neighbouring rows depend on each other, at a false discovery rate over all columns"
        f" and segments such that {report.false_alarms_per_month:g} false alarms come in a month, and a distance of"
        f" at least {report.smallest_drift:.0%} of rows. Quality is judged by cohorts of {report.window_hours:g} h"
        " whose labels are mature, however often one looks. All times are UTC. Made by Mainstay"
        f" {_at(report.at)}.</p>"
    )


def _events(report: Report) -> list[Event]:
    return [Event(each.at.timestamp(), each.subject) for each in report.changes]


def _point(at: At) -> Point:
    return Point(at.at.timestamp(), at.value, at.low, at.high)


def _at(at: datetime | None) -> str:
    return "now" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _code(text: str) -> str:
    """Commands between backticks as such."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))
