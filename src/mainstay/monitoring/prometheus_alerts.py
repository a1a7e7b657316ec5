"""Alerts that a capability needs whatever service levels it declares: is it there, does it decide, is it fed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mainstay.monitoring.prometheus_expressions import (
    DECISIONS,
    duration,
    increase,
    number,
    or_none,
    quoted,
    selector,
)
from mainstay.monitoring.service_counts import NOT_OURS
from mainstay.monitoring.service_report import MANY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.capability.sources import Source
    from mainstay.monitoring.prometheus_types import Rule, Subject

LAKE_LAG_SECONDS: Final = 900.0  # behind which what watches the tables is blind to what happens
FAILED_RUNS: Final = 3  # of a source, one after the other
TURNED_AWAY_SHARE: Final = 0.01
DROPPED_SHARE: Final = 0.05  # of a shadow's decisions
FEWEST: Final = 20  # cases that a share is of

# First reasons of decisions that the model is not asked about: the call's, the policy's, and what stopped it.
_ON_PURPOSE: Final = "|".join(sorted({*NOT_OURS, "feed_stopped", "stopped"}))


def service_alerts(subject: Subject) -> Iterator[Rule]:
    """Is it there, can it record, does the model answer, does anybody call."""
    name = subject.capability.name
    yield subject.alert(
        "MainstayNotScraped",
        "absent(mainstay_ledger_records_total)",
        severity="critical",
        lasts="5m",
        summary=f"no metrics of the service of {name}",
        description="Nobody knows whether decisions are made: no worker gives metrics, or the key that Prometheus has"
        " may not `read` any more.",
        anchor="there-are-no-metrics",
    )
    yield subject.alert(
        "MainstayNotRecorded",
        "sum(increase(mainstay_ledger_write_failures_total[5m])) > 0",
        severity="critical",
        summary=f"decisions of {name} cannot be recorded",
        description="{{ $value | humanize }} groups of records could not be made durable in 5 minutes. What cannot be"
        " recorded is not decided: callers get 503.",
        anchor="callers-get-503-unrecorded",
    )
    turned_away = 'increase(mainstay_refused_calls_total{status=~"429|5.."}[15m])'
    yield subject.alert(
        "MainstayCallsTurnedAway",
        f"sum({turned_away}) / (sum({turned_away}) + sum(increase({DECISIONS}[15m])))"
        f" > {number(TURNED_AWAY_SHARE)} and sum({turned_away}) >= {FEWEST}",
        severity="critical",
        lasts="5m",
        summary=f"calls are turned away before {name} decides",
        description="{{ $value | humanizePercentage }} of all calls of this service got 429 or 5xx in 15 minutes and"
        " became no decision.",
        anchor="callers-get-429-overloaded",
    )
    decided = increase("15m", selector(DECISIONS, name, f"reason!~{quoted(_ON_PURPOSE)}"))
    answered = increase("15m", selector(DECISIONS, name, 'outcome="answered"'))
    yield subject.alert(
        "MainstayModelSilent",
        f"{decided} >= {FEWEST} and {or_none(answered, decided)} == 0",
        severity="critical",
        lasts="5m",
        summary=f"the model of {name} answers nothing",
        description="{{ $value | humanize }} calls in 15 minutes that it should have answered, and it answered none:"
        " all went to the fallback, to people, or were refused.",
        anchor="many-answers-by-fallback",
    )
    yield _no_traffic(subject)


def _no_traffic(subject: Subject) -> Rule:
    name = subject.capability.name
    now = increase("1h", selector(DECISIONS, name))
    before = f"sum by (capability) (increase({selector(DECISIONS, name)}[1h] offset %s))"
    return subject.alert(
        "MainstayNoTraffic",
        f"{now} == 0 and {before % '1w'} >= {MANY} and {before % '1d'} >= {MANY}",
        severity="warning",
        lasts="15m",
        summary=f"nobody asks {name}",
        description="No decision was asked for in an hour, and in the same hour of yesterday and of a week ago there"
        f" were {MANY} or more: callers do not come through, or do not call.",
        anchor="nobody-calls",
    )


def shadow_alerts(subject: Subject) -> Iterator[Rule]:
    """Whether what is compared with a shadow is enough."""
    name = subject.capability.name
    given = "mainstay_shadow_decisions_total"
    dropped = increase("1h", selector(given, name, 'fate="dropped"'))
    whole = increase("1h", selector(given, name))
    yield subject.alert(
        "MainstayShadowDrops",
        f"{dropped} / {whole} > {number(DROPPED_SHARE)} and {dropped} >= {FEWEST}",
        severity="info",
        lasts="15m",
        summary=f"the shadow of {name} is too slow",
        description="{{ $value | humanizePercentage }} of the decisions for the shadow were dropped in the last hour,"
        " because its queue was full. Callers notice nothing; the comparison takes longer.",
        anchor="a-shadow-drops-decisions",
    )


def lake_alerts(subject: Subject) -> Iterator[Rule]:
    """Whether the tables follow the ledger: what watches drift, quality and rollouts reads them."""
    name = subject.capability.name
    yield subject.alert(
        "MainstayLakeBehind",
        f"max(mainstay_lake_lag_seconds) > {number(LAKE_LAG_SECONDS)}",
        severity="warning",
        lasts="5m",
        summary=f"the tables of {name} are behind",
        description="The oldest entry of the ledger that the tables have not seen is {{ $value | humanizeDuration }}"
        " old: monitoring and rollouts see nothing younger.",
        anchor="the-tables-are-behind",
    )
    yield subject.alert(
        "MainstayExportFailing",
        "max(mainstay_lake_failing) > 0",
        severity="warning",
        lasts="10m",
        summary=f"the tables of {name} cannot be written",
        description="The export from the ledger to the tables fails. Nothing is lost, and decisions go on; monitoring"
        " and rollouts stand still.",
        anchor="the-tables-are-behind",
    )


def source_alerts(subject: Subject) -> Iterator[Rule]:
    """Whether each declared source comes, in time and whole."""
    for source in subject.capability.sources:
        yield from _source_alerts(subject, source)


def _source_alerts(subject: Subject, source: Source) -> Iterator[Rule]:
    name, labels = subject.capability.name, {"source": source.name}
    of = f"source={quoted(source.name)}"
    yield subject.alert(
        "MainstaySourceHeld",
        f"max by (capability, source) ({selector('mainstay_source_held', name, of)}) > 0",
        severity="warning" if subject.capability.when.feed_stopped == "answer" else "critical",
        labels=labels,
        summary=f"source {source.name} of {name} is held",
        description="Its rows do not come through the door: too many are bad, its schema or its units changed."
        f" Decisions are made as `feed_stopped` says: {subject.capability.when.feed_stopped}.",
        anchor="every-answer-by-fallback-feed_stopped",
    )
    yield subject.alert(
        "MainstaySourceFailing",
        f"max by (capability, source) ({selector('mainstay_source_failures', name, of)}) >= {FAILED_RUNS}",
        severity="warning",
        lasts="5m",
        labels=labels,
        summary=f"source {source.name} of {name} fails",
        description="Its last {{ $value }} runs failed, one after the other.",
        anchor="a-source-is-late-or-fails",
    )
    if source.expected_within_seconds is not None:
        within = source.expected_within_seconds
        yield subject.alert(
            "MainstaySourceStale",
            f"min by (capability, source) ({selector('mainstay_source_lag_seconds', name, of)}) > {number(within)}",
            severity="warning",
            lasts="5m",
            labels=labels,
            summary=f"nothing comes of source {source.name} of {name}",
            description="Nothing came for {{ $value | humanizeDuration }};"
            f" {duration(within / 3600)} is what is declared.",
            anchor="a-source-is-late-or-fails",
        )
    if source.max_bad_share < 1:
        yield _bad_rows(subject, source, of)


def _bad_rows(subject: Subject, source: Source, of: str) -> Rule:
    name, rows = subject.capability.name, "mainstay_source_rows_total"
    both = "capability, source"
    bad = increase("1h", selector(rows, name, of, 'verdict="quarantined"'), by=both)
    all_rows = increase("1h", selector(rows, name, of, 'verdict!="repeated"'), by=both)
    return subject.alert(
        "MainstayRowsQuarantined",
        f"{bad} / {all_rows} > {number(source.max_bad_share / 2)} and {bad} >= {FEWEST}",
        severity="warning",
        labels={"source": source.name},
        summary=f"bad rows of source {source.name} of {name}",
        description="{{ $value | humanizePercentage }} of its rows went into quarantine in the last hour; at"
        f" {source.max_bad_share:.3g} of the last {source.bad_share_rows:,} that break the contract it is held.",
        anchor="rows-go-into-quarantine",
    )
