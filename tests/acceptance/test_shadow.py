"""Shadows at work: what they are given, what is recorded of them, and that nothing else is done."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import chaos
import mainstay
import tiny
from mainstay.catalog.holding import resume, stop
from mainstay.catalog.releases import publish_shadow
from mainstay.cli.evidence import explain_entry, explanation_lines
from mainstay.cli.versions import record_registration
from mainstay.ledger.log import Log
from mainstay.ledger.sealer import Sealer
from mainstay.ledger.wal import SegmentReader, segments
from mainstay.signing import load_signing_key

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.embedded import Embedded
    from mainstay.workspace import Workspace

pytestmark = pytest.mark.acceptance

CONSTANT = {"probability": 0.25, "yes": False}
GOOD = {"a": 0.5, "b": 0.25, "note": "said in confidence"}


def make_shadowed(
    directory: Path, shadow: dict[str, Any], share: float = 1.0, queue: int = 1_000, **changes: Any
) -> tuple[Workspace, str, str]:
    """A workspace with the tiny capability in production and, with the changes `shadow`, as its shadow."""
    workspace, token = tiny.make_served(directory, **changes)
    folder = tiny.write_folder(workspace.capabilities / tiny.NAME, **shadow)
    return workspace, token, have_shadow(workspace, folder, share, queue)


def have_shadow(workspace: Workspace, folder: Path, share: float = 1.0, queue: int = 1_000) -> str:
    version = record_registration(workspace, folder, None).version
    key = load_signing_key(workspace.keys, None)
    publish_shadow(
        workspace, tiny.NAME, version, share=share, queue=queue, key=key, reason="to look at", principal="os:ops"
    )
    return version


def records(workspace: Workspace, kind: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Leaf and body of every entry of a kind, sealed or not, in the order of their ids."""
    log = Log(workspace.ledger)
    entries = list(log.entries(0, log.size))
    for path in segments(workspace.ledger / "wal"):
        entries += [entry for group in SegmentReader(path).groups() for entry in group.entries]
    found = {entry.leaf: entry.body for entry in entries}
    read = [(json.loads(leaf), json.loads(body)) for leaf, body in found.items()]
    return sorted(((leaf, body) for leaf, body in read if leaf["kind"] == kind), key=lambda each: str(each[0]["id"]))


