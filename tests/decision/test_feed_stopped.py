"""Decisions while a feed of their capability is stopped: what is declared for it, their records, their replays."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import mainstay
import tiny
from mainstay.catalog.holding import hold, lift
from mainstay.client.errors import Unavailable
from mainstay.client.types import Item
from mainstay.decision.replay import Replayer
from mainstay.ledger.find import find_entry
from mainstay.signing import load_signing_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.decision.replayed import Replayed
    from mainstay.embedded import Embedded
    from mainstay.workspace import Workspace

CONSTANT = {"probability": 0.25, "yes": False}
GOOD = {"a": 0.5, "b": 0.25}
UNSURE = {"a": 0.1, "b": -0.1}


def stop(workspace: Workspace) -> None:
    key = load_signing_key(workspace.keys, None)
    hold(workspace, tiny.NAME, "feed", code="bad_share", reason="for a test", principal="mainstay:intake", key=key)


def go_on(workspace: Workspace) -> None:
    key = load_signing_key(workspace.keys, None)
    lift(workspace, tiny.NAME, "feed", reason="mended", principal="os:ops", key=key)


@contextmanager
def held(directory: Path, **changes: Any) -> Iterator[tuple[Workspace, Embedded]]:
    """The tiny capability in this process, while a feed of it is stopped."""
    workspace, token = tiny.make_served(directory, **{"fallback": [{"constant": CONSTANT}]} | changes)
    stop(workspace)
    with mainstay.embed(tiny.NAME, workspace.root, key=token) as embedded:
        yield workspace, embedded


def replay(workspace: Workspace, decision_id: str) -> Replayed:
    found = find_entry(workspace.ledger, decision_id)
    assert found is not None
    with Replayer(workspace) as replayer:
        (replayed,) = replayer.replay([found.entry])
    return replayed


def codes(decision: Any) -> list[str]:
    return [reason.code for reason in decision.reasons]


def test_by_default_the_fallback_answers_and_says_why(tmp_path: Path) -> None:
    with held(tmp_path / "w") as (workspace, embedded):
        decision = embedded.decide(GOOD)
        assert (decision.outcome, decision.output, codes(decision)) == ("fallback", CONSTANT, ["feed_stopped"])
        assert decision.reasons[0].detail.startswith("source feed is stopped since 20")
    replayed = replay(workspace, decision.decision_id)
    assert (replayed.verdict, replayed.exact) == ("same", True)


def test_a_review_leaves_it_to_a_person(tmp_path: Path) -> None:
    with held(tmp_path / "w", when={"feed_stopped": "review"}) as (workspace, embedded):
        decision = embedded.decide(GOOD)
        assert (decision.outcome, decision.output, codes(decision)) == ("review", None, ["feed_stopped"])
    assert replay(workspace, decision.decision_id).verdict == "same"


@pytest.mark.parametrize("changes", [{"when": {"feed_stopped": "refuse"}}, {"fallback": []}])
def test_a_refusal_and_a_ladder_without_rungs_give_none(changes: dict[str, Any], tmp_path: Path) -> None:
    with held(tmp_path / "w", **changes) as (_, embedded), pytest.raises(Unavailable) as refused:
        embedded.decide(GOOD)
    assert "(503): source feed is stopped since 20" in refused.value.message


def test_answered_all_the_same_it_has_the_reason_beside_the_answer(tmp_path: Path) -> None:
    with held(tmp_path / "w", when={"feed_stopped": "answer"}) as (workspace, embedded):
        decision = embedded.decide(GOOD)
        assert (decision.outcome, codes(decision)) == ("answered", ["feed_stopped"])
        assert decision.output is not None
        assert decision.output["probability"] == pytest.approx(0.679, abs=0.001)
    replayed = replay(workspace, decision.decision_id)
    assert (replayed.verdict, replayed.exact) == ("same", True)


def test_a_doubt_beside_a_stopped_feed_does_what_is_declared_for_the_doubt(tmp_path: Path) -> None:
    when = {"feed_stopped": "answer", "low_confidence": "fallback"}
    with held(tmp_path / "w", when=when, min_confidence=0.6) as (workspace, embedded):
        decision = embedded.decide(UNSURE)
        assert (decision.outcome, decision.output) == ("fallback", CONSTANT)
        assert codes(decision) == ["feed_stopped", "low_confidence"]
    assert replay(workspace, decision.decision_id).verdict == "same"


def test_an_input_that_breaks_the_contract_is_told_so_and_not_that_the_feed_is_stopped(tmp_path: Path) -> None:
    with held(tmp_path / "w", when={"contract_violation": "review"}) as (_, embedded):
        assert codes(embedded.decide({"a": 1_000})) == ["contract_violation"]


def test_each_of_a_batch_is_held(tmp_path: Path) -> None:
    with held(tmp_path / "w") as (_, embedded):
        decisions = embedded.decide_many([Item(GOOD), Item({"a": 1_000}), Item(UNSURE)])
        assert [codes(each) for each in decisions] == [["feed_stopped"], ["contract_violation"], ["feed_stopped"]]


def test_the_last_good_answer_stands_in_and_another_version_does(tmp_path: Path) -> None:
    ladder = [{"last_good": {}}, {"constant": CONSTANT}]
    workspace, token = tiny.make_served(tmp_path / "w", fallback=ladder)
    with mainstay.embed(tiny.NAME, quick(workspace).root, key=token) as embedded:
        good = embedded.decide(GOOD, key="one").output
        stop(workspace)
        wait_until(embedded, "fallback")
        assert embedded.decide(UNSURE, key="one").output == good
        assert embedded.decide(UNSURE, key="two").output == CONSTANT
        go_on(workspace)
        wait_until(embedded, "answered")
    tiny.release(workspace, fallback=[{"version": "previous"}])
    stop(workspace)
    with mainstay.embed(tiny.NAME, workspace.root, key=token) as embedded:
        decision = embedded.decide(GOOD)
        assert (decision.outcome, decision.output, codes(decision)) == ("fallback", good, ["feed_stopped"])


def quick(workspace: Workspace) -> Workspace:
    """The same workspace, where files are looked at often."""
    path = workspace.root / "mainstay.toml"
    path.write_text(path.read_text() + "\nrefresh_seconds = 0.02\n")
    return replace(workspace, settings=msgspec.structs.replace(workspace.settings, refresh_seconds=0.02))


def wait_until(embedded: Embedded, outcome: str) -> None:
    until = time.monotonic() + 5
    while embedded.decide(GOOD).outcome != outcome:
        assert time.monotonic() < until, outcome
        time.sleep(0.01)


def test_another_capability_is_not_touched(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w", fallback=[{"constant": CONSTANT}])
    key = load_signing_key(workspace.keys, None)
    hold(workspace, "other", "feed", code="bad_share", reason="for a test", principal="mainstay:intake", key=key)
    with mainstay.embed(tiny.NAME, workspace.root, key=token) as embedded:
        assert embedded.decide(GOOD).outcome == "answered"


def test_a_directory_of_holds_that_cannot_be_read_keeps_those_before_it_in_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workspace, token = tiny.make_served(tmp_path / "w", fallback=[{"constant": CONSTANT}])
    stop(quick(workspace))
    with mainstay.embed(tiny.NAME, workspace.root, key=token) as embedded:
        wait_until(embedded, "fallback")
        workspace.holds.rename(workspace.data / "aside")
        workspace.holds.write_text("no directory")
        time.sleep(0.2)
        assert embedded.decide(GOOD).outcome == "fallback"
        assert "holds not read, those before them stay in force" in caplog.text
        workspace.holds.unlink()
        wait_until(embedded, "answered")


def test_the_leaf_counts_it_under_its_code(tmp_path: Path) -> None:
    with held(tmp_path / "w") as (workspace, embedded):
        found = find_entry(workspace.ledger, embedded.decide(GOOD).decision_id)
    assert found is not None
    assert json.loads(found.entry.leaf)["reasons"] == ["feed_stopped"]
