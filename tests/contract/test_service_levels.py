from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.contract.load import load_contract, parse_contract
from mainstay.contract.service_levels import (
    ElementFacts,
    ServiceVerdict,
    TableFacts,
    checks_of,
    compile_service_levels,
)
from mainstay.contract.types import ServiceLevel
from shared_data import shared_data

NOW = datetime(2024, 6, 15, 12, tzinfo=UTC)
ORDERS = {"name": "orders", "properties": [{"name": "placed_at", "logicalType": "timestamp"}, {"name": "customer"}]}
REFUNDS = {"name": "refunds", "properties": [{"name": "placed_at", "logicalType": "timestamp"}]}


def contract_of(*levels: dict[str, Any], objects: tuple[dict[str, Any], ...] = (ORDERS,), **others: Any) -> bytes:
    return msgspec.json.encode(
        {
            "apiVersion": "v3.1.0",
            "kind": "DataContract",
            "id": "c",
            "version": "1.0.0",
            "status": "draft",
            "schema": objects,
            "slaProperties": levels,
            **others,
        }
    )


def facts_of(
    *, newest: datetime | None = None, oldest: datetime | None = None, arrivals: tuple[datetime, ...] = (), **rest: Any
) -> TableFacts:
    element = ElementFacts(oldest=oldest or newest, newest=newest, present=98, places=100)
    return TableFacts(object="orders", rows=100, elements={"placed_at": element}, arrivals=arrivals, **rest)


def verdict_of(level: dict[str, Any], facts: TableFacts, now: datetime = NOW) -> ServiceVerdict:
    made = compile_service_levels(parse_contract(contract_of({"element": "orders.placed_at", **level}), "c.yaml"))
    return made[0].judged(facts, now)


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def test_the_newest_row_may_be_as_old_as_the_latency_says_and_no_older() -> None:
    latency = {"property": "latency", "value": 4, "unit": "d"}
    assert verdict_of(latency, facts_of(newest=ago(days=4))).verdict == "pass"
    late = verdict_of(latency, facts_of(newest=ago(days=4, seconds=1)))
    assert (late.verdict, late.reason) == ("fail", "the newest row is older")
    assert late.required == "the newest row at most 4 days old when it arrives"
    assert late.observed == "2024-06-11T11:59:59Z, 4 days 1 second old"


def test_latency_ends_with_the_arrival_and_freshness_does_not() -> None:
    facts = facts_of(newest=ago(days=10), arrivals=(ago(days=9),))
    assert verdict_of({"property": "latency", "value": 2, "unit": "d"}, facts).verdict == "pass"
    assert verdict_of({"property": "freshness", "value": 2, "unit": "d"}, facts).verdict == "fail"


def test_a_newest_row_from_the_future_says_nothing_of_its_age() -> None:
    found = verdict_of({"property": "freshness", "value": 2, "unit": "d"}, facts_of(newest=ago(days=-1)))
    assert (found.verdict, found.answerable) == ("unknown", True)
    assert "future" in found.reason


@pytest.mark.parametrize("name", ["latency", "freshness", "retention", "frequency"])
def test_without_a_moment_in_any_row_an_age_is_unknown(name: str) -> None:
    assert verdict_of({"property": name, "value": 2, "unit": "d"}, facts_of()).verdict == "unknown"


def test_nothing_may_be_older_than_the_retention() -> None:
    kept = {"property": "retention", "value": 1, "unit": "y"}
    assert verdict_of(kept, facts_of(newest=NOW, oldest=datetime(2023, 6, 15, 12, tzinfo=UTC))).verdict == "pass"
    old = verdict_of(kept, facts_of(newest=NOW, oldest=datetime(2023, 6, 15, 11, tzinfo=UTC)))
    assert (old.verdict, old.reason) == ("fail", "the oldest row is older")


