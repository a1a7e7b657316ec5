from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from mainstay.cli.init import create_workspace
from mainstay.errors import Failed, Misuse
from mainstay.state.database import FILE, REVISION, Database, database_url, open_database
from mainstay.workspace import open_workspace
from state.databases import opened

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.workspace import Workspace

SECRET = "s3cret-word"


def test_it_is_made_when_it_is_opened_first_and_has_the_form_of_this_release(database: Database) -> None:
    assert database.revision() == REVISION


def test_what_a_transaction_wrote_is_there_and_what_a_failing_one_wrote_is_not(database: Database) -> None:
    def write(connection: sa.Connection) -> None:
        connection.execute(sa.text("INSERT INTO leases VALUES ('x', 'me', 1, 0)"))

    def fail(connection: sa.Connection) -> None:
        write(connection)
        raise Misuse("no")

    with pytest.raises(Misuse):
        database.write(fail)
    assert database.read(_count) == 0
    database.write(write)
    assert database.read(_count) == 1


def _pragma(connection: sa.Connection, name: str) -> object:
    return connection.execute(sa.text(f"PRAGMA {name}")).scalar()


def _count(connection: sa.Connection) -> int:
    return int(connection.execute(sa.text("SELECT count(*) FROM leases")).scalar_one())


def test_transactions_that_meet_are_made_again_until_none_is_lost(database: Database) -> None:
    database.write(lambda connection: connection.execute(sa.text("INSERT INTO leases VALUES ('x', 'me', 0, 0)")))

    def add(_: int) -> None:
        def work(connection: sa.Connection) -> None:
            found = connection.execute(sa.text("SELECT epoch FROM leases")).scalar_one()
            connection.execute(sa.text("UPDATE leases SET epoch = :next"), {"next": found + 1})

        database.write(work)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(40)))
    assert database.read(lambda connection: connection.execute(sa.text("SELECT epoch FROM leases")).scalar()) == 40


def test_a_newer_form_is_refused_and_says_what_to_do(workspace: Workspace, database: Database) -> None:
    database.write(lambda connection: connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(Failed, match=f"expected its tables in form {REVISION} or an older one, found 9999") as caught:
        open_database(workspace)
    assert "newer release" in caught.value.hint


def test_a_value_that_breaks_a_rule_is_an_error_without_values(database: Database) -> None:
    def write(connection: sa.Connection) -> None:
        connection.execute(sa.text("INSERT INTO leases VALUES ('x', NULL, 1, :secret)"), {"secret": 12345.5})

    with pytest.raises(Failed, match="control database") as caught:
        database.write(write)
    assert "12345.5" not in str(caught.value)


def test_sqlite_keeps_a_write_ahead_log_and_syncs_it(tmp_path: Path) -> None:
    workspace = create_workspace(tmp_path / "w", "l.example.com/x")[0]
    with opened(workspace) as database:
        values = [
            database.read(partial(_pragma, name=name))
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    assert values == ["wal", 2, 1, 30_000]
    assert (workspace.data / FILE).is_file()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "the variable DB is not set"),
        ({"DB": f"mysql://u:{SECRET}@h/d"}, "expected postgresql://"),
        ({"DB": f"postgresql://u:{SECRET}@h:nine/d"}, "expected a URL such as"),
        ({"DB": f"://{SECRET}"}, "expected a URL such as"),
    ],
)
def test_a_wrong_url_is_named_by_its_variable_and_never_repeated(
    tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    root = create_workspace(tmp_path / "w", "l.example.com/x")[0].root
    workspace = open_workspace(root, {"MAINSTAY_CONTROL_DATABASE": "DB"})
    with pytest.raises(Misuse, match=said) as caught:
        database_url(workspace, environment)
    assert SECRET not in str(caught.value)


def test_a_url_in_the_place_of_a_variable_is_refused_and_not_repeated(tmp_path: Path) -> None:
    root = create_workspace(tmp_path / "w", "l.example.com/x")[0].root
    with pytest.raises(Misuse, match="MAINSTAY_CONTROL_DATABASE=") as caught:
        open_workspace(root, {"MAINSTAY_CONTROL_DATABASE": f"postgresql://u:{SECRET}@h/d"})
    assert SECRET not in str(caught.value)


def test_a_database_that_does_not_answer_is_an_error_without_its_password(tmp_path: Path) -> None:
    root = create_workspace(tmp_path / "w", "l.example.com/x")[0].root
    workspace = open_workspace(root, {"MAINSTAY_CONTROL_DATABASE": "DB"})
    url = f"postgresql://u:{SECRET}@127.0.0.1:1/d"
    with Database(database_url(workspace, {"DB": url})) as database:
        with pytest.raises(Failed, match="control database postgresql") as caught:
            database.revision()
        assert SECRET not in str(caught.value) + repr(caught.value) + str(database)
