"""Requests for retraining in the control database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest
import sqlalchemy as sa

from mainstay.errors import Misuse
from mainstay.retraining.store import (
    REQUESTS,
    ask,
    bar,
    change,
    find,
    last_ended,
    requests_of,
    unsettled,
    withdraw,
)
from mainstay.retraining.triggers import Barred, Wish
from mainstay.state.database import open_database
from mainstay.workspace import SETTINGS_FILE, open_workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.retraining.types import Ending, Request
    from mainstay.state.database import Database

WISH = Wish("performance", "the area is below its bound", ("f-1",))
BY = "mainstay:retraining"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    (tmp_path / SETTINGS_FILE).write_text('log = "tests.example.com/retraining"')
    with open_database(open_workspace(tmp_path)) as opened:
        yield opened


def ended(database: Database, request: Request, ending: Ending) -> Request:
    done = msgspec.structs.replace(request, status="ended", ending=ending, ended_at=datetime.now(UTC))
    return change(database, done)


def test_a_capability_has_one_unsettled_request(database: Database) -> None:
    first, is_new = ask(database, "tiny", WISH, BY)
    assert is_new
    assert (first.status, first.findings) == ("open", ("f-1",))
    assert ask(database, "tiny", Wish("schedule", "every month", ()), BY) == (first, False)
    assert ask(database, "other", WISH, BY)[1], "another capability has its own"
    running = change(database, msgspec.structs.replace(first, status="running"))
    assert ask(database, "tiny", WISH, BY) == (running, False)
    ended(database, running, "better")
    assert ask(database, "tiny", WISH, BY)[1]
    assert [each.status for each in requests_of(database, "tiny")] == ["open", "ended"]
    assert len(requests_of(database)) == 3


def test_what_is_barred_is_remembered_once_for_what_bars_it(database: Database) -> None:
    barred = Barred(WISH, "the data seem broken", ("f-9",))
    first, is_new = bar(database, "tiny", barred, BY)
    assert is_new
    assert (first.status, first.barred_by, first.why) == ("barred", ("f-9",), "the data seem broken")
    assert bar(database, "tiny", barred, BY) == (first, False)
    assert bar(database, "tiny", barred._replace(findings=("f-10",)), BY)[1]
    assert unsettled(database, "tiny") is None
    assert last_ended(database, "tiny") is None, "nothing ran"


def test_a_request_is_taken_back_while_it_is_open(database: Database) -> None:
    request, _ = ask(database, "tiny", WISH, BY)
    taken_back = withdraw(database, "tiny", "not now")
    assert (taken_back.id, taken_back.ending, taken_back.why) == (request.id, "withdrawn", "not now")
    assert last_ended(database, "tiny") is None
    with pytest.raises(Misuse, match="found none"):
        withdraw(database, "tiny", "again")
    running, _ = ask(database, "tiny", WISH, BY)
    change(database, msgspec.structs.replace(running, status="running"))
    with pytest.raises(Misuse, match="one that is running"):
        withdraw(database, "tiny", "too late")


def test_the_cool_down_counts_from_the_last_run_that_ended(database: Database) -> None:
    request, _ = ask(database, "tiny", WISH, BY)
    done = ended(database, request, "failed")
    assert last_ended(database, "tiny") == done.ended_at
    ask(database, "tiny", WISH, BY)
    withdraw(database, "tiny", "no")
    assert last_ended(database, "tiny") == done.ended_at


def test_a_request_is_found_by_the_beginning_of_its_id(database: Database) -> None:
    request, _ = ask(database, "tiny", WISH, BY)
    assert find(database, request.id[:8]) == request
    for beginning in ("zzz", "%"):
        with pytest.raises(Misuse, match="beginning of one retraining request"):
            find(database, beginning)


def test_what_is_not_there_is_not_changed(database: Database) -> None:
    request, _ = ask(database, "tiny", WISH, BY)
    with pytest.raises(Misuse, match="expected a request"):
        change(database, msgspec.structs.replace(request, id="another"))


def test_the_migrated_table_is_the_one_that_is_declared(database: Database) -> None:
    found = {column["name"] for column in sa.inspect(database.engine).get_columns(REQUESTS.name)}
    assert found == set(REQUESTS.c.keys())