def test_one_state_of_a_table_shows_that_data_is_overdue_and_never_that_it_was_not() -> None:
    daily = {"property": "frequency", "value": 1, "valueExt": 1, "unit": "d"}
    assert verdict_of(daily, facts_of(newest=ago(hours=30))).verdict == "fail"
    assert verdict_of(daily, facts_of(newest=ago(hours=3))).verdict == "unknown"


def test_known_arrivals_show_every_gap() -> None:
    daily = {"property": "frequency", "value": 1, "unit": "d"}
    steady = tuple(ago(hours=hours) for hours in (71, 47, 23))
    assert verdict_of(daily, facts_of(newest=NOW, arrivals=steady)).verdict == "pass"
    missed = verdict_of(daily, facts_of(newest=NOW, arrivals=(steady[2], steady[0])))
    assert missed.verdict == "fail"
    assert missed.reason == "nothing came between 2024-06-12T13:00:00Z and 2024-06-14T13:00:00Z"


def test_an_extended_frequency_that_the_standard_does_not_define_is_unknown() -> None:
    found = verdict_of({"property": "frequency", "value": 2, "valueExt": 3, "unit": "d"}, facts_of(newest=NOW))
    assert (found.verdict, found.answerable) == ("unknown", True)
    assert "valueExt" in found.reason


def test_the_time_of_availability_is_the_arrival_in_its_own_zone() -> None:
    by_nine = {"property": "timeOfAvailability", "value": "09:00-08:00"}
    assert verdict_of(by_nine, facts_of(arrivals=(datetime(2024, 6, 15, 17, tzinfo=UTC),))).verdict == "pass"
    assert verdict_of(by_nine, facts_of(arrivals=(datetime(2024, 6, 15, 17, 1, tzinfo=UTC),))).verdict == "fail"
    assert verdict_of(by_nine, facts_of(newest=NOW)).verdict == "unknown"


def test_availability_begins_and_support_and_life_end_on_their_day() -> None:
    for name, before, after in (
        ("generalAvailability", "fail", "pass"),
        ("endOfSupport", "pass", "fail"),
        ("endOfLife", "pass", "fail"),
    ):
        level = {"property": name, "value": "2024-06-15T12:00:00Z"}
        assert verdict_of(level, facts_of(), ago(seconds=1)).verdict == before
        assert verdict_of(level, facts_of(), NOW).verdict == after


def test_completeness_counts_the_values_that_are_there() -> None:
    assert verdict_of({"property": "completeness", "value": 98, "unit": "percent"}, facts_of()).verdict == "pass"
    short = verdict_of({"property": "completeness", "value": 98.1, "unit": "percent"}, facts_of())
    assert (short.verdict, short.observed) == ("fail", "98 percent (98 of 100)")


def test_the_error_rate_counts_rows_that_break_a_rule() -> None:
    level = {"property": "errorRate", "value": 0.7, "unit": "percent"}
    assert verdict_of(level, facts_of(bad_rows=0)).verdict == "pass"
    assert verdict_of(level, facts_of(bad_rows=1)).verdict == "fail"
    assert verdict_of(level, facts_of()).verdict == "unknown"
    assert verdict_of({**level, "unit": "ratio"}, facts_of(bad_rows=0)).verdict == "unknown"


def test_shares_are_compared_as_they_are_written() -> None:
    facts = TableFacts(object="orders", rows=1_000, bad_rows=7)  # 100 * 7 / 1000 is more than 0.7 in doubles
    assert verdict_of({"property": "errorRate", "value": 0.7, "unit": "%"}, facts).verdict == "pass"


@pytest.mark.parametrize("name", ["availability", "throughput", "timeToDetect", "TN", "timeToRepair", "moonPhase"])
def test_what_no_table_can_answer_is_kept_and_unknown(name: str) -> None:
    found = verdict_of({"property": name, "value": 99.9, "unit": "percent"}, facts_of(newest=NOW))
    assert (found.verdict, found.answerable, found.required) == ("unknown", False, "99.9 percent")
    assert found.reason


