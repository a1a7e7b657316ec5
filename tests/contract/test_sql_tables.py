from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING

import msgspec
import polars as pl

from mainstay.contract.columns import compile_columns
from mainstay.contract.load import parse_contract
from mainstay.contract.sql_tables import TableCopy

if TYPE_CHECKING:
    from pathlib import Path

PROPERTIES = [
    {"name": "day", "logicalType": "date"},
    {"name": "at", "logicalType": "timestamp"},
    {"name": "count", "logicalType": "integer"},
    {"name": "note", "logicalType": "string"},
]
MOMENT = datetime(2024, 1, 1, 4)  # noqa: DTZ001 - in UTC, as queries see it


def test_a_copy_has_the_values_as_the_contract_reads_them(tmp_path: Path) -> None:
    document = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "c",
        "version": "1.0.0",
        "status": "draft",
        "schema": [{"name": "orders", "properties": PROPERTIES}],
    }
    declared = parse_contract(msgspec.json.encode(document), "c.yaml").schema[0]
    raw = pl.DataFrame(
        {
            "day": ["2024-02-29", "soon"],
            "at": ["2024-01-01T09:30:00+05:30", None],
            "count": ["7", "seven"],
            "note": ["2024-01-01", "x"],
        }
    )
    typed = compile_columns(declared).bind(raw.schema, cells=True).judge(raw).frame
    copy = TableCopy(declared, tmp_path)
    for _ in range(2):
        copy.add(raw, typed)
    assert [pl.read_parquet(file).to_dicts() for file in copy.files] == [
        [
            {"day": date(2024, 2, 29), "at": MOMENT, "count": 7, "note": "2024-01-01"},
            {"day": None, "at": None, "count": None, "note": "x"},
        ]
    ] * 2
