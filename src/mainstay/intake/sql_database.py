"""What taking rows from a table needs to know of a kind of database; `sql_postgres` and `sql_sqlite` know it.

Statements are SQLAlchemy's, with every identifier quoted and every value bound. What a database or a driver says of an
error is never repeated: it may hold the URL, parameters or rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import sqlalchemy as sa
from sqlalchemy.sql.elements import quoted_name

from mainstay.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    import polars as pl

    from mainstay.intake.landing import Noticed

_ALIAS: Final = "t"  # of the table; a column without it could be taken for one of the result


class Column(NamedTuple):
    """A column of the table, and how it lands."""

    name: str
    kind: pl.DataType | None  # None: as the first values are
    asked: sa.ColumnElement[Any]  # what is asked for, so that `kind` holds it
    db_type: str  # as the database calls it


class Top(NamedTuple):
    """Up to where the rows of a table may be read now."""

    value: Any  # of the cursor column, as JSON holds it; None: no row may
    noticed: tuple[Noticed, ...] = ()


class Usable(NamedTuple):
    """Rows by their cursor value: one to go on from is not null, infinite, in the future or of another type."""

    which: sa.ColumnElement[bool]
    others: list[sa.ColumnElement[bool]]  # together all the others, each quickly found by an index


class Unfit(Exception):
    """A value that the type of its column cannot hold. Rows land as JSON lines then, which can."""


class Database(Protocol):
    """One database, reached read-only."""

    def connect(self) -> AbstractContextManager[sa.Connection]:
        """A connection on which nothing can be changed and no statement outlives its time."""
        ...

    def columns(self, connection: sa.Connection, table: TableName) -> list[Column]:
        """The columns of a table or view, in order; none where it is not there."""
        ...

    def usable(self, connection: sa.Connection, source: sa.FromClause, cursor: Column) -> Usable:
        """Which rows have a value to go on from."""
        ...

    def top(
        self, connection: sa.Connection, source: sa.FromClause, cursor: Column, which: sa.ColumnElement[bool]
    ) -> Top:
        """The greatest value up to which no row is to come but from transactions that begin from now on."""
        ...

    def shown(self, cursor: Column) -> sa.ColumnElement[Any]:
        """The cursor column, as JSON holds its values exactly."""
        ...

    def bound(self, cursor: Column, value: Any) -> sa.ColumnElement[Any]:
        """What `shown` gave, to compare the cursor column with."""
        ...

    def told_apart(self, columns: Sequence[Column]) -> sa.ColumnElement[Any]:
        """A row as text: the same for the same values of these columns, and for no others."""
        ...

    def as_json(self, columns: Sequence[Column]) -> list[sa.ColumnElement[Any]]:
        """What is asked for when rows land as JSON lines."""
        ...

    def line(self, columns: Sequence[Column], values: Sequence[Any]) -> bytes:
        """The JSON line, without its break, of what `as_json` gave."""
        ...

    def problem(self, error: BaseException) -> tuple[str, str]:
        """The finding's code for an error of the driver, and words that hold nothing of the driver's."""
        ...


class TableName(NamedTuple):
    """A table or view with its schema; None: the one that the connection finds first."""

    schema: str | None
    name: str

    def clause(self) -> sa.FromClause:
        """It as something to select from."""
        schema = None if self.schema is None else quoted_name(self.schema, quote=True)
        return sa.table(quoted_name(self.name, quote=True), schema=schema).alias(_ALIAS)


def parse_table(text: str) -> TableName:
    """`SCHEMA.TABLE` or `TABLE`, as the database spells them. Raises Misuse when it is neither."""
    schema, dot, name = text.partition(".")
    if not dot:
        return TableName(None, text)
    if not schema or not name:
        raise Misuse(f"table {text!r}: expected TABLE or SCHEMA.TABLE")
    return TableName(schema, name)


def quoted(name: str) -> str:
    """An identifier in standard SQL, whatever it holds."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def column(name: str) -> sa.ColumnElement[Any]:
    """A column of the table by its exact name."""
    return sa.literal_column(f"{_ALIAS}.{quoted(name)}")
