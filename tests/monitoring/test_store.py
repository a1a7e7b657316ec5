from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mainstay.cli.init import create_workspace
from mainstay.monitoring.findings import Cause, Finding, Interval, concerns
from mainstay.monitoring.store import Memory, close, keep, read_findings, read_memory
from mainstay.state.database import open_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.state.database import Database

BEGIN = datetime(2026, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    root: Path = tmp_path_factory.mktemp("control")
    workspace, _, _ = create_workspace(root / "w", "tests.example.com/store")
    with open_database(workspace) as opened:
        yield opened


def finding(day: int = 0, **changes: Any) -> Finding:
    known = {
        "code": "input_drift",
        "severity": "warning",
        "capability": "c",
        "version": "v",
        "column": "input.x",
        "text": "it drifted",
        "observed": Interval(value=0.1 + day / 10, low=0.0, high=1.0),
        "window_from": BEGIN + day * DAY,
        "window_to": BEGIN + (day + 1) * DAY,
        "rows": 100,
        "cause": Cause(kind="world_changed", why="for a test"),
    }
    return Finding(**{**known, **changes})


def kept(database: Database, name: str, day: int, *found: Finding, **options: Any) -> Any:
    before = read_memory(database, name)
    memory = Memory(at=BEGIN + (day + 1) * DAY, judged_until=BEGIN + (day + 1) * DAY)
    at = None if before is None else before.at
    return keep(database, name, found, memory, **{"before": at, **options})


def test_a_finding_is_told_once_goes_on_and_is_over_and_when_it_comes_again_it_is_another(database: Database) -> None:
    one = kept(database, "c", 0, finding(0))
    assert [each.since for each in one.opened] == [BEGIN]
    two = kept(database, "c", 1, finding(1, severity="critical"))
    assert two.opened == two.resolved == ()
    (standing,) = read_findings(database, "c")
    assert (standing.since, standing.last_seen, standing.passes) == (BEGIN, BEGIN + 2 * DAY, 2)
    assert standing.finding.severity == "critical"
    assert standing.worst == pytest.approx(0.2)
    three = kept(database, "c", 2)
    assert [each.id for each in three.resolved] == [standing.id]
    assert read_findings(database, "c", open_only=True) == []
    four = kept(database, "c", 3, finding(3))
    assert four.opened[0].id != standing.id
    assert [each.is_open for each in read_findings(database, "c")] == [True, False]
    assert len(read_findings(database, "c", since=BEGIN + 3.5 * DAY)) == 1


def test_what_a_pass_did_not_look_at_stays(database: Database) -> None:
    kept(database, "d", 0, finding(capability="d"), finding(capability="d", column="input.y"))
    told = kept(database, "d", 1, looked_at=lambda each: each.column == "input.y")
    assert [each.finding.column for each in told.resolved] == ["input.y"]
    assert [each.finding.column for each in read_findings(database, "d", open_only=True)] == ["input.x"]


def gone(each: Finding) -> str:
    """As a pass says it while version `w` decides."""
    return "" if concerns(each, {"w"}) else "version v decides no more"


def test_what_is_found_of_a_version_that_has_left_is_closed_with_the_reason(database: Database) -> None:
    data = Cause(kind="data_broken", why="for a test")
    of_version, of_data = finding(capability="g"), finding(capability="g", code="unit_changed", cause=data)
    of_all = finding(capability="g", code="business_missed", column="costs", version=None)
    kept(database, "g", 0, of_version, of_data, of_all)
    closed = close(database, "g", gone, BEGIN + 2 * DAY)
    assert [each.finding.code for each in closed] == ["input_drift"]
    assert (closed[0].resolved, closed[0].closed) == (BEGIN + 2 * DAY, "version v decides no more")
    still = {each.finding.code for each in read_findings(database, "g", open_only=True)}
    assert still == {"unit_changed", "business_missed"}
    assert close(database, "g", gone, BEGIN + 3 * DAY) == (), "each is closed once"


def test_what_a_late_window_shows_of_a_version_that_has_left_is_told_once_and_bars_nothing(database: Database) -> None:
    first = kept(database, "h", 0, finding(0, capability="h"), left=gone)
    assert [(each.is_open, each.closed) for each in first.opened] == [(False, "version v decides no more")]
    again = kept(database, "h", 1, finding(1, capability="h"), left=gone)
    assert again.opened == again.resolved == ()
    (standing,) = read_findings(database, "h")
    assert (standing.passes, standing.last_seen, standing.resolved) == (2, BEGIN + 2 * DAY, BEGIN + 2 * DAY)
    back = kept(database, "h", 2, finding(2, capability="h"))
    assert [each.is_open for each in back.opened] == [True], "the version decides again: it is another finding"
    leaving = kept(database, "h", 3, finding(3, capability="h"), left=gone)
    assert [each.id for each in leaving.resolved] == [back.opened[0].id]


def test_of_two_passes_that_began_at_the_same_time_one_is_kept(database: Database) -> None:
    kept(database, "e", 0)
    begun = read_memory(database, "e")
    assert begun is not None
    assert kept(database, "e", 1, finding(capability="e"), before=begun.at).opened
    assert not kept(database, "e", 1, finding(capability="e", column="input.z"), before=begun.at).opened
    assert [each.finding.column for each in read_findings(database, "e")] == ["input.x"]


def test_the_worst_comes_first_and_the_newest_among_them(database: Database) -> None:
    found = [
        finding(0, capability="f"),
        finding(2, capability="f", column="input.y", severity="critical"),
        finding(1, capability="f", column="input.z"),
    ]
    kept(database, "f", 2, *found)
    assert [each.finding.column for each in read_findings(database, "f")] == ["input.y", "input.z", "input.x"]
