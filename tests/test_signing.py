from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from mainstay.errors import Damaged, Misuse
from mainstay.signing import (
    create_signing_key,
    load_signing_key,
    load_verifier,
    open_envelope,
    parse_vkey,
    pre_authentication,
    sign_envelope,
)

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.signing import SigningKey

NAME = "log.example.com/lending"
KIND = "application/vnd.example+json"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return create_signing_key(tmp_path_factory.mktemp("keys"), NAME, None)


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_a_key_is_loaded_as_it_was_made(tmp_path: Path, passphrase: bytes | None) -> None:
    made = create_signing_key(tmp_path, NAME, passphrase)
    loaded = load_signing_key(tmp_path, passphrase)
    verifier = load_verifier(tmp_path)
    assert loaded.name == verifier.name == NAME
    assert verifier.vkey == made.verifier.vkey == (tmp_path / "signing.vkey").read_text().strip()
    assert verifier.verify(b"content", loaded.sign(b"content"))
    assert not verifier.verify(b"other content", loaded.sign(b"content"))
    assert not verifier.verify(b"content", b"too short")
    assert stat.S_IMODE((tmp_path / "signing.pem").stat().st_mode) == 0o600
    assert ((tmp_path / "signing.pem").read_bytes().count(b"ENCRYPTED") == 2) is (passphrase is not None)


def test_a_wrong_or_missing_passphrase_is_told_plainly(tmp_path: Path) -> None:
    create_signing_key(tmp_path / "sealed", NAME, b"correct horse")
    with pytest.raises(Misuse, match="wrong passphrase"):
        load_signing_key(tmp_path / "sealed", b"battery staple")
    with pytest.raises(Misuse, match="MAINSTAY_KEY_PASSPHRASE"):
        load_signing_key(tmp_path / "sealed", None)
    create_signing_key(tmp_path / "open", NAME, None)
    with pytest.raises(Misuse, match="expected none"):
        load_signing_key(tmp_path / "open", b"battery staple")


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    create_signing_key(tmp_path, NAME, None)
    before = (tmp_path / "signing.pem").read_bytes()
    with pytest.raises(Misuse, match="exists already"):
        create_signing_key(tmp_path, NAME, None)
    assert (tmp_path / "signing.pem").read_bytes() == before


def test_halves_of_different_keys_are_refused(tmp_path: Path) -> None:
    create_signing_key(tmp_path / "one", NAME, None)
    create_signing_key(tmp_path / "two", NAME, None)
    (tmp_path / "one" / "signing.vkey").write_bytes((tmp_path / "two" / "signing.vkey").read_bytes())
    with pytest.raises(Damaged, match="different keys"):
        load_signing_key(tmp_path / "one", None)


def test_a_missing_or_foreign_key_file_is_told_plainly(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="mainstay init"):
        load_verifier(tmp_path)
    create_signing_key(tmp_path, NAME, None)
    pem = tmp_path / "signing.pem"
    pem.write_bytes(b"not a key")
    with pytest.raises(Damaged, match="PKCS #8"):
        load_signing_key(tmp_path, None)
    other = generate_private_key(SECP256R1())
    pem.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(Damaged, match="Ed25519"):
        load_signing_key(tmp_path, None)
    pem.unlink()
    with pytest.raises(Misuse, match="no signing key"):
        load_signing_key(tmp_path, None)
    (tmp_path / "signing.vkey").write_bytes(b"\xff")
    with pytest.raises(Damaged, match="UTF-8"):
        load_verifier(tmp_path)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b", "a\n", "x" * 257])
def test_names_that_a_note_cannot_hold_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Misuse, match="key name"):
        create_signing_key(tmp_path, name, None)


def test_the_verifier_key_of_the_specification_is_read_and_written_back() -> None:
    text = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
    verifier = parse_vkey(text)
    assert (verifier.name, verifier.key_id.hex(), verifier.vkey) == ("example.com/foo", "530d903a", text)


def test_any_changed_character_of_a_verifier_key_is_seen(key: SigningKey) -> None:
    text = key.verifier.vkey
    for at in range(len(text)):
        for character in "A+=x0":
            if text[at] != character:
                with pytest.raises(Damaged):
                    parse_vkey(text[:at] + character + text[at + 1 :])


@given(st.text())
def test_text_that_is_no_verifier_key_is_damaged_and_nothing_else(text: str) -> None:
    for attempt in (text, f"name+{text}", f"name+00000000+{text}"):
        with pytest.raises(Damaged):
            parse_vkey(attempt)


def test_the_encoding_that_is_signed_is_that_of_dsse() -> None:
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pre_authentication("http://example.com/HelloWorld", b"hello world") == expected
    assert pre_authentication("ä", b"") == b"DSSEv1 2 \xc3\xa4 0 "


@given(st.binary(max_size=200))
def test_an_envelope_gives_back_what_was_signed(key: SigningKey, payload: bytes) -> None:
    assert open_envelope(sign_envelope(KIND, payload, key), KIND, key.verifier) == payload


def test_any_changed_bit_of_an_envelope_is_seen(key: SigningKey) -> None:
    envelope = sign_envelope(KIND, b'{"number": 7}', key)
    for at in range(len(envelope) * 8):
        changed = bytearray(envelope)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(Damaged):
            open_envelope(bytes(changed), KIND, key.verifier)


def test_an_envelope_of_another_type_or_key_is_refused(tmp_path: Path, key: SigningKey) -> None:
    envelope = sign_envelope(KIND, b"{}", key)
    with pytest.raises(Damaged, match="type"):
        open_envelope(envelope, "application/other", key.verifier)
    with pytest.raises(Damaged, match="signature"):
        open_envelope(envelope, KIND, create_signing_key(tmp_path, NAME, None).verifier)


def test_signatures_of_others_in_an_envelope_are_ignored(tmp_path: Path, key: SigningKey) -> None:
    other = create_signing_key(tmp_path, NAME, None)
    envelope = msgspec.json.decode(sign_envelope(KIND, b"{}", key))
    envelope["signatures"].insert(0, msgspec.json.decode(sign_envelope(KIND, b"{}", other))["signatures"][0])
    assert open_envelope(msgspec.json.encode(envelope), KIND, key.verifier) == b"{}"


@given(st.binary(max_size=100), st.text(max_size=30))
def test_bytes_that_are_no_envelope_are_damaged_and_nothing_else(key: SigningKey, content: bytes, text: str) -> None:
    shaped = {"payload": text, "payloadType": KIND, "signatures": [{"keyid": key.verifier.key_id.hex(), "sig": text}]}
    for attempt in (content, msgspec.json.encode(shaped)):
        with pytest.raises(Damaged):
            open_envelope(attempt, KIND, key.verifier)
