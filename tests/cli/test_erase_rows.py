from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from cyclopts import App

from intake.held import SOURCE, broken, declare, held_row, hold, let_in, make_workspace
from mainstay.capability.sources import ScheduledBatch
from mainstay.cli.erase import erase
from mainstay.cli.erase_rows import key_field, read_fields
from mainstay.errors import Misuse
from mainstay.intake.declared import sources_in_force
from mainstay.lake.lake import open_lake
from mainstay.ledger.find import find_entry
from tiny import NAME

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.lake.lake import Lake
    from mainstay.workspace import Workspace


class Shell:
    """Runs the command on a workspace, in this process."""

    def __init__(self, workspace: Workspace, capture: pytest.CaptureFixture[str]) -> None:
        self.workspace = workspace
        self._capture = capture
        self._app = App(name="mainstay", result_action="return_value")
        self._app.command(erase)

    def run(self, *words: str) -> str:
        command = ["erase", *words, "--reason", "request 118", "--workspace", str(self.workspace.root)]
        assert self._app(command, exit_on_error=False) == 0
        return self._capture.readouterr().out

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(make_workspace(tmp_path / "w"), capsys)


@pytest.fixture
def lake(shell: Shell) -> Lake:
    made = open_lake(shell.workspace)
    let_in(made, [("K-3", 1.0, 1, 1), ("K-4", 2.0, 1, 2), ("K-3", 3.0, 2, 1)])
    hold(made, [held_row(2, 2, {"who": "K-3"}, broken("a", "required")), held_row(2, 3, {"was": "K-3"})])
    return made


def test_rows_are_found_by_the_key_where_the_folder_says_which_field_has_it(shell: Shell, lake: Lake) -> None:
    said = shell.run(NAME, "--key", "K-3", "--dry-run").splitlines()
    assert said == [
        "nothing to erase in the 2 entries of the log",
        "would erase  tiny feed: 2 rows taken in, 1 row in quarantine",
        "look at      tiny feed: 1 row in quarantine has the value as was; see --field",
    ]
    done = shell.run(NAME, "--key", "K-3", "--yes").splitlines()
    assert done[0] == "erased       2 rows taken in, 1 row in quarantine, of tiny feed"
    receipt = done[1].removeprefix("receipt").strip()
    found = find_entry(shell.workspace.ledger, receipt)
    assert found is not None
    assert json.loads(found.entry.body)["reason"] == "request 118"
    assert lake.table("intake/tiny/feed").rows == 1
    assert shell.run(NAME, "--key", "K-3", "--yes").startswith("nothing to erase")


def test_rows_are_found_by_a_field_that_is_named(shell: Shell, lake: Lake) -> None:
    assert lake.names("intake/")
    assert shell.run(NAME, "--field", "who=nobody", "--dry-run") == "nothing to erase in what was taken in\n"
    (facts,) = shell.json(NAME, "--field", "was=K-3", "--dry-run")["rows"]
    assert (facts["accepted"], facts["quarantined"], facts["in_other_fields"]) == (0, 1, {"who": 1})
    done = shell.json(NAME, "--field", "who=K-3", "--field", "a=1", "--source", SOURCE, "--yes")
    assert [(each["source"], each["accepted"], each["held"]) for each in done["rows"]] == [(SOURCE, 1, 0)]
    assert done["erasures"] == []


def test_a_source_that_does_not_say_which_field_has_the_key_is_named(shell: Shell, lake: Lake) -> None:
    assert lake.names("intake/")
    declare(shell.workspace, key=[])
    said = shell.run("--key", "K-3", "--dry-run")
    assert "look at      tiny feed: it does not say which field has the key; say it with --field NAME=VALUE" in said
    (facts,) = shell.json("--key", "K-3", "--dry-run")["rows"]
    assert facts == {"capability": NAME, "source": SOURCE, "searched": False}


def test_the_key_of_a_scheduled_batch_is_the_business_key(shell: Shell) -> None:
    declare(shell.workspace, key=["who", "b"])
    in_force = sources_in_force(shell.workspace, NAME)
    assert key_field(in_force, in_force.source(SOURCE)) is None
    declare(shell.workspace, key=["who"])
    in_force = sources_in_force(shell.workspace, NAME)
    assert key_field(in_force, in_force.source(SOURCE)) == "who"
    batches = (ScheduledBatch(name="nightly", source=SOURCE, key="b"),)
    with_batch = replace(in_force, capability=msgspec.structs.replace(in_force.capability, batches=batches))
    assert key_field(with_batch, in_force.source(SOURCE)) == "b"


def test_nobody_is_erased_without_being_asked(shell: Shell, lake: Lake) -> None:
    with pytest.raises(Misuse, match="expected --yes"):
        shell.run(NAME, "--field", "who=K-3")
    assert lake.table("intake/tiny/feed").rows == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((NAME,), "found neither"),
        ((NAME, "--key", "k", "--id", "i"), "found both"),
        (("--field", "a=1"), "expected its name"),
        ((NAME, "--id", "i", "--field", "a=1"), "names one decision"),
        ((NAME, "--field", "a"), "expected NAME=VALUE"),
        ((NAME, "--field", "a= "), "expected NAME=VALUE"),
        ((NAME, "--field", "a=1", "--field", "a=2"), "each once"),
        ((NAME, "--field", "a=1", "--source", "other"), "tiny other: expected a source"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_what_cannot_be_meant_is_said(shell: Shell, lake: Lake, words: tuple[str, ...], said: str) -> None:
    assert lake.names("intake/")
    with pytest.raises(Misuse, match=said):
        shell.run(*words)


def test_a_value_may_hold_any_sign() -> None:
    assert read_fields(("a.b=c=d", "e= f")) == (("a.b", "c=d"), ("e", " f"))
