"""Decisions while their capability itself is stopped: always the ladder, whatever is declared for feeds."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import mainstay
import tiny
from mainstay.catalog.holding import hold, resume, stop
from mainstay.client.errors import Unavailable
from mainstay.client.types import Item
from mainstay.decision.replay import Replayer
from mainstay.ledger.find import find_entry
from mainstay.signing import load_signing_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.embedded import Embedded
    from mainstay.workspace import Workspace

CONSTANT = {"probability": 0.25, "yes": False}
GOOD = {"a": 0.5, "b": 0.25}


@contextmanager
def stopped(directory: Path, **changes: Any) -> Iterator[tuple[Workspace, Embedded]]:
    """The tiny capability in this process, while it is stopped."""
    workspace, token = tiny.make_served(directory, **{"fallback": [{"constant": CONSTANT}]} | changes)
    key = load_signing_key(workspace.keys, None)
    stop(workspace, tiny.NAME, reason="it answers nonsense", principal="os:ops", key=key)
    with mainstay.embed(tiny.NAME, workspace.root, key=token) as embedded:
        yield workspace, embedded


@pytest.mark.parametrize("declared", ["answer", "review", "refuse", "fallback"])
def test_the_ladder_answers_whatever_is_declared_for_feeds(declared: str, tmp_path: Path) -> None:
    with stopped(tmp_path / "w", when={"feed_stopped": declared}) as (workspace, embedded):
        decision = embedded.decide(GOOD)
        assert (decision.outcome, decision.output) == ("fallback", CONSTANT)
        (reason,) = decision.reasons
        assert reason.code == "stopped"
        assert reason.detail.startswith("it is stopped since 20")
        assert reason.detail.endswith(", by os:ops")
    found = find_entry(workspace.ledger, decision.decision_id)
    assert found is not None
    assert json.loads(found.entry.leaf)["reasons"] == ["stopped"]
    with Replayer(workspace) as replayer:
        (replayed,) = replayer.replay([found.entry])
    assert (replayed.verdict, replayed.exact) == ("same", True)


def test_without_a_ladder_it_is_refused(tmp_path: Path) -> None:
    with stopped(tmp_path / "w", fallback=[]) as (_, embedded), pytest.raises(Unavailable) as refused:
        embedded.decide(GOOD)
    assert "(503): it is stopped since 20" in refused.value.message


def test_each_of_a_batch_is_stopped_and_a_broken_contract_is_told(tmp_path: Path) -> None:
    with stopped(tmp_path / "w", when={"contract_violation": "review"}) as (_, embedded):
        decisions = embedded.decide_many([Item(GOOD), Item({"a": 1_000})])
        codes = [[reason.code for reason in each.reasons] for each in decisions]
        assert codes == [["stopped"], ["contract_violation"]]


def test_a_feed_that_is_stopped_too_is_told_once_it_is_resumed(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w", fallback=[{"constant": CONSTANT}])
    key = load_signing_key(workspace.keys, None)
    hold(workspace, tiny.NAME, "feed", code="bad_share", reason="a test", principal="mainstay:intake", key=key)
    stop(workspace, tiny.NAME, reason="a drill", principal="os:ops", key=key)
    for expected in ("stopped", "feed_stopped"):
        with mainstay.embed(tiny.NAME, workspace.root, key=token) as embedded:
            assert [reason.code for reason in embedded.decide(GOOD).reasons] == [expected]
        resume(workspace, tiny.NAME, reason="over", principal="os:ops", key=key)
