from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from cyclopts import App

from intake.held import SOURCE, broken, declare, held_row, hold, let_in, make_workspace, many
from mainstay.cli.common import operator
from mainstay.cli.quarantine import discard_held, list_held, replay_held, show_held
from mainstay.errors import Misuse
from mainstay.intake.landing import landing_of
from mainstay.lake.lake import open_lake
from mainstay.ledger.find import find_entry
from tiny import NAME

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.lake.lake import Lake
    from mainstay.workspace import Workspace


class Shell:
    """Runs the commands on a workspace, in this process."""

    def __init__(self, workspace: Workspace, capture: pytest.CaptureFixture[str]) -> None:
        self.workspace = workspace
        self._capture = capture
        self._app = App(name="quarantine", result_action="return_value")
        self._app.command(list_held, name="list")
        self._app.command(show_held, name="show")
        self._app.command(replay_held, name="replay")
        self._app.command(discard_held, name="discard")

    def run(self, *words: str) -> str:
        self._app([*words, "--workspace", str(self.workspace.root)], exit_on_error=False)
        return self._capture.readouterr().out

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(make_workspace(tmp_path / "w"), capsys)


@pytest.fixture
def lake(shell: Shell) -> Lake:
    return open_lake(shell.workspace)


def facts(text: str) -> dict[str, str]:
    return {line[:12].strip(): line[13:] for line in text.splitlines()}


def test_the_list_shows_each_rule_with_how_many_and_examples(shell: Shell, lake: Lake) -> None:
    assert shell.run("list") == "no row was ever in quarantine\n"
    hold(lake, many(2, 10))
    hold(lake, [held_row(3, 1, {"who": "K-1"}, reason="late", contract="tiny@0.9.0")])
    head, columns, *lines = shell.run("list", NAME, SOURCE).splitlines()
    assert head == "tiny feed: 21 open rows in quarantine"
    assert columns.split() == ["ROWS", "ITEMS", "FIELD", "RULE", "CONTRACT", "ARRIVED"]
    assert re.fullmatch(r"  20 +2 +a +required +tiny@1.0.0 +2026-03-01T06:00:00Z to 2026-03-01T18:00:00Z", lines[0])
    assert lines[1].startswith("      1:1  expected expected, found ")
    rules = [line.split()[2:4] for line in lines if not line.startswith("      ")]
    assert rules == [["a", "required"], ["b", "type"], ["$", "late"]]
    assert shell.run("list", NAME) == shell.run("list", NAME, SOURCE)
    assert shell.run("list").splitlines()[1].split() == [NAME, SOURCE, "21", "2026-03-01"]
    assert "and 7 rows by further rules" in shell.run("list", NAME, "--limit", "1")
    (found,) = shell.json("list", NAME)["sources"]
    assert (found["open_rows"], [group["rows"] for group in found["groups"]]) == (21, [20, 6, 1])
    assert shell.json("list")["sources"][0]["open_rows"] == 21
    (some,) = shell.json("list", NAME, "--rule", "b:type")["sources"]
    assert some["open_rows"] == 6


def test_what_is_classified_is_masked_unless_it_is_asked_for(shell: Shell, lake: Lake) -> None:
    raw = {"a": "x", "note": "private", "what": "unknown"}
    hold(lake, [held_row(1, 1, raw, broken("a", "type", '"x"'), broken("note", "max-length", "private"))])
    for words in (("list", NAME), ("show", NAME, SOURCE, "1:1")):
        for form in ((), ("--json",)):
            said = shell.run(*words, *form)
            assert "private" not in said
            assert "unknown" not in said
            assert "(masked)" in said
            assert "private" in shell.run(*words, "--unmasked", *form)
    assert "see all with --unmasked" in shell.run("show", NAME, SOURCE, "1:1")
    assert shell.json("show", NAME, SOURCE, "1:1")["rows"][0]["raw_base64"] is None


def test_a_row_is_shown_whole_with_what_became_of_it(shell: Shell, lake: Lake) -> None:
    declare(shell.workspace)
    hold(lake, many(1, 3))
    said = facts(shell.run("show", NAME, SOURCE, "1:3", "--unmasked"))
    assert (said["row"], said["origin"], said["arrived"]) == (
        "1:3",
        "GET https://api.example.com/?page=1",
        "2026-03-01T06:00:00Z",
    )
    assert (said["contract"], said["reason"], said["became"]) == ("tiny@1.0.0", "rules", "open")
    assert said["record"] == '{"who": "K-3", "b": "x"}'
    assert shell.run("show", NAME, SOURCE, "1:3").count("\nbroken ") == 2
    shell.run("replay", NAME, SOURCE, "--row", "1:3", "--reason", "a is optional now")
    said = facts(shell.run("show", NAME, SOURCE, "1:3"))
    expected = rf"replayed \S+ by {operator()}: a is optional now; recorded as \S+; as 2:1, which has not come .*"
    assert re.fullmatch(expected, said["became"])
    hold(lake, [held_row(2, 1, {"who": "K-3"}, broken("a", "required"))])
    assert facts(shell.run("show", NAME, SOURCE, "1:3"))["became"].endswith("as 2:1, and in quarantine again")
    assert facts(shell.run("show", NAME, SOURCE, "2:1"))["came first"].startswith("as 1:3, 2026-03-01T06:00:00Z, GET")
    by_rule = shell.json("show", NAME, SOURCE, "--rule", "a:required", "--limit", "2")
    assert [(row["item"], row["row"]) for row in by_rule["rows"]] == [(1, 1), (1, 2)]
    assert shell.run("show", NAME, SOURCE, "--rule", "a:maximum") == "no open row breaks that rule\n"


