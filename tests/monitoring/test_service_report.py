from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from mainstay.monitoring.findings import CODES
from mainstay.monitoring.service_report import ServiceReport, service_report
from monitoring.levels import NOW, counted, declared, hours

if TYPE_CHECKING:
    from mainstay.monitoring.service_counts import ServiceCounts

MONTH_HOURS = 28 * 24


def report(*steps: ServiceCounts) -> ServiceReport:
    return service_report(declared(), hours(steps), NOW)


def told(found: ServiceReport) -> set[tuple[str, str | None, str]]:
    return {(each.code, each.column, each.severity) for each in found.findings}


def test_a_service_that_is_well_is_told_of_by_numbers_alone() -> None:
    each = counted({"answered": 990, "review/low_confidence": 10}, latency={-100: 1_000}, timed=1_000, seconds=138.0)
    found = report(*[each] * MONTH_HOURS)
    assert found.findings == ()
    assert found.decisions == 1_000 * MONTH_HOURS
    assert found.outcomes == {"answered": 990 * MONTH_HOURS, "fallback": 0, "review": 10 * MONTH_HOURS, "refused": 0}
    assert [budget.objective.name for budget in found.budgets] == [
        "availability",
        "model_answers",
        "latency",
        "review_share",
    ]
    assert [budget.left for budget in found.budgets] == pytest.approx([1, 0.5, 1, 0.8])
    assert found.latency_seconds["p99"] == pytest.approx(0.138, rel=0.02)
    assert found.cost is not None
    assert found.cost.per_decision.value == pytest.approx(0.01 + 0.1 * 0.138 + 4 * 0.01)


def test_the_fastest_burn_of_each_level_is_one_finding() -> None:
    good, bad = counted(1_000), counted({"answered": 500, "refused/model_error": 500})
    found = report(*[good] * (MONTH_HOURS - 1), bad)
    assert told(found) == {
        ("budget_burning", "availability", "critical"),
        ("budget_burning", "model_answers", "warning"),
    }
    finding = found.findings[0]
    assert finding.observed is not None
    assert finding.observed.value == 0.5
    assert (finding.required, finding.rows) == (0.001, 1_000)
    assert finding.numbers["burn_rate"] == pytest.approx(500)
    assert finding.text.startswith("availability: 500 of 1,000 calls without an answer in 1 h, 500 times")


def test_what_no_caller_waits_for_wakes_nobody() -> None:
    good, bad = counted(1_000), counted({"fallback/model_error": 1_000})
    found = report(*[good] * (MONTH_HOURS - 20), *[bad] * 20)
    assert told(found) == {
        ("budget_burning", "model_answers", "warning"),
        ("level_missed", "model_answers", "critical"),
    }


def test_a_decision_that_costs_too_much_is_told() -> None:
    found = report(*[counted({"answered": 800, "review/low_confidence": 200}, timed=1, seconds=0.1, squares=0.01)] * 24)
    missed = {each.column: each for each in found.findings if each.code == "level_missed"}
    assert set(missed) == {"model_answers", "review_share", "cost_per_decision"}
    assert missed["cost_per_decision"].text == "a decision costs 0.82 EUR over 28 days, and 0.5 is allowed"


def test_silence_is_told_where_there_were_calls_yesterday_and_a_week_ago() -> None:
    busy, silent = counted(100), counted(0)
    assert told(report(*[busy] * 24 * 20, *[silent] * 24)) == {("no_decisions", None, "warning")}
    assert told(report(*[busy] * 24 * 20, *[silent] * 23)) == set()
    weekly = [*[busy] * 24 * 6, *[silent] * 24]
    assert told(report(*weekly * 3)) == set()  # every Sunday
    assert told(report(*[busy] * 24, *[silent] * 24)) == {("no_decisions", None, "warning")}  # a young one


def test_nothing_declared_and_nothing_counted_is_a_report_of_nothing() -> None:
    found = service_report(declared(service_levels={}, cost={}), [], NOW)
    assert (found.budgets, found.findings, found.cost, found.latency_seconds) == ((), (), None, {})


def test_every_code_is_in_the_list_and_a_report_is_json() -> None:
    found = report(*[counted({"answered": 500, "refused/model_error": 500})] * 24)
    assert {each.code for each in found.findings} <= set(CODES)
    assert msgspec.json.decode(msgspec.json.encode(found), type=ServiceReport) == found
