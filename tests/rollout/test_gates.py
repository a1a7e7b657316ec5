"""The gate before a stage opens for what the evidence shows, and for nothing that is not known."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

import tiny
from mainstay.catalog.register import register
from mainstay.catalog.versions import version_path
from mainstay.monitoring.findings import Cause, Finding
from mainstay.monitoring.store import Memory, keep, read_memory
from mainstay.rollout import steering, store
from mainstay.rollout.gates import CHECKERS, SETTLED_BY_THE_MOVE, run_checks
from mainstay.rollout.gates_looking import Looking
from mainstay.rollout.gates_types import CHECKS, STAGES
from mainstay.rollout.types import Rollout, Verdict, instant
from rollout.made import OPS, OTHER

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.rollout.gates_types import CheckId, Found, Report
    from mainstay.rollout.gates_types import Stage as Wanted
    from mainstay.rollout.types import Begun
    from rollout.made import Stage

NOW: Final = datetime.now(UTC)
FINDING: Final = Finding(
    code="column_constant",
    severity="critical",
    capability=tiny.NAME,
    text="input.a has one value only",
    window_from=NOW - timedelta(hours=2),
    window_to=NOW,
    rows=1_000,
    cause=Cause(kind="data_broken", why="it used to vary"),
)


def looking(stage: Stage, version: str, wanted: Wanted = "production", **changes: Any) -> Looking:
    verifier = stage.key.verifier
    made = Looking(stage.workspace, tiny.NAME, version, wanted, verifier, stage.database, datetime.now(UTC))
    return replace(made, **changes)


def ask(stage: Stage, check: CheckId, version: str, wanted: Wanted = "production", **changes: Any) -> Found:
    return CHECKERS[check](looking(stage, version, wanted, **changes))


def report(stage: Stage, version: str, wanted: Wanted = "production", **changes: Any) -> Report:
    known: dict[str, Any] = {"verifier": stage.key.verifier, "database": stage.database, **changes}
    return run_checks(stage.workspace, tiny.NAME, version, wanted, **known)


def registered(stage: Stage, folder: Path, **changes: Any) -> str:
    """A version whose model runs."""
    return register(tiny.write_folder(folder, **changes), stage.workspace.versions).version


def released(stage: Stage, **changes: Any) -> str:
    """The first version, in production."""
    version = stage.version(**changes)
    steering.promote(stage.steering, stage.move(version, "production"))
    return version


def begun(stage: Stage, version: str, wanted: Begun) -> Rollout:
    made = steering.begin(stage.steering, stage.move(version, wanted))
    assert isinstance(made, Rollout)
    return made


def said(stage: Stage, rollout: Rollout, **changes: Any) -> None:
    """Have the rollout's evidence say so."""
    known: dict[str, Any] = {"verdict": "keep_collecting", "code": "too_few_decisions", "reason": "because", **changes}
    verdict = Verdict(at=instant(), **{"decisions": 0, "labels": 0, **known})
    stage.database.write(lambda connection: store.save_evidence(connection, rollout, b"{}", verdict))


def test_every_check_of_the_list_is_answered_and_asked_somewhere() -> None:
    assert list(CHECKERS) == list(CHECKS)
    assert all(question.stages and set(question.stages) <= set(STAGES) for question in CHECKS.values())
    assert set(CHECKS) >= SETTLED_BY_THE_MOVE


def test_the_gate_to_production_is_open_for_a_first_version_that_runs(stage: Stage, tmp_path: Path) -> None:
    version = registered(stage, tmp_path / "one")
    found = report(stage, version)
    assert found.passes
    assert [each.id for each in found.checks] == [name for name, each in CHECKS.items() if "production" in each.stages]
    verdicts = {each.id: each.verdict for each in found.checks}
    assert (verdicts["samples-run"], verdicts["version-whole"]) == ("pass", "pass")
    assert (verdicts["fallback-answers"], verdicts["runbook-there"]) == ("fail", "unknown")
    assert {each.id for each in found.checks if not each.needed} >= {"fallback-answers", "runbook-there"}


