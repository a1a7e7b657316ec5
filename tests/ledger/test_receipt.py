from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.samples import KEY, ORIGIN, make_entry
from mainstay.errors import Damaged, Misuse
from mainstay.ledger.entry import format_id
from mainstay.ledger.note import Checkpoint, sign_checkpoint
from mainstay.ledger.proof import Body, Proof, format_proof, pack_entry, verify_proof
from mainstay.ledger.receipt import hold_receipt

ENTRY = make_entry(format_id("0123456789", 7, 1_767_225_600_000), reasons=["low_confidence"])
NOTE = sign_checkpoint(Checkpoint(ORIGIN, 1, ENTRY.leaf_hash), KEY)
WITH_BODY = verify_proof(
    format_proof(Proof(0, (), NOTE, pack_entry(ENTRY.leaf, Body(ENTRY.salt, ENTRY.body)))), KEY.verifier
)
ALONE = WITH_BODY._replace(body=None)

RECEIPT = {"leaf": ENTRY.leaf_hash.hex(), "log": ORIGIN, "recorded_at": "2026-01-01T00:00:00.000000Z"}
ANSWER: dict[str, Any] = {
    "decision_id": format_id("0123456789", 7, 1_767_225_600_000),
    "capability": "late-arrival",
    "version": "sha256:v1",
    "release": 1,
    "stage": "production",
    "outcome": "answered",
    "output": {"p": 0.5},
    "confidence": None,
    "reasons": [{"code": "low_confidence", "detail": "not in the leaf"}],
    "receipt": RECEIPT,
}


def encoded(answer: Any) -> bytes:
    return json.dumps(answer).encode()


def test_an_answer_as_it_was_given_holds() -> None:
    assert hold_receipt(encoded(ANSWER), WITH_BODY) == "same"
    assert hold_receipt(encoded(ANSWER), ALONE) == "unknown"
    assert hold_receipt(encoded(ANSWER | {"output": None}), WITH_BODY) == "unknown"
    assert hold_receipt(encoded(ANSWER | {"output": {"p": 0.75}}), WITH_BODY) == "other"


def test_a_receipt_alone_is_held_too() -> None:
    assert hold_receipt(encoded(RECEIPT), WITH_BODY) == "unknown"
    assert hold_receipt(encoded({"title": "refused", "status": 422, "receipt": RECEIPT}), WITH_BODY) == "unknown"
    with pytest.raises(Damaged, match=r"receipt\.leaf"):
        hold_receipt(encoded(RECEIPT | {"leaf": "00" * 32}), WITH_BODY)


CHANGES: list[dict[str, Any]] = [
    *({name: "another"} for name in ("decision_id", "capability", "version", "stage", "outcome")),
    {"release": 2},
    {"reasons": []},
    {"reasons": [{"code": "low_confidence"}, {"code": "fallback"}]},
    *({"receipt": RECEIPT | {name: "another"}} for name in RECEIPT),
]


@pytest.mark.parametrize("change", CHANGES, ids=json.dumps)
def test_any_other_word_of_it_is_named(change: dict[str, Any]) -> None:
    [name] = change
    with pytest.raises(Damaged, match=rf"not of this entry: {name}[.\w]*: the log says .*, the answer "):
        hold_receipt(encoded(ANSWER | change), WITH_BODY)


def test_everything_that_differs_is_named_at_once() -> None:
    other = {"release": 2, "outcome": "refused", "receipt": RECEIPT | {"log": "x" * 10_000}}
    with pytest.raises(Damaged, match=r"receipt\.log: .*; release: .*; outcome: ") as wrong:
        hold_receipt(encoded(ANSWER | other), WITH_BODY)
    assert len(wrong.value.message) < 1_000


def test_a_leaf_that_is_not_ours_has_nothing_an_answer_could_be_held_against() -> None:
    with pytest.raises(Damaged, match="decision_id: the log says None"):
        hold_receipt(encoded(ANSWER), ALONE._replace(leaf=b"\xff"))


@given(st.binary(max_size=200))
def test_what_is_no_answer_is_misuse_and_nothing_else(content: bytes) -> None:
    for attempt in (content, b'{"receipt":' + content + b"}", b"[" * 5_000):
        with pytest.raises(Misuse, match="expected the JSON of an answer"):
            hold_receipt(attempt, WITH_BODY)
