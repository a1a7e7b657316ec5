"""The process that runs the queries of a contract, shut in: `python -m mainstay.contract.sql_child`.

Two walls stand around a query. The first is its form: DuckDB's own parser must find one SELECT in it, which reads
tables of the contract and nothing else. The second is the process: a DuckDB in memory whose configuration is locked,
without files but those of the tables, without extensions, with limits on time, memory and temporary files.
"""

from __future__ import annotations

import decimal
import math
import resource
import sys
from threading import Timer
from typing import Any, Final

import duckdb
import msgspec

from mainstay.contract.sql_types import Answer, Opening, Question, SqlLimits
from mainstay.documents import shorten

_TABLE_FUNCTIONS: Final = frozenset({"range", "generate_series", "unnest"})
_READING_NODES: Final = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_SOURCES: Final = ("from_table", "left", "right", "source", "table", "child")
_READING_SOURCES: Final = frozenset(
    {"BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY", "PIVOT"}
)
_OURS: Final = (frozenset({"", "memory"}), frozenset({"", "main"}))  # catalogs and schemas that hold our views
_PROCESS_MB: Final = 1_536  # of address space, besides what a query may use: the interpreter, threads, libraries

# What these say is about the query. What others say may quote a value of a row.
_ABOUT_THE_QUERY: Final = (
    duckdb.ParserException,
    duckdb.SyntaxException,
    duckdb.CatalogException,
    duckdb.PermissionException,
    duckdb.BinderException,
)


class Refused(Exception):
    """A query may not run."""


def main() -> None:
    """Answer questions from standard input until it ends."""
    opening = msgspec.json.decode(sys.stdin.buffer.readline(), type=Opening)
    space = (_PROCESS_MB + opening.limits.memory_mb) << 20
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    names = frozenset(name.casefold() for table in opening.tables for name in table.names)
    connection: duckdb.DuckDBPyConnection | None = None
    answer = Answer("broken", "the table cannot be read")
    try:
        connection = open_database(opening)
    except duckdb.Error as error:
        answer = Answer("broken", f"DuckDB cannot read the table ({type(error).__name__})")
    for line in sys.stdin.buffer:
        query = msgspec.json.decode(line, type=Question).query
        if connection is not None:
            answer = answered(connection, query, names, opening.limits)
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


def open_database(opening: Opening) -> duckdb.DuckDBPyConnection:
    """A database in memory that sees the tables of an opening, and can never see more."""
    connection = duckdb.connect(
        ":memory:",
        config={
            "allow_community_extensions": "false",
            "allow_persistent_secrets": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "max_temp_directory_size": f"{opening.limits.temporary_mb}MiB",
            "memory_limit": f"{opening.limits.memory_mb}MiB",
            "python_enable_replacements": "false",
            "temp_directory": "spill",  # in our own folder, which is removed with us
            "threads": "1",
        },
    )
    files = [file for table in opening.tables for file in table.files]
    connection.execute("SET max_expression_depth = 250")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"SET allowed_paths = [{', '.join(map(_text, files))}]")
    connection.execute("SET enable_external_access = false")
    for table in opening.tables:
        source = ", ".join(map(_text, table.files))
        for name in table.names:
            # Neither a name nor a path can be a parameter of these statements.
            connection.execute(f"CREATE VIEW {_identifier(name)} AS SELECT * FROM read_parquet([{source}])")  # noqa: S608 - quoted
    connection.execute("SET lock_configuration = true")
    return connection


