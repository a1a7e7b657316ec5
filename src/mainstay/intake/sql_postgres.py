"""PostgreSQL, through psycopg 3.

A row may appear with a smaller cursor value than rows that were read before: its transaction took the value, or its
`now()`, and committed later. So rows are read only up to a value behind which nobody stands any more: the greatest that
was seen, once every transaction that was open then has ended. That is what CREATE INDEX CONCURRENTLY waits for too, and
it needs no rights. It is exact where the value is taken within the transaction that writes the row: an identity, a
sequence without a cache, `now()`, `clock_timestamp()`.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl
import sqlalchemy as sa
from msgspec import Struct
from msgspec.structs import replace

from mainstay.errors import NOT_READ
from mainstay.files import write_atomic
from mainstay.intake.landing import Noticed
from mainstay.intake.sql_database import Column, TableName, Top, Usable, column, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

APPLICATION: Final = "mainstay intake"  # our own transactions write nothing, and nobody waits for them
AWAITED: Final = "commits_awaited"
FENCE_FILE: Final = "fence.json"
WAIT_IN_STEP_SECONDS: Final = 1.0  # most transactions end within; for the others the next step looks again

_POLL_SECONDS: Final = 0.05
_LONG_SECONDS: Final = 300.0
_BEFORE_OPEN_SECONDS: Final = 0.02  # a transaction has its time a moment before it can be seen
_DECIMAL_DIGITS: Final = 38
_FREE_SCALE: Final = 18  # of `numeric` without a scale

_SETTINGS: Final = {
    # What texts of values look like hangs on these; digests of rows do too.
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmloption": "content",
}
_KINDS: Final[dict[str, pl.DataType]] = {
    "int2": pl.Int16(),
    "int4": pl.Int32(),
    "int8": pl.Int64(),
    "float4": pl.Float64(),  # of the shortest decimal, as its text has it
    "float8": pl.Float64(),
    "bool": pl.Boolean(),
    "bytea": pl.Binary(),
    "text": pl.String(),
    "varchar": pl.String(),
    "bpchar": pl.String(),
    "date": pl.Date(),
    "time": pl.Time(),
    "timestamp": pl.Datetime("us"),
    "timestamptz": pl.Datetime("us", "UTC"),
}
_LAST: Final = {
    # The greatest values after which others can still come.
    "timestamp with time zone": "now()",
    "timestamp without time zone": "now() AT TIME ZONE 'UTC' + interval '14 hours'",  # wherever its clock stands
    "date": "current_date + 1",
}
_ENDLESS: Final = frozenset({"real", "double precision", "numeric"})  # their greatest is an infinity, and behind it NaN
_ITEM_KINDS: Final = frozenset(_KINDS) - {"bytea", "time"}

# Domains are followed to what they are made of.
_COLUMNS: Final = sa.text("""
    WITH RECURSIVE base AS (
        SELECT a.attnum, a.attname, a.atttypid AS type, a.atttypmod AS modifier
        FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = to_regclass(:table) AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT b.attnum, b.attname, t.typbasetype, CASE WHEN t.typtypmod = -1 THEN b.modifier ELSE t.typtypmod END
        FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.type AND t.typtype = 'd'
    )
    SELECT b.attname, t.typname, n.nspname = 'pg_catalog', b.modifier, e.typname, format_type(t.oid, -1)
    FROM base b
    JOIN pg_catalog.pg_type t ON t.oid = b.type AND t.typtype <> 'd'
    JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
    LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
    ORDER BY b.attnum""")

# Who may still commit a row that was not visible: open transactions of users of this database, those that were
# prepared, and on a standby those that its primary told of.
_OPEN: Final = sa.text("""
    SELECT l.virtualtransaction
    FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.granted AND a.datname = current_database()
        AND a.usesysid IS NOT NULL AND a.pid <> pg_backend_pid() AND a.application_name <> :ours
    UNION ALL
    SELECT 'prepared ' || transaction::text FROM pg_catalog.pg_prepared_xacts WHERE database = current_database()
    UNION ALL
    SELECT 'xid ' || xid::text FROM pg_snapshot_xip(pg_current_snapshot()) AS xid WHERE pg_is_in_recovery()""")
_STILL_OPEN: Final = sa.text("""
    SELECT virtualtransaction FROM pg_catalog.pg_locks WHERE locktype = 'virtualxid' AND mode = 'ExclusiveLock'
    UNION ALL
    SELECT 'prepared ' || transaction::text FROM pg_catalog.pg_prepared_xacts
    UNION ALL
    SELECT 'xid ' || xid::text FROM pg_snapshot_xip(pg_current_snapshot()) AS xid WHERE pg_is_in_recovery()""")


_PROBLEMS: Final = (
    ("57014", "source_slow", "a statement took longer than `timeout_seconds`"),
    ("55P03", "source_slow", "the table was locked for longer than `timeout_seconds`"),
    ("28", "not_authorized", "the database does not accept the user or the password"),
    ("42501", "not_authorized", "the user may not read the table"),
    ("42P01", "column_missing", "the table is not there any more"),
    ("42703", "column_missing", "a column is not there any more"),
    ("42883", "type_changed", "the values of the cursor column have no order"),
    ("3D000", "source_down", "the database is not there"),
    ("53", "source_down", "the database has no room for a connection, or no memory or disk"),
)


class Fence(Struct, frozen=True, forbid_unknown_fields=True):
    """A value of the cursor column, and the transactions that may still commit rows up to it."""

    of: str  # the table and column
    value: str
    open: list[str]
    since: float  # seconds since the epoch
    told: bool = False  # whether somebody was told that it takes long


class _Type(sa.types.UserDefinedType[Any]):
    """A type by the name that the database gave."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        return self.name


