"""The service levels of a contract against the tables of a source."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
import pytest

from mainstay.capability.sources import Files, Source
from mainstay.capability.types import Capability
from mainstay.contract.load import parse_contract
from mainstay.intake.door_tables import QUARANTINE_SCHEMA
from mainstay.intake.newest import file_statistics
from mainstay.intake.service_checks import CheckedLevel, check_service_levels
from mainstay.intake.types import ARRIVED_AT, DAY, ITEM, REASON, ROW, VIOLATIONS, intake_table, quarantine_table
from mainstay.lake.lake import Lake
from tiny import DECLARATION

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
SOURCE = Source(name="feed", object="order", files=Files(folder="in"))
SCHEMA = pl.Schema(
    {
        "placed_at": pl.Datetime("us", "UTC"),
        "city": pl.String(),
        ITEM: pl.Int64(),
        ROW: pl.Int64(),
        ARRIVED_AT: pl.Datetime("us", "UTC"),
        DAY: pl.Date(),
    }
)
LEVELS = [
    {"property": "freshness", "value": 2, "unit": "h", "element": "order.placed_at"},
    {"property": "latency", "value": 1, "unit": "h", "element": "order.placed_at"},
    {"property": "retention", "value": 5, "unit": "d", "element": "order.placed_at"},
    {"property": "completeness", "value": 75, "unit": "percent", "element": "order.city"},
    {"property": "errorRate", "value": 20, "unit": "percent", "element": "order"},
    {"property": "frequency", "value": 1, "valueExt": 1, "unit": "h", "element": "order.placed_at"},
    {"property": "availability", "value": 99.9, "unit": "percent"},
]


def contract_of(*levels: dict[str, Any]) -> Any:
    document = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "orders",
        "version": "1.0.0",
        "status": "active",
        "schema": [
            {
                "name": "order",
                "logicalType": "object",
                "properties": [
                    {"name": "placed_at", "logicalType": "timestamp", "required": True},
                    {"name": "city", "logicalType": "string", "required": True},
                ],
            }
        ],
        "slaProperties": list(levels),
    }
    return parse_contract(msgspec.json.encode(document), "contract.odcs.yaml")


class Tables:
    """The tables of a source, filled by hand."""

    def __init__(self, folder: Path) -> None:
        self.lake = Lake(folder)
        self.taken = self.lake.create(intake_table("tiny", "feed"), SCHEMA, partition_by=[DAY])
        self.aside = self.lake.create(quarantine_table("tiny", "feed"), QUARANTINE_SCHEMA, partition_by=[DAY])
        self.item = 0

    def add(self, ago: timedelta, rows: int = 2, *, late: timedelta = timedelta(0), city: str | None = "Cork") -> None:
        """An item of rows that arrived so long ago, and were placed `late` before that."""
        self.item += 1
        arrived = NOW - ago
        frame = pl.DataFrame(
            {
                "placed_at": [arrived - late] * rows,
                "city": [city] * rows,
                ITEM: [self.item] * rows,
                ROW: range(1, rows + 1),
                ARRIVED_AT: [arrived] * rows,
                DAY: [arrived.date()] * rows,
            },
            schema=SCHEMA,
        )
        self.taken.append(frame, writer="door", position=self.item << 32)

    def put_aside(self, ago: timedelta, rows: int, rule: str = "required", reason: str = "rules") -> None:
        self.item += 1
        arrived = NOW - ago
        broken = [{"field": "city", "rule": rule, "expected": "", "found": ""}]
        frame = pl.DataFrame(
            {
                ITEM: [self.item] * rows,
                ROW: range(1, rows + 1),
                ARRIVED_AT: [arrived] * rows,
                DAY: [arrived.date()] * rows,
                VIOLATIONS: [broken] * rows,
                REASON: [reason] * rows,
            },
            schema_overrides=dict(QUARANTINE_SCHEMA),
        )
        whole = pl.concat([pl.DataFrame(schema=QUARANTINE_SCHEMA), frame], how="diagonal")
        self.aside.append(whole, writer="door", position=self.item << 32)

    def check(self, *levels: dict[str, Any]) -> dict[str, CheckedLevel]:
        capability = msgspec.convert(DECLARATION, Capability)
        found = check_service_levels(self.lake, capability, SOURCE, contract_of(*levels), NOW)
        return {each.level.property: each for each in found}


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path)


def verdicts(found: dict[str, CheckedLevel]) -> dict[str, str]:
    return {name: each.level.verdict for name, each in found.items()}


HOUR, DAYS = timedelta(hours=1), timedelta(days=1)


def test_a_feed_that_keeps_its_levels_passes_and_what_no_table_knows_is_unknown(tables: Tables) -> None:
    for hours in range(5, 0, -1):
        tables.add(hours * HOUR - timedelta(minutes=30))
    found = tables.check(*LEVELS)
    assert verdicts(found) == {
        **dict.fromkeys(("freshness", "latency", "retention", "completeness", "errorRate", "frequency"), "pass"),
        "availability": "unknown",
    }
    fresh = found["freshness"]
    assert fresh.age_seconds == 1_800
    assert fresh.evidence.table == "intake/tiny/feed"
    assert fresh.evidence.version == tables.taken.refresh().version
    assert fresh.evidence.quarantine_version == tables.aside.refresh().version
    assert fresh.evidence.rows == 10


def test_each_level_fails_where_it_is_broken(tables: Tables) -> None:
    tables.add(20 * DAYS)
    tables.add(3 * HOUR, late=2 * HOUR)
    tables.put_aside(3 * HOUR, 3)
    found = tables.check(*LEVELS)
    assert {name for name, verdict in verdicts(found).items() if verdict == "fail"} == {
        *("freshness", "latency", "retention", "completeness", "errorRate", "frequency")
    }
    assert found["freshness"].age_seconds == 5 * 3_600
    assert found["completeness"].level.observed == "40 percent (2 of 5)"
    assert found["errorRate"].level.observed == "60 percent (3 of 5 rows)"


def test_rows_of_long_ago_and_rows_that_are_only_late_are_no_errors(tables: Tables) -> None:
    tables.put_aside(20 * DAYS, 50)
    tables.put_aside(HOUR, 50, reason="late")
    tables.add(HOUR)
    found = tables.check(*LEVELS)
    assert found["errorRate"].level.observed == "0 percent (0 of 2 rows)"
    assert found["completeness"].level.verdict == "pass"


def test_a_frequency_of_days_looks_at_days_and_one_of_hours_at_arrivals(tables: Tables) -> None:
    for days in (40, 33, 26, 19, 12, 5):
        tables.add(days * DAYS)
    weekly = {"property": "frequency", "value": 1, "unit": "w", "element": "order.placed_at"}
    assert tables.check(weekly)["frequency"].level.verdict == "pass"
    daily = {"property": "frequency", "value": 1, "unit": "d", "element": "order.placed_at"}
    assert tables.check(daily)["frequency"].level.verdict == "fail"
    assert tables.check(weekly | {"value": 6, "unit": "d"})["frequency"].level.verdict == "fail"


def test_data_that_came_and_was_put_aside_has_arrived(tables: Tables) -> None:
    tables.add(3 * HOUR)
    hourly = {"property": "frequency", "value": 2, "unit": "h", "element": "order.placed_at"}
    assert tables.check(hourly)["frequency"].level.verdict == "fail"
    tables.put_aside(90 * timedelta(minutes=1), 1)
    assert tables.check(hourly)["frequency"].level.verdict == "pass"


def test_before_anything_came_nothing_is_known(tmp_path: Path) -> None:
    capability = msgspec.convert(DECLARATION, Capability)
    found = check_service_levels(Lake(tmp_path), capability, SOURCE, contract_of(*LEVELS), NOW)
    assert {each.level.verdict for each in found} == {"unknown"}
    assert {each.evidence.version for each in found} == {None}
    assert check_service_levels(Lake(tmp_path), capability, SOURCE, contract_of(), NOW) == ()


def test_of_a_table_without_statistics_the_newest_partitions_are_read(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.taken.set_property("delta.dataSkippingNumIndexedCols", "0")
    tables.add(20 * DAYS)
    tables.add(HOUR / 2)
    assert not [name for name in file_statistics(tables.taken.refresh()).columns if name.startswith("max.")]
    found = tables.check(*LEVELS)
    assert found["freshness"].age_seconds == 1_800
    assert verdicts(found)["completeness"] == "pass"
    assert verdicts(found)["retention"] == "fail"


def test_old_files_are_not_opened(tables: Tables) -> None:
    tables.add(20 * DAYS)
    for path in (tables.lake.location.path(intake_table("tiny", "feed"))).rglob("*.parquet"):
        path.write_bytes(b"gone")
    tables.add(HOUR / 2)
    found = tables.check(*LEVELS)
    assert verdicts(found)["freshness"] == "pass"
    assert verdicts(found)["retention"] == "fail"