def test_a_damaged_version_shuts_every_gate_and_nothing_else_is_known_of_it(stage: Stage, tmp_path: Path) -> None:
    version = registered(stage, tmp_path / "one")
    (version_path(stage.workspace.versions, version) / "folder" / "samples.jsonl").write_text("{}\n")
    for wanted in STAGES:
        found = report(stage, version, wanted)
        assert not found.passes
        assert found.closed_by[0].id == "version-whole"
    of_itself = {each.id: each for each in report(stage, version, "shadow").checks}
    assert of_itself["version-whole"].verdict == "fail"
    assert "samples.jsonl" in of_itself["version-whole"].observed
    assert of_itself["policies-compile"].verdict == "unknown"
    assert "it cannot be looked at" in of_itself["policies-compile"].observed


def test_a_model_that_does_not_run_is_found_by_running_it(stage: Stage) -> None:
    found = ask(stage, "samples-run", stage.version())
    assert (found.verdict, found.needed) == ("fail", True)
    assert "the model does not run" in found.observed


def test_without_the_control_database_what_stands_there_is_unknown_and_keeps_the_gate_shut(
    stage: Stage, tmp_path: Path
) -> None:
    found = report(stage, registered(stage, tmp_path / "one"), database=None)
    assert [each.id for each in found.closed_by] == ["nothing-else-on-trial"]
    assert found.closed_by[0].verdict == "unknown"


def contract(**changes: Any) -> dict[str, Any]:
    """The contract of the tiny capability with these changes of its first property, `a`."""
    made = json.loads(json.dumps(tiny.CONTRACT))
    made["schema"][0]["properties"][0] |= changes
    found: dict[str, Any] = made
    return found


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "pass"),
        ({"description": "a number"}, "pass"),
        ({"logicalTypeOptions": {"minimum": -10, "maximum": 10}}, "fail"),
        ({"required": True, "logicalType": "string", "logicalTypeOptions": {}}, "fail"),
    ],
)
def test_a_contract_that_breaks_callers_shuts_the_gate(stage: Stage, changes: dict[str, Any], verdict: str) -> None:
    released(stage)
    found = ask(stage, "contract-compatible", stage.version(contract=contract(**changes)))
    assert found.verdict == verdict


def test_promised_numbers_are_held_against_rows_that_the_model_was_not_fitted_to(stage: Stage, tmp_path: Path) -> None:
    rows = [{"input": {"a": a / 100, "b": 0}, "outcome": {"yes": a > 0}} for a in range(-150, 150)]
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "reference.jsonl").write_text("\n".join(map(json.dumps, rows)))
    version = registered(stage, folder, reference={"file": "reference.jsonl", "label": "yes"})
    found = ask(stage, "promise-on-reference", version)
    assert (found.verdict, found.needed) == ("pass", True)
    assert found.observed.startswith("roc_auc 1.000")
    assert found.observed.endswith("on 300 rows")
    too_much = {"roc_auc": 1.0, "calibration_error": 0.0001, "positive": "yes", "score": "probability"}
    other = registered(stage, folder, reference={"file": "reference.jsonl", "label": "yes"}, promise=too_much)
    assert ask(stage, "promise-on-reference", other).verdict == "fail"
    assert ask(stage, "reference-fitted", version).verdict == "pass"


def test_required_stages_cannot_be_left_out(stage: Stage) -> None:
    released(stage, rollout={"required": ["shadow", "canary"]})
    two = stage.version()
    assert ask(stage, "stages-passed", two).verdict == "fail"
    assert ask(stage, "shadow-compared", two).needed
    shadow = begun(stage, two, "shadow")
    assert ask(stage, "stages-passed", two, "canary").verdict == "pass"
    assert ask(stage, "stages-passed", two, "production").observed == "it was no canary"
    assert ask(stage, "shadow-compared", two, "canary").verdict == "unknown"
    said(stage, shadow, verdict="promote", code="minimum_reached", decisions=1_000)
    assert ask(stage, "shadow-compared", two, "canary").verdict == "pass"
    steering.advance(stage.steering, stage.move(two, "canary"))
    behind = ask(stage, "shadow-compared", two, "production")
    assert (behind.verdict, behind.observed) == ("pass", "it was a shadow")
    assert ask(stage, "stages-passed", two, "production").verdict == "pass"


@pytest.mark.parametrize(
    ("verdict", "code", "expected"),
    [
        ("promote", "minimum_reached", "pass"),
        ("keep_collecting", "not_yet_shown", "unknown"),
        ("keep_collecting", "in_doubt", "fail"),
    ],
)
def test_a_shadow_that_disagrees_too_much_does_not_come_further(
    stage: Stage, verdict: str, code: str, expected: str
) -> None:
    released(stage, rollout={"shadow": {"max_disagreement": 0.1}})
    two = stage.version()
    said(stage, begun(stage, two, "shadow"), verdict=verdict, code=code, reason="it disagrees on some")
    found = ask(stage, "shadow-agrees", two, "canary")
    assert (found.verdict, found.observed, found.needed) == (expected, "it disagrees on some", True)