class Postgres:
    """One database."""

    def __init__(self, url: sa.URL, folder: Path, *, timeout_seconds: float, wait_seconds: float) -> None:
        """`folder` keeps what is waited for between steps; `wait_seconds`: how long open transactions are, at most."""
        milliseconds = str(max(1, round(timeout_seconds * 1000)))
        self._fence_file = folder / FENCE_FILE
        self._wait_seconds = wait_seconds
        self._settings = {**_SETTINGS, "statement_timeout": milliseconds, "lock_timeout": milliseconds}
        self._engine = sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            poolclass=sa.NullPool,
            hide_parameters=True,
            isolation_level="READ COMMITTED",
            connect_args={
                "connect_timeout": max(2, round(timeout_seconds)),
                "tcp_user_timeout": milliseconds,  # a server that is gone says nothing
                "application_name": APPLICATION,
                "client_encoding": "UTF8",
                "prepare_threshold": None,  # behind a pooler a connection is many, and knows no prepared statement
            },
        )

    @contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        with self._engine.connect() as plain:
            connection = plain.execution_options(postgresql_readonly=True)
            settings = (sa.func.set_config(name, value, sa.true()) for name, value in self._settings.items())
            connection.execute(sa.select(*settings))
            yield connection

    def columns(self, connection: sa.Connection, table: TableName) -> list[Column]:
        name = ".".join(quoted(part) for part in table if part is not None)
        return [_column(*found) for found in connection.execute(_COLUMNS, {"table": name})]

    def usable(self, connection: sa.Connection, source: sa.FromClause, cursor: Column) -> Usable:  # noqa: ARG002 - of SQLite the rows say it
        value, null = column(cursor.name), column(cursor.name).is_(None)
        if cursor.db_type in _ENDLESS:
            endless = sa.cast("Infinity", _Type(cursor.db_type))
            return Usable(value < endless, [null, value >= endless])
        if cursor.db_type not in _LAST:
            return Usable(value.is_not(None), [null])
        last: sa.ColumnElement[Any] = sa.literal_column(f"({_LAST[cursor.db_type]})")
        return Usable(value <= last, [null, value > last])

    def top(
        self, connection: sa.Connection, source: sa.FromClause, cursor: Column, which: sa.ColumnElement[bool]
    ) -> Top:
        value = column(cursor.name)
        greatest = sa.select(self.shown(cursor)).select_from(source).where(which).order_by(value.desc()).limit(1)
        if not self._wait_seconds:
            return Top(connection.execute(greatest).scalar())
        fence = self._read_fence(str(greatest))
        if fence is None:
            found = connection.execute(greatest).scalar()
            if found is None:
                return Top(None)
            time.sleep(_BEFORE_OPEN_SECONDS)
            names = connection.execute(_OPEN, {"ours": APPLICATION}).scalars().all()
            fence = Fence(of=str(greatest), value=found, open=list(names), since=time.time())
        return self._pass(connection, fence)

    def shown(self, cursor: Column) -> sa.ColumnElement[Any]:
        return sa.cast(column(cursor.name), sa.Text)

    def bound(self, cursor: Column, value: Any) -> sa.ColumnElement[Any]:
        return sa.cast(sa.bindparam(None, value, type_=sa.Text), _Type(cursor.db_type))

    def told_apart(self, columns: Sequence[Column]) -> sa.ColumnElement[Any]:
        values = ", ".join(str(column(each.name)) for each in columns)
        return sa.cast(sa.literal_column(f"ROW({values})"), sa.Text)

    def as_json(self, columns: Sequence[Column]) -> list[sa.ColumnElement[Any]]:
        values = ", ".join(f"{_for_json(each)} AS {quoted(each.name)}" for each in columns)
        line = quoted("mainstay line")  # no column is called so: it would be meant instead
        row = f"SELECT row_to_json({line}) FROM (SELECT {values}) AS {line}"  # noqa: S608 - names, and they are quoted
        return [sa.literal_column(f"CAST(({row}) AS TEXT)")]

    def line(self, columns: Sequence[Column], values: Sequence[Any]) -> bytes:  # noqa: ARG002 - the database made it
        return str(values[0]).encode()

    def problem(self, error: BaseException) -> tuple[str, str]:
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        state = getattr(cause, "sqlstate", None) or ""
        for beginning, code, words in _PROBLEMS:
            if state.startswith(beginning):
                return code, f"{words} (SQLSTATE {state})"
        if state:
            return "source_down", f"the database answers with an error (SQLSTATE {state})"
        return "source_down", "the database does not answer, or refuses the connection"

    # Waiting.

    def _pass(self, connection: sa.Connection, fence: Fence) -> Top:
        """The value of a fence, when nobody who was there is open any more, or it took too long."""
        until = time.monotonic() + WAIT_IN_STEP_SECONDS
        while fence.open:
            found = set(connection.execute(_STILL_OPEN).scalars())
            still = [name for name in fence.open if name in found]
            waited = time.time() - fence.since
            if not still:
                break
            if waited >= self._wait_seconds:
                detail = f"{len(still)} transactions stayed open for {waited:.0f} s and were not waited for any longer"
                self._fence_file.unlink(missing_ok=True)
                return Top(fence.value, (Noticed(AWAITED, detail),))
            if time.monotonic() >= until:
                return self._keep(replace(fence, open=still), waited)
            time.sleep(_POLL_SECONDS)
        self._fence_file.unlink(missing_ok=True)
        return Top(fence.value)

    def _keep(self, fence: Fence, waited: float) -> Top:
        """For the next step."""
        noticed: tuple[Noticed, ...] = ()
        if waited >= _LONG_SECONDS and not fence.told:
            detail = f"rows wait for {len(fence.open)} transactions of the database that stay open"
            fence, noticed = replace(fence, told=True), (Noticed(AWAITED, detail),)
        write_atomic(self._fence_file, msgspec.json.encode(fence))
        return Top(None, noticed)

    def _read_fence(self, of: str) -> Fence | None:
        """What the last step waited for; it may be lost."""
        try:
            fence = msgspec.json.decode(self._fence_file.read_bytes(), type=Fence)
        except (FileNotFoundError, *NOT_READ):
            return None
        return fence if fence.of == of else None


