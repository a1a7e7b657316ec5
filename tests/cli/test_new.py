from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import drafts
from docs import claims
from mainstay.cli.common import Common
from mainstay.cli.init import create_workspace
from mainstay.cli.main import make_app
from mainstay.cli.new import new
from mainstay.cli.versions import register, validate
from mainstay.errors import InvalidDocument, Misuse

if TYPE_CHECKING:
    from collections.abc import Collection

    from cyclopts import App

NAME = "reading-above"


@pytest.fixture
def common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Common:
    workspace = create_workspace(tmp_path / "w", "tests.example.com/new")[0]
    drafts.write_graph(tmp_path / "model.onnx")
    drafts.write_sample(tmp_path / "sample.csv")
    monkeypatch.chdir(workspace.root)
    return Common(workspace=workspace.root)


def run_new(common: Common, **said: Any) -> None:
    options: dict[str, Any] = {"model": "../model.onnx", "data": Path("../sample.csv")} | said
    new(NAME, common=common, **options)


def test_it_says_what_was_inferred_what_is_left_and_what_to_do(
    common: Common, capsys: pytest.CaptureFixture[str]
) -> None:
    run_new(common)
    shown = capsys.readouterr().out.splitlines()
    assert shown[:10] == [
        "reading-above  capabilities/reading-above",
        "",
        "model      onnx: ONNX graph, binary (0, 1)",
        "sample     400 rows of sample.csv",
        "input      3 properties, inferred: by their number, in the order of the sample",
        "           3 required, 3 with bounds, 0 with listed values, 0 of one shape",
        "output     probability, label",
        shown[7],
        "reference  400 rows of the sample; none were held out",
        "",
    ]
    assert shown[7].startswith("label      above, inferred: the sample has one column more than the model takes: ")
    assert shown[10] == "8 questions left:"
    assert shown[11] == "  capability.yaml:7   what does the business use the answer for?"
    assert shown[-3:] == [
        "Next: answer each question in its place, then",
        "      mainstay validate capabilities/reading-above",
        "      mainstay register capabilities/reading-above",
    ]


def test_the_facts_say_how_sure_each_rule_is(common: Common, capsys: pytest.CaptureFixture[str]) -> None:
    run_new(Common(common.workspace, json=True))
    facts = msgspec.json.decode(capsys.readouterr().out)
    assert facts["folder"] == "capabilities/reading-above"
    assert facts["label"]["name"] == "above"
    assert facts["model"]["classes"] == [0, 1]
    assert [each["name"] for each in facts["input"]] == ["a", "b", "c"]
    inferred = facts["input"][0]["inferred"]
    assert inferred["support"] == 400
    assert inferred["rules"].keys() == {"type", "required", "minimum", "maximum"}
    assert inferred["confidence"] == min(inferred["rules"].values()) == 0.9925
    assert facts["questions"][0] == {
        "file": "capabilities/reading-above/capability.yaml",
        "line": 7,
        "where": "purpose",
        "question": "what does the business use the answer for?",
    }


def test_validate_lists_the_questions_and_register_refuses_until_they_are_answered(
    common: Common, capsys: pytest.CaptureFixture[str]
) -> None:
    run_new(common)
    folder = Path("capabilities", NAME)
    capsys.readouterr()
    assert validate(folder) == 1
    shown = capsys.readouterr().out
    assert "capability.yaml:10: owner.team: expected an answer to: which team answers for it?, found" in shown
    assert shown.endswith("8 problems\n")
    with pytest.raises(InvalidDocument) as caught:
        register(folder, common=common)
    drafts.answer(caught.value.problems)
    assert validate(folder) == 0
    register(folder, common=common)
    assert "runs in process (ONNX)" in capsys.readouterr().out


def test_the_folder_may_stand_elsewhere_and_is_never_overwritten(common: Common, tmp_path: Path) -> None:
    run_new(common, output=tmp_path / "elsewhere" / "it")
    assert (tmp_path / "elsewhere" / "it" / "capability.yaml").is_file()
    with pytest.raises(Misuse, match="exists, and nothing is overwritten"):
        run_new(common, output=tmp_path / "elsewhere" / "it")


def test_every_command_of_the_runbook_exists(common: Common) -> None:
    run_new(common)
    runbook = Path("capabilities", NAME, "runbook.md")
    found = set(claims.mentioned_commands(runbook, "mainstay", _Offered()))
    assert not list(claims.wrong_commands(runbook, "mainstay", _Offered()))
    assert {("status",), ("rollback",), ("explain",), ("review", "resolve"), ("ledger", "verify")} <= found
    assert max(map(len, runbook.read_text("utf-8").splitlines())) <= 120


class _Offered:
    """The commands of `mainstay`."""

    def subcommands(self, words: tuple[str, ...]) -> Collection[str]:
        return [name for name in self._app(words) if not name.startswith("-")]

    def options(self, words: tuple[str, ...]) -> Collection[str]:
        arguments = self._app(words).assemble_argument_collection()
        return {name for argument in arguments for name in (*argument.names, *argument.negatives)}

    def _app(self, words: tuple[str, ...]) -> App:
        found = make_app()
        for word in words:
            found = found[word]
        return found
