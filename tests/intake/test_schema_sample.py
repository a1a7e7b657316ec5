"""What the columns of an item are, from a sample of its rows."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from intake.facts import part
from mainstay.intake.schema_sample import ROWS, Sample, read_sample

if TYPE_CHECKING:
    from pathlib import Path

DECLARED: dict[str, Any] = {
    "whole": "integer",
    "real": "number",
    "yes": "boolean",
    "day": "date",
    "at": "timestamp",
    "clock": "time",
    "name": "string",
    "tags": "array",
    "place": "object",
}
RECORD: dict[str, Any] = {
    "whole": 7,
    "real": 1.5,
    "yes": True,
    "day": "2026-03-04",
    "at": "2026-03-04T05:06:07Z",
    "clock": "05:06:07",
    "name": "12",
    "tags": ["a"],
    "place": {"city": "Cork"},
}


def sample(path: Path, kind: str, content: bytes | pl.DataFrame) -> Sample:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content.write_parquet(path)
    return read_sample(path, part(kind=kind).item, DECLARED)


def kinds(found: Sample) -> dict[str, str | None]:
    return {name: column.kind for name, column in found.columns.items()}


def test_json_lines_have_the_kinds_of_their_values(tmp_path: Path) -> None:
    lines = [json.dumps(RECORD), "", json.dumps(dict.fromkeys(RECORD)), "{broken", json.dumps([1])]
    found = sample(tmp_path / "a", "jsonl", "\n".join(lines).encode())
    assert kinds(found) == DECLARED
    assert found.rows == 2
    assert found.columns["whole"].present == 1


def test_cells_are_what_they_are_expected_to_be_where_they_can_be_read_so(tmp_path: Path) -> None:
    row = {name: json.dumps(value) if name in {"tags", "place"} else str(value) for name, value in RECORD.items()}
    text = pl.DataFrame([row, dict.fromkeys(row, "")]).write_csv().encode()
    found = sample(tmp_path / "a", "csv", text)
    assert kinds(found) == DECLARED
    assert all(column.present == 1 for column in found.columns.values())


def test_a_parquet_file_says_its_types(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        RECORD | {"day": date(2026, 3, 4), "at": datetime(2026, 3, 4, tzinfo=UTC), "clock": time(5), "tags": [["a"]]},
        strict=False,
    )
    assert kinds(sample(tmp_path / "a", "parquet", frame)) == DECLARED


@pytest.mark.parametrize(
    ("values", "kind"), [([1, 2, 2.5], "number"), ([1, 2, 3.0], "integer"), ([1, "a", "b"], "string")]
)
def test_the_kind_of_a_column_is_that_of_most_of_its_values(values: list[Any], kind: str, tmp_path: Path) -> None:
    text = "".join(json.dumps({"other": value}) + "\n" for value in values).encode()
    assert kinds(sample(tmp_path / "a", "jsonl", text)) == {"other": kind}


@pytest.mark.parametrize(
    ("cells", "kind"),
    [(["1", "2"], "integer"), (["1", "2.5"], "number"), (["x", "2"], "string"), (["true"], "boolean"), ([""], None)],
)
def test_a_column_that_nobody_declared_is_the_plainest_that_its_cells_can_be(
    cells: list[str], kind: str | None, tmp_path: Path
) -> None:
    text = "other,name\n" + "".join(f"{cell},x\n" for cell in cells)
    assert kinds(sample(tmp_path / "a", "csv", text.encode()))["other"] == kind


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_a_large_item_is_read_from_all_over_it_and_no_further(kind: str, tmp_path: Path) -> None:
    count = 400_000
    frame = pl.DataFrame({"whole": range(count), "name": ["some text in each row"] * count})
    path = tmp_path / "a"
    if kind == "parquet":
        frame.write_parquet(path)
    elif kind == "csv":
        frame.write_csv(path)
    else:
        frame.write_ndjson(path)
    found = read_sample(path, part(kind=kind).item, DECLARED)
    numbers = found.columns["whole"].values
    assert ROWS / 2 < found.rows <= ROWS
    assert len(numbers) == found.rows
    assert float(numbers.min()) < count / 100  # type: ignore[arg-type]  # of numbers it is one
    assert float(numbers.max()) > count * 0.99  # type: ignore[arg-type]  # the same
    assert abs(float(numbers.median()) / count - 0.5) < 0.06  # type: ignore[arg-type]  # the same


@pytest.mark.parametrize(
    ("kind", "content"), [("csv", b""), ("parquet", b"<html>"), ("jsonl", b""), ("csv", b"\xff,\n")]
)
def test_what_is_no_file_of_its_kind_has_an_empty_sample(kind: str, content: bytes, tmp_path: Path) -> None:
    assert sample(tmp_path / "a", kind, content) == Sample()
