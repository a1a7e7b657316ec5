from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import mainstay
import tiny
from mainstay.cli.main import main
from mainstay.cli.versions import record_promotion, record_registration
from mainstay.client.types import Item
from mainstay.ledger.log import Log
from mainstay.ledger.sealer import Sealer
from mainstay.ledger.tiles import BODIES, TileName
from mainstay.signing import load_signing_key

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.workspace import Workspace


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, list[str]]:
    """Twelve sealed decisions: ten answers, a refusal, and one whose input was too long to be recorded."""
    workspace, token = tiny.make_served(tmp_path_factory.mktemp("cli") / "w")
    inputs: list[dict[str, Any]] = [{"a": place / 10, "b": 0.5} for place in range(10)]
    inputs += [{"a": 1_000}, {"a": 1.0, "b": 2.0, "note": "x" * (1 << 20)}]
    with mainstay.embed(tiny.NAME, workspace.root, key=token) as embedded:
        ids = [each.decision_id for each in embedded.decide_many([Item(each) for each in inputs])]
    seal(workspace)
    return workspace, ids


def seal(workspace: Workspace) -> None:
    with Sealer(workspace.ledger, load_signing_key(workspace.keys, None), workspace.settings.log) as sealer:
        sealer.seal_once()


def run(capsys: pytest.CaptureFixture[str], workspace: Workspace, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["replay", *words, "--workspace", str(workspace.root)])
    shown = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, shown.out, shown.err


def test_a_decision_that_is_the_same_exits_with_zero(
    decided: tuple[Workspace, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, ids = decided
    code, out, _ = run(capsys, workspace, ids[3])
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith(f"decision     {ids[3]}, recorded ")
    assert lines[-1] == "verdict      same"
    assert any(line.startswith("output.probability") and line.endswith("same") for line in lines)
    code, out, _ = run(capsys, workspace, ids[3], "--json")
    assert (code, json.loads(out)["verdict"]) == (0, "same")


def test_a_decision_that_cannot_be_known_exits_with_one_and_says_why(
    decided: tuple[Workspace, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, ids = decided
    code, out, _ = run(capsys, workspace, ids[11])
    assert code == 1
    assert out.splitlines()[-1] == "verdict      unknown (input_withheld): only a digest of the input was recorded"


def test_the_last_decisions_of_a_capability_are_summed_up(
    decided: tuple[Workspace, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, ids = decided
    code, out, _ = run(capsys, workspace, "--capability", "tiny")
    assert code == 1
    assert out.splitlines() == [
        f"{ids[11]}  input_withheld  only a digest of the input was recorded",
        "12 decisions of tiny: 11 same, 0 different, 1 unknown (1 input_withheld)",
    ]
    code, out, _ = run(capsys, workspace, "--capability", "tiny", "--json")
    facts = json.loads(out)
    assert (code, facts["replayed"], facts["unknown_because"]) == (1, 12, {"input_withheld": 1})
    assert [each["id"] for each in facts["not_the_same"]] == [ids[11]]
    code, out, _ = run(capsys, workspace, "--capability", "tiny", "--last", "3")
    assert (code, out) == (0, "3 decisions of tiny: 3 same, 0 different, 0 unknown\n")


def test_what_makes_no_sense_is_misuse(
    decided: tuple[Workspace, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, ids = decided
    change = next(json.loads(leaf)["id"] for leaf in Log(workspace.ledger).leaves(0, 3))
    for words, said in (
        ((), "expected the id of a decision, or --capability"),
        ((ids[0], "--capability", "tiny"), "expected the id of a decision, or --capability"),
        (("--capability", "tiny", "--last", "0"), "expected 1 to"),
        (("--capability", "nobody"), "has no sealed decision"),
        (("no-such-id",), "no entry 'no-such-id'"),
        ((change,), "is a change: expected a decision"),
    ):
        code, _, err = run(capsys, workspace, *words)
        assert (code, said in err) == (2, True), (words, err)


def test_people_who_may_not_see_decisions_may_not_replay_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    with mainstay.embed(tiny.NAME, workspace.root, key=token) as embedded:
        decision = embedded.decide({"a": 1.0, "b": 0.5})
    folder = tiny.write_folder(workspace.capabilities / tiny.NAME)
    policies = folder / "authority.cedar"
    nobody = '@id("none") forbid (principal is Mainstay::Person, action == Mainstay::Action::"see", resource);'
    policies.write_text(f"{policies.read_text()}\n{nobody}\n")
    record_promotion(workspace, tiny.NAME, record_registration(workspace, folder, None).version, "for a test")
    seal(workspace)
    for words in ((decision.decision_id,), ("--capability", "tiny")):
        code, out, err = run(capsys, workspace, *words)
        assert (code, out) == (2, "")
        assert "none" in err


def test_a_record_that_was_changed_is_not_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    with mainstay.embed(tiny.NAME, workspace.root, key=token) as embedded:
        decision = embedded.decide({"a": 1.0, "b": 0.5})
    seal(workspace)
    path = workspace.ledger / TileName(BODIES, 0).path
    path.write_bytes(path.read_bytes().replace(b'"input":{"a":1.0', b'"input":{"a":2.0'))
    code, _, err = run(capsys, workspace, decision.decision_id)
    assert code == 1
    assert "was changed: its body is not what its leaf commits to" in err
