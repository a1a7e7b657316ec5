from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import tiny
from mainstay.cli.common import Common
from mainstay.cli.init import create_workspace
from mainstay.cli.versions import history, promote, rollback
from mainstay.errors import Misuse
from mainstay.ledger.wal import segments

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return create_workspace(tmp_path / "w", "tests.example.com/versions")[0]


@pytest.fixture
def common(workspace: Workspace) -> Common:
    return Common(workspace=workspace.root, json=True)


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return msgspec.json.decode(capsys.readouterr().out)


def test_promoting_with_a_percentage_makes_a_canary_of_what_is_in_force(
    workspace: Workspace, common: Common, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tiny.store(workspace, b"one"), tiny.store(workspace, b"two")
    with pytest.raises(Misuse, match="has no release"):
        promote(tiny.NAME, two, reason="trial", canary=5, common=common)
    promote(tiny.NAME, one, reason="first", common=common)
    assert printed(capsys)["version"] == one
    promote(tiny.NAME, reason="trial", canary=5, common=common)
    made = printed(capsys)
    assert (made["version"], made["canary"]["version"], made["canary"]["percent"]) == (one, two, 5.0)
    promote(tiny.NAME, two[:19], reason="it is better", common=Common(workspace=workspace.root))
    assert f"release 3 is in force: version {two}" in capsys.readouterr().out


def test_going_back_takes_one_command_and_is_in_the_history_and_the_ledger(
    workspace: Workspace, common: Common, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tiny.store(workspace, b"one"), tiny.store(workspace, b"two")
    promote(tiny.NAME, one, reason="first", common=common)
    promote(tiny.NAME, two, reason="second", common=common)
    capsys.readouterr()
    rollback(tiny.NAME, reason="refuses\nnight [flights]", common=common)
    made = printed(capsys)
    assert (made["number"], made["version"], made["content_of"]) == (3, one, 1)
    history(tiny.NAME, common=common)
    assert [each["number"] for each in printed(capsys)] == [1, 2, 3]
    rollback(tiny.NAME, reason="it was the network", to=2, common=Common(workspace=workspace.root))
    assert "this is the content of release 2" in capsys.readouterr().out
    history(tiny.NAME, common=Common(workspace=workspace.root))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["RELEASE", "PUBLISHED", "BY", "VERSION", "CANARY", "REASON"]
    assert lines[3].endswith("back to 1: refuses night [flights]")
    assert two[:19] in lines[4]
    recorded = b"".join(path.read_bytes() for path in segments(workspace.ledger / "wal"))
    assert recorded.count(b"release.published") == 4
    assert b"it was the network" in recorded


def test_without_a_release_there_is_no_history(
    workspace: Workspace, common: Common, capsys: pytest.CaptureFixture[str]
) -> None:
    history(tiny.NAME, common=common)
    assert printed(capsys) == []
    history(tiny.NAME, common=Common(workspace=workspace.root))
    assert capsys.readouterr().out == "tiny has no release\n"
    with pytest.raises(Misuse, match="has no release"):
        rollback(tiny.NAME, reason="x", common=common)
