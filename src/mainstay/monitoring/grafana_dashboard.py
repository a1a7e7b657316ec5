"""The Grafana dashboard of a capability: its decisions, levels, versions beside each other, and what feeds it."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from mainstay.monitoring.grafana_panels import OUTCOME_COLOURS, Look, Panel, Query, laid_out, series, stat
from mainstay.monitoring.prometheus_expressions import DECISIONS, SECONDS, duration, number, quoted, selector
from mainstay.monitoring.prometheus_levels import BAD_SHARE, BUDGET_LEFT, COST, has_cost, measured
from mainstay.monitoring.service_budget import windows_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.monitoring.prometheus_types import Subject

SCHEMA_VERSION: Final = 42  # of Grafana 12 and 13; later ones read it and bring it up to date
MAX_UID: Final = 40  # characters

_PER = "$__rate_interval"
_SHARE: Final = Look(unit="percentunit", lowest=0.0)
_SECONDS: Final = Look(unit="s", lowest=0.0)
_QUANTILES: Final = (0.5, 0.9, 0.99)


def dashboard(subject: Subject, made_from: str) -> dict[str, Any]:
    """The dashboard as JSON. `made_from` names what was exported."""
    capability = subject.capability
    rows: list[tuple[str, Sequence[Panel]]] = [
        ("Now", _now(subject)),
        ("Decisions and outcomes", _decisions(capability.name)),
        ("Latency", _latency(subject)),
        ("Service levels", _levels(subject)),
        ("Canary beside production", _canary(capability.name)),
        ("Shadow", _shadow(capability.name)),
        ("Intake", _intake(subject)),
        ("Ledger and tables", _ledger()),
    ]
    return {
        "uid": _uid(capability.name),
        "title": f"Mainstay: {capability.name}",
        "description": f"{capability.title} Made by `mainstay export grafana {capability.name}` from {made_from}.",
        "tags": ["mainstay", capability.name],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": "now-24h", "to": "now"},
        "refresh": "1m",
        "templating": {"list": [_datasource()]},
        "annotations": {"list": []},
        "links": [],
        "panels": laid_out([(title, panels) for title, panels in rows if panels]),
    }


def _uid(name: str) -> str:
    uid = f"mainstay-{name}"
    return uid if len(uid) <= MAX_UID else f"{uid[: MAX_UID - 9]}-{sha256(name.encode()).hexdigest()[:8]}"


def _datasource() -> dict[str, Any]:
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Prometheus",
        "query": "prometheus",
        "current": {"text": "default", "value": "default"},
        "hide": 0,
        "refresh": 1,
        "regex": "",
        "multi": False,
        "includeAll": False,
        "options": [],
    }


def _rate(of: str, *by: str, window: str = _PER) -> str:
    grouped = f" by ({', '.join(by)})" if by else ""
    return f"sum{grouped} (rate({of}[{window}]))"


def _now(subject: Subject) -> list[Panel]:
    name = subject.capability.name
    decided = selector(DECISIONS, name)
    answered = selector(DECISIONS, name, 'outcome="answered"')
    panels = [
        stat("Decisions a second", Query(_rate(decided), ""), "All outcomes.", Look(unit="reqps", lowest=0.0)),
        stat(
            "Answered by the model",
            Query(f"({_rate(answered, window='1h')} or vector(0)) / {_rate(decided, window='1h')}", ""),
            "Of all decisions of the last hour.",
            _SHARE._replace(highest=1.0),
        ),
        stat("99 % are answered within", Query(_quantile(name, 0.99, "1h"), ""), "In the last hour.", _SECONDS),
    ]
    panels += [
        stat(
            f"Error budget left: {objective.name}",
            Query(_level(BUDGET_LEFT, name, objective.name), ""),
            f"Of {duration(subject.capability.service_levels.period_days * 24)}. Below zero the level is not kept.",
            Look(unit="percentunit", highest=1.0, decimals=1),
        )
        for objective in measured(subject)
    ]
    panels.append(
        stat(
            "Tables behind the ledger",
            Query("max(mainstay_lake_lag_seconds)", ""),
            "Age of what is not yet in them.",
            _SECONDS,
        )
    )
    return panels


def _level(metric: str, name: str, objective: str) -> str:
    return f"{metric}{{capability={quoted(name)},objective={quoted(objective)}}}"


def _quantile(name: str, share: float, window: str = _PER, *by: str) -> str:
    buckets = _rate(selector(f"{SECONDS}_bucket", name), "le", *by, window=window)
    return f"histogram_quantile({share:g}, {buckets})"


def _decisions(name: str) -> list[Panel]:
    decided = selector(DECISIONS, name)
    return [
        series(
            "By outcome",
            [Query(_rate(decided, "outcome"), "{{outcome}}")],
            "Decisions a second.",
            Look(unit="reqps", lowest=0.0, stacked=True, colours=OUTCOME_COLOURS),
        ),
        series(
            "Why not plainly answered",
            [Query(_rate(selector(DECISIONS, name, 'reason!=""'), "reason"), "{{reason}}")],
            "Decisions a second, by their first reason.",
            Look(unit="reqps", lowest=0.0),
        ),
        series(
            "Shares of outcomes",
            [Query(f"{_rate(decided, 'outcome')} / ignoring (outcome) group_left () {_rate(decided)}", "{{outcome}}")],
            "Of all decisions.",
            _SHARE._replace(highest=1.0, colours=OUTCOME_COLOURS),
        ),
        series(
            "Outcomes reported",
            [Query(_rate(selector("mainstay_outcomes_total", name)), "reported")],
            "What turned out to be true, a second.",
            Look(unit="reqps", lowest=0.0),
        ),
    ]


def _latency(subject: Subject) -> list[Panel]:
    name, levels = subject.capability.name, subject.capability.service_levels
    declared = () if levels.latency_ms is None else ((levels.latency_ms / 1000, "red"),)
    said = (
        "" if levels.latency_ms is None else f" Declared: {levels.latency_share:.4g} within {levels.latency_ms:g} ms."
    )
    within = [Query(_quantile(name, share), f"{share * 100:g} %") for share in _QUANTILES]
    mean = f"{_rate(selector(f'{SECONDS}_sum', name))} / {_rate(selector(f'{SECONDS}_count', name))}"
    return [
        series(
            "Within which so many are answered",
            within,
            f"From the call's last byte to the answer.{said}",
            _SECONDS._replace(thresholds=declared),
        ),
        series("Mean", [Query(mean, "mean")], "From the call's last byte to the answer.", _SECONDS),
    ]


def _levels(subject: Subject) -> list[Panel]:
    name = subject.capability.name
    period = subject.capability.service_levels.period_days
    objectives = measured(subject)
    panels = []
    if objectives:
        left = [Query(_level(BUDGET_LEFT, name, each.name), each.name) for each in objectives]
        panels.append(
            series(
                "Error budget left",
                left,
                f"Of {duration(period * 24)}. Needs the rules of `mainstay export prometheus {name}`.",
                Look(unit="percentunit", highest=1.0),
            )
        )
    for objective in objectives:
        windows = windows_of(objective, period)
        queries = [
            Query(_level(f"{BAD_SHARE}{duration(each.long_hours)}", name, objective.name), duration(each.long_hours))
            for each in windows
        ]
        fires = ", ".join(f"{number(100 * each.threshold)} % in {duration(each.long_hours)}" for each in windows)
        panels.append(
            series(
                f"Bad calls: {objective.name}",
                queries,
                f"Allowed: {number(100 * objective.allowed)} %. Alerts: {fires}.",
                _SHARE._replace(thresholds=((objective.allowed, "orange"),)),
            )
        )
    if has_cost(subject.capability.cost):
        at_most = subject.capability.service_levels.cost_per_decision
        panels.append(
            series(
                "Cost of a decision",
                [Query(f"{COST}{{capability={quoted(name)}}}", "{{currency}}")],
                "Mean over 6 hours." + ("" if at_most is None else f" Declared: {number(at_most)} at most."),
                Look(lowest=0.0, decimals=4, thresholds=() if at_most is None else ((at_most, "red"),)),
            )
        )
    return panels


def _canary(name: str) -> list[Panel]:
    decided = selector(DECISIONS, name)
    others = selector(DECISIONS, name, 'outcome!="answered"')
    shares = f"({_rate(others, 'stage')} or 0 * {_rate(decided, 'stage')}) / {_rate(decided, 'stage')}"
    return [
        series(
            "Decisions by stage",
            [Query(_rate(decided, "stage"), "{{stage}}")],
            "Decisions a second.",
            Look(unit="reqps", lowest=0.0),
            width=8,
        ),
        series("Not answered by the model", [Query(shares, "{{stage}}")], "Of the stage's decisions.", _SHARE, width=8),
        series(
            "99 % are answered within",
            [Query(_quantile(name, 0.99, _PER, "stage"), "{{stage}}")],
            "By stage.",
            _SECONDS,
            width=8,
        ),
    ]


def _shadow(name: str) -> list[Panel]:
    fates = _rate(selector("mainstay_shadow_decisions_total", name), "fate")
    within = f"histogram_quantile(0.99, {_rate(selector('mainstay_shadow_decision_seconds_bucket', name), 'le')})"
    return [
        series(
            "What became of its decisions",
            [Query(fates, "{{fate}}")],
            "A second. Dropped: its queue was full; callers notice nothing.",
            Look(unit="reqps", lowest=0.0, stacked=True),
        ),
        series("99 % of its decisions take", [Query(within, "99 %")], "Nobody waits for them.", _SECONDS),
    ]


def _intake(subject: Subject) -> list[Panel]:
    name = subject.capability.name
    if not subject.capability.sources:
        return []
    rows = _rate(selector("mainstay_source_rows_total", name), "source", "verdict")
    lag = f"max by (source) ({selector('mainstay_source_lag_seconds', name)})"
    held = f"max by (source) ({selector('mainstay_source_held', name)})"
    failures = f"max by (source) ({selector('mainstay_source_failures', name)})"
    return [
        series(
            "Rows at the door",
            [Query(rows, "{{source}}: {{verdict}}")],
            "A second, by what became of them.",
            Look(unit="rps", lowest=0.0, stacked=True),
        ),
        series("Since something came", [Query(lag, "{{source}}")], "By source.", _SECONDS, width=6),
        series(
            "Held, and runs that failed",
            [Query(held, "{{source}}: held"), Query(failures, "{{source}}: failed runs")],
            "Held is 1. Failed runs are those since the last that went well.",
            Look(lowest=0.0, decimals=0),
            width=6,
        ),
    ]


def _ledger() -> list[Panel]:
    syncs = "sum(rate(mainstay_ledger_sync_seconds_total[$__rate_interval]))"
    groups = "sum(rate(mainstay_ledger_syncs_total[$__rate_interval]))"
    return [
        series(
            "Tables behind the ledger",
            [Query("max(mainstay_lake_lag_seconds)", "lag")],
            "Age of the oldest entry that the tables have not seen.",
            _SECONDS,
            width=6,
        ),
        series(
            "Entries waiting for the tables",
            [Query("max(mainstay_lake_waiting_entries)", "waiting")],
            "Sealed, and not yet in the tables.",
            Look(lowest=0.0),
            width=6,
        ),
        series(
            "Making a group durable takes",
            [Query(f"{syncs} / {groups}", "mean")],
            "Mean time of an fdatasync.",
            _SECONDS,
            width=6,
        ),
        series(
            "Turned away, or not recordable",
            [
                Query(
                    'sum by (status) (rate(mainstay_refused_calls_total{status=~"429|5.."}[$__rate_interval]))',
                    "{{status}}",
                ),
                Query("sum(rate(mainstay_ledger_write_failures_total[$__rate_interval]))", "failed writes"),
            ],
            "A second, of the whole service.",
            Look(unit="reqps", lowest=0.0),
            width=6,
        ),
    ]
