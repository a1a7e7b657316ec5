from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from mainstay.cli.contracts import check
from mainstay.errors import InvalidDocument, Misuse
from shared_data import shared_data

if TYPE_CHECKING:
    from collections.abc import Callable

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: orders
name: Orders
version: 1.0.0
status: active
schema:
  - name: orders
    quality:
      - {metric: rowCount, mustBeGreaterThan: 0}
    properties:
      - {name: order_id, logicalType: string, primaryKey: true}
      - {name: placed_at, logicalType: timestamp, required: true}
      - name: email
        logicalType: string
        classification: confidential
        logicalTypeOptions: {format: email}
        quality:
          - name: Few without an address
            metric: missingValues
            arguments: {missingValues: [null, "N/A"]}
            unit: percent
            mustBeLessThan: 50
            severity: warning
      - {name: total, logicalType: number, logicalTypeOptions: {minimum: 0}}
slaProperties:
  - {property: freshness, value: 24, unit: h, element: orders.placed_at}
"""
ORDERS = """\
order_id,placed_at,email,total
A-1,2026-02-28T09:14:00Z,ada@example.com,49.90
A-2,2026-02-28T17:40:12Z,N/A,120.00
A-3,2026-03-01T00:03:55Z,,-5.00
A-3,2026-03-01T02:20:00Z,bo@example.com,310.50
"""
NOW = "2026-03-01T06:00:00Z"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "orders.odcs.yaml").write_text(CONTRACT)
    (tmp_path / "orders.csv").write_text(ORDERS)
    (tmp_path / "good.csv").write_text("".join(ORDERS.splitlines(keepends=True)[:2]))
    return tmp_path


def run(*words: str, **options: Any) -> int:
    return check(*map(Path, words), **options)


def test_the_report_says_what_was_broken_counted_and_promised(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run("orders.odcs.yaml", "orders.csv", now=NOW, clean=Path("clean.parquet"), bad=Path("bad.parquet"))
    assert code == 1
    assert capsys.readouterr().out == (
        "Orders 1.0.0, object orders\n"
        "4 rows in orders.csv, 3 of them bad\n"
        "\n"
        "rules of a row\n"
        "  broken  field     rule         expected                       found in\n"
        "  1       email     format       an e-mail address              row 2: (masked)\n"
        '  1       order_id  primary-key  a key that no earlier row has  row 4: "A-3"\n'
        "  1       total     minimum      at least 0                     row 3: -5.0\n"
        "\n"
        "quality\n"
        "  pass  the table  rowCount                4 rows; must be more than 0 rows\n"
        "  fail  email      Few without an address  50 percent (2 of 4); must be less than 50 percent (warning)\n"
        "\n"
        f"service levels at {NOW}\n"
        "  pass  orders.placed_at  freshness  2026-03-01T02:20:00Z, 3 hours 40 minutes old;"
        " promised: the newest row at most 24 hours old\n"
        "\n"
        "1 good row in clean.parquet\n"
        "3 bad rows in bad.parquet\n"
        "fail: 3 bad rows, 1 of 3 checks failed\n"
    )
    assert pl.read_parquet(folder / "clean.parquet")["order_id"].to_list() == ["A-1"]
    assert pl.read_parquet(folder / "bad.parquet")["order_id"].to_list() == ["A-2", "A-3", "A-3"]


def test_data_that_keeps_everything_passes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("orders.odcs.yaml", "good.csv", now=NOW) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "pass: 0 bad rows, 0 of 3 checks failed"


def test_service_levels_are_judged_at_the_moment_that_is_named(folder: Path) -> None:
    assert run("orders.odcs.yaml", "good.csv", now="2026-03-02") == 1


def test_facts_for_programs_hold_every_verdict(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("orders.odcs.yaml", "orders.csv", now=NOW, json=True) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["contract"] == {"id": "orders", "name": "Orders", "version": "1.0.0"}
    assert (facts["object"], facts["now"], facts["verdict"]) == ("orders", NOW, "fail")
    assert (facts["rows"]["rows"], facts["rows"]["bad_rows"]) == (4, 3)
    assert [each["verdict"] for each in facts["quality"]] == ["pass", "fail"]
    assert facts["quality"][1]["severity"] == "warning"
    assert [each["verdict"] for each in facts["service_levels"]] == ["pass"]
    assert "ada@example.com" not in json.dumps(facts)


def test_what_no_table_can_answer_is_listed_and_does_not_fail(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "orders.odcs.yaml").open("a") as file:
        file.write("  - {property: availability, value: 99.9, unit: percent}\n")
    assert run("orders.odcs.yaml", "good.csv", now=NOW) == 0
    report = capsys.readouterr().out
    assert "  unknown  the contract      availability  it is about the service that serves the data;" in report
    assert report.splitlines()[-1] == "pass: 0 bad rows, 0 of 4 checks failed, 1 that no table can answer"


def test_what_a_table_could_have_answered_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "short.csv").write_text("order_id,placed_at,total\nA-1,2026-02-28T09:14:00Z,49.90\n")
    assert run("orders.odcs.yaml", "short.csv", now=NOW) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "unknown: 0 bad rows, 0 of 3 checks failed, 1 unknown"


def test_a_capability_folder_means_its_contract(folder: Path) -> None:
    capability = folder / "capabilities" / "orders"
    capability.mkdir(parents=True)
    (capability / "capability.yaml").write_text("contract: rules.yaml\n")
    (capability / "rules.yaml").write_text(CONTRACT)
    assert run("capabilities/orders", "good.csv", now=NOW) == 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: run("none.yaml", "orders.csv"), "found nothing"),
        (lambda: run("orders.odcs.yaml", "none.csv"), "found nothing"),
        (lambda: run("orders.odcs.yaml", "orders.odcs.yaml"), "ending in"),
        (lambda: run("orders.odcs.yaml", "orders.csv", object_="order"), "no object 'order'"),
        (lambda: run("orders.odcs.yaml", "orders.csv", now="tomorrow"), "--now: expected a date"),
        (lambda: run("orders.odcs.yaml", "orders.csv", bad=Path("orders.csv")), "no part of the source"),
    ],
)
def test_misuse_is_told_and_nothing_is_written(folder: Path, call: Callable[[], int], said: str) -> None:
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(Misuse, match=said):
        call()
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_contract_with_problems_is_told_with_its_lines(folder: Path) -> None:
    (folder / "orders.odcs.yaml").write_text(CONTRACT.replace("mustBeGreaterThan: 0", "mustBeGreaterThan: many"))
    with pytest.raises(InvalidDocument, match=r"orders\.odcs\.yaml:10"):
        run("orders.odcs.yaml", "orders.csv")


def test_a_contract_and_data_made_by_others(capsys: pytest.CaptureFixture[str]) -> None:
    fixtures = shared_data("contracts", "datacontract_cli", "fixtures")
    contract, data = fixtures / "row-filter" / "datacontract.yaml", fixtures / "diagnostics" / "data" / "orders.csv"
    assert check(contract, data) == 1
    assert "  fail  the table  rowCount  5 rows; must be 3 rows\n" in capsys.readouterr().out
