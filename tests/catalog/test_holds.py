"""Holds: signed, effective at once, and in force whatever stands at their place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest

from mainstay.catalog.holding import hold, lift
from mainstay.catalog.holds import (
    HOLDS_PAYLOAD,
    Document,
    SourceHold,
    Standing,
    find_hold,
    read_holds,
    signature_of,
)
from mainstay.cli.init import create_workspace
from mainstay.errors import Misuse
from mainstay.ledger.wal import SegmentReader, segments
from mainstay.signing import create_signing_key, load_signing_key, open_envelope, sign_envelope

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.signing import SigningKey
    from mainstay.workspace import Workspace

WHY = "6 % of the last 1,000 rows are bad"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return create_workspace(tmp_path / "w", "tests.example.com/holds")[0]


@pytest.fixture
def key(workspace: Workspace) -> SigningKey:
    return load_signing_key(workspace.keys, None)


def held(workspace: Workspace, key: SigningKey, source: str = "feed", capability: str = "tiny") -> SourceHold | None:
    return hold(workspace, capability, source, code="bad_share", reason=WHY, principal="mainstay:intake", key=key)


def lifted(workspace: Workspace, key: SigningKey, source: str = "feed") -> Standing | None:
    return lift(workspace, "tiny", source, reason="mended at the source", principal="os:ops", key=key)


def standing(workspace: Workspace, key: SigningKey) -> Standing | None:
    return find_hold(workspace.holds, "tiny", key.verifier)


def changes(workspace: Workspace) -> list[tuple[str, str, str]]:
    """What the ledger has of holds: action, subject, reason."""
    groups = (group for path in segments(workspace.ledger / "wal") for group in SegmentReader(path).groups())
    leaves = [(json.loads(entry.leaf), json.loads(entry.body)) for group in groups for entry in group.entries]
    about = sorted(
        (pair for pair in leaves if pair[0]["action"].startswith("capability.")), key=lambda pair: pair[0]["at"]
    )
    return [(leaf["action"], leaf["subject"], body["reason"]) for leaf, body in about]


def test_a_hold_says_who_why_since_when_and_where_it_is_recorded(workspace: Workspace, key: SigningKey) -> None:
    assert standing(workspace, key) is None
    made = held(workspace, key)
    assert made is not None
    assert (made.source, made.code, made.reason, made.by) == ("feed", "bad_share", WHY, "mainstay:intake")
    assert made.entry is not None
    assert standing(workspace, key) == Standing(holds=(made,))
    assert read_holds(workspace.holds, key.verifier) == {"tiny": Standing(holds=(made,))}
    assert changes(workspace) == [("capability.held", "tiny/feed", WHY)]


def test_to_hold_again_changes_nothing(workspace: Workspace, key: SigningKey) -> None:
    first = held(workspace, key)
    seen = signature_of(workspace.holds)
    assert held(workspace, key) == first
    assert signature_of(workspace.holds) == seen
    assert len(changes(workspace)) == 1


def test_a_capability_is_held_until_its_last_source_is_lifted(workspace: Workspace, key: SigningKey) -> None:
    first, second = held(workspace, key, "feed"), held(workspace, key, "other")
    assert first is not None
    assert second is not None
    assert lifted(workspace, key, "feed") == Standing(holds=(first,))
    assert standing(workspace, key) == Standing(holds=(second,))
    assert lifted(workspace, key, "feed") is None
    assert lifted(workspace, key, "other") == Standing(holds=(second,))
    assert standing(workspace, key) is None
    assert signature_of(workspace.holds) == ()
    assert [action for action, _, _ in changes(workspace)] == ["capability.held"] * 2 + ["capability.released"] * 2


def test_the_fingerprint_changes_with_every_change_and_with_no_other(workspace: Workspace, key: SigningKey) -> None:
    seen = [signature_of(workspace.holds)]
    for step in (lambda: held(workspace, key), lambda: held(workspace, key, "other"), lambda: lifted(workspace, key)):
        step()
        assert signature_of(workspace.holds) == signature_of(workspace.holds) != seen[-1]
        seen.append(signature_of(workspace.holds))


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 5_000, b"x" * (2 << 20)])
def test_a_damaged_document_holds_and_says_so(content: bytes, workspace: Workspace, key: SigningKey) -> None:
    held(workspace, key)
    (workspace.holds / "tiny.json").write_bytes(content)
    found = standing(workspace, key)
    assert found is not None
    assert found.holds == ()
    assert "tiny.json" in found.damage
    assert found.detail == "it is held, and the document that says why cannot be relied on"


def test_what_somebody_else_signed_holds_and_so_does_what_is_of_another(
    workspace: Workspace, key: SigningKey, tmp_path: Path
) -> None:
    made = held(workspace, key)
    assert made is not None
    path = workspace.holds / "tiny.json"
    stranger = create_signing_key(tmp_path / "keys", "stranger", None)
    unlike = [
        sign_envelope(HOLDS_PAYLOAD, msgspec.json.encode(Document(capability="tiny", holds=(made,))), stranger),
        sign_envelope(HOLDS_PAYLOAD, msgspec.json.encode(Document(capability="other", holds=(made,))), key),
        sign_envelope(HOLDS_PAYLOAD, msgspec.json.encode(Document(capability="tiny", holds=())), key),
        sign_envelope(HOLDS_PAYLOAD, b'{"capability": "tiny"}', key),
    ]
    for content in unlike:
        path.write_bytes(content)
        found = standing(workspace, key)
        assert found is not None
        assert found.damage


def test_a_directory_in_its_place_holds(workspace: Workspace, key: SigningKey) -> None:
    (workspace.holds / "tiny.json").mkdir(parents=True)
    found = standing(workspace, key)
    assert found is not None
    assert found.damage


def test_a_damaged_document_is_left_by_a_hold_and_removed_by_a_lift(workspace: Workspace, key: SigningKey) -> None:
    held(workspace, key)
    (workspace.holds / "tiny.json").write_bytes(b"{")
    assert held(workspace, key, "other") is None
    assert (workspace.holds / "tiny.json").read_bytes() == b"{"
    found = lifted(workspace, key)
    assert found is not None
    assert found.damage
    assert standing(workspace, key) is None


def test_a_hold_that_was_not_recorded_any_more_is_recorded_by_the_next(workspace: Workspace, key: SigningKey) -> None:
    """As whoever dies between the two leaves it."""
    made = held(workspace, key)
    assert made is not None
    path = workspace.holds / "tiny.json"
    document = msgspec.json.decode(open_envelope(path.read_bytes(), HOLDS_PAYLOAD, key.verifier), type=Document)
    unrecorded = msgspec.structs.replace(document, holds=(msgspec.structs.replace(made, entry=None),))
    path.write_bytes(sign_envelope(HOLDS_PAYLOAD, msgspec.json.encode(unrecorded), key))
    again = held(workspace, key)
    assert again is not None
    assert again.since == made.since
    assert again.entry not in {None, made.entry}
    assert len(changes(workspace)) == 2


def test_words_and_names_are_asked_for(workspace: Workspace, key: SigningKey) -> None:
    for said in ({"reason": " "}, {"principal": ""}, {"capability": "../x"}, {"source": "A"}):
        words = {"capability": "tiny", "source": "feed", "reason": WHY, "principal": "os:ops"} | said
        with pytest.raises(Misuse):
            hold(workspace, code="bad_share", key=key, **words)
    with pytest.raises(Misuse):
        lift(workspace, "tiny", "feed", reason="", principal="os:ops", key=key)
    assert signature_of(workspace.holds) == ()
