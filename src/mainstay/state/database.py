"""The control database: what should be, as rows. SQLite in the data directory, or PostgreSQL.

Whoever decides about rollouts and long jobs writes here, in whole transactions. Nothing that answers calls reads it:
what is in force stands in signed files. A domain owns its tables; here are the engine, what brings the tables from one
form to the next, and how a transaction is made.
"""

from __future__ import annotations

import os
import random
import re
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError

from mainstay.errors import Failed, Misuse
from mainstay.files import sync_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sqlalchemy import URL, Connection, Engine

    from mainstay.workspace import Workspace

T = TypeVar("T")

FILE: Final = "control.db"
REVISION: Final = "0003"  # the form of the tables that this release works with
REVISIONS: Final = ("0001", "0002", "0003")  # every form there has been, oldest first

BUSY_SECONDS: Final = 30.0
_ATTEMPTS: Final = 12
_FIRST_WAIT_SECONDS: Final = 0.005
_LONGEST_WAIT_SECONDS: Final = 0.5
_CONNECT_SECONDS: Final = 2  # a rollback does not wait for a database that is away
_MIGRATION_SECONDS: Final = 600.0
_TRY_AGAIN: Final = frozenset({"40001", "40P01", "23505"})  # not serializable, deadlock, two made the same row at once
_WRITES: Final = "mainstay_writes"
_POSTGRES: Final = "postgresql"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def database_url(workspace: Workspace, environment: Mapping[str, str] = os.environ) -> URL:
    """Where the control database stands. Raises Misuse when the settings name none, without repeating a URL."""
    variable = workspace.settings.control_database
    if not variable:
        return sa.URL.create("sqlite", database=str(workspace.data / FILE))
    if not _VARIABLE.fullmatch(variable):
        raise Misuse("control_database: expected the name of a variable that holds the URL, found something else")
    text = environment.get(variable)
    if not text:
        raise Misuse(f"control_database: the variable {variable} is not set: expected the URL of a PostgreSQL database")
    try:
        url = sa.make_url(text)
    except (ArgumentError, ValueError):
        raise Misuse(
            f"control_database: the variable {variable}: expected a URL such as postgresql://USER@HOST/NAME"
        ) from None
    if url.drivername not in {_POSTGRES, "postgres", "postgresql+psycopg"} or not url.database:
        raise Misuse(f"control_database: the variable {variable}: expected postgresql://USER@HOST/NAME")
    return url.set(drivername="postgresql+psycopg")


def open_database(workspace: Workspace, environment: Mapping[str, str] = os.environ) -> Database:
    """The control database of a workspace, its tables made or brought to the form of this release.

    Raises Misuse when the settings name no database, Failed when it does not answer, or when a newer release of
    Mainstay has been at work on it.
    """
    database = Database(database_url(workspace, environment))
    if not database.is_postgres:
        workspace.data.mkdir(parents=True, exist_ok=True)
    try:
        if database.revision() != REVISION:
            _migrate(workspace)
            database.revision()
    except BaseException:  # whatever it was, what is open is closed
        database.close()
        raise
    return database


def _migrate(workspace: Workspace) -> None:
    """In a process of its own: what it takes is large, and needed once in a release."""
    command = [sys.executable, "-m", "mainstay.state.migrating", str(workspace.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_MIGRATION_SECONDS, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise Failed(f"the control database was not brought to form {REVISION}: {said[-1] if said else 'nothing said'}")


class Database:
    """The engine of one database. Any number of threads may use one; a process that forks makes its own."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.is_postgres = url.get_backend_name() == _POSTGRES
        self.engine = _engine(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __str__(self) -> str:
        """Where it stands, without the password."""
        return self.url.render_as_string(hide_password=True)

    def close(self) -> None:
        self.engine.dispose()

    def read(self, work: Callable[[Connection], T]) -> T:
        """Do work that only reads, on one snapshot. Raises Failed when the database does not answer."""
        return self._tried(work, self.engine)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Do work in one serializable transaction, durable when this returns.

        The work is done again when another transaction came between, so it has no effect but its rows. Raises Failed
        when the database does not answer: whether it was committed is not known then, and can be looked up.
        """
        return self._tried(work, self.engine.execution_options(**{_WRITES: True}))

    def revision(self) -> str | None:
        """The form that the tables have; None where there are none. Raises Failed where it is not known here."""

        def look(connection: Connection) -> str | None:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()

        found = self.read(look)
        if found is not None and found not in REVISIONS:
            raise Failed(
                f"control database {self}: expected its tables in form {REVISION} or an older one, found {found}",
                hint="A newer release of Mainstay has been at work on it: use that one, or restore a backup.",
            )
        return found

    def _tried(self, work: Callable[[Connection], T], engine: Engine) -> T:
        wait_seconds = _FIRST_WAIT_SECONDS
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with engine.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                if attempt == _ATTEMPTS or not may_try_again(error):
                    raise Failed(f"control database {self}: {self._said(error)}") from None
            except SQLAlchemyError as error:
                raise Failed(f"control database {self}: {self._said(error)}") from None
            time.sleep(wait_seconds * (0.5 + random.random()))  # noqa: S311 - to part those who met, no secret
            wait_seconds = min(2 * wait_seconds, _LONGEST_WAIT_SECONDS)
        raise AssertionError("the last attempt ends it")  # pragma: no cover

    def _said(self, error: SQLAlchemyError) -> str:
        """What the database said, in a line, without values and without the password."""
        said = str(error.orig if isinstance(error, DBAPIError) else type(error).__name__).strip().splitlines()
        line = said[0][:500] if said else type(error).__name__
        password = self.url.password
        return line.replace(str(password), "[secret]") if password else line


def may_try_again(error: DBAPIError) -> bool:
    """Whether the same transaction may succeed when it is made again, nothing of it having been kept."""
    if isinstance(error.orig, sqlite3.Error):
        busy = error.orig.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
        return isinstance(error, OperationalError) and busy
    return getattr(error.orig, "sqlstate", None) in _TRY_AGAIN


def now_seconds(connection: Connection) -> float:
    """The time by the database's own clock, in seconds since 1970."""
    if connection.dialect.name == _POSTGRES:
        found = connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
    else:
        found = connection.execute(sa.text("SELECT (julianday('now') - 2440587.5) * 86400.0")).scalar_one()
    return float(found)


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == _POSTGRES:
        return sa.create_engine(
            url,
            pool_pre_ping=True,
            pool_size=4,
            isolation_level="SERIALIZABLE",
            hide_parameters=True,
            connect_args={"connect_timeout": _CONNECT_SECONDS, "application_name": "mainstay"},
        )
    engine = sa.create_engine(url, hide_parameters=True, connect_args={"timeout": BUSY_SECONDS})
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins no transaction of its own: `_begin_sqlite` does
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise sqlite3.OperationalError(f"expected a write-ahead log, found the journal {mode}")
    for setting in ("synchronous=FULL", f"busy_timeout={int(BUSY_SECONDS * 1_000)}", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {setting}")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that read first and writes then cannot wait for another writer, so who writes says so at once.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def make_file_durable(path: Path) -> None:
    """Make the name of a SQLite file, which the engine made, outlive a loss of power."""
    if path.exists():
        sync_directory(path.parent)