def answered(connection: duckdb.DuckDBPyConnection, query: str, names: frozenset[str], limits: SqlLimits) -> Answer:
    """The one value of a query over the tables `names`, or why there is none."""
    timer = Timer(limits.seconds, connection.interrupt)
    timer.start()
    try:
        check_form(connection, query, names)
        connection.execute("BEGIN TRANSACTION READ ONLY")
        try:
            found = connection.execute(query)
            width = len(found.description or ())
            rows = found.fetchmany(2)
        finally:
            connection.execute("ROLLBACK")
    except Refused as error:
        return Answer("refused", str(error))
    except duckdb.InterruptException:
        return Answer("stopped", f"it took longer than {limits.seconds:g} seconds")
    except (duckdb.OutOfMemoryException, MemoryError):
        room = f"{limits.memory_mb:,} MB of memory and {limits.temporary_mb:,} MB of temporary files"
        return Answer("stopped", f"it needs more than {room}")
    except _ABOUT_THE_QUERY as error:
        return Answer("broken", shorten(str(error).partition("\n")[0], 200))
    except duckdb.Error as error:
        return Answer("broken", f"it failed on the values of the table ({type(error).__name__})")
    finally:
        timer.cancel()
    if width != 1 or len(rows) != 1:
        shown = "more than one row" if len(rows) > 1 else f"{len(rows)} rows of {width} columns"
        return Answer("other", f"expected one value, found {shown}")
    return _answer(rows[0][0])


def _answer(value: Any) -> Answer:
    match value:
        case None:
            return Answer("null", "expected a number, found null")
        case bool():
            return Answer("boolean", "true" if value else "false")
        case int():
            return Answer("number", str(value))
        case float() if math.isfinite(value):
            return Answer("number", repr(value))
        case decimal.Decimal():
            return Answer("number", f"{value:f}")
        case float():
            return Answer("other", f"expected a finite number, found {value}")
        case _:
            return Answer("other", f"expected a number, found a {type(value).__name__}")


# The form of a query


def check_form(connection: duckdb.DuckDBPyConnection, query: str, names: frozenset[str]) -> None:
    """Raises Refused with the reason unless a query is one SELECT that reads the tables `names` and no other."""
    try:
        statements = connection.extract_statements(query)
        kinds = [statement.type.name for statement in statements]
    except ValueError:  # a kind of statement that the Python package has no name for
        raise Refused("expected one SELECT, found another statement") from None
    if kinds != ["SELECT"]:
        raise Refused(f"expected one SELECT, found {', '.join(kinds) or 'nothing'}")
    row = connection.execute("SELECT json_serialize_sql($query)", {"query": statements[0].query}).fetchone()
    try:
        tree = msgspec.json.decode(row[0] if row else b"{}")
    except RecursionError:
        raise Refused("expected a query that is not nested as deeply") from None
    if tree.get("error", True):
        raise Refused("expected one SELECT, found a statement that does more than read")
    _check_tree(tree["statements"], names)


def _check_tree(tree: Any, names: frozenset[str]) -> None:
    parts = list(_parts(tree))
    local = {str(entry["key"]).casefold() for part in parts for entry in _named(part)}
    for part in parts:
        kind = part.get("type")
        if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _READING_NODES:
            raise Refused(f"expected one SELECT, found a part that writes ({kind.removesuffix('_QUERY_NODE')})")
        for key in _SOURCES:
            _check_source(part.get(key), names, local)


def _parts(tree: Any) -> Any:
    """Every mapping of a tree."""
    stack = [tree]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            yield part
            stack.extend(part.values())
        elif isinstance(part, list):
            stack.extend(part)


def _named(part: dict[str, Any]) -> list[dict[str, Any]]:
    """The queries that a part gives names to (WITH)."""
    found = part.get("cte_map")
    listed = found.get("map", []) if isinstance(found, dict) else []
    return [entry for entry in listed if isinstance(entry, dict)]


def _check_source(source: Any, names: frozenset[str], local: set[str]) -> None:
    if not isinstance(source, dict) or not isinstance(source.get("type"), str) or "class" in source:
        return  # an expression
    match source["type"]:
        case "BASE_TABLE":
            name = str(source["table_name"])
            home = (source["catalog_name"] in _OURS[0], source["schema_name"] in _OURS[1])
            if not all(home) or name.casefold() not in names | local:
                raise Refused(f"expected a table of the contract whose data is here, found {shorten(name)}")
        case "TABLE_FUNCTION":
            name = str(source["function"]["function_name"])
            if name.casefold() not in _TABLE_FUNCTIONS:
                raise Refused(f"expected a table of the contract, found the function {shorten(name)}")
        case kind if kind not in _READING_SOURCES and not kind.endswith("_NODE"):
            raise Refused(f"expected a table of the contract, found {kind}")


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


if __name__ == "__main__":
    main()
