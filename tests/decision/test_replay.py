from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import mainstay
import tiny
from mainstay.catalog.versions import version_path
from mainstay.cli.versions import record_promotion, record_registration
from mainstay.client.types import Item
from mainstay.decision.replay import Replayer
from mainstay.decision.replayed import Recorded, differences, read_decision
from mainstay.errors import Damaged, Misuse
from mainstay.ledger.entry import Entry
from mainstay.ledger.find import find_entry

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.decision.replayed import Replayed
    from mainstay.workspace import Workspace

LADDER = [
    {"rule": [{"when": [{"field": "b", "at_least": 50}], "then": {"probability": 0.9, "yes": True}}]},
    {"constant": {"probability": 0.5, "yes": False}},
]
GIVEN = {"a": 1.0, "b": 0.5}


def decide(workspace: Workspace, token: str, *inputs: dict[str, Any]) -> list[Entry]:
    """What the service records of these."""
    with mainstay.embed(tiny.NAME, workspace.root, key=token) as embedded:
        ids = [each.decision_id for each in embedded.decide_many([Item(each, key="k") for each in inputs])]
    return [recorded(workspace, each) for each in ids]


def recorded(workspace: Workspace, decision_id: str) -> Entry:
    found = find_entry(workspace.ledger, decision_id)
    assert found is not None
    return found.entry


def replay(workspace: Workspace, *entries: Entry) -> list[Replayed]:
    with Replayer(workspace) as replayer:
        return replayer.replay(entries)


def changed(entry: Entry, *, leaf: dict[str, Any] | None = None, **body: Any) -> Entry:
    """A record with other facts in it, as another moment would have left it."""
    whole = json.loads(entry.body) | body
    return Entry(json.dumps(json.loads(entry.leaf) | (leaf or {})).encode(), entry.salt, json.dumps(whole).encode())


def after(entry: Entry, code: str, **body: Any) -> Entry:
    """The same input, decided while the model did not answer."""
    outcome = "fallback" if "answered_by" in body else "refused"
    details = {"reasons": [{"code": code, "detail": "then"}], **body}
    output = details.pop("output", None)
    leaf = {"outcome": outcome, "reasons": [code]}
    return changed(entry, leaf=leaf, output=output, confidence=None, novelty=None, details=details)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str]:
    return tiny.make_served(
        tmp_path_factory.mktemp("replay") / "w",
        min_confidence=0.6,
        when={"low_confidence": "fallback"},
        fallback=LADDER,
    )


@pytest.fixture(scope="module")
def entries(served: tuple[Workspace, str]) -> dict[str, Entry]:
    """An answer, a fallback that the model's doubt led to, a refusal, and one with a classified field."""
    inputs = (GIVEN, {"a": 0.1, "b": -0.1}, {"a": 1_000}, {"a": 1.0, "b": 0.5, "note": "private"})
    return dict(zip(("answered", "unsure", "refused", "classified"), decide(*served, *inputs), strict=True))


@pytest.mark.parametrize("name", ["answered", "unsure", "refused", "classified"])
def test_what_was_decided_is_decided_again(name: str, served: tuple[Workspace, str], entries: dict[str, Entry]) -> None:
    (replayed,) = replay(served[0], entries[name])
    assert (replayed.verdict, replayed.unknown, replayed.exact) == ("same", None, True), replayed
    assert replayed.replayed == replayed.recorded
    leaf = json.loads(entries[name].leaf)
    assert (replayed.id, replayed.version, replayed.release) == (leaf["id"], leaf["version"], 1)


def test_a_replay_records_nothing(served: tuple[Workspace, str], entries: dict[str, Entry]) -> None:
    ledger = served[0].ledger
    before = {path: path.read_bytes() for path in ledger.rglob("*") if path.is_file() and "index" not in path.name}
    replay(served[0], *entries.values())
    assert before == {
        path: path.read_bytes() for path in ledger.rglob("*") if path.is_file() and "index" not in path.name
    }


def test_each_field_that_is_different_is_named_with_both_values(
    served: tuple[Workspace, str], entries: dict[str, Entry]
) -> None:
    other = changed(entries["answered"], output={"probability": 0.25, "yes": True}, confidence=0.75)
    (replayed,) = replay(served[0], other)
    assert replayed.verdict == "different"
    probability = json.loads(entries["answered"].body)["output"]["probability"]
    assert [(each.field, each.recorded, each.replayed) for each in replayed.differences] == [
        ("output.probability", 0.25, probability),
        ("confidence", 0.75, probability),
    ]


def test_the_last_digits_of_a_number_are_no_difference_and_are_told(
    served: tuple[Workspace, str], entries: dict[str, Entry]
) -> None:
    output = json.loads(entries["answered"].body)["output"]
    other = changed(entries["answered"], output=output | {"probability": output["probability"] * (1 + 1e-9)})
    (replayed,) = replay(served[0], other)
    assert (replayed.verdict, replayed.exact) == ("same", False)


