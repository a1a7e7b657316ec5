from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from cyclopts import App

from decision.waiting import OUTSIDE, POLICY, PROPOSED, Desk
from mainstay.cli.common import operator
from mainstay.cli.evidence import explain
from mainstay.cli.review import list_reviews, resolve_review, show_review
from mainstay.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Shell:
    """Runs the commands on a workspace, in this process."""

    def __init__(self, desk: Desk, capture: pytest.CaptureFixture[str]) -> None:
        self.desk = desk
        self._capture = capture
        self._app = App(name="review", result_action="return_value")
        for name, command in (("list", list_reviews), ("show", show_review), ("resolve", resolve_review)):
            self._app.command(command, name=name)
        self._app.command(explain, name="explain")

    def run(self, *words: str) -> str:
        root = str(self.desk.workspace.root)
        self._app([*words, "--workspace", root], exit_on_error=False)
        return self._capture.readouterr().out

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    desk = Desk(tmp_path / "w")
    yield Shell(desk, capsys)
    desk.segment.abandon()


def facts(text: str) -> dict[str, str]:
    return {line[:12].strip(): line[13:] for line in text.splitlines()}


def test_the_list_shows_since_when_and_why_each_waits(shell: Shell) -> None:
    assert shell.run("list") == "nothing waits for a person\n"
    ids = [shell.desk.leave(OUTSIDE, key="UA-1"), shell.desk.leave(capability="other"), shell.desk.leave()]
    head, *rows = shell.run("list").splitlines()
    assert head.split() == ["ID", "CAPABILITY", "AGE", "REASONS", "POLICY"]
    assert [row.split()[0] for row in rows] == ids
    assert re.fullmatch(rf"{ids[0]}  tiny +\d+ s +outside_authority +no-large-delays", rows[0])
    assert re.fullmatch(rf"{ids[1]}  other +\d+ s +low_confidence +-", rows[1])
    assert len(shell.run("list", "other").splitlines()) == 2
    cut = shell.run("list", "--limit", "1").splitlines()
    assert cut[1].startswith(ids[0])
    assert cut[2] == "2 more wait; see them with --limit"
    found = shell.json("list", "tiny", "--limit", "1")
    assert found["waiting"] == 2
    (review,) = found["reviews"]
    assert review.pop("age_seconds") >= 0
    assert review.pop("at").endswith("Z")
    reason = {"code": OUTSIDE.code, "detail": OUTSIDE.detail}
    assert review == {"id": ids[0], "capability": "tiny", "key": "UA-1", "policy": POLICY, "reasons": [reason]}
    with pytest.raises(Misuse, match="--limit 0"):
        shell.run("list", "--limit", "0")


def test_a_review_shows_the_input_the_proposal_and_the_reasons(shell: Shell) -> None:
    decision = shell.desk.leave(OUTSIDE, key="UA-1")
    said = facts(shell.run("show", decision))
    assert said["input"] == '{"a":1.5}'
    assert json.loads(said["proposed"]) == PROPOSED
    assert said["reason"] == f"outside_authority: {OUTSIDE.detail}"
    assert (said["key"], said["confidence"], said["asked by"]) == ('"UA-1"', "0.6120", "key 0a1b2c3d")
    assert said["resolved"] == "waits for a person"
    found = shell.json("show", decision)
    assert (found["input"], found["proposed"], found["resolutions"]) == ({"a": 1.5}, PROPOSED, [])
    assert facts(shell.run("show", shell.desk.leave(proposed=None)))["proposed"] == "nothing"
    with pytest.raises(Misuse, match="no entry"):
        shell.run("show", "nothing")


def test_a_person_accepts_changes_or_rejects(shell: Shell) -> None:
    ids = [shell.desk.leave() for _ in range(3)]
    accepted = shell.json("resolve", ids[0], "--accept", "--reason", "seen")
    assert (accepted["verdict"], accepted["output"], accepted["principal"]) == ("accepted", PROPOSED, operator())
    changed = shell.json("resolve", ids[1], "--output", '{"probability": 0, "yes": false}', "--reason", "known")
    assert (changed["verdict"], changed["output"]) == ("changed", {"probability": 0, "yes": False})
    said = shell.run("resolve", ids[2], "--reject", "--reason", "no such flight")
    assert said.startswith("rejected, recorded as 0")
    assert shell.run("list") == "nothing waits for a person\n"


def test_the_output_may_come_from_standard_input(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = tmp_path / "output.json"
    given.write_text('{"probability": 0.5, "yes": true}\n')
    with given.open() as file:
        monkeypatch.setattr("sys.stdin", file)
        made = shell.json("resolve", shell.desk.leave(), "--output", "-", "--reason", "r")
    assert made["output"] == {"probability": 0.5, "yes": True}


@pytest.mark.parametrize(
    "words", [(), ("--accept", "--reject"), ("--accept", "--output", "{}"), ("--output", "{}", "--reject")], ids=str
)
def test_exactly_one_way_to_resolve_is_named(shell: Shell, words: tuple[str, ...]) -> None:
    decision = shell.desk.leave()
    with pytest.raises(Misuse, match="expected one of --accept, --output and --reject"):
        shell.run("resolve", decision, *words, "--reason", "r")
    assert shell.desk.listed() == [decision]


def test_explaining_the_decision_shows_what_became_of_it(shell: Shell) -> None:
    decision = shell.desk.leave(OUTSIDE)
    assert facts(shell.run("explain", decision))["resolved"] == "waits for a person"
    shell.run("resolve", decision, "--accept", "--reason", "called the crew")
    said = shell.run("explain", decision)
    assert f"accepted {json.dumps(PROPOSED, separators=(',', ':'))} at 20" in facts(said)["resolved"]
    assert facts(said)["resolved"].endswith(f", by {operator()}: called the crew")
    assert json.loads(facts(said)["proposed"]) == PROPOSED
    with pytest.raises(Misuse, match="--again"):
        shell.run("resolve", decision, "--reject", "--reason", "second thoughts")
    shell.run("resolve", decision, "--reject", "--again", "--reason", "second thoughts")
    found = shell.json("explain", decision)
    first, second = found["resolutions"]
    assert (first["verdict"], second["verdict"], second["revises"]) == ("accepted", "rejected", first["id"])
    assert [line for line in shell.run("show", decision).splitlines() if "rejected at" in line]
    assert shell.json("explain", second["id"])["entry"]["action"] == "review.resolved"
