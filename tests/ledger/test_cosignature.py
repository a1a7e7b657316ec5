from __future__ import annotations

import struct
from base64 import b64decode, b64encode
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ledger.samples import KEY, ORIGIN
from mainstay.errors import Damaged, Misuse
from mainstay.ledger.cosignature import MAX_TIME, CosigningKey, parse_cosigner, parse_log_key, time_of
from mainstay.ledger.note import (
    Checkpoint,
    add_signatures,
    format_checkpoint,
    parse_signatures,
    sign_checkpoint,
    split_note,
    verify_checkpoint,
    verify_note,
)

CHECKPOINT = Checkpoint(ORIGIN, 70_000, bytes(range(32)))
TEXT = format_checkpoint(CHECKPOINT)
TIME = 1_679_315_147
ED25519 = CosigningKey(
    "witness.example.com/w1", Ed25519PrivateKey.from_private_bytes(sha256(b"a witness for tests").digest())
)
ML_DSA = CosigningKey("witness.example.com/w2", MLDSA44PrivateKey.from_seed_bytes(sha256(b"another").digest()))

each_key = pytest.mark.parametrize("key", [ED25519, ML_DSA], ids=["ed25519", "ml-dsa-44"])


@each_key
def test_a_cosignature_verifies_over_its_checkpoint_and_tells_its_time(key: CosigningKey) -> None:
    cosignature = key.cosign(TEXT, TIME)
    note = add_signatures(sign_checkpoint(CHECKPOINT, KEY), [cosignature])
    assert verify_note(note, key.verifier) == TEXT
    assert verify_checkpoint(note, KEY.verifier, ORIGIN) == CHECKPOINT
    assert time_of(split_note(note)[1][1].signature) == TIME
    assert not key.verifier.verify(TEXT.replace("70000", "70001").encode(), cosignature.signature)


@each_key
def test_any_changed_byte_of_a_cosignature_is_seen_its_time_included(key: CosigningKey) -> None:
    signature = key.cosign(TEXT, TIME).signature
    for at in [*range(12), *range(12, len(signature), 97), len(signature) - 1]:
        changed = bytearray(signature)
        changed[at] ^= 1
        assert not key.verifier.verify(TEXT.encode(), bytes(changed)), at
    for length in (0, 7, 8, len(signature) - 1):
        assert not key.verifier.verify(TEXT.encode(), signature[:length])
    assert not key.verifier.verify(TEXT.encode(), signature + b"\0")


def test_the_message_of_an_ed25519_cosignature_is_the_one_of_the_specification() -> None:
    cosignature = ED25519.cosign(TEXT, TIME)
    message = b"cosignature/v1\ntime 1679315147\n" + TEXT.encode()
    key = Ed25519PublicKey.from_public_bytes(ED25519.verifier.public_key)
    key.verify(cosignature.signature[8:], message)
    assert cosignature.signature[:8] == struct.pack(">Q", TIME)
    assert cosignature.key_id == sha256(b"witness.example.com/w1\n\x04" + ED25519.verifier.public_key).digest()[:4]


def test_the_message_of_an_ml_dsa_cosignature_is_the_one_of_the_specification() -> None:
    cosignature = ML_DSA.cosign(TEXT, TIME)
    name, origin = b"witness.example.com/w2", ORIGIN.encode()
    message = b"subtree/v1\n\0" + bytes([len(name)]) + name + struct.pack(">Q", TIME) + bytes([len(origin)]) + origin
    message += struct.pack(">QQ", 0, 70_000) + bytes(range(32))
    private = MLDSA44PrivateKey.from_seed_bytes(sha256(b"another").digest())
    private.public_key().verify(cosignature.signature[8:], message)
    assert len(cosignature.signature) == 8 + 2420
    assert cosignature.key_id == sha256(name + b"\n\x06" + ML_DSA.verifier.public_key).digest()[:4]


