"""One function, several faces: equal outputs and equal records, however a decision is asked for."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest

import mainstay
import tiny
from mainstay.client.errors import CallRefused
from mainstay.client.types import Item
from mainstay.errors import Misuse
from mainstay.ledger.find import find_entry
from mainstay.ledger.verify import verify_ledger
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.workspace import Workspace

pytestmark = pytest.mark.acceptance

INPUTS: list[dict[str, Any]] = [
    {"a": 0.5, "b": 1},
    {"a": -1.5, "b": -3, "note": "private"},
    {"a": 1, "b": -2},  # each value is ordinary, the two together are not
    {"a": 1_000, "b": 1},  # against the contract
]
REFERENCE = "\n".join(json.dumps({"input": {"a": step / 100, "b": step / 50}}) for step in range(-200, 200))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tiny.Up]:
    directory = tmp_path_factory.mktemp("faces") / "w"
    workspace, token = tiny.make_served(directory)
    (workspace.capabilities / tiny.NAME / "reference.jsonl").write_text(REFERENCE)
    tiny.release(
        workspace,
        reference={"file": "reference.jsonl"},
        when={"out_of_distribution": "fallback"},
        fallback=[{"constant": {"probability": 0.5, "yes": False}}],
    )
    with tiny.up(workspace, token) as up:
        yield up


def facts(workspace: Workspace, decision_id: str) -> dict[str, Any]:
    """What the ledger holds of a decision, without what makes each of them unique."""
    found = find_entry(workspace.ledger, decision_id)
    assert found is not None
    leaf, body = msgspec.json.decode(found.entry.leaf), msgspec.json.decode(found.entry.body)
    for unique in ("id", "at", "body"):
        del leaf[unique]
    assert 0 <= body.pop("seconds") < 60
    return {"leaf": leaf, "body": body}


def native(up: tiny.Up, record: dict[str, Any]) -> str:
    answer = httpx.post(up.decisions_url, json={"input": record, "key": "k"}, headers=up.headers).json()
    return str(answer["decision_id"])


def batch(up: tiny.Up, record: dict[str, Any]) -> str:
    with mainstay.Client(up.url, up.token) as client:
        return client.decide_many(tiny.NAME, [Item(record, key="k")])[0].decision_id


def asynchronous(up: tiny.Up, record: dict[str, Any]) -> str:
    async def ask() -> str:
        async with mainstay.AsyncClient(up.url, up.token) as client:
            return (await client.decide_many(tiny.NAME, [Item(record, key="k")]))[0].decision_id

    return asyncio.run(ask())


def in_process(up: tiny.Up, record: dict[str, Any]) -> str:
    with mainstay.embed(tiny.NAME, up.workspace.root, key=up.token) as capability:
        return capability.decide_many([Item(record, key="k")])[0].decision_id


@pytest.mark.parametrize("record", INPUTS, ids=["plain", "classified", "strange", "broken"])
def test_every_face_gives_the_same_output_and_leaves_the_same_record(served: tiny.Up, record: dict[str, Any]) -> None:
    expected = facts(served.workspace, native(served, record))
    for face in (batch, asynchronous, in_process):
        assert facts(served.workspace, face(served, record)) == expected, face.__name__
    assert "private" not in msgspec.json.encode(expected).decode()


def test_the_faces_saw_an_answer_a_fallback_and_a_refusal(served: tiny.Up) -> None:
    outcomes = [facts(served.workspace, native(served, record))["leaf"]["outcome"] for record in INPUTS]
    assert outcomes == ["answered", "answered", "fallback", "refused"]


def test_in_process_a_refusal_is_raised_with_every_violation(served: tiny.Up) -> None:
    with mainstay.embed(tiny.NAME, served.workspace.root, key=served.token) as capability:
        with pytest.raises(CallRefused) as refused:
            capability.decide({"a": "much"})
        assert refused.value.violations[0].field == "a"
        assert refused.value.decision_id is not None


def test_in_process_nobody_is_let_in_without_a_key(served: tiny.Up, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAINSTAY_API_KEY", raising=False)
    with pytest.raises(Misuse, match="MAINSTAY_API_KEY"):
        mainstay.embed(tiny.NAME, served.workspace.root)
    with (
        mainstay.embed(tiny.NAME, served.workspace.root, key="ms_00000000_" + "A" * 43) as capability,
        pytest.raises(CallRefused, match="401"),
    ):
        capability.decide(INPUTS[0])


def test_in_process_an_unknown_name_says_what_there_is(served: tiny.Up) -> None:
    with pytest.raises(Misuse, match="there is tiny"):
        mainstay.embed("tinny", served.workspace.root, key=served.token)


def test_what_was_decided_in_process_is_in_the_ledger_and_verifies(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    with mainstay.embed(tiny.NAME, workspace.root, key=token) as capability:
        decision = capability.decide(INPUTS[0], key="case")
    with pytest.raises(Misuse, match="closed"):
        capability.decide(INPUTS[0])
    assert find_entry(workspace.ledger, decision.decision_id) is not None
    with tiny.up(workspace, token):
        pass
    assert not verify_ledger(workspace.ledger, load_verifier(workspace.keys)).findings
