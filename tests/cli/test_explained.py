from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import mainstay
import tiny
from decision.waiting import OUTSIDE, Desk
from mainstay.cli.common import record_change
from mainstay.cli.evidence import explain_entry, explanation_lines
from mainstay.cli.explained import STEPS, capability_seen, change_facts, step_lines, steps_of
from mainstay.cli.main import main
from mainstay.decision.reviews import Ruling, resolve
from mainstay.ledger.find import find_entry
from mainstay.ledger.sealer import Sealer
from mainstay.signing import load_signing_key

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.workspace import Workspace

POLICY = "sha256:" + "ef" * 32


def seal(workspace: Workspace) -> None:
    with Sealer(workspace.ledger, load_signing_key(workspace.keys, None), workspace.settings.log) as sealer:
        sealer.seal_once()


def leaf(outcome: str, *codes: str) -> dict[str, Any]:
    return {
        "outcome": outcome,
        "reasons": list(codes),
        "principal": "0a1b2c3d",
        "version": "sha256:v",
        "release": 3,
        "stage": "production",
        "policy": POLICY,
    }


def body(*reasons: tuple[str, str], answered_by: str | None = None, given: Any = None) -> dict[str, Any]:
    details: dict[str, Any] = {"reasons": [{"code": code, "detail": detail} for code, detail in reasons]}
    if answered_by is not None:
        details["answered_by"] = answered_by
    return {"input": given or {"a": 1}, "details": details}


def verdicts(found: dict[str, Any], content: dict[str, Any] | None) -> dict[str, str]:
    """Each step that did not simply pass."""
    steps = steps_of(found, content, sequence=7)
    assert [each.step for each in steps] == list(STEPS)
    return {each.step: each.verdict for each in steps if each.verdict != "passed"}


def test_an_answer_has_passed_every_step() -> None:
    assert verdicts(leaf("answered"), {"input": {}, "details": None}) == {}
    assert step_lines(steps_of(leaf("answered"), {"input": {}, "details": None}, sequence=None)) == [
        "1 identify   passed: key 0a1b2c3d",
        "2 admit      passed",
        "3 validate   passed",
        "4 protect    passed",
        "5 route      passed: release 3, production",
        "6 run        passed",
        f"7 guard      passed: policy {POLICY}",
        "8 record     passed: on disk, not sealed yet",
        "9 answer     passed: answered",
    ]


@pytest.mark.parametrize(
    ("code", "step", "not_reached"),
    [
        ("malformed_input", "validate", ["run", "guard"]),
        ("contract_violation", "validate", ["run", "guard"]),
        ("overloaded", "admit", ["run", "guard"]),
        ("protection_failed", "protect", ["run", "guard"]),
        ("feed_stopped", "route", ["run", "guard"]),
        ("model_error", "run", ["guard"]),
        ("model_crashed", "run", ["guard"]),
        ("model_unavailable", "run", ["guard"]),
        ("deadline_exceeded", "run", ["guard"]),
        ("output_invalid", "guard", []),
        ("low_confidence", "guard", []),
        ("out_of_distribution", "guard", []),
        ("outside_authority", "guard", []),
    ],
)
def test_a_refusal_says_where_it_was_stopped_and_what_was_not_reached(
    code: str, step: str, not_reached: list[str]
) -> None:
    expected = {step: "stopped here"} | dict.fromkeys(not_reached, "not reached")
    assert verdicts(leaf("refused", code), body((code, "why"))) == expected
    assert verdicts(leaf("refused", code), None) == expected  # erased: the codes are in the leaf


def test_the_fallback_s_answer_passes_the_guard_too_or_is_left_to_a_person() -> None:
    late = ("deadline_exceeded", "the model had not answered")
    answered = steps_of(leaf("fallback", late[0]), body(late, answered_by="constant"), sequence=7)
    assert [(each.verdict, each.detail) for each in answered[5:]] == [
        ("stopped here", "deadline_exceeded: the model had not answered"),
        ("passed", "the fallback's answer"),
        ("passed", "entry 7 of the log"),
        ("passed", "fallback, by constant"),
    ]
    outside = ("outside_authority", "no-large-delays")
    left = steps_of(leaf("review", late[0], outside[0]), body(late, outside), sequence=7)
    assert [each.verdict for each in left[5:7]] == ["stopped here", "stopped here"]
    assert left[6].detail == "outside_authority: no-large-delays"
    assert left[8].detail == "review, left to a person"