def test_an_ml_dsa_cosignature_leaves_extension_lines_out_and_an_ed25519_one_does_not() -> None:
    extended = (TEXT + "an extension\n").encode()
    assert ML_DSA.verifier.verify(extended, ML_DSA.cosign(TEXT, TIME).signature)
    assert not ED25519.verifier.verify(extended, ED25519.cosign(TEXT, TIME).signature)


@each_key
def test_the_verifier_key_of_a_cosigner_is_read_as_it_was_written(key: CosigningKey) -> None:
    read = parse_cosigner(key.verifier.vkey)
    assert (read.name, read.key_id, read.vkey) == (key.verifier.name, key.verifier.key_id, key.verifier.vkey)
    assert read.verify(TEXT.encode(), key.cosign(TEXT, TIME).signature)
    assert parse_log_key(key.verifier.vkey).verify(TEXT.encode(), key.cosign(TEXT, TIME).signature)
    material = b64decode(key.verifier.vkey.split("+", 2)[2])
    for kind in (0x00, 0x01, 0x02, 0x05, 0xFF):
        other = b64encode(bytes([kind]) + material[1:]).decode()
        with pytest.raises(Damaged, match="type"):
            parse_cosigner(f"{read.name}+{read.key_id.hex()}+{other}")


def test_the_key_of_a_log_is_no_key_of_a_witness() -> None:
    assert parse_log_key(KEY.verifier.vkey).key_id == KEY.verifier.key_id
    with pytest.raises(Damaged, match="type 0x01"):
        parse_cosigner(KEY.verifier.vkey)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "x" * 256, "é" * 128])
def test_names_that_a_cosignature_cannot_hold_are_refused(name: str) -> None:
    with pytest.raises(Misuse, match="key name"):
        CosigningKey(name, Ed25519PrivateKey.generate())


def test_an_origin_that_an_ml_dsa_cosignature_cannot_hold_is_refused() -> None:
    text = format_checkpoint(Checkpoint("o" * 256, 1, bytes(32)))
    assert ED25519.cosign(text, TIME)
    with pytest.raises(Damaged, match="255 bytes"):
        ML_DSA.cosign(text, TIME)
    assert not ML_DSA.verifier.verify(text.encode(), ML_DSA.cosign(TEXT, TIME).signature)


@pytest.mark.parametrize("time", [0, -1, MAX_TIME + 1])
def test_no_cosignature_is_made_at_a_time_that_cannot_be(time: int) -> None:
    with pytest.raises(ValueError, match="expected a time"):
        ED25519.cosign(TEXT, time)


@pytest.mark.parametrize("time", [MAX_TIME + 1, (1 << 64) - 1])
def test_a_cosignature_at_a_time_that_cannot_be_is_refused(time: int) -> None:
    private = Ed25519PrivateKey.from_private_bytes(sha256(b"a witness for tests").digest())
    signature = struct.pack(">Q", time) + private.sign(b"cosignature/v1\ntime %d\n%b" % (time, TEXT.encode()))
    assert not ED25519.verifier.verify(TEXT.encode(), signature)


def test_a_second_signature_by_a_key_replaces_its_first() -> None:
    note = sign_checkpoint(CHECKPOINT, KEY)
    once = add_signatures(note, [ED25519.cosign(TEXT, TIME)])
    twice = add_signatures(once, [ML_DSA.cosign(TEXT, TIME), ED25519.cosign(TEXT, TIME + 5)])
    assert [each.name for each in split_note(twice)[1]] == [ORIGIN, ED25519.verifier.name, ML_DSA.verifier.name]
    assert time_of(split_note(twice)[1][1].signature) == TIME + 5
    assert verify_note(twice, ED25519.verifier) == verify_note(twice, ML_DSA.verifier) == TEXT


@given(st.text(max_size=200))
def test_text_that_is_no_block_of_signatures_is_damaged_and_nothing_else(text: str) -> None:
    for attempt in (text, text + "\n", "\N{EM DASH} name " + text + "\n"):
        try:
            assert "".join(each.line for each in parse_signatures(attempt)) == attempt
        except Damaged:
            continue
