"""Rows of a database table or view, those behind the cursor each time.

A step takes rows in the order of the cursor column, `rows` of them where there are so many, and all that have the value
it ends at: a value is never cut. That value, with digests of its rows, is the cursor; the next step asks for it again
and lands what has come to it since. So ties are neither lost nor doubled, with a key or without. Where more than
MAX_TIES rows have the value they are counted instead. If there are more of them later, all come again where the source
has a key, by which the door knows them; and where it has none the source stops.

A row whose cursor value is null, infinite, or a time that has not come yet, waits. A table without a cursor column is
taken whole, up to `rows`, each time it has changed; the key tells what is new.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg
import sqlalchemy as sa

from mainstay.errors import Misuse
from mainstay.intake.fetching import Unavailable
from mainstay.intake.secrets import read_secret
from mainstay.intake.sql_database import parse_table
from mainstay.intake.sql_place import Place, Whole, decode_place
from mainstay.intake.sql_postgres import Postgres
from mainstay.intake.sql_sqlite import Sqlite
from mainstay.intake.sql_steps import Asked, CursorStep, take_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.capability.sources import Source, Sql
    from mainstay.intake.landing import Item, Landing
    from mainstay.intake.sql_database import Column, Database
    from mainstay.workspace import Workspace

_POSTGRES: Final = frozenset({"postgresql", "postgres"})


def open_fetcher(workspace: Workspace, capability_name: str, source: Source, landing: Landing) -> SqlFetcher:
    """See `fetching.open_fetcher`."""
    return SqlFetcher(workspace, capability_name, source, landing)


class SqlFetcher:
    """One table or view that is asked."""

    def __init__(self, workspace: Workspace, capability_name: str, source: Source, landing: Landing) -> None:
        """Raises Misuse when the declaration cannot be followed, Unavailable when the URL is not where it should be."""
        if source.sql is None:
            raise Misuse(f"source {source.name} of {capability_name}: expected one of kind sql")
        if source.cursor is None and not source.key:
            raise Misuse(f"source {source.name}: expected `cursor`; or `key`, as a table without comes whole each time")
        self._source = source
        self._sql: Sql = source.sql
        self._landing = landing
        self._table = parse_table(self._sql.table)
        self._database = _open_database(workspace, source.name, self._sql, landing)
        self._top: Any = None  # up to where rows may be read, until all of them were

    def step(self, cursor: Any) -> Item | None:
        """See `fetching.Fetcher`."""
        with self._translated(), self._database.connect() as connection:
            asked = Asked(connection, self._database, self._table.clause(), self._columns(connection))
            origin = f"table {self._sql.table}"
            if self._source.cursor is None:
                return take_whole(asked, self._landing, decode_place(cursor, Whole), self._sql.rows, origin)
            by = asked.column(self._source.cursor)
            step = CursorStep(asked, by, decode_place(cursor, Place), has_key=bool(self._source.key), top=self._top)
            item = step.take(self._landing, self._sql.rows, origin)
            self._top = step.top
            return item

    def _columns(self, connection: sa.Connection) -> list[Column]:
        """The declared columns, or all. Raises Unavailable (`column_missing`) when one is not there."""
        found = {each.name: each for each in self._database.columns(connection, self._table)}
        if not found:
            detail = "it is not there, or the user may not see it"
            raise Unavailable("column_missing", f"table {self._sql.table}: {detail}")
        names = self._sql.columns or tuple(found)
        needed = dict.fromkeys((*names, *filter(None, (self._source.cursor,))))
        missing = [name for name in needed if name not in found]
        if missing:
            raise Unavailable("column_missing", f"table {self._sql.table}: it has no column {', '.join(missing)}")
        return [found[name] for name in needed]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """What the driver raises, as ours, and without what it says: the URL, parameters, rows."""
        try:
            yield
        except (sa.exc.SQLAlchemyError, psycopg.Error, sqlite3.Error, UnicodeDecodeError) as error:
            code, words = self._database.problem(error)
            self._top = None
            raise Unavailable(code, f"table {self._sql.table}: {words}") from None


def _open_database(workspace: Workspace, name: str, sql: Sql, landing: Landing) -> Database:
    """The database that a URL names. What the URL is, is said nowhere."""
    url: sa.URL | None
    try:
        url = sa.make_url(read_secret(sql.url))
        kind = url.get_backend_name()
    except (sa.exc.ArgumentError, ValueError):
        url, kind = None, "no URL"
    if url is not None and kind in _POSTGRES:
        folder = landing.folder.parent
        wait = sql.wait_seconds
        return Postgres(url, folder, timeout_seconds=sql.timeout_seconds, wait_seconds=wait)
    if url is not None and kind == "sqlite":
        return Sqlite(url, workspace.root, timeout_seconds=sql.timeout_seconds)
    expected = "postgresql://USER:PASSWORD@HOST/DATABASE or sqlite:////ABSOLUTE/PATH"
    raise Misuse(f"source {name}: the URL in its secret: expected {expected}, found another kind or none")