def shadowed(workspace: Workspace, decision_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Leaf and body of what a shadow would have decided instead of a decision, once that is recorded."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for leaf, body in records(workspace, "shadow"):
            if leaf["decision_id"] == decision_id:
                return leaf, body
        time.sleep(0.05)
    raise AssertionError("the shadow never said anything")


def warm_up(embedded: Embedded, workspace: Workspace, call: dict[str, Any]) -> None:
    """Decide until the shadow's process is there and says so."""
    deadline = time.monotonic() + 20
    while not records(workspace, "shadow"):
        assert time.monotonic() < deadline, "the shadow never ran"
        embedded.decide(call)
        time.sleep(0.1)


def test_a_shadow_says_what_it_would_have_decided_and_decides_nothing(tmp_path: Path) -> None:
    # It runs the same graph, and is sure of nothing: it would have asked a person, or fallen back.
    doubtful = {"min_confidence": 0.9, "when": {"low_confidence": "fallback"}, "fallback": [{"constant": CONSTANT}]}
    workspace, token, version = make_shadowed(tmp_path / "w", doubtful)
    with mainstay.embed(tiny.NAME, workspace.root, key=token) as embedded:
        warm_up(embedded, workspace, GOOD)
        answers = [embedded.decide(GOOD, key="UA-1"), embedded.decide({"a": 90, "b": 9}, key="UA-2")]
        assert [each.outcome for each in answers] == ["answered", "answered"]
        (unsure, said), (sure, also) = [shadowed(workspace, each.decision_id) for each in answers]
    assert (unsure["version"], unsure["release"], unsure["capability"]) == (version, 2, tiny.NAME)
    assert (unsure["outcome"], unsure["reasons"]) == ("fallback", ["low_confidence"])
    assert (said["output"], said["details"]["answered_by"]) == (CONSTANT, "constant")
    assert (sure["outcome"], sure["reasons"], also["output"], also["details"]) == (
        "answered",
        [],
        answers[1].output,
        None,
    )
    assert 0 < said["seconds"] < 20
    taken = [body["seconds"] for kind in ("decision", "shadow") for _, body in records(workspace, kind)]
    assert any(round(seconds * 1e6) % 1000 for seconds in taken), "the loop's clock counts milliseconds; this must not"
    assert not any(name in said for name in ("input", "key", "principal"))
    assert not any(leaf["version"] == version for leaf, _ in records(workspace, "decision"))
    with Sealer(workspace.ledger, load_signing_key(workspace.keys, None), workspace.settings.log) as sealer:
        sealer.seal_once()
    explained = explain_entry(workspace, answers[0].decision_id)
    (line,) = [line for line in explanation_lines(explained) if line.startswith("shadow")]
    assert line.startswith(f"shadow       {version[:19]} would have fallen back (low_confidence): {{")
    alone = explain_entry(workspace, unsure["id"])
    assert alone["entry"]["kind"] == "shadow"
    assert any(line.startswith("decision_id") for line in explanation_lines(alone))


def test_a_shadow_has_a_contract_of_its_own_protects_its_output_and_remembers_nothing(tmp_path: Path) -> None:
    contract = json.loads(json.dumps(tiny.CONTRACT))
    contract["schema"][0]["properties"][0]["logicalTypeOptions"]["maximum"] = 10
    contract["schema"][1]["properties"][0]["classification"] = "confidential"
    other = {
        "contract": contract,
        "fallback": [{"last_good": {"max_age_seconds": 600}}],
        "protect": {"confidential": "drop"},
    }
    ladder = [{"last_good": {"max_age_seconds": 600}}]
    workspace, token, _ = make_shadowed(tmp_path / "w", other, fallback=ladder, when={"contract_violation": "fallback"})
    with mainstay.embed(tiny.NAME, workspace.root, key=token) as embedded:
        warm_up(embedded, workspace, GOOD)
        fine = embedded.decide(GOOD, key="UA-1")
        beyond = embedded.decide({"a": 50, "b": 1}, key="UA-2")
        broken = embedded.decide({"a": 500, "b": 1}, key="UA-1")
        assert (fine.outcome, beyond.outcome, broken.outcome) == ("answered", "answered", "fallback")
        (_, kept), (leaf, said), (again, _) = [shadowed(workspace, each.decision_id) for each in (fine, beyond, broken)]
    assert "probability" not in kept["output"]
    assert kept["output"]["yes"] is True
    assert (leaf["outcome"], leaf["reasons"]) == ("refused", ["contract_violation"])
    assert said["details"]["violations"][0]["field"] == "a"
    assert again["outcome"] == "refused"


def test_what_is_stopped_is_shown_to_no_shadow(tmp_path: Path) -> None:
    workspace, token, _ = make_shadowed(tmp_path / "w", {"title": "Another"}, fallback=[{"constant": CONSTANT}])
    key = load_signing_key(workspace.keys, None)
    with mainstay.embed(tiny.NAME, workspace.root, key=token) as embedded:
        warm_up(embedded, workspace, GOOD)
    stop(workspace, tiny.NAME, reason="a drill", principal="os:ops", key=key)
    with mainstay.embed(tiny.NAME, workspace.root, key=token) as embedded:
        held = embedded.decide(GOOD)
        assert (held.outcome, held.reasons[0].code) == ("fallback", "stopped")
        resume(workspace, tiny.NAME, reason="over", principal="os:ops", key=key)
        deadline = time.monotonic() + 20
        while embedded.decide(GOOD).outcome != "answered":
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert held.decision_id not in {leaf["decision_id"] for leaf, _ in records(workspace, "shadow")}


def counted(up: tiny.Up) -> dict[str, int]:
    """What became of the decisions that shadows were given."""
    text = httpx.get(f"{up.url}/metrics", headers=up.headers).text
    found = re.findall(r'mainstay_shadow_decisions_total\{capability="tiny",stage="shadow",fate="(\w+)"\} (\d+)', text)
    return {fate: int(number) for fate, number in found}


def seconds_of(up: tiny.Up, client: httpx.Client, **call: Any) -> float:
    """How long a caller waits for an answer of the model in force."""
    begun = time.monotonic()
    answer = client.post(up.decisions_url, json={"input": {"a": 1, "b": 1, **call}}, headers=up.headers)
    assert (answer.status_code, answer.json()["outcome"]) == (200, "answered")
    return time.monotonic() - begun


@pytest.mark.parametrize("note", ["segfault", "hang", "blow-up", "talk"])
def test_a_shadow_that_crashes_hangs_or_eats_memory_holds_nobody_up(note: str, tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    folder = chaos.write_folder(workspace.capabilities / tiny.NAME, deadline_ms=200)
    have_shadow(workspace, folder, queue=8)
    with tiny.up(workspace, token) as up, httpx.Client() as client:
        deadline = time.monotonic() + 20
        while not counted(up).get("compared"):
            assert time.monotonic() < deadline, counted(up)
            seconds_of(up, client)
            time.sleep(0.05)
        waits = [seconds_of(up, client, note=note) for _ in range(150)]
        assert sorted(waits)[len(waits) // 2] < 0.2, "nobody waits for a shadow"
        assert max(waits) < 3.0
        deadline = time.monotonic() + 10
        while not counted(up).get("failed") and note != "talk":
            assert time.monotonic() < deadline, counted(up)
            time.sleep(0.05)
    said = {code for leaf, _ in records(workspace, "shadow") for code in leaf["reasons"]}
    blamed = {"segfault": "model_crashed", "hang": "deadline_exceeded", "blow-up": "model_error", "talk": None}[note]
    assert blamed is None or said & {blamed, "model_crashed", "model_unavailable"}
    assert not any(leaf["outcome"] != "answered" for leaf, _ in records(workspace, "decision"))
    if note in {"hang", "blow-up"}:
        assert counted_dropped(workspace) > 0, "what finds the queue full is dropped"


def counted_dropped(workspace: Workspace) -> int:
    """Decisions that no shadow said anything of."""
    said = {leaf["decision_id"] for leaf, _ in records(workspace, "shadow")}
    return sum(leaf["id"] not in said for leaf, _ in records(workspace, "decision"))
