from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
import pytest

from mainstay.contract.assessment import Assessment, assess_table, choose_object
from mainstay.contract.load import load_contract, parse_contract
from mainstay.errors import Misuse
from shared_data import shared_data

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mainstay.contract.types import Contract

NOW = datetime(2024, 3, 2, tzinfo=UTC)
ROWS = [
    {"id": 1, "tenant": "a", "at": "2024-03-01T09:00:00Z", "unit": "kg", "price": 1.5},
    {"id": 2, "tenant": "a", "at": "2024-03-01T12:00:00Z", "unit": "lb", "price": None},
    {"id": 2, "tenant": "a", "at": "2024-02-01T00:00:00Z", "unit": "stone", "price": -1.0},
    {"id": 2, "tenant": "b", "at": None, "unit": None, "price": -999.0},
]
PROPERTIES: list[dict[str, Any]] = [
    {"name": "id", "logicalType": "integer", "quality": [{"metric": "duplicateValues", "mustBeLessThan": 3}]},
    {"name": "tenant", "logicalType": "string", "required": True},
    {"name": "at", "logicalType": "timestamp", "quality": [{"metric": "nullValues", "mustBe": 1}]},
    {
        "name": "unit",
        "logicalType": "string",
        "quality": [
            {"metric": "invalidValues", "arguments": {"validValues": ["kg", "lb"]}, "mustBe": 1},
            {"type": "text", "description": "Units are those of the scales."},
        ],
    },
    {
        "name": "price",
        "logicalType": "number",
        "quality": [
            {
                "metric": "missingValues",
                "arguments": {"missingValues": [None, -999]},
                "mustBeLessOrEqualTo": 50,
                "unit": "percent",
            }
        ],
    },
]
OF_ROWS: list[dict[str, Any]] = [
    {"metric": "rowCount", "mustBe": 4},
    {"metric": "duplicateValues", "arguments": {"properties": ["tenant", "id"]}, "mustBe": 0},
]
LEVELS = [
    {"property": "freshness", "value": 1, "unit": "d", "element": "orders.at"},
    {"property": "retention", "value": 1, "unit": "m", "element": "orders.at"},
    {"property": "completeness", "value": 75, "unit": "percent", "element": "orders.price"},
    {"property": "errorRate", "value": 0, "unit": "percent"},
]


def contract_of(
    properties: list[dict[str, Any]] | None = None,
    quality: list[dict[str, Any]] | None = None,
    levels: list[dict[str, Any]] | None = None,
    *others: str,
) -> Contract:
    objects = [{"name": "orders", "properties": properties or PROPERTIES, "quality": quality or []}]
    document = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "c",
        "version": "1.0.0",
        "status": "draft",
        "schema": [*objects, *({"name": name} for name in others)],
        "slaProperties": levels or [],
    }
    return parse_contract(msgspec.json.encode(document), "c.yaml")


def write_csv(path: Path) -> Path:
    pl.DataFrame(ROWS).write_csv(path.with_suffix(".csv"))
    return path.with_suffix(".csv")


