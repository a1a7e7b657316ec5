from __future__ import annotations

import json
import multiprocessing
import string
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.authority.keys import (
    SNAPSHOT,
    TOKEN_CHARACTERS,
    KeyRing,
    Principal,
    Verb,
    create_key,
    list_keys,
    load_key_ring,
    parse_token,
    revoke_key,
    signature_of,
)
from mainstay.errors import Damaged, Misuse
from mainstay.signing import SigningKey, create_signing_key, load_signing_key

BASE64URL = string.ascii_letters + string.digits + "-_"
well_formed = st.builds(
    lambda key_id, secret: f"ms_{key_id}_{secret}",
    st.text("0123456789abcdef", min_size=8, max_size=8),
    st.text(BASE64URL, min_size=43, max_size=43),
)


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return create_signing_key(tmp_path / "keys", "mainstay.example.com", None)


@pytest.fixture
def access(tmp_path: Path) -> Path:
    return tmp_path / "access"


def make(access: Path, key: SigningKey, name: str = "ops-control", **changes: Any) -> tuple[Any, str]:
    grants: dict[str, Any] = {"capabilities": ["late-arrival"], "verbs": ["decide"]} | changes
    return create_key(access, key, name=name, **grants)


def test_a_token_identifies_its_principal(access: Path, key: SigningKey) -> None:
    made, token = make(access, key)
    ring = load_key_ring(access, key.verifier)
    assert ring.identify(token) == Principal(made.id, "ops-control", ("late-arrival",), ("decide",))
    assert parse_token(token) == made.id
    assert len(token) == TOKEN_CHARACTERS


def test_only_what_was_granted_is_allowed(access: Path, key: SigningKey) -> None:
    _, one = make(access, key, "one")
    _, all_of_them = make(access, key, "all", capabilities=["*"], verbs=["report", "read"])
    ring = load_key_ring(access, key.verifier)
    narrow, wide = ring.identify(one), ring.identify(all_of_them)
    assert narrow is not None
    assert wide is not None
    assert narrow.may("decide", "late-arrival")
    assert not narrow.may("decide", "late-arrivals")
    assert not narrow.may("decide", "*")
    assert not narrow.may("read", "late-arrival")
    assert wide.may("report", "anything")
    assert not wide.may("decide", "anything")


def test_a_revoked_key_is_refused_and_stays_listed(access: Path, key: SigningKey) -> None:
    made, token = make(access, key)
    _, other = make(access, key, "other")
    before = signature_of(access)
    revoked = revoke_key(access, key, made.id)
    assert revoked.revoked_at is not None
    assert signature_of(access) != before
    ring = load_key_ring(access, key.verifier)
    assert ring.identify(token) is None
    assert ring.identify(other) is not None
    assert list_keys(access, key.verifier)[0].id == made.id
    assert revoke_key(access, key, made.id) == revoked, "revoking again changes nothing"


def test_revoking_an_unknown_key_is_misuse(access: Path, key: SigningKey) -> None:
    with pytest.raises(Misuse, match="no key has this id"):
        revoke_key(access, key, "00000000")


def test_a_key_is_refused_from_the_instant_it_expires(access: Path, key: SigningKey) -> None:
    expires_at = datetime.now(UTC) + timedelta(hours=1)
    _, token = make(access, key, expires_at=expires_at)
    ring = load_key_ring(access, key.verifier)
    assert ring.identify(token) is not None
    assert ring.identify(token, now=expires_at.timestamp() - 0.001) is not None
    assert ring.identify(token, now=expires_at.timestamp()) is None


@pytest.mark.parametrize(
    "expires_at",
    [datetime.now(UTC) - timedelta(seconds=1), datetime(2099, 1, 1)],  # noqa: DTZ001 - no zone is the point
    ids=["past", "no zone"],
)
def test_an_expiry_in_the_past_or_without_a_zone_is_misuse(access: Path, key: SigningKey, expires_at: datetime) -> None:
    with pytest.raises(Misuse, match="expires_at"):
        make(access, key, expires_at=expires_at)


@pytest.mark.parametrize(
    "changes",
    [
        {"capabilities": []},
        {"capabilities": ["../x"]},
        {"capabilities": ["Late"]},
        {"verbs": []},
        {"verbs": ["delete"]},
        {"name": ""},
        {"name": "two\nlines"},
        {"name": "x" * 201},
    ],
    ids=str,
)
def test_a_key_that_grants_nothing_or_nonsense_is_misuse(
    access: Path, key: SigningKey, changes: dict[str, Any]
) -> None:
    with pytest.raises(Misuse):
        make(access, key, **changes)
    assert not (access / SNAPSHOT).exists()


