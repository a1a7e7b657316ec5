"""Queries held to their form, and to a database that is locked. What takes a process is in tests/acceptance."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import duckdb
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.contract.sql import MAX_QUERY_CHARACTERS, fill_in
from mainstay.contract.sql_child import Refused, answered, check_form, open_database
from mainstay.contract.sql_types import Answer, Opening, SqlLimits, SqlTable

if TYPE_CHECKING:
    from pathlib import Path

NAMES: Final = frozenset({"orders", "orders_v1"})
LIMITS: Final = SqlLimits(seconds=5)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> duckdb.DuckDBPyConnection:
    monkeypatch.chdir(tmp_path)
    pl.DataFrame({"id": [1, 2, 2, None], "note": ["a", "b", "c", "d"]}).write_parquet("table.parquet")
    return open_database(Opening((SqlTable(("orders", "orders_v1"), ("table.parquet",)),), LIMITS))


def ask(database: duckdb.DuckDBPyConnection, query: str) -> Answer:
    return answered(database, query, NAMES, LIMITS)


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ("SELECT count(*) FROM orders", "4"),
        ("select count(*) from ORDERS_V1 where id is not null;", "3"),
        ("SELECT avg(id) FROM orders", "1.6666666666666667"),
        ("SELECT 1.50::decimal(9, 2)", "1.50"),
        ("WITH twice AS (SELECT id FROM orders GROUP BY id HAVING count(*) > 1) SELECT count(*) FROM twice", "1"),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT sum(i) FROM n", "45"),
        ("SELECT max(gap) FROM (SELECT id - lag(id) OVER (ORDER BY id) AS gap FROM orders) AS gaps", "1"),
        ("SELECT count(*) FROM orders AS a JOIN main.orders AS b USING (id)", "5"),
        ("SELECT count(*) FROM (SELECT id FROM orders UNION SELECT i FROM range(10) AS r(i))", "11"),
        ("VALUES (170141183460469231731687303715884105727::hugeint)", "170141183460469231731687303715884105727"),
    ],
)
def test_a_query_that_reads_gives_its_number(database: duckdb.DuckDBPyConnection, query: str, number: str) -> None:
    assert ask(database, query) == Answer("number", number)


def test_a_truth_value_is_told_apart_from_a_number(database: duckdb.DuckDBPyConnection) -> None:
    assert ask(database, "SELECT count(*) = 4 FROM orders") == Answer("boolean", "true")


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("SELECT max(id) FROM orders WHERE false", "null"),
        ("SELECT 'nan'::double", "other"),
        ("SELECT 1e308 * 10", "other"),
        ("SELECT max(note) FROM orders", "other"),
        ("SELECT id FROM orders", "other"),
        ("SELECT id FROM orders WHERE false", "other"),
        ("SELECT 1, 2", "other"),
    ],
)
def test_what_no_operator_takes_is_no_number(database: duckdb.DuckDBPyConnection, query: str, kind: str) -> None:
    assert ask(database, query).kind == kind


WRITING: Final = (
    "COPY orders TO 'stolen.csv'",
    "COPY orders TO 'table.parquet'",
    "EXPORT DATABASE 'stolen'",
    "IMPORT DATABASE '/etc'",
    "ATTACH 'other.db' AS other",
    "PRAGMA version",
    "PRAGMA enable_profiling",
    "INSTALL httpfs",
    "LOAD httpfs",
    "UPDATE EXTENSIONS",
    "CALL pragma_version()",
    "SET threads = 4",
    "RESET lock_configuration",
    "USE memory",
    "CREATE TABLE mine (id int)",
    "CREATE MACRO mine() AS 1",
    "CREATE SECRET (TYPE s3)",
    "DROP VIEW orders",
    "DELETE FROM orders",
    "INSERT INTO orders VALUES (1, 'x')",
    "UPDATE orders SET id = 1",
    "PREPARE mine AS SELECT 1",
    "EXECUTE mine",
    "EXPLAIN SELECT 1",
    "BEGIN",
    "VACUUM",
    "CHECKPOINT",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP VIEW orders",
    "WITH gone AS (DELETE FROM orders RETURNING 1) SELECT count(*) FROM gone",
    "WITH more AS (INSERT INTO orders VALUES (1, 'x') RETURNING 1) SELECT count(*) FROM more",
    "PIVOT orders ON note",
    "",
    ";",
    "-- nothing",
)
OUTSIDE: Final = (
    "SELECT count(*) FROM read_csv('/etc/passwd')",
    "SELECT count(*) FROM read_text('/etc/passwd')",
    "SELECT count(*) FROM READ_BLOB('/proc/self/environ')",
    "SELECT count(*) FROM read_parquet('table.parquet')",
    "SELECT count(*) FROM glob('/etc/*')",
    "SELECT count(*) FROM '/etc/passwd'",
    'SELECT count(*) FROM "/etc/passwd"',
    "SELECT count(*) FROM sniff_csv('/etc/passwd')",
    "SELECT count(*) FROM query('SELECT 1')",
    "SELECT count(*) FROM query_table('orders')",
    "SELECT count(*) FROM arrow_scan(1, 2, 3)",
    "SELECT count(*) FROM pandas_scan(1)",
    "SELECT count(*) FROM checkpoint()",
    "SELECT count(*) FROM enable_logging('QueryLog', storage = 'file', storage_path = 'log')",
    "SELECT count(*) FROM duckdb_settings()",
    "SELECT count(*) FROM information_schema.tables",
    "SELECT count(*) FROM other.main.orders",
    "SELECT count(*) FROM customers",
    "SELECT (SELECT count(*) FROM read_text('/etc/passwd'))",
    "SELECT 1 WHERE EXISTS (FROM read_text('/etc/passwd'))",
    "SELECT 1 ORDER BY (SELECT count(*) FROM glob('/*'))",
    "SELECT count(*) FROM orders, LATERAL (SELECT * FROM glob('/*'))",
    "SELECT count(*) FROM orders JOIN glob('/*') ON true",
    "SELECT 1 UNION SELECT count(*) FROM glob('/*')",
    "WITH a AS (SELECT * FROM glob('/*')) SELECT count(*) FROM a",
    "SELECT count(*) FROM (SHOW TABLES)",
    "SUMMARIZE orders",
)


@pytest.mark.parametrize("query", [*WRITING, *OUTSIDE])
def test_what_is_not_one_query_over_the_tables_is_refused(database: duckdb.DuckDBPyConnection, query: str) -> None:
    with pytest.raises(Refused):
        check_form(database, query, NAMES)


@pytest.mark.parametrize("query", [*WRITING, *OUTSIDE])
def test_the_locked_database_itself_writes_nothing(
    database: duckdb.DuckDBPyConnection, tmp_path: Path, query: str
) -> None:
    """The second wall, without the first: whatever runs, no file is written."""
    content = (tmp_path / "table.parquet").read_bytes()
    with contextlib.suppress(duckdb.Error, ValueError):
        database.execute(query)
    assert [path.name for path in tmp_path.iterdir() if path.name != "spill"] == ["table.parquet"]
    assert (tmp_path / "table.parquet").read_bytes() == content


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM read_text('/etc/passwd')",
        "SELECT count(*) FROM glob('/etc/*')",
        "COPY orders TO 'stolen.csv'",
        "ATTACH 'other.db' AS other",
        "SET enable_external_access = true",
        "SELECT count(*) FROM enable_logging('QueryLog', storage = 'file', storage_path = 'log')",
        "LOAD httpfs",
    ],
)
def test_the_configuration_cannot_be_opened_again(database: duckdb.DuckDBPyConnection, query: str) -> None:
    with pytest.raises((duckdb.PermissionException, duckdb.InvalidInputException)):
        database.execute(query)


@pytest.mark.parametrize("part", ["(", "-", "NOT ", "[", "CASE WHEN "])
def test_a_query_nested_without_end_is_an_answer(database: duckdb.DuckDBPyConnection, part: str) -> None:
    assert ask(database, "SELECT " + part * 500 + "1").kind in {"broken", "refused"}


@given(st.text(max_size=60))
def test_any_text_is_answered(text: str) -> None:
    with duckdb.connect(":memory:") as database:
        assert ask(database, text).text


def test_a_message_never_quotes_a_value_of_a_row(database: duckdb.DuckDBPyConnection) -> None:
    found = ask(database, "SELECT sum(note::int) FROM orders")
    assert found == Answer("broken", "it failed on the values of the table (ConversionException)")


def test_a_message_says_which_column_is_not_there(database: duckdb.DuckDBPyConnection) -> None:
    found = ask(database, "SELECT count(nope) FROM orders")
    assert found.kind == "broken"
    assert "nope" in found.text


@pytest.mark.parametrize(
    ("query", "filled"),
    [
        ("SELECT count(*) FROM {object}", 'SELECT count(*) FROM "order s"'),
        ("SELECT count(*) FROM ${object} WHERE ${property} > 0", 'SELECT count(*) FROM "order s" WHERE "a"."b""c" > 0'),
        ("SELECT {column} FROM ${table}", 'SELECT "a"."b""c" FROM "order s"'),
        ("SELECT {field} FROM ${schema}.{model}", 'SELECT "a"."b""c" FROM "main"."order s"'),
        ('SELECT count("{property}") FROM "${object}"', 'SELECT count("a"."b""c") FROM "order s"'),
        ("SELECT {'object': 1}, {object: 1}, { object }", "SELECT {'object': 1}, {object: 1}, { object }"),
    ],
)
def test_placeholders_become_quoted_identifiers(query: str, filled: str) -> None:
    assert fill_in(query, "order s", ("a", 'b"c')) == filled


@given(st.text(max_size=20).filter(lambda name: "{" not in name and "$" not in name))
def test_no_name_escapes_its_quotes(name: str) -> None:
    with duckdb.connect(":memory:") as database:
        quoted = fill_in("{object}", name, ())
        assert quoted.replace('""', "")[1:-1].count('"') == 0
        if name and "\0" not in name:
            row = database.execute(f"SELECT 7 AS {quoted}").description
            assert row is not None
            assert row[0][0] == name


def test_the_property_of_a_rule_of_an_object_is_no_placeholder() -> None:
    with pytest.raises(ValueError, match="property"):
        fill_in("SELECT count({property}) FROM {object}", "orders", ())


def test_a_query_has_a_length() -> None:
    with pytest.raises(ValueError, match="at most 100,000 characters"):
        fill_in("x" * (MAX_QUERY_CHARACTERS + 1), "orders", ())
