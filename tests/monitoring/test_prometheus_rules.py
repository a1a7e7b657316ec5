from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import promql_parser
import yaml

from docs.markdown import anchors
from mainstay.catalog.drafting_runbook import write_runbook
from mainstay.intake.state import Counts as Rows
from mainstay.intake.state import State
from mainstay.lake.lagging import Lag, Progress, Standing
from mainstay.monitoring.grafana_dashboard import dashboard
from mainstay.monitoring.prometheus_expressions import duration
from mainstay.monitoring.prometheus_levels import notes
from mainstay.monitoring.prometheus_rules import rule_file, rule_groups
from mainstay.server.metrics import Counts, render
from monitoring.levels import subject

if TYPE_CHECKING:
    from mainstay.monitoring.prometheus_types import Rule


def rules(**changes: Any) -> list[Rule]:
    return [rule for group in rule_groups(subject(**changes)).values() for rule in group]


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Every selector of series in an expression, which others' parser has to take."""
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    assert found
    return found


def given_series() -> dict[str, set[str]]:
    """The series that `/metrics` gives when everything there is has happened, and the labels of each."""
    counts = Counts(records=1, syncs=1, sync_seconds=0.1)
    counts.count("desk", "production", "answered", "", 0.01)
    counts.count_shadow("desk", "compared", 1, 0.01)
    counts.count_outcomes("desk", 1)
    counts.count_events("desk", "orders", 1)
    counts.count_refused_call(429)
    export = Standing(Progress(exported=1, at="2026-03-01T12:00:00Z"), Lag(1, 1, 0.0))
    state = State(began_at=datetime(2026, 3, 1, tzinfo=UTC), counts=Rows(rows=1))
    found: dict[str, set[str]] = {}
    for line in render(counts, in_flight=0, export=export, feeds=[("desk", "orders", state)]).decode().splitlines():
        if not line.startswith("#"):
            name, _, labels = line.rpartition(" ")[0].partition("{")
            found.setdefault(name, set()).update(
                part.partition("=")[0] for part in labels.rstrip("}").split(",") if part
            )
    return found


def unknown(expression: str, recorded: dict[str, set[str]]) -> list[str]:
    """What an expression asks for that neither `/metrics` nor a recording rule gives."""
    known = given_series() | recorded
    problems = []
    for each in selectors(expression):
        asked = {matcher.name for matcher in each.matchers.matchers}
        if each.name not in known or not asked <= known[each.name]:
            problems.append(f"{each.name} {sorted(asked)}")
    return problems


def recorded(found: list[Rule]) -> dict[str, set[str]]:
    return {rule.record: {"capability", *rule.labels} for rule in found if rule.record}


def test_every_expression_is_one_and_asks_only_for_series_that_there_are() -> None:
    found = rules()
    assert len(found) > 80
    assert [problem for rule in found for problem in unknown(rule.expr, recorded(found))] == []


def test_a_series_that_nothing_gives_is_noticed() -> None:
    assert unknown("sum(rate(mainstay_decision_total[5m]))", {}) == ["mainstay_decision_total []"]
    assert unknown('sum(rate(mainstay_decisions_total{model="x"}[5m]))', {}) == ["mainstay_decisions_total ['model']"]


def test_every_expression_of_the_dashboard_asks_only_for_series_that_there_are() -> None:
    found = recorded(rules())
    targets = [target for panel in dashboard(subject(), "here")["panels"] for target in panel.get("targets", ())]
    assert len(targets) > 25
    asked = [target["expr"].replace("$__rate_interval", "5m") for target in targets]
    assert [problem for expression in asked for problem in unknown(expression, found)] == []


def test_a_recording_rule_needs_only_those_before_it() -> None:
    before: dict[str, set[str]] = {}
    for rule in rules():
        if rule.record:
            assert unknown(rule.expr, before) == []
            before |= recorded([rule])


def test_every_alert_says_how_bad_what_whose_and_where_to_read_on() -> None:
    headings = anchors(write_runbook("desk", "capabilities/desk", "").decode())
    alerts = [rule for rule in rules() if rule.alert]
    assert len({rule.alert for rule in alerts}) == 15
    for rule in alerts:
        assert rule.labels["severity"] in {"critical", "warning", "info"}
        assert (rule.labels["capability"], rule.labels["owner"]) == ("desk", "desk@example.com")
        assert set(rule.annotations) == {"summary", "description", "owner", "runbook_url"}
        file, _, anchor = rule.annotations["runbook_url"].partition("#")
        assert file == "runbook.md"
        assert anchor in headings, rule.alert


def test_what_is_not_declared_has_no_rules() -> None:
    found = rules(service_levels={}, cost={}, sources=[])
    assert not any(rule.record for rule in found)
    assert {rule.alert for rule in found} >= {"MainstayNotScraped", "MainstayModelSilent", "MainstayLakeBehind"}
    assert not any("Budget" in rule.alert or "Source" in rule.alert for rule in found)


def test_a_latency_beyond_the_histogram_is_said_to_be_left_out() -> None:
    late = subject(service_levels={"latency_ms": 30_000, "availability": 0.99})
    assert notes(late) == ["latency: no rule is made; the metrics end at 10,000 ms"]
    assert notes(subject()) == []
    objectives = {rule.labels.get("objective") for rule in rule_groups(late)["mainstay-desk-levels"]}
    assert objectives == {"availability", None}  # the cost has none


def test_the_file_reads_back_as_the_rules_it_was_made_of() -> None:
    document = yaml.safe_load(rule_file(subject(), "here"))
    made = {name: msgspec.to_builtins(found) for name, found in rule_groups(subject()).items()}
    assert {group["name"]: group["rules"] for group in document["groups"]} == made


def test_durations_are_written_as_prometheus_reads_them() -> None:
    assert [duration(each) for each in (1 / 12, 0.5, 1, 6, 72, 672, 0.0001)] == [
        "5m",
        "30m",
        "1h",
        "6h",
        "3d",
        "28d",
        "1m",
    ]