@pytest.mark.parametrize(
    ("verdict", "expected"), [("promote", "pass"), ("keep_collecting", "unknown"), ("roll_back", "fail")]
)
def test_a_canary_comes_into_production_when_its_guards_are_shown_to_be_kept(
    stage: Stage, verdict: str, expected: str
) -> None:
    released(stage, rollout={"canary": {"min_labels": 10}}, **LABELLED)
    two = stage.version(**LABELLED)
    canary = begun(stage, two, "canary")
    assert ask(stage, "canary-guards", two).observed == "nothing was looked at yet"
    said(stage, canary, verdict=verdict, code="not_worse", decisions=700, labels=9)
    found = ask(stage, "canary-guards", two)
    assert (found.verdict, found.evidence) == (expected, (canary.id,))
    assert "700 decisions, 9 labels" in found.observed
    assert ask(stage, "labels-enough", two).verdict == "unknown"
    said(stage, canary, verdict=verdict, code="not_worse", decisions=700, labels=10)
    assert ask(stage, "labels-enough", two).verdict == "pass"


LABELLED: Final[dict[str, Any]] = {
    "monitoring": {"labels": {"kind": "binary", "truth": "yes", "prediction": "yes", "score": "probability"}}
}


def test_only_one_version_is_on_trial(stage: Stage) -> None:
    released(stage)
    two, three = stage.version(), stage.version()
    rollout = begun(stage, two, "canary")
    assert ask(stage, "nothing-else-on-trial", two).verdict == "pass"
    found = ask(stage, "nothing-else-on-trial", three)
    assert (found.verdict, found.evidence) == ("fail", (rollout.id,))


def test_what_comes_before_has_to_be_whole_to_be_gone_back_to(stage: Stage) -> None:
    one = released(stage)
    two = stage.version()
    assert ask(stage, "rollback-possible", two).evidence == (f"{tiny.NAME}/1", one)
    (version_path(stage.workspace.versions, one) / "folder" / "samples.jsonl").write_text("{}\n")
    assert ask(stage, "rollback-possible", two).verdict == "fail"


def test_somebody_else_has_to_approve_where_it_is_declared(stage: Stage) -> None:
    released(stage, rollout={"four_eyes": ["canary"]})
    two = stage.version()
    assert ask(stage, "approval-given", two, "production").verdict == "pass"
    assert ask(stage, "approval-given", two, "canary").observed == "nobody has asked for it yet"
    proposal = steering.begin(stage.steering, stage.move(two, "canary"))
    assert not isinstance(proposal, Rollout)
    waiting = ask(stage, "approval-given", two, "canary")
    assert (waiting.verdict, waiting.evidence) == ("unknown", (proposal.id,))
    steering.approve(stage.steering, proposal.id, digest=proposal.digest, reason="seen", principal=OTHER)
    assert ask(stage, "approval-given", two, "canary").verdict == "pass"


def found_now(stage: Stage, *findings: Finding, ago: timedelta = timedelta()) -> None:
    keep(stage.database, tiny.NAME, findings, Memory(at=datetime.now(UTC) - ago, judged_until=NOW))


def test_before_any_monitor_pass_nothing_is_known_and_nothing_needed(stage: Stage) -> None:
    released(stage)
    found = ask(stage, "no-critical-finding", stage.version())
    assert (found.verdict, found.needed) == ("unknown", False)


def test_a_critical_finding_about_the_data_keeps_every_version_out(stage: Stage) -> None:
    released(stage)
    found_now(stage, FINDING)
    found = ask(stage, "no-critical-finding", stage.version())
    assert (found.verdict, found.needed) == ("fail", True)
    assert found.evidence[0].startswith(FINDING.key)
    assert "column_constant" in found.observed


def test_a_finding_about_the_model_in_force_does_not_keep_its_successor_out(stage: Stage) -> None:
    one = released(stage)
    cause = Cause(kind="model_wrong", why="labels say so")
    found_now(stage, msgspec.structs.replace(FINDING, code="quality_below", version=one, cause=cause))
    assert ask(stage, "no-critical-finding", stage.version()).verdict == "pass"
    assert ask(stage, "no-critical-finding", one).verdict == "fail"


