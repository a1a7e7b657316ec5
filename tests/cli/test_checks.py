"""Checks on the terminal, as facts, as JUnit XML and as SARIF."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

import msgspec
import pytest

import tiny
from mainstay.cli.checks import age_words, check, report_lines
from mainstay.cli.checks_formats import to_junit, to_sarif
from mainstay.cli.common import Common
from mainstay.cli.init import create_workspace
from mainstay.cli.versions import record_registration
from mainstay.errors import Misuse
from mainstay.rollout.gates_types import CHECKS, Check, Report
from state.databases import opened

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.rollout.gates_types import CheckId, Verdict
    from mainstay.workspace import Workspace

VERSION: Final = "sha256:" + "5" * 64


def answered(name: CheckId, verdict: Verdict, *, needed: bool = True, observed: str = "3 of 4") -> Check:
    return Check(
        id=name,
        question=CHECKS[name].text,
        verdict=verdict,
        observed=observed,
        required="4",
        needed=needed,
        evidence=("tiny/1", VERSION),
        age_seconds=7_200.0,
    )


REPORT: Final = Report(
    capability="tiny",
    version=VERSION,
    stage="canary",
    at=datetime(2026, 3, 1, 12, 30, tzinfo=UTC),
    checks=(
        answered("version-whole", "pass"),
        answered("samples-run", "fail", observed="the model says <&> \x00 and \ud800 no more"),
        answered("shadow-compared", "unknown"),
        answered("fallback-answers", "fail", needed=False),
        answered("runbook-there", "unknown", needed=False),
    ),
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = create_workspace(tmp_path / "w", "tests.example.com/checks")[0]
    record_registration(made, tiny.write_folder(made.capabilities / tiny.NAME), None)
    with opened(made):
        return made


def test_a_gate_is_open_where_all_that_is_needed_passes() -> None:
    assert [each.id for each in REPORT.closed_by] == ["samples-run", "shadow-compared"]
    assert not REPORT.passes
    passing = msgspec.structs.replace(REPORT, checks=(REPORT.checks[0], *REPORT.checks[3:]))
    assert passing.passes


def test_people_see_every_verdict_what_is_required_and_what_keeps_the_gate_shut() -> None:
    lines = [line for line, _ in report_lines(REPORT)]
    assert lines[0] == f"tiny before canary: version {VERSION[:19]}"
    assert lines[2].split()[:2] == ["pass", "version-whole"]
    assert lines[3].strip() == f"required: 4; 2 h old; tiny/1, {VERSION[:19]}"
    assert any(line.startswith("(unknown)  runbook-there") for line in lines)
    assert any(line.startswith("FAIL       samples-run") for line in lines)
    assert "1 of 5 checks pass; not needed for canary: fallback-answers, runbook-there" in lines
    assert "the gate to canary is shut:" in lines
    assert all(len(line) <= 200 for line in lines)


@pytest.mark.parametrize(("seconds", "words"), [(1, "now"), (90, "2 min"), (7_200, "2 h"), (864_000, "10 d")])
def test_ages_are_said_in_the_largest_unit_that_is_full(seconds: float, words: str) -> None:
    assert age_words(seconds) == words


def test_junit_has_a_test_for_each_check_and_tells_failures_from_what_is_not_known() -> None:
    root = ET.fromstring(to_junit(REPORT).decode())  # noqa: S314 - it was written here
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("skipped")) == (
        "5",
        "1",
        "1",
        "2",
    )
    cases = {case.get("name"): [each.tag for each in case] for case in suite.iter("testcase")}
    assert cases == {
        "version-whole": [],
        "samples-run": ["failure"],
        "shadow-compared": ["error"],
        "fallback-answers": ["skipped"],
        "runbook-there": ["skipped"],
    }
    assert suite.get("timestamp") == "2026-03-01T12:30:00"
    (failure,) = suite.iter("failure")
    assert (
        failure.get("message")
        == "fail: the model says <&> \N{REPLACEMENT CHARACTER} and \N{REPLACEMENT CHARACTER} no more"
    )


def test_a_junit_reader_of_others_reads_the_same(tmp_path: Path) -> None:
    junitparser = pytest.importorskip("junitparser")
    path = tmp_path / "checks.xml"
    path.write_bytes(to_junit(REPORT))
    (suite,) = junitparser.JUnitXml.fromfile(str(path))
    results = {case.name: [type(each).__name__ for each in case.result] for case in suite}
    assert results["samples-run"] == ["Failure"]
    assert results["shadow-compared"] == ["Error"]
    assert results["version-whole"] == []
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (5, 1, 1, 2)


def test_sarif_is_of_version_2_1_0_with_a_rule_and_a_result_for_each_check() -> None:
    made = to_sarif(REPORT, "0.1.0")
    assert made["version"] == "2.1.0"
    (run,) = made["runs"]
    rules, results = run["tool"]["driver"]["rules"], run["results"]
    assert [each["id"] for each in rules] == [each["ruleId"] for each in results] == [each.id for each in REPORT.checks]
    assert all(rules[each["ruleIndex"]]["id"] == each["ruleId"] for each in results)
    found = [(each["kind"], each["level"]) for each in results]
    assert found == [("pass", "none"), ("fail", "error"), ("open", "none"), ("fail", "warning"), ("open", "none")]
    assert all(each["kind"] == "fail" or each["level"] == "none" for each in results)  # 3.27.10
    assert all(each["message"]["text"].endswith(".") for each in results)
    assert len({each["partialFingerprints"]["mainstay/v1"] for each in results}) == len(results)
    place = results[0]["locations"][0]
    assert re.fullmatch(r"[^:/][^:]*", place["physicalLocation"]["artifactLocation"]["uri"])  # relative
    assert place["logicalLocations"][0]["fullyQualifiedName"] == f"tiny@{VERSION}"


def test_the_command_says_it_in_every_form_and_ends_with_the_verdict_of_the_gate(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common, plain = Common(workspace=workspace.root, json=True), Common(workspace=workspace.root)
    junit, sarif = tmp_path / "checks.xml", tmp_path / "checks.sarif"
    assert check(tiny.NAME, junit=junit, sarif=sarif, common=common) == 0
    facts: dict[str, Any] = msgspec.json.decode(capsys.readouterr().out)
    assert (facts["passes"], facts["stage"], facts["closed_by"]) == (True, "production", [])
    assert {"id", "question", "verdict", "observed", "required", "evidence", "age_seconds", "needed"} == set(
        facts["checks"][0]
    )
    assert len(msgspec.json.decode(sarif.read_bytes())["runs"][0]["results"]) == len(facts["checks"])
    assert junit.read_bytes().count(b"<testcase") == len(facts["checks"])
    (workspace.versions / facts["version"].removeprefix("sha256:") / "folder" / "samples.jsonl").write_text("{}\n")
    assert check(tiny.NAME, for_="shadow", common=plain) == 1
    assert "the gate to shadow is shut:" in capsys.readouterr().out


def test_what_is_to_be_checked_is_said_once(workspace: Workspace) -> None:
    common = Common(workspace=workspace.root)
    with pytest.raises(Misuse, match="found both"):
        check(tiny.NAME, version="sha256:1", in_force=True, common=common)
    with pytest.raises(Misuse, match="has no release"):
        check(tiny.NAME, in_force=True, common=common)
