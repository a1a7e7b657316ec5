from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from mainstay.monitoring import store as monitoring
from mainstay.retraining import store as retraining
from mainstay.rollout import tables as rollout
from mainstay.state import lease
from mainstay.state.database import REVISION, REVISIONS, Database, database_url, open_database
from mainstay.state.migrating import FOLDER, migrate

if TYPE_CHECKING:
    from mainstay.workspace import Workspace

DOMAINS = [each.METADATA for each in (lease, rollout, monitoring, retraining)]


def indexes(metadata: list[sa.MetaData]) -> set[tuple[str, tuple[str, ...], bool]]:
    found = [index for each in metadata for table in each.tables.values() for index in table.indexes]
    return {(str(each.name), tuple(column.name for column in each.columns), bool(each.unique)) for each in found}


def test_the_migrations_make_what_the_domains_declare(database: Database) -> None:
    def compare(connection: sa.Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found: list[Any] = compare_metadata(context, DOMAINS)  # type: ignore[arg-type]  # it takes several
        return found

    differences = database.read(compare)
    differences = [each for each in differences if each[0] not in {"remove_index", "add_index"}]  # told by name, below
    assert differences == []
    made = sa.MetaData()
    made.reflect(database.engine)
    assert indexes([made]) >= indexes(DOMAINS)


def test_the_forms_that_are_known_are_those_of_the_migrations() -> None:
    script = ScriptDirectory(str(FOLDER))
    assert tuple(each.revision for each in script.walk_revisions())[::-1] == REVISIONS
    assert REVISIONS[-1] == REVISION


def test_each_form_becomes_the_next(workspace: Workspace) -> None:
    with Database(database_url(workspace)) as database:
        for revision in REVISIONS:
            migrate(database, revision)
            assert database.revision() == revision


def test_many_that_begin_at_once_make_it_once(workspace: Workspace) -> None:
    with Database(database_url(workspace)) as database, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: migrate(database), range(4)))
        assert database.revision() == REVISION


@pytest.mark.parametrize("workspace", ["sqlite"], indirect=True)
def test_a_workspace_is_opened_by_a_process_of_its_own(workspace: Workspace) -> None:
    with open_database(workspace) as database:
        assert database.revision() == REVISION


def test_whoever_is_killed_leaves_the_form_before_or_the_next(workspace: Workspace) -> None:
    with Database(database_url(workspace)) as database:
        child = "from mainstay.state.migrating import main\nprint('ready', flush=True)\nmain()\n"
        command = [sys.executable, "-c", child, str(workspace.root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
        assert database.revision() in {None, REVISION}
        migrate(database)
        assert database.revision() == REVISION