def test_many_are_replayed_in_their_order(served: tuple[Workspace, str], entries: dict[str, Entry]) -> None:
    wrong = changed(entries["answered"], output={"probability": 0.25, "yes": True})
    many = [entries["answered"], wrong, entries["refused"]] * 200
    replayed = replay(served[0], *many)
    assert [each.verdict for each in replayed] == ["same", "different", "same"] * 200


def test_an_erased_body_leaves_the_verdict_unknown(served: tuple[Workspace, str], entries: dict[str, Entry]) -> None:
    (replayed,) = replay(served[0], Entry(entries["answered"].leaf, b"", b""))
    assert (replayed.verdict, replayed.unknown, replayed.replayed) == ("unknown", "erased", None)
    assert replayed.recorded.outcome == "answered"


def test_an_input_of_which_only_a_digest_is_recorded_is_unknown(
    served: tuple[Workspace, str], entries: dict[str, Entry]
) -> None:
    withheld = {"withheld": {"sha256": "0" * 64, "bytes": 70}}
    (replayed,) = replay(served[0], changed(entries["answered"], input=withheld))
    assert (replayed.verdict, replayed.unknown) == ("unknown", "input_withheld")


@pytest.mark.parametrize("action", ["pseudonym", "mask", "drop"])
def test_a_hidden_field_that_the_model_looks_at_is_unknown(tmp_path: Path, action: str) -> None:
    contract = json.loads(json.dumps(tiny.CONTRACT))
    contract["schema"][0]["properties"][1] |= {"classification": "restricted"}
    workspace, token = tiny.make_served(tmp_path / "w", contract=contract, protect={"restricted": action})
    given, absent = decide(workspace, token, GIVEN, {"a": 1.0})
    with Replayer(workspace) as replayer:
        hidden, other = replayer.replay([given, absent])
    assert (hidden.verdict, hidden.unknown) == ("unknown", "input_hidden")
    assert hidden.detail.endswith(": b")
    assert other.unknown == ("input_hidden" if action == "drop" else None)  # of a dropped field nothing is known


@pytest.mark.parametrize(("action", "unknown"), [("mask", "output_hidden"), ("pseudonym", None)])
def test_an_output_that_is_recorded_in_part_cannot_be_compared_whole(
    tmp_path: Path, action: str, unknown: str | None
) -> None:
    contract = json.loads(json.dumps(tiny.CONTRACT))
    contract["schema"][1]["properties"][0] |= {"classification": "restricted"}
    workspace, token = tiny.make_served(tmp_path / "w", contract=contract, protect={"restricted": action})
    (replayed,) = replay(workspace, *decide(workspace, token, GIVEN))
    assert (replayed.verdict, replayed.unknown) == ("unknown" if unknown else "same", unknown)


