"""The control database as tests have it: a SQLite file, or a database of a real PostgreSQL."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from intake.databases import fresh_database
from mainstay.cli.init import create_workspace
from mainstay.state.database import Database, database_url
from mainstay.state.migrating import migrate
from mainstay.workspace import open_workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from mainstay.workspace import Workspace

KINDS = ("sqlite", "postgresql")
VARIABLE = "TEST_CONTROL_DATABASE_URL"


@contextmanager
def made_workspace(root: Path, kind: str, patch: pytest.MonkeyPatch, server: str | None) -> Iterator[Workspace]:
    """A workspace whose control database is of this kind; processes that the test starts find it, too."""
    create_workspace(root, "tests.example.com/state")
    if kind == "sqlite":
        yield open_workspace(root)
        return
    assert server is not None
    with fresh_database(server) as url:
        patch.setenv(VARIABLE, url)
        patch.setenv("MAINSTAY_CONTROL_DATABASE", VARIABLE)
        yield open_workspace(root, os.environ)


@contextmanager
def opened(workspace: Workspace) -> Iterator[Database]:
    """Its tables made here, which spares a process."""
    with Database(database_url(workspace)) as database:
        migrate(database)
        yield database
