"""Stopping a capability itself, and letting it decide again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from mainstay.catalog.holding import hold, lift, resume, stop
from mainstay.catalog.holds import HOLDS_PAYLOAD, Document, Standing, Stop, find_hold, signature_of
from mainstay.decision.in_force import hold_of
from mainstay.decision.types import Hold
from mainstay.errors import Misuse
from mainstay.ledger.wal import SegmentReader, segments
from mainstay.signing import SigningKey, create_signing_key, open_envelope, sign_envelope
from mainstay.workspace import SETTINGS_FILE, Workspace, open_workspace

if TYPE_CHECKING:
    from pathlib import Path

NAME = "tiny"
WHY = "it answers nonsense"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / SETTINGS_FILE).write_text('log = "mainstay.example.com/tests"\n')
    return open_workspace(tmp_path, {})


@pytest.fixture
def key(workspace: Workspace) -> SigningKey:
    return create_signing_key(workspace.keys, "mainstay.example.com/tests", None)


def stopped(workspace: Workspace, key: SigningKey, reason: str = WHY, principal: str = "os:ops") -> Stop:
    return stop(workspace, NAME, reason=reason, principal=principal, key=key)


def resumed(workspace: Workspace, key: SigningKey) -> Standing | None:
    return resume(workspace, NAME, reason="mended", principal="os:lead", key=key)


def held(workspace: Workspace, key: SigningKey) -> None:
    hold(workspace, NAME, "feed", code="bad_share", reason="half of it", principal="mainstay:intake", key=key)


def standing(workspace: Workspace, key: SigningKey) -> Standing | None:
    return find_hold(workspace.holds, NAME, key.verifier)


def changes(workspace: Workspace) -> list[tuple[str, str, str]]:
    """What the ledger has of it: action, subject and principal, in the order of time."""
    found = []
    for path in segments(workspace.ledger / "wal"):
        for group in SegmentReader(path).groups():
            found += [msgspec.json.decode(entry.leaf) for entry in group.entries]
    return [(leaf["action"], leaf["subject"], leaf["principal"]) for leaf in sorted(found, key=lambda leaf: leaf["at"])]


def test_a_stop_is_in_force_and_in_the_ledger_until_it_is_resumed(workspace: Workspace, key: SigningKey) -> None:
    made = stopped(workspace, key)
    assert (made.reason, made.by) == (WHY, "os:ops")
    assert made.entry is not None
    assert standing(workspace, key) == Standing(stopped=made)
    assert resumed(workspace, key) == Standing(stopped=made)
    assert standing(workspace, key) is None
    assert resumed(workspace, key) is None
    assert changes(workspace) == [("capability.stopped", NAME, "os:ops"), ("capability.resumed", NAME, "os:lead")]
    assert signature_of(workspace.holds) == ()


def test_stopped_again_the_first_stop_stays(workspace: Workspace, key: SigningKey) -> None:
    made = stopped(workspace, key)
    assert stopped(workspace, key, "another reason", "rollout:r1") == made
    assert len(changes(workspace)) == 1


def test_a_stop_and_the_holds_of_feeds_leave_each_other_alone(workspace: Workspace, key: SigningKey) -> None:
    held(workspace, key)
    made = stopped(workspace, key)
    found = standing(workspace, key)
    assert found is not None
    assert (found.stopped, [each.source for each in found.holds]) == (made, ["feed"])
    assert hold_of(found) == Hold("stopped", f"it is stopped since {made.since}, by os:ops")
    resumed(workspace, key)
    found = standing(workspace, key)
    assert found is not None
    assert (found.stopped, hold_of(found).code) == (None, "feed_stopped")
    stopped(workspace, key)
    lift(workspace, NAME, "feed", reason="mended", principal="os:ops", key=key)
    found = standing(workspace, key)
    assert found is not None
    assert (found.holds, hold_of(found).code) == ((), "stopped")
    held(workspace, key)
    assert standing(workspace, key) != found
    resumed(workspace, key)
    lift(workspace, NAME, "feed", reason="mended", principal="os:ops", key=key)
    assert standing(workspace, key) is None


def test_a_damaged_document_stops_gives_way_to_a_stop_and_is_removed_by_a_resume(
    workspace: Workspace, key: SigningKey
) -> None:
    for mend in (stopped, resumed):
        stopped(workspace, key)
        (workspace.holds / f"{NAME}.json").write_bytes(b"{")
        found = standing(workspace, key)
        assert found is not None
        assert hold_of(found).code == "stopped", "it may have said so"
        mend(workspace, key)
        found = standing(workspace, key)
        assert found is None or not found.damage
        assert (found is None) is (mend is resumed)
        resumed(workspace, key)


def test_a_stop_that_was_not_recorded_any_more_is_recorded_by_the_next(workspace: Workspace, key: SigningKey) -> None:
    """As whoever dies between the two leaves it."""
    made = stopped(workspace, key)
    path = workspace.holds / f"{NAME}.json"
    document = msgspec.json.decode(open_envelope(path.read_bytes(), HOLDS_PAYLOAD, key.verifier), type=Document)
    unrecorded = msgspec.structs.replace(document, stopped=msgspec.structs.replace(made, entry=None))
    path.write_bytes(sign_envelope(HOLDS_PAYLOAD, msgspec.json.encode(unrecorded), key))
    again = stopped(workspace, key, "another")
    assert (again.reason, again.since) == (WHY, made.since)
    assert again.entry not in {None, made.entry}


def test_words_and_names_are_asked_for(workspace: Workspace, key: SigningKey) -> None:
    for said in ({"reason": " "}, {"principal": ""}, {"capability": "../x"}):
        words = {"capability": NAME, "reason": WHY, "principal": "os:ops"} | said
        for change in (stop, resume):
            with pytest.raises(Misuse):
                change(workspace, key=key, **words)
    assert signature_of(workspace.holds) == ()