def test_a_version_no_longer_in_force_decides_again(served: tuple[Workspace, str], tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    (before,) = decide(workspace, token, GIVEN)
    tiny.release(workspace, output={"probability": {"take": "probability"}, "yes": {"take": "threshold", "at": 0.99}})
    (now,) = decide(workspace, token, GIVEN)
    with Replayer(workspace) as replayer:
        one, other = replayer.replay([before, now])
    assert (one.verdict, one.release, other.verdict, other.release) == ("same", 1, "same", 2)
    assert one.version != other.version
    assert one.recorded.output["yes"] is not other.recorded.output["yes"]


def test_a_canary_decides_again_as_a_canary(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    folder = tiny.write_folder(
        workspace.capabilities / tiny.NAME,
        output={"probability": {"take": "probability"}, "yes": {"take": "threshold", "at": 0.99}},
    )
    version = record_registration(workspace, folder, None).version
    record_promotion(workspace, tiny.NAME, version, "a trial", canary_percent=99)
    with mainstay.embed(tiny.NAME, workspace.root, key=token) as embedded:
        ids = [each.decision_id for each in embedded.decide_many([Item(GIVEN, key=str(place)) for place in range(400)])]
    replayed = replay(workspace, *(recorded(workspace, each) for each in ids))
    assert {each.verdict for each in replayed} == {"same"}
    assert {(each.stage, each.version == version) for each in replayed} == {("canary", True), ("production", False)}


def test_a_version_that_is_gone_or_changed_is_unknown(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    (entry,) = decide(workspace, token, GIVEN)
    path = version_path(workspace.versions, json.loads(entry.leaf)["version"])
    artifact = path / "folder" / "model" / "tiny.onnx"
    content = artifact.read_bytes()
    artifact.chmod(0o640)
    artifact.write_bytes(content[:-1] + b"?")
    (damaged,) = replay(workspace, entry)
    assert (damaged.verdict, damaged.unknown) == ("unknown", "version_unavailable")
    assert "expected content of sha256:" in damaged.detail
    shutil.rmtree(path)
    (gone,) = replay(workspace, entry)
    assert "no version" in gone.detail
    (of_another,) = replay(workspace, changed(entry, leaf={"release": 9}))
    assert "release 9 of tiny is not in" in of_another.detail


def test_a_record_that_names_another_version_than_its_release_is_unknown(
    served: tuple[Workspace, str], entries: dict[str, Entry]
) -> None:
    other = changed(entries["answered"], leaf={"version": "sha256:" + "0" * 64})
    (replayed,) = replay(served[0], other)
    assert (replayed.verdict, replayed.unknown) == ("unknown", "version_unavailable")
    canary = changed(entries["answered"], leaf={"stage": "canary"})
    (replayed,) = replay(served[0], canary)
    assert replayed.detail == "release 1 of tiny had no canary"


@pytest.mark.parametrize("code", ["deadline_exceeded", "model_crashed", "model_unavailable", "overloaded"])
def test_of_a_decision_without_its_model_the_fallback_is_replayed(
    code: str, served: tuple[Workspace, str], entries: dict[str, Entry]
) -> None:
    constant = {"probability": 0.5, "yes": False}
    known = after(entries["answered"], code, answered_by="constant", output=constant)
    other = after(entries["answered"], code, answered_by="constant", output=constant | {"yes": True})
    no_rule = after(entries["answered"], code, answered_by="rule", output=constant)
    kept = after(entries["answered"], code, answered_by="last_good", output=constant)
    nothing = after(entries["answered"], code)
    replayed = replay(served[0], known, other, no_rule, kept, nothing)
    assert [each.verdict for each in replayed] == ["same", "different", "unknown", "unknown", "unknown"]
    assert [each.unknown for each in replayed] == [None, None, "model_not_run", "not_kept", "model_not_run"]
    assert code in replayed[0].detail
    assert [each.field for each in replayed[1].differences] == ["output.yes"]


def test_a_rule_of_the_ladder_is_replayed_on_the_recorded_input(served: tuple[Workspace, str]) -> None:
    (entry,) = decide(*served, {"a": 1.0, "b": 60.0})
    known = after(entry, "model_crashed", answered_by="rule", output={"probability": 0.9, "yes": True})
    (replayed,) = replay(served[0], known)
    assert replayed.verdict == "same"


def test_a_version_on_the_ladder_is_replayed(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    (by_the_first,) = decide(workspace, token, GIVEN)
    output = json.loads(by_the_first.body)["output"]
    tiny.release(
        workspace,
        output={"probability": {"take": "probability"}, "yes": {"take": "threshold", "at": 0.99}},
        fallback=[{"version": "previous"}],
    )
    (entry,) = decide(workspace, token, GIVEN)
    known = after(entry, "deadline_exceeded", answered_by="version", output=output)
    other = after(entry, "deadline_exceeded", answered_by="version", output=output | {"yes": False})
    assert [each.verdict for each in replay(workspace, known, other)] == ["same", "different"]


def test_the_last_good_answer_of_then_is_not_kept(served: tuple[Workspace, str], entries: dict[str, Entry]) -> None:
    details = json.loads(entries["unsure"].body)["details"] | {"answered_by": "last_good"}
    (replayed,) = replay(served[0], changed(entries["unsure"], details=details))
    assert (replayed.verdict, replayed.unknown) == ("unknown", "not_kept")


def test_a_call_that_was_no_json_is_refused_again(served: tuple[Workspace, str], entries: dict[str, Entry]) -> None:
    details = {"reasons": [{"code": "malformed_input", "detail": "then"}]}
    entry = changed(
        entries["refused"],
        leaf={"reasons": ["malformed_input"]},
        input={"raw": '{"input": {"a": '},
        details=details,
    )
    (replayed,) = replay(served[0], changed(entry, novelty=None))
    assert replayed.verdict == "same", replayed


def test_what_is_no_decision_is_refused_and_what_is_no_body_is_damage(
    served: tuple[Workspace, str], entries: dict[str, Entry]
) -> None:
    with pytest.raises(Misuse, match="expected a decision"):
        replay(served[0], changed(entries["answered"], leaf={"kind": "outcome"}))
    with pytest.raises(Damaged, match="expected the body of a decision"):
        read_decision(Entry(entries["answered"].leaf, b"salt", b"not json"))


def test_values_are_compared_by_what_they_are() -> None:
    one = Recorded(outcome="answered", output={"a": 1, "b": [1.0, {"c": True}], "d": None})
    same = Recorded(outcome="answered", output={"a": 1.0, "b": [1.0 + 1e-12, {"c": True}]})
    other = Recorded(outcome="answered", output={"a": True, "b": [1.0, {"c": 1}], "d": 0})
    assert differences(one, same) == ()
    assert [each.field for each in differences(one, other)] == ["output.a", "output.b[1].c", "output.d"]
    assert [each.field for each in differences(one, msgspec.structs.replace(one, output=None))] == ["output"]