def test_two_live_keys_cannot_have_one_name(access: Path, key: SigningKey) -> None:
    made, _ = make(access, key)
    with pytest.raises(Misuse, match="a live key is named"):
        make(access, key)
    revoke_key(access, key, made.id)
    make(access, key)


def test_without_a_snapshot_nobody_is_let_in(access: Path, key: SigningKey) -> None:
    assert signature_of(access) is None
    assert list_keys(access, key.verifier) == ()
    assert load_key_ring(access, key.verifier).identify("ms_00000000_" + "A" * 43) is None


def test_a_changed_snapshot_is_damaged(access: Path, key: SigningKey) -> None:
    make(access, key)
    path = access / SNAPSHOT
    envelope = json.loads(path.read_bytes())
    payload = envelope["payload"]
    envelope["payload"] = ("B" if payload[100] == "A" else "A").join((payload[:100], payload[101:]))
    path.write_text(json.dumps(envelope))
    with pytest.raises(Damaged, match=SNAPSHOT):
        load_key_ring(access, key.verifier)
    with pytest.raises(Damaged):
        make(access, key, "another")


def test_a_snapshot_signed_by_another_key_is_damaged(access: Path, key: SigningKey, tmp_path: Path) -> None:
    stranger = create_signing_key(tmp_path / "stranger", "stranger", None)
    make(access, stranger)
    with pytest.raises(Damaged):
        list_keys(access, key.verifier)


def test_a_token_is_stored_and_shown_nowhere(access: Path, key: SigningKey) -> None:
    made, token = make(access, key)
    secret = token[12:]
    ring = load_key_ring(access, key.verifier)
    stored = json.dumps([path.read_text("latin-1") for path in access.iterdir()])
    shown = [repr(made), str(made), repr(ring), str(ring), repr(ring.identify(token)), stored]
    for attempt in (token, token[:-1], secret):
        for call in (
            lambda: revoke_key(access, key, attempt),  # noqa: B023 - called before the loop goes on
            lambda: make(access, key, attempt + "x" * 200),  # noqa: B023
            lambda: make(access, key, token),
        ):
            with pytest.raises(Misuse) as caught:
                call()
            shown += [repr(caught.value), str(caught.value)]
    assert not [text for text in shown if secret in text]


def test_the_snapshot_cannot_be_read_by_everybody(access: Path, key: SigningKey) -> None:
    make(access, key)
    assert (access / SNAPSHOT).stat().st_mode & 0o007 == 0


@given(st.text(max_size=80) | well_formed | well_formed.map(lambda token: token[:-1] + "é"))
def test_any_string_is_answered_and_a_stranger_is_nobody(token: str) -> None:
    assert KeyRing(()).identify(token) is None
    assert (parse_token(token) is None) or token.startswith(f"ms_{parse_token(token)}_")


@pytest.mark.parametrize("place", [3, 12, 54])
def test_a_token_with_one_changed_character_is_nobody(access: Path, key: SigningKey, place: int) -> None:
    _, token = make(access, key)
    changed = token[:place] + ("0" if token[place] != "0" else "1") + token[place + 1 :]
    ring = load_key_ring(access, key.verifier)
    assert parse_token(changed) is not None
    assert ring.identify(changed) is None


def _create_some(directory: str, prefix: str, count: int) -> None:
    root = Path(directory)
    key = load_signing_key(root / "keys", None)
    for number in range(count):
        create_key(root / "access", key, name=f"{prefix}-{number}", capabilities=["*"], verbs=["read"])


def test_keys_made_by_several_processes_at_once_are_all_kept(tmp_path: Path, access: Path, key: SigningKey) -> None:
    context = multiprocessing.get_context("spawn")
    makers = [context.Process(target=_create_some, args=(str(tmp_path), f"maker-{n}", 5)) for n in range(3)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join(30)
    assert [maker.exitcode for maker in makers] == [0, 0, 0]
    keys = list_keys(access, key.verifier)
    assert len({each.name for each in keys}) == len({each.id for each in keys}) == 15


def test_verbs_are_kept_in_one_order_and_once(access: Path, key: SigningKey) -> None:
    verbs: list[Verb] = ["read", "decide", "read"]
    made, _ = make(access, key, verbs=verbs, capabilities=["b-one", "a-one", "b-one"])
    assert made.verbs == ("decide", "read")
    assert made.capabilities == ("b-one", "a-one")