def test_what_is_found_of_a_version_that_decides_no_more_keeps_no_gate_shut(stage: Stage) -> None:
    one = released(stage)
    two = stage.version()
    rollout = begun(stage, two, "canary")
    broken = Cause(kind="data_broken", why="seen by the canary")
    quality = msgspec.structs.replace(FINDING, code="quality_below", column="accuracy", version=two, cause=broken)
    unit = msgspec.structs.replace(FINDING, code="unit_changed", column="input.a", version=two, cause=broken)
    found_now(stage, quality)
    assert ask(stage, "no-critical-finding", two).verdict == "fail"
    steering.roll_back(stage.steering, tiny.NAME, reason="enough", principal=OPS)
    assert stage.rollout(rollout.id).stage == "stopped_by_hand"
    for version in (one, two, stage.version()):
        assert ask(stage, "no-critical-finding", version).verdict == "pass"
    memory = read_memory(stage.database, tiny.NAME)
    assert memory is not None
    keep(stage.database, tiny.NAME, [unit], memory, before=memory.at)
    assert ask(stage, "no-critical-finding", one).verdict == "fail", "the data are broken for every version"


def test_findings_of_long_ago_say_nothing(stage: Stage) -> None:
    released(stage)
    found_now(stage, ago=timedelta(days=3))
    found = ask(stage, "no-critical-finding", stage.version())
    assert (found.verdict, found.needed) == ("unknown", True)
    assert "mainstay control" in found.observed


def test_a_spent_error_budget_keeps_the_gate_shut(stage: Stage) -> None:
    released(stage, service_levels={"availability": 0.999})
    burning = msgspec.structs.replace(FINDING, code="level_missed", cause=Cause(kind="service", why="spent"))
    found_now(stage, burning)
    two = stage.version()
    assert ask(stage, "service-levels-kept", two).verdict == "fail"
    assert ask(stage, "no-critical-finding", two).verdict == "pass"


def test_a_version_goes_when_it_decides_for_nobody(stage: Stage) -> None:
    one = released(stage)
    assert ask(stage, "out-of-force", one, "retired").observed == "it is the version of release 1"
    two = stage.version()
    begun(stage, two, "shadow")
    assert ask(stage, "out-of-force", two, "retired").observed == "it is a shadow of release 2"
    assert ask(stage, "out-of-force", stage.version(), "retired").verdict == "pass"


@pytest.mark.parametrize(
    ("ladder", "verdict", "needed"),
    [
        ([], "fail", False),
        ([{"last_good": {}}], "unknown", False),
        ([{"last_good": {}}, {"constant": {"probability": 0.5, "yes": True}}], "pass", False),
        ([{"person": True}], "pass", False),
        ([{"version": "previous"}, {"person": True}], "pass", True),
        ([{"version": "sha256:" + "0" * 64}, {"person": True}], "fail", True),
    ],
)
def test_the_ladder_answers_where_a_rung_always_does(
    stage: Stage, ladder: list[Any], verdict: str, needed: bool
) -> None:
    found = ask(stage, "fallback-answers", stage.version(fallback=ladder))
    assert (found.verdict, found.needed) == (verdict, needed)


def test_an_expression_that_cannot_be_read_is_found_before_it_is_needed(stage: Stage) -> None:
    business = [{"name": "cost", "expression": "input.a + + 'x' * output.yes"}]
    found = ask(stage, "expressions-compile", stage.version(monitoring={"business": business}))
    assert found.verdict == "fail"
    assert found.observed.startswith("cost: ")


def test_addresses_of_examples_reach_nobody(stage: Stage) -> None:
    assert ask(stage, "owner-reachable", stage.version()).verdict == "unknown"
    owner = {"team": "ops", "contact": "ops@airline.aero"}
    assert ask(stage, "owner-reachable", stage.version(owner=owner)).verdict == "pass"


def test_a_runbook_with_open_questions_is_none(stage: Stage) -> None:
    version = stage.version()
    folder = stage.workspace.capabilities / tiny.NAME
    folder.mkdir(parents=True)
    assert ask(stage, "runbook-there", version).verdict == "unknown"
    (folder / "runbook.md").write_text("# At 2 am\nTODO: whom to call\n")
    assert ask(stage, "runbook-there", version).verdict == "fail"
    (folder / "runbook.md").write_text("# At 2 am\nCall the desk.\n")
    assert ask(stage, "runbook-there", version).verdict == "pass"
