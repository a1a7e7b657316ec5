"""`mainstay intake`: what it prints, how it exits, and what it leaves."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from intake.workspaces import NAME, declare, files_source, flights, lines, make_workspace
from mainstay.cli.common import Common
from mainstay.cli.intake import release, run, status
from mainstay.errors import Misuse
from mainstay.intake.landing import landing_of
from mainstay.intake.state import state_of

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = make_workspace(tmp_path / "w", files_source(key=["flight"]), files_source("weeks", folder="weekly"))
    (made.root / "in").mkdir()
    (made.root / "weekly").mkdir()
    return made


def put(workspace: Workspace, name: str, records: list[dict[str, Any]]) -> None:
    (workspace.root / "in" / name).write_bytes(lines(records))


def common(workspace: Workspace, *, json: bool = False) -> Common:
    return Common(workspace.root, json)


def test_a_run_tells_what_came_and_exits_well(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    put(workspace, "1.jsonl", [*flights(1, 40), *flights(1, 2), *flights(41, 1, delay=9_999)])
    assert run(NAME, common=common(workspace)) == 0
    assert capsys.readouterr().out.splitlines() == [
        "months: 1 item landed, 43 rows taken: 40 accepted, 1 quarantined, 2 repeated",
        "weeks: 0 items landed, 0 rows taken",
    ]
    assert run(NAME, "weeks", common=common(workspace, json=True)) == 0
    (ran,) = json.loads(capsys.readouterr().out)["runs"]
    assert (ran["source"], ran["landed"], ran["failed"], ran["held"]) == ("weeks", 0, None, None)


def test_a_run_that_fails_or_is_held_says_why_and_exits_with_1(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace.root / "weekly").rmdir()
    assert run(NAME, "weeks", common=common(workspace)) == 1
    assert "  FAILED  source_down: " in capsys.readouterr().out
    put(workspace, "1.jsonl", [*flights(1, 40), *flights(41, 40, delay=9_999)])
    assert run(NAME, "months", common=common(workspace)) == 1
    shown = capsys.readouterr().out
    assert "  HELD    bad_share: " in shown
    assert f"mainstay intake release {NAME} months --reason" in shown


def test_status_shows_every_source_and_what_is_the_matter(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    put(workspace, "1.jsonl", [*flights(1, 40), *flights(41, 40, delay=9_999)])
    run(NAME, "months", common=common(workspace))
    capsys.readouterr()
    status(common=common(workspace))
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split()[:3] == ["SOURCE", "STATE", "LAST"]
    rows = {line.split()[0]: line.split() for line in shown[1:3]}
    assert rows[f"{NAME}/months"][1] == "HELD"
    assert rows[f"{NAME}/months"][-4:-2] == ["1", "item,"]
    assert rows[f"{NAME}/weeks"][1:3] == ["new", "never"]
    below = "\n".join(shown[3:])
    assert f"{NAME}/months, of Operations (ops-control@example.com)" in below
    assert "HELD    bad_share" in below
    assert "weeks" not in below
    status(NAME, common=common(workspace, json=True))
    held, new = json.loads(capsys.readouterr().out)["sources"]
    assert (held["state"], held["waiting_items"], held["held"]["code"]) == ("held", 1, "bad_share")
    assert held["owner"]["team"] == "Operations"
    assert (new["state"], new["version"], new["contract"]) == ("new", None, "flights@1.0.0")


def test_status_tells_late_failing_and_troubled_feeds_apart(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    def word(source: str) -> str:
        capsys.readouterr()
        status(NAME, common=common(workspace, json=True))
        found = json.loads(capsys.readouterr().out)["sources"]
        return str(next(each["state"] for each in found if each["source"] == source))

    run(NAME, "months", common=common(workspace))
    assert word("months") == "well"
    late = files_source(expected_within_seconds=5, every_seconds=5)
    declare(workspace, late, files_source("weeks", folder="weekly"))
    file = state_of(workspace.data, NAME, "months")
    file.update(began_at=datetime.now(UTC) - timedelta(hours=1))
    run(NAME, "months", common=common(workspace))
    assert word("months") == "late"
    (workspace.root / "weekly").rmdir()
    run(NAME, "weeks", common=common(workspace))
    assert word("weeks") == "failing"
    capsys.readouterr()
    status(common=common(workspace))
    shown = capsys.readouterr().out
    assert "late_feed" in shown
    assert "FAILING" in shown


def test_a_release_lets_what_waits_in_and_is_recorded(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    put(workspace, "1.jsonl", [*flights(1, 40), *flights(41, 40, delay=9_999)])
    run(NAME, "months", common=common(workspace))
    capsys.readouterr()
    release(NAME, "months", reason="they are known to be so", common=common(workspace))
    shown = capsys.readouterr().out
    assert f"{NAME}/months goes on; item 1 is let in; 0 items behind it" in shown
    assert "recorded as " in shown
    assert run(NAME, "months", common=common(workspace)) == 0
    assert "80 rows taken: 40 accepted, 40 quarantined" in capsys.readouterr().out
    assert landing_of(workspace.data, NAME, "months").waiting() == []
    with pytest.raises(Misuse, match="expected a source that is held"):
        release(NAME, "months", reason="again", common=common(workspace))


def test_a_release_may_keep_the_held_item_out(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    put(workspace, "1.jsonl", [*flights(1, 40), *flights(41, 40, delay=9_999)])
    run(NAME, "months", common=common(workspace))
    release(NAME, "months", reason="in kilometres", refuse=True, common=common(workspace))
    assert "item 1 is kept out: its rows go into quarantine" in capsys.readouterr().out
    assert run(NAME, "months", common=common(workspace)) == 0
    assert "80 rows taken: 80 quarantined" in capsys.readouterr().out


def test_what_is_not_there_is_misuse(workspace: Workspace) -> None:
    for words in ((NAME, "nothing"), ("nobody", None)):
        with pytest.raises(Misuse):
            run(*words, common=common(workspace))
    with pytest.raises(Misuse):
        release(NAME, "nothing", reason="x", common=common(workspace))
    declare(workspace)
    with pytest.raises(Misuse, match="expected a capability with sources"):
        run(NAME, common=common(workspace))


def test_where_nothing_is_declared_status_says_so(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    declare(workspace)
    status(common=common(workspace))
    assert capsys.readouterr().out == "no capability declares a source\n"
    status(NAME, common=common(workspace))
    assert capsys.readouterr().out == f"{NAME} declares no source\n"
