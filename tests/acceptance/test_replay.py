"""Replaying what was decided by models that run in processes of their own, and by models that run elsewhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import mainstay
import tiny
from mainstay.authority.keys import create_key
from mainstay.cli.common import signing_key
from mainstay.cli.init import create_workspace
from mainstay.cli.versions import record_promotion, record_registration
from mainstay.client.types import Item
from mainstay.decision.replay import Replayer
from mainstay.ledger.entry import Entry
from mainstay.ledger.find import find_entry

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.workspace import Workspace

pytestmark = pytest.mark.acceptance

MOODY = """
import math, os

def predict(records):
    if any(record["b"] == 66 for record in records):
        os._exit(3)
    found = [1 / (1 + math.exp(-record["a"] - record["b"])) for record in records]
    return [{"probability": p, "yes": p >= 0.5} for p in found]
"""


def decide(workspace: Workspace, token: str, *inputs: dict[str, Any]) -> list[Entry]:
    with mainstay.embed(tiny.NAME, workspace.root, key=token) as embedded:
        ids = [each.decision_id for each in embedded.decide_many([Item(each) for each in inputs])]
    found = [find_entry(workspace.ledger, each) for each in ids]
    return [each.entry for each in found if each is not None]


def test_an_isolated_model_is_replayed_in_a_process_of_its_own(tmp_path: Path) -> None:
    workspace, _, token = create_workspace(tmp_path / "w", "tests.example.com/tiny")
    folder = workspace.capabilities / tiny.NAME
    folder.mkdir(parents=True)
    (folder / "predict.py").write_text(MOODY)
    tiny.release(workspace, model={"kind": "python", "call": "predict.py:predict"}, output={})
    entries = decide(workspace, token, *({"a": place / 7, "b": 0.5} for place in range(40)))
    body = json.loads(entries[0].body) | {"input": {"a": 1.0, "b": 66.0}}
    deadly = Entry(entries[0].leaf, entries[0].salt, json.dumps(body).encode())
    with Replayer(workspace) as replayer:
        assert {each.verdict for each in replayer.replay(entries)} == {"same"}
        (crashed,) = replayer.replay([deadly])
        assert (crashed.verdict, crashed.unknown) == ("unknown", "replay_failed")
        assert "model_crashed" in crashed.detail
        (after,) = replayer.replay(entries[:1])
        assert after.verdict == "same"


def test_of_a_model_elsewhere_nobody_can_be_sure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, _, token = create_workspace(tmp_path / "there", "tests.example.com/there")
    contract = json.loads(json.dumps(tiny.CONTRACT))
    del contract["schema"][0]["properties"][2]  # the model elsewhere takes what is declared there, and nothing else
    folder = tiny.write_folder(there.capabilities / tiny.NAME, contract=contract)
    (folder / "samples.jsonl").write_text('{"a": 0.5, "b": 0.25}')
    record_promotion(there, tiny.NAME, record_registration(there, folder, None).version, "for a test")
    here, _, own_token = create_workspace(tmp_path / "here", "tests.example.com/here")
    _, other_token = create_key(
        there.access, signing_key(there), name="other", capabilities=[tiny.NAME], verbs=["decide", "read"]
    )
    monkeypatch.setenv("THERE_TOKEN", other_token)
    output = {"probability": {"take": "tensor", "tensor": "probability"}, "yes": {"take": "tensor", "tensor": "yes"}}
    with tiny.up(there, token) as service:
        remote = {"url": service.url, "model": tiny.NAME, "token_variable": "THERE_TOKEN"}
        tiny.release(here, model={"kind": "remote", "remote": remote, "features": ["a", "b"]}, output=output)
        entries = decide(here, own_token, {"a": 1.0, "b": 0.5}, {"a": 1_000})
        with Replayer(here) as replayer:
            answered, refused = replayer.replay(entries)
        body = json.loads(entries[0].body)
        other = Entry(entries[0].leaf, b"salt", json.dumps(body | {"confidence": 0.125}).encode())
        with Replayer(here) as replayer:
            (different,) = replayer.replay([other])
    assert (answered.verdict, answered.unknown, answered.differences) == ("unknown", "remote_model", ())
    assert "it gives the same now" in answered.detail
    assert refused.verdict == "same"  # no model was asked
    assert (different.verdict, different.unknown) == ("unknown", "remote_model")
    assert [each.field for each in different.differences] == ["confidence"]
    with Replayer(here) as replayer:
        (silent,) = replayer.replay(entries[:1])
    assert (silent.verdict, silent.unknown) == ("unknown", "replay_failed")
