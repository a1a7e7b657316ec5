"""SQLite. A file has one writer at a time, so whatever value is taken while writing comes in order.

A column holds values of any type, whatever it was declared as; what its declaration promises is tried, and where a
value is of another type the rows land as JSON lines, each value as it is.
"""

from __future__ import annotations

import base64
import math
import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

import msgspec
import polars as pl
import sqlalchemy as sa

from mainstay.errors import Misuse
from mainstay.intake.sql_database import Column, TableName, Top, Usable, column

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_STEPS_BETWEEN_LOOKS: Final = 10_000  # instructions of SQLite's machine
_GROUP: Final = 50  # expressions are nested a thousand deep at most
_COMMA: Final = " || ',' || "

# https://www.sqlite.org/datatype3.html, section 3.1; dates and decimals have rules of their own before those.
_DECLARED: Final[tuple[tuple[tuple[str, ...], pl.DataType | None], ...]] = (
    (("BOOL",), pl.Boolean()),
    (("DATE", "TIME"), pl.String()),
    (("INT",), pl.Int64()),
    (("CHAR", "CLOB", "TEXT", "JSON", "UUID"), pl.String()),
    (("BLOB",), pl.Binary()),
    (("REAL", "FLOA", "DOUB", "DEC", "NUM"), pl.Float64()),
)
_LEAST: Final[sa.ColumnElement[Any]] = sa.literal_column("-9e999")
_GREATEST: Final[sa.ColumnElement[Any]] = sa.literal_column("9e999")
_FIRST_TEXT: Final[sa.ColumnElement[Any]] = sa.literal_column("''")
_FIRST_BYTES: Final[sa.ColumnElement[Any]] = sa.literal_column("x''")
_COLUMNS: Final = "SELECT name, type FROM pragma_table_xinfo(:table, :schema) WHERE hidden <> 1 ORDER BY cid"


class _Cursor(sqlite3.Cursor):
    """Begins the time of its connection anew with each statement, and each time rows are asked for."""

    connection: _Connection

    def execute(self, *arguments: Any) -> Self:
        self.connection.begin()
        return super().execute(*arguments)

    def fetchmany(self, size: int | None = 1) -> list[Any]:
        self.connection.begin()
        return super().fetchmany(size)


class _Connection(sqlite3.Connection):
    """Interrupts what takes longer than its limit."""

    limit_seconds = math.inf

    def begin(self) -> None:
        until = time.monotonic() + self.limit_seconds
        self.set_progress_handler(lambda: time.monotonic() > until, _STEPS_BETWEEN_LOOKS)

    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)


class Sqlite:
    """One database file."""

    def __init__(self, url: sa.URL, root: Path, *, timeout_seconds: float) -> None:
        """A path that is not absolute is one below `root`. Raises Misuse for a database in memory."""
        if not url.database or url.database == ":memory:" or url.host:
            raise Misuse("an SQLite URL: expected the path of a file, as in sqlite:////srv/shop/orders.db")
        self._path = (root / url.database).absolute()
        self._timeout_seconds = timeout_seconds
        self._engine = sa.create_engine("sqlite://", creator=self._open, poolclass=sa.NullPool, hide_parameters=True)

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(self._path))}?mode=ro",
            uri=True,
            timeout=self._timeout_seconds,
            check_same_thread=False,  # rows are asked for by the thread that writes them
            factory=_Connection,
        )
        connection.limit_seconds = self._timeout_seconds
        connection.text_factory = _text
        connection.execute("PRAGMA query_only = ON")
        return connection

    @contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        with self._engine.connect() as connection:
            yield connection

    def columns(self, connection: sa.Connection, table: TableName) -> list[Column]:
        found = connection.execute(sa.text(_COLUMNS), {"table": table.name, "schema": table.schema or "main"})
        return [Column(name, _declared(kind), column(name), kind) for name, kind in found]

    def usable(self, connection: sa.Connection, source: sa.FromClause, cursor: Column) -> Usable:
        """Numbers sort before texts, and texts before bytes: the last of one kind would hide all of the others."""
        value, null = column(cursor.name), column(cursor.name).is_(None)
        if cursor.kind is None or cursor.kind == pl.String():
            texts = sa.and_(value >= _FIRST_TEXT, value < _FIRST_BYTES)
            found = sa.select(sa.literal(1)).select_from(source).where(texts).limit(1)
            if connection.execute(found).scalar() is not None:
                return Usable(texts, [null, value < _FIRST_TEXT, value >= _FIRST_BYTES])
        numbers = sa.and_(value > _LEAST, value < _GREATEST)
        return Usable(numbers, [null, value <= _LEAST, value >= _GREATEST])

    def top(
        self, connection: sa.Connection, source: sa.FromClause, cursor: Column, which: sa.ColumnElement[bool]
    ) -> Top:
        value = column(cursor.name)
        greatest = sa.select(value).select_from(source).where(which).order_by(value.desc()).limit(1)
        return Top(connection.execute(greatest).scalar())

    def shown(self, cursor: Column) -> sa.ColumnElement[Any]:
        return column(cursor.name)

    def bound(self, cursor: Column, value: Any) -> sa.ColumnElement[Any]:  # noqa: ARG002 - values have types, columns have none
        return sa.bindparam(None, value, type_=sa.types.NullType())

    def told_apart(self, columns: Sequence[Column]) -> sa.ColumnElement[Any]:
        values = [f"quote({column(each.name)})" for each in columns]
        groups = [values[i : i + _GROUP] for i in range(0, len(values), _GROUP)]
        return sa.literal_column(" || ';' || ".join(f"({_COMMA.join(group)})" for group in groups))

    def as_json(self, columns: Sequence[Column]) -> list[sa.ColumnElement[Any]]:
        return [column(each.name) for each in columns]

    def line(self, columns: Sequence[Column], values: Sequence[Any]) -> bytes:
        row = {each.name: _json(value) for each, value in zip(columns, values, strict=False)}  # marks stand behind
        return msgspec.json.encode(row)

    def problem(self, error: BaseException) -> tuple[str, str]:
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        name = getattr(cause, "sqlite_errorname", "")
        for beginning, code, words in _PROBLEMS:
            if name.startswith(beginning):
                return code, f"{words} ({name})"
        return "source_down", f"the database cannot be read ({name or type(cause).__name__})"


_PROBLEMS: Final = (
    ("SQLITE_INTERRUPT", "source_slow", "a statement took longer than `timeout_seconds`"),
    ("SQLITE_BUSY", "source_slow", "the file was locked for longer than `timeout_seconds`"),
    ("SQLITE_CANTOPEN", "source_down", "the file is not there, or may not be read"),
    ("SQLITE_NOTADB", "source_down", "the file is no SQLite database"),
    ("SQLITE_CORRUPT", "source_down", "the file is damaged"),
)


def _declared(kind: str) -> pl.DataType | None:
    """What the columns of a declared type hold, as a rule; None where it says nothing."""
    upper = kind.upper()
    return next((made for words, made in _DECLARED if any(word in upper for word in words)), None)


def _text(raw: bytes) -> str | bytes:
    """A text; its bytes where they are no UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _json(value: Any) -> Any:
    """A value as JSON holds it: bytes in base64, an infinity in words."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