def _column(name: str, kind: str, known: bool, modifier: int, item: str | None, db_type: str) -> Column:
    """A column as it lands. What no type of a table file holds is asked for as text."""
    if known and kind in _KINDS:
        return Column(name, _KINDS[kind], column(name), db_type)
    if known and kind == "numeric" and (decimal := _decimal(modifier)) is not None:
        return Column(name, decimal, column(name), db_type)
    if known and item in _ITEM_KINDS:
        return Column(name, pl.List(_KINDS[item]), column(name), db_type)
    return Column(name, pl.String(), sa.cast(column(name), sa.Text), db_type)


def _decimal(modifier: int) -> pl.Decimal | None:
    if modifier == -1:
        return pl.Decimal(_DECIMAL_DIGITS, _FREE_SCALE)
    precision = ((modifier - 4) >> 16) & 0xFFFF
    scale = (((modifier - 4) & 0x7FF) ^ 1024) - 1024
    return pl.Decimal(precision, scale) if 0 <= scale <= precision <= _DECIMAL_DIGITS else None


def _for_json(each: Column) -> str:
    """A value as JSON shows it: as in `Column.asked`, bytes in base64."""
    value = column(each.name)
    if each.kind == pl.Binary():
        return f"translate(encode({value}, 'base64'), E'\\n', '')"
    if each.kind == pl.String():
        return f"CAST({value} AS TEXT)"
    return str(value)
