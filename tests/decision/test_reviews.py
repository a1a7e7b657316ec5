from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest

import tiny
from decision.waiting import PROPOSED, Desk
from mainstay.decision.reviews import Ruling, resolve
from mainstay.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.capability.classified import Action
    from mainstay.ledger.review_entries import Resolution

REASON = "called the crew"
WHO = "os:ops-control"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "w")
    yield desk
    desk.segment.abandon()


def desk_with_a_classified_output(directory: Path, action: Action) -> Desk:
    """Its answers hold a confidential note."""
    contract = copy.deepcopy(tiny.CONTRACT)
    note = {"name": "note", "logicalType": "string", "classification": "confidential"}
    contract["schema"][1]["properties"].append({**note, "logicalTypeOptions": {"maxLength": 20}})
    output = {**tiny.DECLARATION["output"], "note": {"take": "label"}}
    return Desk(directory, contract=contract, output=output, protect={"confidential": action})


def rule(desk: Desk, decision_id: str, ruling: Ruling) -> Resolution:
    return resolve(desk.workspace, desk.queue, decision_id, ruling)


def changed(output: Any) -> Ruling:
    return Ruling("changed", REASON, WHO, json.dumps(output).encode())


def test_accepting_takes_what_was_proposed(desk: Desk) -> None:
    decision = desk.leave()
    made = rule(desk, decision, Ruling("accepted", REASON, WHO))
    assert (made.verdict, made.output, made.reason, made.principal) == ("accepted", PROPOSED, REASON, WHO)
    assert desk.listed() == []


def test_another_output_is_recorded_as_given(desk: Desk) -> None:
    made = rule(desk, desk.leave(proposed=None), changed({"probability": 0.1, "yes": False}))
    assert (made.verdict, made.output) == ("changed", {"probability": 0.1, "yes": False})


def test_rejecting_leaves_no_output(desk: Desk) -> None:
    made = rule(desk, desk.leave(), Ruling("rejected", REASON, WHO))
    assert (made.verdict, made.output) == ("rejected", None)


@pytest.mark.parametrize(
    ("output", "rules"),
    [
        ({"probability": 3, "yes": "maybe"}, ["probability: maximum", "yes: type"]),
        ({"probability": 0.5, "yes": True, "why": "x"}, ["why: unknown-field"]),
        ([], ["not-an-object"]),
    ],
)
def test_an_output_that_breaks_the_contract_is_refused_with_every_rule(
    desk: Desk, output: Any, rules: list[str]
) -> None:
    decision = desk.leave()
    with pytest.raises(Misuse, match="breaks the contract of tiny") as caught:
        rule(desk, decision, changed(output))
    assert all(each in caught.value.message for each in rules)
    with pytest.raises(Misuse, match="malformed"):
        rule(desk, decision, Ruling("changed", REASON, WHO, b'{"probability":'))
    assert desk.listed() == [decision]


def test_what_was_not_proposed_or_breaks_the_contract_cannot_be_accepted(desk: Desk) -> None:
    nothing, broken = desk.leave(proposed=None), desk.leave(proposed={"probability": 7, "yes": True})
    with pytest.raises(Misuse, match="no proposed output to accept"):
        rule(desk, nothing, Ruling("accepted", REASON, WHO))
    with pytest.raises(Misuse, match="probability: maximum"):
        rule(desk, broken, Ruling("accepted", REASON, WHO))
    assert desk.listed() == [nothing, broken]


@pytest.mark.parametrize(
    ("ruling", "expected"),
    [
        (Ruling("rejected", " ", WHO), "needs a reason"),
        (Ruling("rejected", "x" * 10_001, WHO), "needs a reason"),
        (Ruling("changed", REASON, WHO), "output of one's own"),
        (Ruling("rejected", REASON, WHO, b"{}"), "output of one's own"),
        (Ruling("accepted", REASON, WHO, b"{}"), "output of one's own"),
    ],
)
def test_a_ruling_that_contradicts_itself_or_gives_no_reason_is_refused(
    desk: Desk, ruling: Ruling, expected: str
) -> None:
    decision = desk.leave()
    with pytest.raises(Misuse, match=expected):
        rule(desk, decision, ruling)
    assert desk.listed() == [decision]


def test_a_second_ruling_revises_the_first_when_it_says_so(desk: Desk) -> None:
    decision = desk.leave()
    first = rule(desk, decision, Ruling("accepted", REASON, WHO))
    with pytest.raises(Misuse, match="resolved already"):
        rule(desk, decision, Ruling("rejected", REASON, WHO))
    second = rule(desk, decision, Ruling("rejected", REASON, WHO, again=True))
    assert second.revises == first.id


@pytest.mark.parametrize(
    ("action", "recorded"), [("mask", "***"), ("drop", None), ("pseudonym", "pseudonym:")], ids=str
)
def test_the_recorded_output_is_protected_as_the_version_declares(
    tmp_path: Path, action: Action, recorded: str | None
) -> None:
    desk = desk_with_a_classified_output(tmp_path / "w", action)
    made = rule(desk, desk.leave(), changed({"probability": 0.1, "yes": False, "note": "Storgata 1"}))
    assert (made.output.get("note") or "").startswith(recorded or "")
    assert ("note" in made.output) == (recorded is not None)
    assert (made.output["probability"], made.output["yes"]) == (0.1, False)
    with pytest.raises(Misuse, match="note: max-length") as caught:
        rule(desk, desk.leave(), changed({"probability": 0.1, "yes": False, "note": "Storgata 123, 0155 Oslo"}))
    assert "Storgata" not in str(caught.value)
    stored = b"".join(path.read_bytes() for path in desk.workspace.ledger.rglob("*") if path.is_file())
    assert b"Storgata" not in stored
    desk.segment.abandon()


def test_what_was_proposed_is_accepted_as_it_was_protected(tmp_path: Path) -> None:
    desk = desk_with_a_classified_output(tmp_path / "w", "pseudonym")
    proposed = {**PROPOSED, "note": "pseudonym:0123456789abcdef0123456789abcdef"}
    made = rule(desk, desk.leave(proposed=proposed), Ruling("accepted", REASON, WHO))
    assert made.output == proposed, "longer than the contract allows, and not made a pseudonym of a pseudonym"
    desk.segment.abandon()