def test_a_stopped_feed_stops_nothing_where_the_model_was_asked_all_the_same() -> None:
    held, late = ("feed_stopped", "source feed: bad_share"), ("deadline_exceeded", "late")
    assert verdicts(leaf("refused", held[0], late[0]), body(held, late)) == {
        "run": "stopped here",
        "guard": "not reached",
    }
    answered = steps_of(leaf("answered", held[0]), body(held), sequence=1)
    assert answered[6].detail == "answered in spite of feed_stopped: source feed: bad_share"
    outside = ("outside_authority", "no-large-delays")
    stopped = verdicts(leaf("review", held[0], outside[0]), body(held, outside))
    assert stopped == {"route": "stopped here", "run": "not reached", "guard": "stopped here"}


def test_a_doubt_that_is_answered_all_the_same_stops_nothing() -> None:
    steps = steps_of(leaf("answered", "low_confidence"), body(("low_confidence", "0.4")), sequence=1)
    assert {each.verdict for each in steps} == {"passed"}
    assert steps[6].detail == "answered in spite of low_confidence: 0.4"


def test_an_output_that_could_not_be_protected_was_stopped_by_the_guard() -> None:
    reason = ("protection_failed", "the output could not be protected")
    assert verdicts(leaf("refused", reason[0]), body(reason)) == {"guard": "stopped here"}


def test_what_is_not_recorded_of_the_input_is_said() -> None:
    withheld = {"withheld": {"sha256": "0" * 64, "bytes": 5}}
    assert steps_of(leaf("answered"), {"input": withheld, "details": None}, sequence=1)[3].detail.startswith("of the")
    assert "erased" in steps_of(leaf("answered"), None, sequence=1)[3].detail


def test_every_kind_of_change_is_shown_with_who_and_why_and_each_detail(tmp_path: Path) -> None:
    found = {"action": "release.published", "subject": "tiny/3", "principal": "os:ops", "at": "then"}
    facts = change_facts(found, {"reason": "first", "details": {"published_by": "os:ops", "canary": None, "number": 3}})
    assert facts == [
        ("change", "release.published"),
        ("subject", "tiny/3"),
        ("by", "os:ops"),
        ("reason", "first"),
        ("published by", "os:ops"),
        ("number", 3),
    ]
    assert change_facts(found, None) == facts[:3]
    assert change_facts(found, {"reason": "first", "details": ["a"]})[-1] == ("details", ["a"])
    workspace, _ = tiny.make_served(tmp_path / "w")
    changed = record_change(workspace, "key.revoked", "0a1b2c3d", "left the team", {"name": "desk"})
    lines = explanation_lines(explain_entry(workspace, changed))
    assert "by           os:" in "\n".join(lines)
    assert "name         desk" in lines


def test_whoever_may_not_see_decisions_sees_no_resolution_of_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = Desk(tmp_path / "w")
    waiting = desk.leave(OUTSIDE)
    resolution = resolve(desk.workspace, desk.queue, waiting, Ruling("accepted", "called the crew", "os:ops"))
    found = find_entry(desk.workspace.ledger, resolution.id)
    assert found is not None
    change, content = json.loads(found.entry.leaf), json.loads(found.entry.body)
    assert capability_seen(desk.workspace, change, content) == tiny.NAME
    assert capability_seen(desk.workspace, change, None) == tiny.NAME  # its body was erased: then the decision says
    assert capability_seen(desk.workspace, change | {"action": "key.revoked"}, content) is None
    with pytest.raises(SystemExit):
        main(["explain", resolution.id, "--workspace", str(desk.workspace.root)])
    assert "called the crew" in capsys.readouterr().out


def test_an_entry_that_the_signed_checkpoint_does_not_cover_is_shouted_about(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    with mainstay.embed(tiny.NAME, workspace.root, key=token) as embedded:
        decision = embedded.decide({"a": 1.0, "b": 0.5})
    assert explain_entry(workspace, decision.decision_id)["evidence"]["proven"] is None
    seal(workspace)
    assert explain_entry(workspace, decision.decision_id)["evidence"]["proven"] is True
    checkpoint = workspace.ledger / "checkpoint"
    content = checkpoint.read_bytes()
    checkpoint.chmod(0o640)
    checkpoint.write_bytes(content.replace(b"\n\n", b"\nadded\n\n"))
    explained = explain_entry(workspace, decision.decision_id)
    assert explained["evidence"]["proven"] is False
    assert any("DOES NOT COVER IT" in line for line in explanation_lines(explained))
