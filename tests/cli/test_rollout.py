"""Versions are brought to their stages, taken back, stopped and approved, and all of it can be read afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import tiny
from mainstay.catalog.holds import find_hold
from mainstay.cli import common as commands
from mainstay.cli.common import Common
from mainstay.cli.init import create_workspace
from mainstay.cli.rollback import rollback
from mainstay.cli.rollout import approve, promote
from mainstay.cli.stopping import resume, stop
from mainstay.cli.trials import history, rollouts
from mainstay.cli.versions import record_registration
from mainstay.errors import Failed, Misuse
from mainstay.ledger.wal import segments
from mainstay.signing import load_verifier
from mainstay.state.database import FILE
from state.databases import opened

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.workspace import Workspace

OVERRIDES = '@id("all") permit (principal, action, resource);\n'


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = create_workspace(tmp_path / "w", "tests.example.com/rollout")[0]
    with opened(made):
        return made


@pytest.fixture
def common(workspace: Workspace) -> Common:
    return Common(workspace=workspace.root, json=True)


@pytest.fixture
def plain(workspace: Workspace) -> Common:
    return Common(workspace=workspace.root)


def version(workspace: Workspace, title: str, *, authority: str | None = None, **changes: Any) -> str:
    folder = tiny.write_folder(workspace.root / "folders" / title, title=title, **changes)
    if authority is not None:
        (folder / "authority.cedar").write_text(authority)
    return record_registration(workspace, folder, None).version


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return msgspec.json.decode(capsys.readouterr().out)


def recorded(workspace: Workspace) -> bytes:
    return b"".join(path.read_bytes() for path in segments(workspace.ledger / "wal"))


def test_a_version_goes_through_the_stages_and_back(
    workspace: Workspace, common: Common, plain: Common, capsys: pytest.CaptureFixture[str]
) -> None:
    one = version(workspace, "one")
    with pytest.raises(Misuse, match="nothing is in production"):
        promote(tiny.NAME, one, reason="trial", canary=5, common=common)
    capsys.readouterr()
    promote(tiny.NAME, one, reason="first", common=common)
    made = printed(capsys)
    assert (made["stage"], made["release"]["number"], made["release"]["version"]) == ("production", 1, one)
    assert (made["rollout"]["stage"], made["proposal"], made["override"]) == ("production", None, None)
    assert made["checks"]["passes"]
    two = version(workspace, "two")
    promote(tiny.NAME, reason="trial", canary=5, common=common)
    made = printed(capsys)["release"]
    assert (made["version"], made["canary"]["version"], made["canary"]["percent"]) == (one, two, 5.0)
    with pytest.raises(Failed, match="canary-guards"):
        promote(tiny.NAME, two[:19], reason="it is better", common=plain)
    said = capsys.readouterr().out
    assert "the gate to production is shut:" in said
    assert "canary-guards: unknown" in said
    promote(tiny.NAME, two, reason="further", canary=50, common=plain)
    assert f"{tiny.NAME}: version {two[:19]} is a canary at 50 %" in capsys.readouterr().out
    rollback(tiny.NAME, reason="refuses\nnight [flights]", common=common)
    made = printed(capsys)
    assert (made["rollout"]["stage"], made["release"]["version"], made["release"]["canary"]) == (
        "stopped_by_hand",
        one,
        None,
    )
    three = version(workspace, "three")
    promote(tiny.NAME, three, reason="at once", common=plain)
    assert f"release 5 is in force: version {three}" in capsys.readouterr().out
    rollback(tiny.NAME, reason="it was the network", to=1, common=plain)
    assert "this is the content of release 1" in capsys.readouterr().out
    history(tiny.NAME, common=common)
    told = printed(capsys)
    assert [each["number"] for each in told["releases"]] == [1, 2, 3, 4, 5, 6]
    assert [each["version"] for each in told["rollouts"]] == [one, two, three]
    actions = [event["action"] for event in told["rollouts"][1]["events"]]
    assert actions == ["rollout.started", "rollout.advanced", "rollout.rolled_back"] or actions[-1] == "rollout.ended"
    assert told["rollouts"][1]["events"][0]["details"]["evidence"]["passes"]
    history(tiny.NAME, common=plain)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["RELEASE", "PUBLISHED", "BY", "VERSION", "CANARY", "REASON"]
    assert any(line.endswith("refuses night [flights]") for line in lines)
    assert recorded(workspace).count(b"release.published") == 6


def test_without_a_release_there_is_no_history_and_no_database_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = create_workspace(tmp_path / "w", "tests.example.com/rollout")[0]
    common, plain = Common(workspace=workspace.root, json=True), Common(workspace=workspace.root)
    history(tiny.NAME, common=common)
    assert printed(capsys) == {"capability": tiny.NAME, "releases": [], "rollouts": []}
    history(tiny.NAME, common=plain)
    assert capsys.readouterr().out == "tiny has no release\n"
    rollouts(common=plain)
    assert capsys.readouterr().out == "nothing is on trial, and nothing waits for approval\n"
    assert not (workspace.data / FILE).exists()


def test_a_shut_gate_is_passed_only_where_a_policy_names_it_and_that_is_recorded(
    workspace: Workspace, common: Common, capsys: pytest.CaptureFixture[str]
) -> None:
    promote(tiny.NAME, version(workspace, "one", rollout={"required": ["shadow"]}), reason="first", common=common)
    two = version(workspace, "two", authority=OVERRIDES)
    with pytest.raises(Failed, match="the gate to production is shut: stages-passed, shadow-compared") as shut:
        promote(tiny.NAME, two, reason="quick", common=common)
    assert f"mainstay check tiny --version {two[:19]} --for production" in shut.value.hint
    with pytest.raises(Misuse, match="may not override tiny: no policy permits this"):
        promote(tiny.NAME, two, reason="quick", override="it burns", common=common)
    capsys.readouterr()


def test_a_policy_that_permits_overrides_lets_a_version_in_with_the_reason(
    workspace: Workspace, common: Common, capsys: pytest.CaptureFixture[str]
) -> None:
    first = version(workspace, "one", authority=OVERRIDES)
    promote(tiny.NAME, first, reason="first", common=common)
    two = version(workspace, "two")
    promote(tiny.NAME, two, to="canary", reason="trial", common=common)
    capsys.readouterr()
    promote(tiny.NAME, two, reason="quick", override="nothing else keeps up", common=common)
    made = printed(capsys)
    assert (made["override"], made["checks"]["passes"]) == ("nothing else keeps up", False)
    assert made["checks"]["closed_by"] == ["canary-guards"]
    assert made["release"]["version"] == two
    assert b"nothing else keeps up" in recorded(workspace)


def test_four_eyes_make_a_proposal_that_somebody_else_approves(
    workspace: Workspace,
    common: Common,
    plain: Common,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = version(workspace, "one", rollout={"four_eyes": ["production"]})
    promote(tiny.NAME, one, reason="first", common=common)
    two = version(workspace, "two")
    capsys.readouterr()
    promote(tiny.NAME, two, reason="it is better", common=common)
    proposal = printed(capsys)["proposal"]
    assert (proposal["version"], proposal["stage"]) == (two, "production")
    rollouts(common=plain)
    assert f"mainstay approve {proposal['id']}" in capsys.readouterr().out
    with pytest.raises(Misuse, match="another person"):
        approve(proposal["id"], reason="mine is good", common=plain)
    monkeypatch.setattr(commands, "account", lambda: "somebody-else")
    with pytest.raises(Misuse, match="what was proposed"):
        approve(proposal["id"], reason="seen", digest="sha256:0", common=plain)
    capsys.readouterr()
    approve(proposal["id"], reason="seen", digest=proposal["digest"], common=common)
    made = printed(capsys)
    assert (made["release"]["version"], made["rollout"]["stage"]) == (two, "production")
    with pytest.raises(Misuse, match="no proposal"):
        approve("proposal-none", reason="x", common=plain)


def test_a_proposal_can_be_refused(
    workspace: Workspace, common: Common, plain: Common, capsys: pytest.CaptureFixture[str]
) -> None:
    promote(tiny.NAME, version(workspace, "one", rollout={"four_eyes": ["shadow"]}), reason="first", common=common)
    two = version(workspace, "two")
    capsys.readouterr()
    promote(tiny.NAME, two, to="shadow", reason="look", common=common)
    proposal = printed(capsys)["proposal"]
    approve(proposal["id"], reason="not now", refuse=True, common=plain)
    assert "withdrawn by" in capsys.readouterr().out
    rollouts(common=plain)
    assert capsys.readouterr().out == "nothing is on trial, and nothing waits for approval\n"


def test_a_capability_is_stopped_and_resumed(
    workspace: Workspace, common: Common, plain: Common, capsys: pytest.CaptureFixture[str]
) -> None:
    promote(tiny.NAME, version(workspace, "one"), reason="first", common=common)
    capsys.readouterr()
    stop(tiny.NAME, reason="nonsense since noon", common=plain)
    assert "every decision goes to the fallback ladder" in capsys.readouterr().out
    standing = find_hold(workspace.holds, tiny.NAME, load_verifier(workspace.keys))
    assert standing is not None
    assert standing.stopped is not None
    assert standing.stopped.reason == "nonsense since noon"
    resume(tiny.NAME, reason="mended", common=common)
    assert printed(capsys)["lifted"]["stopped"]["reason"] == "nonsense since noon"
    assert find_hold(workspace.holds, tiny.NAME, load_verifier(workspace.keys)) is None
    resume(tiny.NAME, reason="again", common=plain)
    assert capsys.readouterr().out == "tiny was not stopped\n"


def test_going_back_needs_no_control_database(
    workspace: Workspace, common: Common, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = version(workspace, "one"), version(workspace, "two")
    promote(tiny.NAME, one, reason="first", common=common)
    promote(tiny.NAME, two, reason="second", common=common)
    for file in workspace.data.glob(f"{FILE}*"):
        file.unlink()
    (workspace.data / FILE).write_bytes(b"no database at all" * 100)
    capsys.readouterr()
    rollback(tiny.NAME, reason="refuses night flights", common=common)
    assert printed(capsys)["release"]["version"] == one


def test_who_may_do_what_is_asked_of_the_policies_in_force(
    workspace: Workspace, common: Common, capsys: pytest.CaptureFixture[str]
) -> None:
    policies = """
        @id("people") permit (principal is Mainstay::Person, action in [Mainstay::Action::"change"], resource);
        @id("no-canary") forbid (principal, action == Mainstay::Action::"promote", resource)
        when { context.stage == "canary" };
        @id("no-stop") @reason("Ask the desk.") forbid (principal, action == Mainstay::Action::"stop", resource);
    """
    promote(tiny.NAME, version(workspace, "one", authority=policies), reason="first", common=common)
    two = version(workspace, "two", authority=OVERRIDES)
    with pytest.raises(Misuse, match="may not promote tiny: no-canary"):
        promote(tiny.NAME, two, to="canary", reason="trial", common=common)
    with pytest.raises(Misuse, match=r"may not stop tiny: no-stop: Ask the desk\."):
        stop(tiny.NAME, reason="x", common=common)
    capsys.readouterr()
    promote(tiny.NAME, two, to="shadow", reason="trial", common=common)
    assert printed(capsys)["rollout"]["stage"] == "shadow"


def test_there_is_nothing_to_go_back_to_before_the_first_release(workspace: Workspace, common: Common) -> None:
    with pytest.raises(Misuse, match="has no release"):
        rollback(tiny.NAME, reason="x", common=common)
    assert not workspace.releases.joinpath(tiny.NAME).exists()


def test_a_percentage_is_for_canaries(workspace: Workspace, common: Common) -> None:
    with pytest.raises(Misuse, match="expected --to canary"):
        promote(tiny.NAME, reason="x", to="shadow", canary=5, common=common)
    assert workspace.root.exists()
