from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import tiny
from mainstay.catalog.releases import publish_shadow, read_current
from mainstay.cli.init import create_workspace
from mainstay.decision.guard import Trouble
from mainstay.decision.plan import compile_release
from mainstay.decision.record import NULL
from mainstay.decision.shadow import would_be
from mainstay.decision.types import Reason
from mainstay.signing import load_signing_key

if TYPE_CHECKING:
    from mainstay.catalog.types import Release
    from mainstay.decision.plan import Plan
    from mainstay.workspace import Workspace

CONSTANT = {"probability": 0.25, "yes": False}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return create_workspace(tmp_path_factory.mktemp("w"), "tests.example.com/shadow")[0]


def plan_with(workspace: Workspace, ladder: list[dict[str, Any]]) -> Plan:
    tiny.release(workspace, fallback=ladder)
    return compile_release(workspace, in_force(workspace)).production


def in_force(workspace: Workspace) -> Release:
    return read_current(workspace.releases, tiny.NAME, load_signing_key(workspace.keys, None).verifier)


RULE = {"rule": [{"when": [{"field": "a", "above": 10}], "then": CONSTANT}]}
WHY = Reason("model_error", "it failed")


@pytest.mark.parametrize(
    ("ladder", "row", "outcome", "answered_by"),
    [
        ([], (1.0, 2.0, None), "refused", ""),
        ([RULE], (11.0, 2.0, None), "fallback", "rule"),
        ([RULE], (1.0, 2.0, None), "refused", ""),
        ([RULE, {"constant": CONSTANT}], (1.0, 2.0, None), "fallback", "constant"),
        ([{"last_good": {"max_age_seconds": 60}}, {"constant": CONSTANT}], (1.0, 2.0, None), "fallback", "last_good"),
        ([{"person": True}], (1.0, 2.0, None), "review", ""),
    ],
)
def test_what_would_have_become_of_trouble_is_told_as_far_as_the_input_says(
    workspace: Workspace, ladder: list[dict[str, Any]], row: tuple[Any, ...], outcome: str, answered_by: str
) -> None:
    plan = plan_with(workspace, ladder)
    verdict = would_be(plan, row, Trouble("fallback", (WHY,)), keyed=True)
    assert (verdict.outcome, verdict.answered_by) == (outcome, answered_by)
    assert (verdict.output == NULL) is (answered_by in {"", "last_good"})
    assert verdict.reasons[0] == WHY
    assert [each.code for each in verdict.reasons[1:]] == (["no_fallback"] if ladder and outcome == "refused" else [])
    assert would_be(plan, row, Trouble("refuse", (WHY,)), keyed=True).outcome == "refused"
    asked = would_be(plan, row, Trouble("review", (WHY,), b'{"p":1}', b"0.5"), keyed=True)
    assert (asked.outcome, asked.proposed, asked.confidence) == ("review", b'{"p":1}', b"0.5")


def test_a_rung_that_needs_a_key_or_a_row_is_passed_over_without(workspace: Workspace) -> None:
    tiny.release(workspace, title="It stands on the ladder")
    rungs: list[dict[str, Any]] = [
        {"last_good": {"max_age_seconds": 60}},
        {"version": "previous"},
        {"constant": CONSTANT},
    ]
    plan = plan_with(workspace, rungs)
    trouble = Trouble("fallback", (WHY,))
    assert would_be(plan, (1.0, 2.0, None), trouble, keyed=True).answered_by == "last_good"
    assert would_be(plan, (1.0, 2.0, None), trouble, keyed=False).answered_by == "version"
    assert would_be(plan, (), trouble, keyed=False).answered_by == "constant"


def test_a_shadow_that_cannot_be_opened_keeps_nothing_from_being_released(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    version = tiny.release(workspace, title="It will be a shadow")
    tiny.release(workspace)
    key = load_signing_key(workspace.keys, None)
    publish_shadow(workspace, tiny.NAME, version, share=0.5, queue=9, key=key, reason="try it", principal="os:ops")
    release = in_force(workspace)
    assert compile_release(workspace, release).shadows == (), "batches and replays ask for none"
    (found,) = compile_release(workspace, release, shadows=True).shadows
    assert (found.plan.digest, found.share, found.queue) == (version, 0.5, 9)
    path = workspace.versions / version.removeprefix("sha256:") / "folder" / "capability.yaml"
    path.chmod(0o644)
    path.write_bytes(b"{}")
    opened = compile_release(workspace, release, shadows=True)
    assert (opened.shadows, opened.release) == ((), release)
    assert f"shadow {version} of tiny not run" in caplog.text
