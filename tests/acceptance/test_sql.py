"""Queries that would take all time, memory or disk: stopped, with a verdict, and the next query is answered."""

from __future__ import annotations

import os
import signal
from time import monotonic
from typing import TYPE_CHECKING, Final

import polars as pl
import pytest

from mainstay.contract import sql
from mainstay.contract.sql import SqlRunner
from mainstay.contract.sql_types import Answer, SqlLimits, SqlTable

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.acceptance

LIMITS: Final = SqlLimits(seconds=1, memory_mb=128, temporary_mb=64)


@pytest.fixture
def tables(tmp_path: Path) -> list[SqlTable]:
    folder = tmp_path / "a [b] * ? folder"
    folder.mkdir()
    pl.DataFrame({"id": [1, 2, 3]}).write_parquet(folder / "x*.parquet")
    pl.DataFrame({"id": [4]}).write_parquet(folder / "x1.parquet")
    return [SqlTable(("orders", "t_orders"), (str(folder / "x*.parquet"),))]


def test_only_the_rows_of_the_named_file_are_seen(tables: list[SqlTable], tmp_path: Path) -> None:
    with SqlRunner(tables, tmp_path, LIMITS) as runner:
        assert runner.run("SELECT sum(id) FROM orders") == Answer("number", "6")
        assert runner.run("SELECT sum(id) FROM t_orders") == Answer("number", "6")


@pytest.mark.parametrize(
    "query",
    [
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000000) c",
        "SELECT count(*) FROM range(1000000000000000)",
        "SELECT sleep_ms(600000)",
        "SELECT " + "(" * 20_000,  # the parser does not hear that its time is over
        "SELECT length(repeat('x', 3000000000))",
        "SELECT len(range(200000000))",
        "SELECT len(list_sort(range(1000000000)))",
        "SELECT count(*) FROM (SELECT repeat('x', 1000000) || i AS z FROM range(100000) r(i) ORDER BY 1 OFFSET 50)",
    ],
)
def test_a_query_that_would_take_everything_is_stopped_and_the_next_is_answered(
    tables: list[SqlTable], tmp_path: Path, query: str
) -> None:
    with SqlRunner(tables, tmp_path, LIMITS) as runner:
        began = monotonic()
        found = runner.run(query)
        assert found.kind == "stopped", found
        assert monotonic() - began < 15
        assert runner.run("SELECT count(*) FROM orders") == Answer("number", "3")
    assert not (tmp_path / "query").exists()


def test_a_process_that_dies_is_an_answer_and_is_replaced(tables: list[SqlTable], tmp_path: Path) -> None:
    with SqlRunner(tables, tmp_path, LIMITS) as runner:
        assert runner.run("SELECT 1") == Answer("number", "1")
        assert runner._process is not None
        os.kill(runner._process.pid, signal.SIGKILL)
        assert runner.run("SELECT 1") == Answer("stopped", "the process that ran it ended")
        assert runner.run("SELECT 2") == Answer("number", "2")


def test_a_query_reads_and_writes_nothing_outside(tables: list[SqlTable], tmp_path: Path) -> None:
    target = tmp_path / "stolen.csv"
    with SqlRunner(tables, tmp_path, LIMITS) as runner:
        for query in (
            f"COPY orders TO '{target}'",
            "SELECT count(*) FROM read_text('../../etc/passwd')",
            f"ATTACH '{target}' AS other",
            "SELECT count(*) FROM read_csv('/etc/passwd')",
        ):
            assert runner.run(query).kind == "refused"
    assert not target.exists()


def test_a_table_that_is_no_parquet_is_an_answer(tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and nothing more")
    with SqlRunner([SqlTable(("orders",), (str(broken),))], tmp_path, LIMITS) as runner:
        assert runner.run("SELECT count(*) FROM orders").kind == "broken"


def test_without_the_engine_the_answer_says_how_to_install_it(
    tables: list[SqlTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "find_spec", lambda _: None)
    with SqlRunner(tables, tmp_path) as runner:
        assert "mainstay-ai[sql]" in runner.run("SELECT 1").text
