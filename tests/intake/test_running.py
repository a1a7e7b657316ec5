"""Which source is run when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from intake.workspaces import NAME, declare, files_source, make_workspace
from mainstay.intake.declared import sources_in_force
from mainstay.intake.running import Schedule, take_in
from mainstay.intake.state import state_of
from mainstay.intake.upkeep import keep_taken_in

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return make_workspace(tmp_path / "w", files_source("first"), files_source("second"))


def scheduled(workspace: Workspace) -> Schedule:
    made = Schedule(workspace)
    assert made.declare({NAME: sources_in_force(workspace, NAME)}) == 2
    return made


def run_in(workspace: Workspace, source: str, seconds: float) -> None:
    """Have its state say that it is due so much later."""
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    state_of(workspace.data, NAME, source).update(next_run_at=at)


def taken(schedule: Schedule, wait_seconds: float = 0.0) -> str | None:
    due = schedule.take(wait_seconds)
    return None if due is None else due.source.name


def test_new_sources_are_due_at_once_and_each_is_run_by_one(workspace: Workspace) -> None:
    schedule = scheduled(workspace)
    assert {taken(schedule), taken(schedule)} == {"first", "second"}
    assert taken(schedule) is None


def test_the_state_says_when_a_source_is_due_again(workspace: Workspace) -> None:
    schedule = scheduled(workspace)
    due = schedule.take(0)
    assert due is not None
    run_in(workspace, due.source.name, 0.15)
    schedule.give_back(due)
    other = taken(schedule)
    assert other not in {None, due.source.name}
    began = monotonic()
    assert taken(schedule, 5) == due.source.name
    assert 0.05 < monotonic() - began < 2


def test_a_source_that_somebody_else_runs_is_looked_at_again_soon(workspace: Workspace) -> None:
    schedule = scheduled(workspace)
    due = schedule.take(0)
    assert due is not None
    due.busy = True
    schedule.give_back(due)
    assert 1 < due.at - monotonic() <= 2


def test_a_state_that_somebody_changed_counts(workspace: Workspace) -> None:
    for source in ("first", "second"):
        run_in(workspace, source, 0.2)
    schedule = scheduled(workspace)
    assert taken(schedule) is None
    state_of(workspace.data, NAME, "second").update(next_run_at=None)
    scheduled_again = schedule.declare({NAME: sources_in_force(workspace, NAME)})
    assert scheduled_again == 2
    assert taken(schedule) == "second"


def test_a_source_whose_declaration_changed_is_due_at_once(workspace: Workspace) -> None:
    schedule = scheduled(workspace)
    for _ in range(2):
        due = schedule.take(0)
        assert due is not None
        run_in(workspace, due.source.name, 0.2)
        schedule.give_back(due)
    declare(workspace, files_source("first"), files_source("second", folder="elsewhere"))
    schedule.declare({NAME: sources_in_force(workspace, NAME)})
    assert taken(schedule) == "second"
    declare(workspace, files_source("first"))
    assert schedule.declare({NAME: sources_in_force(workspace, NAME)}) == 1


def test_a_declaration_that_changed_during_a_run_counts_when_it_has_ended(workspace: Workspace) -> None:
    schedule = scheduled(workspace)
    due = schedule.take(0)
    other = schedule.take(0)
    assert due is not None
    assert other is not None
    name = due.source.name
    rest = files_source("second" if name == "first" else "first")
    declare(workspace, files_source(name, folder="elsewhere"), rest)
    schedule.declare({NAME: sources_in_force(workspace, NAME)})
    assert taken(schedule) is None
    run_in(workspace, name, 0.2)
    schedule.give_back(due)
    assert taken(schedule) == name


def test_whoever_waits_is_woken_when_it_is_over(workspace: Workspace) -> None:
    schedule = scheduled(workspace)
    assert taken(schedule)
    assert taken(schedule)
    found: list[object] = [1]
    waiting = Thread(target=lambda: found.append(schedule.take(60)))
    waiting.start()
    schedule.close()
    waiting.join(5)
    assert found == [1, None]


def test_where_no_source_is_declared_there_is_nothing_to_do(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "w")
    take_in(workspace, Event())  # which returns


def test_where_the_settings_want_none_nothing_is_begun(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "w", files_source(), settings="intake_workers = 0\n")
    assert keep_taken_in(workspace, Event()) is None