def write_parquet(path: Path) -> Path:
    frame = pl.DataFrame(ROWS).with_columns(pl.col("at").str.to_datetime(time_zone="UTC"))
    frame.write_parquet(path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def write_arrow(path: Path) -> Path:
    pl.DataFrame(ROWS).write_ipc(path.with_suffix(".arrow"))
    return path.with_suffix(".arrow")


def write_lines(path: Path) -> Path:
    lines = b"".join(msgspec.json.encode(row) + b"\n" for row in ROWS)
    path.with_suffix(".jsonl").write_bytes(lines)
    return path.with_suffix(".jsonl")


def write_folder(path: Path) -> Path:
    folder = path.with_suffix(".d")
    folder.mkdir()
    for i, row in enumerate(ROWS):
        typed = pl.DataFrame([row], schema=pl.DataFrame(ROWS).schema)
        typed.write_parquet(folder / f"{i}.parquet")
    return folder


def assessed(contract: Contract, source: Path, now: datetime = NOW) -> Assessment:
    return assess_table(contract, choose_object(contract, "orders"), source, now=now)


@pytest.mark.parametrize("write", [write_csv, write_parquet, write_arrow, write_lines, write_folder])
def test_every_kind_of_file_has_the_same_verdicts(write: Callable[[Path], Path], tmp_path: Path) -> None:
    found = assessed(contract_of(quality=OF_ROWS, levels=LEVELS), write(tmp_path / "orders"))
    assert [(each.field, each.metric, each.verdict, each.count, each.places) for each in found.quality] == [
        ("$", "rowCount", "pass", 4, 4),
        ("$", "duplicateValues", "fail", 1, 4),
        ("id", "duplicateValues", "pass", 2, 4),
        ("at", "nullValues", "pass", 1, 4),
        ("unit", "invalidValues", "pass", 1, 4),
        ("unit", None, "unknown", None, None),
        ("price", "missingValues", "pass", 2, 4),
    ]
    assert [(each.property, each.verdict) for each in found.service_levels] == [
        ("freshness", "pass"),
        ("retention", "fail"),
        ("completeness", "pass"),
        ("errorRate", "pass"),
    ]
    assert (found.rows.bad_rows, found.verdict) == (0, "fail")


def test_rows_whose_key_is_only_counted_are_not_bad_and_those_of_a_unique_property_are(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "orders")
    declared = [{**PROPERTIES[0], "unique": True}, *PROPERTIES[1:]]
    found = assessed(contract_of(declared), source)
    assert found.rows.bad_rows == 2
    assert (found.quality[0].metric, found.quality[0].count) == ("duplicateValues", 2)


def test_a_table_without_rows_is_measured(tmp_path: Path) -> None:
    pl.DataFrame(ROWS).clear().write_parquet(tmp_path / "none.parquet")
    found = assessed(contract_of(quality=OF_ROWS, levels=LEVELS), tmp_path / "none.parquet")
    assert [each.verdict for each in found.quality] == ["fail", "pass", "pass", "fail", "fail", "unknown", "unknown"]
    assert {each.verdict for each in found.service_levels} == {"unknown"}


def test_the_verdict_is_unknown_where_a_table_could_have_answered(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "orders")
    text, note = {"type": "text", "description": "Orders are paid."}, {"property": "availability", "value": 99}
    assert assessed(contract_of([{"name": "id"}, *PROPERTIES[1:]], [text], [note]), source).verdict == "pass"
    gone = {"name": "gone", "quality": [{"metric": "nullValues", "mustBe": 0}]}
    assert assessed(contract_of([*PROPERTIES, gone]), source).verdict == "unknown"


def test_counts_go_on_over_many_pieces(tmp_path: Path) -> None:
    rows = 300_000
    frame = pl.DataFrame({"id": pl.arange(rows, eager=True) // 2, "tenant": pl.repeat("a", rows, eager=True)})
    frame = frame.with_columns(pl.when(pl.arange(rows) % 10 > 0).then(pl.lit("kg")).alias("unit"))
    frame.write_parquet(tmp_path / "many.parquet", row_group_size=50_000)
    nulls = {"name": "unit", "quality": [{"metric": "nullValues", "mustBe": 10, "unit": "percent"}]}
    twice = {"name": "id", "quality": [{"metric": "duplicateValues", "mustBe": 50, "unit": "percent"}]}
    found = assessed(contract_of([twice, {"name": "tenant"}, nulls]), tmp_path / "many.parquet")
    assert [(each.verdict, each.count) for each in found.quality] == [("pass", rows // 2), ("pass", rows // 10)]


def test_the_object_is_the_only_one_or_the_one_that_is_named() -> None:
    assert choose_object(contract_of(), None).name == "orders"
    two = contract_of(None, None, None, "refunds")
    assert choose_object(two, "refunds").name == "refunds"
    with pytest.raises(Misuse, match="has 2 objects"):
        choose_object(two, None)
    with pytest.raises(Misuse) as misspelt:
        choose_object(two, "refund")
    assert misspelt.value.hint == "Did you mean refunds? It has: orders, refunds."


def test_a_contract_without_objects_describes_no_data() -> None:
    contract = load_contract(shared_data("contracts", "bitol_examples", "sla", "database-table-sla.odcs.yaml"))
    with pytest.raises(Misuse, match="empty schema"):
        choose_object(contract, None)


def test_a_contract_made_by_others_is_held_against_their_data() -> None:
    folder = shared_data("contracts", "datacontract_cli", "fixtures")
    contract = load_contract(folder / "row-filter" / "datacontract.yaml")
    found = assessed(contract, folder / "diagnostics" / "data" / "orders.csv")
    assert [(each.metric, each.observed, each.required, each.verdict) for each in found.quality] == [
        ("rowCount", 5, "3 rows", "fail")
    ]


def test_dirty_data_of_others_is_counted_as_its_list_of_errors_has_it() -> None:
    folder = shared_data("dirty", "hospital")
    truth = pl.read_csv(folder / "clean.csv", infer_schema=False)
    dirty = pl.read_csv(folder / "dirty.csv", infer_schema=False)
    properties: list[dict[str, Any]] = [{"name": name, "logicalType": "string"} for name in truth.columns]
    listed = {name: truth[name].unique().drop_nulls().to_list() for name in ("State", "EmergencyService", "City")}
    for declared in properties:
        if declared["name"] in listed:
            valid = {"validValues": listed[declared["name"]]}
            declared["quality"] = [
                {"metric": "invalidValues", "arguments": valid, "mustBeLessThan": 10, "unit": "percent"}
            ]
    found = assessed(contract_of(properties), folder / "dirty.csv")
    for verdict in found.quality:
        wrong = dirty.filter(~pl.col(verdict.field).is_in(listed[verdict.field])).height
        assert verdict.count == wrong > 0
        assert verdict.verdict == ("pass" if wrong * 10 < dirty.height else "fail")