@pytest.mark.parametrize("name", ["latency", "LATENCY", "ly", "Ly"])
def test_names_are_read_in_any_case_and_by_their_synonym(name: str) -> None:
    found = verdict_of({"property": name, "value": 1, "unit": "d"}, facts_of(newest=NOW))
    assert (found.property, found.verdict) == ("latency", "pass")


def test_several_elements_are_judged_one_by_one() -> None:
    level = {"property": "latency", "value": 1, "unit": "d", "element": "orders.placed_at, refunds.placed_at"}
    made = compile_service_levels(parse_contract(contract_of(level, objects=(ORDERS, REFUNDS)), "c.yaml"))
    found = [check.judged(facts_of(newest=NOW), NOW) for check in made]
    assert [each.verdict for each in found] == ["pass", "unknown"]
    assert [check.element for check in checks_of(made, "refunds")] == ["refunds.placed_at"]


def test_a_level_without_an_element_is_of_the_default_one() -> None:
    level = {"property": "latency", "value": 1, "unit": "d"}
    made = compile_service_levels(parse_contract(contract_of(level, slaDefaultElement="orders.placed_at"), "c.yaml"))
    assert [check.element for check in made] == ["orders.placed_at"]


def test_the_only_object_need_not_be_named() -> None:
    assert verdict_of(
        {"property": "ly", "value": 1, "unit": "d", "element": "placed_at"}, facts_of(newest=NOW)
    ).element == ("orders.placed_at")


@pytest.mark.parametrize("element", ["", "order.placed_at", "orders.placed", "orders"])
def test_an_element_that_leads_nowhere_is_unknown_and_says_so(element: str) -> None:
    level = {"property": "latency", "value": 1, "unit": "d", "element": element}
    made = compile_service_levels(parse_contract(contract_of(level, objects=(ORDERS, REFUNDS)), "c.yaml"))
    found = made[0].judged(facts_of(newest=NOW), NOW)
    assert (found.verdict, found.answerable) == ("unknown", True)
    assert found.reason


@given(st.text(max_size=12), st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False), st.text(max_size=30)))
def test_no_level_that_can_be_written_raises(name: str, value: Any) -> None:
    names = ("latency", "retention", "frequency", "timeOfAvailability", "endOfLife", "completeness", "errorRate", name)
    levels = tuple(
        ServiceLevel(property=each, value=value, unit=unit, element=element)
        for each in names
        for unit in ("d", "percent", name, None)
        for element in ("placed_at", name)
    )
    contract = msgspec.structs.replace(parse_contract(contract_of(), "c.yaml"), sla_properties=levels)
    for check in compile_service_levels(contract):
        assert check.judged(facts_of(newest=NOW), NOW).verdict in {"pass", "fail", "unknown"}


def test_the_levels_of_contracts_made_by_others_are_read() -> None:
    contract = load_contract(shared_data("contracts", "datacontract_cli", "examples", "orders", "orders.odcs.yaml"))
    newest = datetime(2024, 6, 15, tzinfo=UTC)
    facts = TableFacts(
        object="orders",
        rows=1,
        elements={"order_timestamp": ElementFacts(oldest=newest, newest=newest, present=1, places=1)},
    )
    found = [(each.property, each.judged(facts, NOW).verdict) for each in compile_service_levels(contract)]
    assert found == [("retention", "pass"), ("freshness", "pass")]


def test_every_level_of_the_example_of_the_standard_has_a_verdict() -> None:
    contract = load_contract(shared_data("contracts", "bitol_examples", "sla", "database-table-sla.odcs.yaml"))
    found = [each.judged(facts_of(newest=NOW), NOW) for each in compile_service_levels(contract)]
    assert [(each.property, each.verdict) for each in found] == [
        ("latency", "unknown"),  # the example declares no object
        ("generalAvailability", "pass"),
        ("endOfSupport", "pass"),
        ("endOfLife", "pass"),
        ("retention", "unknown"),
        ("frequency", "unknown"),
        ("timeOfAvailability", "unknown"),
        ("timeOfAvailability", "unknown"),
    ]
