"""Bringing the tables of the control database from one form to the next.

    python -m mainstay.state.migrating WORKSPACE

All steps happen in one transaction, under a lock of the database, so that any number of processes may begin at once and
one that is killed leaves the form before.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from mainstay.errors import MainstayError
from mainstay.state.database import REVISION, Database, database_url, make_file_durable
from mainstay.workspace import open_workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

FOLDER: Final = Path(__file__).with_name("migrations")
_ALEMBIC: Final = Lock()  # it keeps what it works on in its modules
_LOCK: Final = 0x6D61696E73746179  # "mainstay", as the number of an advisory lock of PostgreSQL


def migrate(database: Database, to: str = REVISION) -> None:
    """Bring the tables to a form, or leave them where they have it. Raises Failed as `Database.revision` does."""
    with _ALEMBIC, _alone(database):
        if database.revision() == to:
            return
        database.write(lambda connection: command.upgrade(config_of(connection), to))
    if database.url.database and not database.is_postgres:
        make_file_durable(Path(database.url.database))


@contextmanager
def _alone(database: Database) -> Iterator[None]:
    """Be the only one who migrates. In SQLite the transaction itself sees to that."""
    if not database.is_postgres:
        yield
        return
    # Held by a session of its own: a serializable transaction that waits for it would see what was before.
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        try:
            yield
        finally:
            connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})


def config_of(connection: Connection) -> Config:
    """What alembic works with: our migrations, on this connection."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def main() -> None:
    """Migrate the workspace that the command line names."""
    workspace = open_workspace(Path(sys.argv[1]))
    workspace.data.mkdir(parents=True, exist_ok=True)
    try:
        with Database(database_url(workspace)) as database:
            migrate(database)
    except MainstayError as error:
        sys.exit(" ".join(str(error).splitlines()))


if __name__ == "__main__":
    main()
