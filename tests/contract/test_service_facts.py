from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import msgspec
import polars as pl
import pytest

from mainstay.contract.load import parse_contract
from mainstay.contract.service_facts import FactsGatherer, moments_of
from mainstay.contract.service_levels import ElementFacts, TableFacts, compile_service_levels


def gatherer_of(path: str, properties: list[dict[str, Any]]) -> FactsGatherer:
    document = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "c",
        "version": "1.0.0",
        "status": "draft",
        "schema": [{"name": "orders", "properties": properties}],
        "slaProperties": [{"property": "freshness", "value": 1, "unit": "d", "element": f"orders.{path}"}],
    }
    contract = parse_contract(msgspec.json.encode(document), "c.yaml")
    return FactsGatherer(contract.schema[0], compile_service_levels(contract))


def facts_of(*columns: pl.Series) -> TableFacts:
    gatherer = gatherer_of("at", [{"name": "at"}])
    for column in columns:
        frame = column.alias("at").to_frame()
        gatherer.add(frame, frame)
    return gatherer.facts(sum(map(len, columns)), None)


FIRST = datetime(2024, 1, 1, 4, tzinfo=UTC)
LAST = datetime(2024, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    "column",
    [
        pl.Series([datetime(2024, 1, 1, 4), None, datetime(2024, 1, 2)]),  # noqa: DTZ001 - that it has none is the point
        pl.Series([datetime(2024, 1, 1, 4), datetime(2024, 1, 2)], dtype=pl.Datetime("ns")),  # noqa: DTZ001 - the same
        pl.Series([FIRST, LAST]).dt.convert_time_zone("Asia/Kolkata"),
        pl.Series(["2024-01-01T09:30:00+05:30", "2024-01-02t00:00:00z", None, "soon"]),
        pl.Series(["2024-01-01T04:00:00", "2024-01-02"]),
        pl.Series(["2024-01-01T04:00:00.000000000Z", "2024-01-02T00:00:00Z"], dtype=pl.Categorical),
    ],
    ids=str,
)
def test_the_oldest_and_newest_moment_are_found_in_any_type_of_column(column: pl.Series) -> None:
    found = facts_of(column).elements["at"]
    assert (found.oldest, found.newest) == (FIRST, LAST)
    assert (found.present, found.places) == (len(column) - column.null_count(), len(column))


def test_a_date_is_its_first_instant() -> None:
    assert facts_of(pl.Series([date(2024, 1, 2)])).elements["at"].newest == LAST


def test_moments_are_found_over_batches() -> None:
    found = facts_of(pl.Series([LAST]), pl.Series([FIRST]), pl.Series([None], dtype=pl.Datetime("us", "UTC")))
    assert found.rows == 3
    assert found.elements["at"] == ElementFacts(oldest=FIRST, newest=LAST, present=2, places=3)


@pytest.mark.parametrize("column", [pl.Series([1, 2]), pl.Series([None, None]), pl.Series([[1]])], ids=str)
def test_what_is_no_moment_gives_none(column: pl.Series) -> None:
    found = facts_of(column).elements["at"]
    assert (found.oldest, found.newest) == (None, None)


def test_years_that_no_calendar_of_ours_has_are_no_moments() -> None:
    days = pl.Series([-(10**6), 0, 10**7], dtype=pl.Int32).cast(pl.Date)
    moments = moments_of(days)
    assert moments is not None
    assert moments.to_list() == [None, datetime(1970, 1, 1), None]  # noqa: DTZ001 - in UTC, and without a zone


def test_a_moment_in_an_object_is_found_and_a_name_may_hold_a_point() -> None:
    gatherer = gatherer_of("meta.v1.at", [{"name": "meta.v1", "logicalType": "object", "properties": [{"name": "at"}]}])
    frame = pl.DataFrame({"meta.v1": [{"at": LAST}, None, {"at": None}]})
    gatherer.add(frame, frame)
    assert gatherer.facts(1, 0).elements["meta.v1.at"] == ElementFacts(oldest=LAST, newest=LAST, present=1, places=2)


def test_a_property_that_the_data_has_not_has_no_facts() -> None:
    gatherer = gatherer_of("at", [{"name": "at"}])
    frame = pl.DataFrame({"other": [1]})
    gatherer.add(frame, frame)
    assert gatherer.facts(1, 0) == TableFacts(object="orders", rows=1, bad_rows=0)