def test_a_replay_is_recorded_with_who_why_and_what(shell: Shell, lake: Lake) -> None:
    hold(lake, many(2, 3))
    said = facts(shell.run("replay", NAME, SOURCE, "--rule", "b:type", "--reason", "contract 1.1"))
    assert said["replayed"] == "2 rows"
    assert said["waits as"] == "item 3, for the door; or run: mainstay intake run tiny feed"
    found = find_entry(shell.workspace.ledger, said["recorded as"])
    assert found is not None
    leaf, body = json.loads(found.entry.leaf), json.loads(found.entry.body)
    assert (leaf["action"], leaf["subject"], leaf["principal"]) == ("quarantine.replayed", NAME, operator())
    assert body["reason"] == "contract 1.1"
    details = body["details"]
    assert (details["rows"], details["into"], details["chosen"]) == (
        2,
        [{"item": 3, "rows": 2}],
        {"rules": ["b:type"]},
    )
    assert re.fullmatch(r"[0-9a-f]{64}", details["rows_sha256"])
    done = shell.json("replay", NAME, SOURCE, "--reason", "all of it")["done"]
    assert (done["rows"], done["items"]) == (4, [4])
    assert shell.run("replay", NAME, SOURCE, "--reason", "again").startswith("nothing to do")
    assert shell.json("replay", NAME, SOURCE, "--reason", "again") == {"done": None}


def test_a_trial_says_how_many_would_pass_and_changes_nothing(shell: Shell, lake: Lake) -> None:
    rows = [
        held_row(1, 1, {"a": 5}),
        held_row(1, 2, {"a": 500}),
        held_row(1, 3, {"a": 5}, reason="repeated"),
        held_row(1, 4, b"{", reason="unreadable"),
        held_row(1, 5, b"5,x", kind="csv", header='[",","a","who"]'),
        held_row(1, 6, b"five,x", kind="csv", header='[",","a","who"]'),
        held_row(1, 7, b"x", kind="csv", header='[",","of another"]'),
    ]
    hold(lake, rows)
    said = shell.json("replay", NAME, SOURCE, "--dry-run")
    assert said["contract"] == "tiny@1.0.0"
    counts = {name: said[name] for name in ("rows", "accepted", "quarantined", "repeated", "skipped")}
    assert counts == {"rows": 7, "accepted": 2, "quarantined": 3, "repeated": 1, "skipped": 1}
    assert {(each["field"], each["rule"]) for each in said["broken"]} == {("a", "maximum"), ("a", "type")}
    text = shell.run("replay", NAME, SOURCE, "--dry-run")
    assert text.splitlines()[:2] == ["under tiny@1.0.0, of 7 open rows:", "  would pass     2"]
    assert not landing_of(shell.workspace.data, NAME, SOURCE).waiting()
    assert shell.json("list", NAME)["sources"][0]["open_rows"] == 7
    assert shell.json("replay", NAME, SOURCE, "--dry-run", "--row", "1:2")["accepted"] == 0


def test_discarding_needs_a_reason_and_what_is_meant(shell: Shell, lake: Lake) -> None:
    hold(lake, many(2, 3))
    with pytest.raises(Misuse, match="a discard needs a reason"):
        shell.run("discard", NAME, SOURCE, "--all")
    with pytest.raises(Misuse, match="a discard needs a reason"):
        shell.run("discard", NAME, SOURCE, "--all", "--reason", " ")
    with pytest.raises(Misuse, match="expected either --all, or which rows"):
        shell.run("discard", NAME, SOURCE, "--reason", "r")
    with pytest.raises(Misuse, match="found --all and others"):
        shell.run("discard", NAME, SOURCE, "--all", "--item", "1", "--reason", "r")
    assert shell.run("discard", NAME, SOURCE, "--item", "1", "--dry-run") == "would discard 3 rows\n"
    said = facts(shell.run("discard", NAME, SOURCE, "--item", "1", "--reason", "test data"))
    assert said["discarded"] == "3 rows"
    assert shell.json("list", NAME)["sources"][0]["open_rows"] == 3
    assert facts(shell.run("show", NAME, SOURCE, "1:1"))["became"].startswith("discarded ")
    shell.run("discard", NAME, SOURCE, "--all", "--reason", "test data")
    assert shell.run("list", NAME) == "no row in quarantine is open\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list", NAME, "other"), "expected a source of which rows are held"),
        (("list", NAME, "--limit", "0"), "--limit 0"),
        (("list", NAME, "--rule", "required"), "expected FIELD:RULE"),
        (("show", NAME, SOURCE), "found neither"),
        (("show", NAME, SOURCE, "1:1", "--rule", "a:required"), "found both"),
        (("show", NAME, SOURCE, "1"), "expected ITEM:ROW"),
        (("show", NAME, SOURCE, "9:9"), "expected a held row 9:9"),
        (("replay", NAME, SOURCE), "a replay needs a reason"),
        (("replay", NAME, SOURCE, "--row", "1:x", "--reason", "r"), "expected ITEM:ROW"),
        (("replay", NAME, "other", "--reason", "r"), "expected one of its sources"),
        (("replay", "other", SOURCE, "--reason", "r"), "no capability other"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_what_cannot_be_meant_is_said(shell: Shell, lake: Lake, words: tuple[str, ...], said: str) -> None:
    hold(lake, many(1, 1))
    let_in(lake, [("K-1", 1.0, 2, 1)])
    with pytest.raises(Misuse, match=said):
        shell.run(*words)
