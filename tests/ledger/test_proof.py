from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ledger.samples import KEY, ORIGIN, seal, write_segment
from mainstay.errors import Damaged, Failed, Misuse
from mainstay.ledger.log import Log
from mainstay.ledger.merkle import EMPTY_ROOT
from mainstay.ledger.note import Checkpoint, sign_checkpoint
from mainstay.ledger.proof import (
    MAX_BODY_BYTES,
    MAX_HASHES,
    MAX_PROOF_BYTES,
    Body,
    Proof,
    format_proof,
    make_proof,
    pack_entry,
    parse_proof,
    split_entry,
    verify_proof,
)
from mainstay.signing import SigningKey, Verifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.ledger.entry import Entry

SIZES = (1, 200, 256, 257, 601)  # of the log at each of its checkpoints
HASH = b64encode(bytes(32))


class Sealed:
    """A log and every checkpoint it had."""

    def __init__(self, ledger: Path) -> None:
        self.log = Log(ledger)
        self.entries: list[Entry] = []
        self.notes: list[bytes] = []
        for size in SIZES:
            self.entries += write_segment(ledger, size - len(self.entries))
            seal(ledger)
            note = self.log.note()
            assert note is not None
            self.notes.append(note)

    def prove(self, sequence: int, note: bytes | None = None, *, with_body: bool = False) -> bytes:
        chosen = note or self.notes[-1]
        return format_proof(make_proof(self.log, sequence, self.entries[sequence], chosen, with_body=with_body))


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    return Sealed(tmp_path_factory.mktemp("ledger"))


def test_a_proof_shows_its_leaf_under_every_checkpoint_that_covers_it(sealed: Sealed) -> None:
    for size, note in zip(SIZES, sealed.notes, strict=True):
        for sequence in {0, 1, 127, 199, 255, 256, 511, 600, size - 1}:
            if sequence >= size:
                with pytest.raises(Misuse, match=f"not under a checkpoint of {size} entries"):
                    sealed.prove(sequence, note)
                continue
            proven = verify_proof(sealed.prove(sequence, note), KEY.verifier)
            assert (proven.leaf, proven.sequence) == (sealed.entries[sequence].leaf, sequence)
            assert (proven.checkpoint.origin, proven.checkpoint.size, proven.note) == (ORIGIN, size, note)
            assert proven.body is None


def test_a_body_is_in_it_only_when_it_was_asked_for(sealed: Sealed) -> None:
    entry = sealed.entries[300]
    with_body = sealed.prove(300, with_body=True)
    assert verify_proof(with_body, KEY.verifier).body == Body(entry.salt, entry.body)
    alone = parse_proof(sealed.prove(300))
    assert entry.salt not in alone.extra
    assert entry.body not in alone.extra


def test_a_proof_is_written_as_the_specification_says(sealed: Sealed) -> None:
    lines = sealed.prove(0, sealed.notes[0]).split(b"\n")
    leaf = sealed.entries[0].leaf
    assert lines[:4] == [
        b"c2sp.org/tlog-proof@v1",
        b"extra " + b64encode(len(leaf).to_bytes(2, "big") + leaf),
        b"index 0",
        b"",
    ]
    assert b"\n".join(lines[4:]) == sealed.notes[0]
    hashes = sealed.prove(300).partition(b"\n\n")[0].split(b"\n")[3:]
    assert list(map(len, hashes)) == [44] * 10


def test_any_changed_bit_of_a_proof_is_seen(sealed: Sealed) -> None:
    content = sealed.prove(300, with_body=True)
    for at in range(len(content) * 8):
        changed = bytearray(content)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(Damaged):
            verify_proof(bytes(changed), KEY.verifier)


def test_any_shortened_proof_is_refused(sealed: Sealed) -> None:
    content = sealed.prove(300)
    for length in range(len(content)):
        with pytest.raises(Damaged):
            verify_proof(content[:length], KEY.verifier)


@given(st.integers(0, 600), st.integers(0, 600), st.data())
def test_parts_of_two_proofs_are_no_proof(sealed: Sealed, one: int, other: int, data: st.DataObject) -> None:
    parts = [parse_proof(sealed.prove(each))._asdict() for each in (one, other)]
    mixed = Proof(**{name: data.draw(st.sampled_from(parts))[name] for name in Proof._fields})
    content = format_proof(mixed)
    if mixed == Proof(**parts[0]) or mixed == Proof(**parts[1]):
        assert verify_proof(content, KEY.verifier).sequence == mixed.sequence
    else:
        with pytest.raises(Damaged):
            verify_proof(content, KEY.verifier)


def test_only_the_key_of_the_log_vouches_for_a_proof(sealed: Sealed) -> None:
    content = sealed.prove(5)
    other = Verifier(ORIGIN, bytes(31) + b"\x01")
    with pytest.raises(Damaged, match="expected a signature by"):
        verify_proof(content, other)
    renamed = Verifier("other.example.com", KEY.verifier.public_key)
    with pytest.raises(Damaged, match=r"expected a signature by other\.example\.com"):
        verify_proof(content, renamed)


def test_a_key_that_signs_for_another_log_does_not_vouch_for_this_one(sealed: Sealed) -> None:
    proof = parse_proof(sealed.prove(5))
    foreign = Checkpoint("other.example.com", SIZES[-1], verify_proof(sealed.prove(5), KEY.verifier).checkpoint.root)
    content = format_proof(proof._replace(note=sign_checkpoint(foreign, KEY)))
    with pytest.raises(Damaged, match=f"expected the log {ORIGIN}, found other"):
        verify_proof(content, KEY.verifier)


def test_a_body_must_be_what_the_leaf_commits_to(sealed: Sealed) -> None:
    proof = parse_proof(sealed.prove(7))
    entry = sealed.entries[7]
    for body in (
        Body(entry.salt, sealed.entries[8].body),
        Body(sealed.entries[8].salt, entry.body),
        Body(entry.salt, b""),
        Body(entry.salt, entry.body + b" "),
    ):
        with pytest.raises(Damaged, match="expected what the leaf commits to"):
            verify_proof(format_proof(proof._replace(extra=pack_entry(entry.leaf, body))), KEY.verifier)


def test_a_leaf_can_be_given_and_must_be_the_one_in_the_proof(sealed: Sealed) -> None:
    content, leaf = sealed.prove(9), sealed.entries[9].leaf
    assert verify_proof(content, KEY.verifier, leaf=leaf).leaf == leaf
    with pytest.raises(Damaged, match="expected the leaf"):
        verify_proof(content, KEY.verifier, leaf=sealed.entries[10].leaf)


@pytest.mark.parametrize("extra", [b"", b"what another application put here", b"\x00"])
def test_a_proof_of_another_application_needs_the_leaf(sealed: Sealed, extra: bytes) -> None:
    content, leaf = format_proof(parse_proof(sealed.prove(9))._replace(extra=extra)), sealed.entries[9].leaf
    assert verify_proof(content, KEY.verifier, leaf=leaf).sequence == 9
    with pytest.raises(Damaged, match="found hashes that lead elsewhere"):
        verify_proof(content, KEY.verifier, leaf=leaf + b" ")
    with pytest.raises(Damaged if extra else Misuse):
        verify_proof(content, KEY.verifier)


def test_nothing_is_in_an_empty_log() -> None:
    note = sign_checkpoint(Checkpoint(ORIGIN, 0, EMPTY_ROOT), KEY)
    with pytest.raises(Damaged, match="expected an entry below 0, found 0"):
        verify_proof(format_proof(Proof(0, (), note, pack_entry(b"{}", None))), KEY.verifier)


def test_a_checkpoint_of_another_tree_makes_no_proof(sealed: Sealed) -> None:
    note = sign_checkpoint(Checkpoint(ORIGIN, 601, EMPTY_ROOT), KEY)
    with pytest.raises(Damaged, match="found another tree"):
        sealed.prove(0, note)


def test_an_erased_body_and_one_that_was_changed_are_told_apart(sealed: Sealed) -> None:
    entry, note = sealed.entries[3], sealed.notes[-1]
    with pytest.raises(Failed, match="erased") as erased:
        make_proof(sealed.log, 3, entry._replace(salt=b"", body=b""), note, with_body=True)
    assert not isinstance(erased.value, Damaged)
    with pytest.raises(Damaged, match="expected what the leaf commits to"):
        make_proof(sealed.log, 3, entry._replace(body=b"{}"), note, with_body=True)
    with pytest.raises(Misuse, match="expected at most"):
        make_proof(sealed.log, 3, entry._replace(body=bytes(MAX_BODY_BYTES + 1)), note, with_body=True)
    assert make_proof(sealed.log, 3, entry._replace(body=b""), note).sequence == 3


def mutants() -> Iterator[tuple[str, bytes]]:
    head, rest = b"c2sp.org/tlog-proof@v1\n", b"\n\n" + sign_checkpoint(Checkpoint(ORIGIN, 9, bytes(32)), KEY)
    yield "another version", b"c2sp.org/tlog-proof@v2\nindex 0" + rest
    yield "a byte order mark", b"\xef\xbb\xbf" + head + b"index 0" + rest
    yield "carriage returns", (head + b"index 0" + rest).replace(b"\n", b"\r\n")
    yield "no index", head + HASH + rest
    yield "no index behind the extra data", head + b"extra AAAA" + rest
    yield "two lines of extra data", head + b"extra AAAA\nextra AAAA\nindex 0" + rest
    yield "extra data behind the index", head + b"index 0\nextra AAAA" + rest
    yield "empty extra data", head + b"extra \nindex 0" + rest
    yield "extra data that is no base64", head + b"extra A*AA\nindex 0" + rest
    yield "bits behind the end of base64", head + b"extra AB==\nindex 0" + rest
    yield "base64 in two pieces", head + b"extra AA==AAAA\nindex 0" + rest
    yield "base64 for URLs", head + b"extra _w==\nindex 0" + rest
    for number in (b"", b"01", b"-1", b"+1", b" 1", b"1 ", b"1_0", b"0x1", "٣".encode(), b"9" * 20):
        yield f"the index {number!r}", head + b"index " + number + rest
    yield "a short hash", head + b"index 0\n" + b64encode(bytes(31)) + rest
    yield "a hash in hexadecimal", head + b"index 0\n" + b"0" * 64 + rest
    yield "a space behind a hash", head + b"index 0\n" + HASH + b" " + rest
    yield "too many hashes", head + b"index 0\n" + b"\n".join([HASH] * (MAX_HASHES + 1)) + rest
    yield "no checkpoint", head + b"index 0"
    yield "nothing", b""


@pytest.mark.parametrize(("content"), [pytest.param(content, id=name) for name, content in mutants()])
def test_what_is_nearly_a_proof_is_damaged(content: bytes) -> None:
    with pytest.raises(Damaged):
        parse_proof(content)


def test_a_proof_is_bounded() -> None:
    with pytest.raises(Damaged, match="at most"):
        parse_proof(bytes(MAX_PROOF_BYTES + 1))


@given(st.binary(max_size=300))
def test_bytes_that_are_no_proof_are_damaged_and_nothing_else(content: bytes) -> None:
    for attempt in (content, b"c2sp.org/tlog-proof@v1\n" + content, b"c2sp.org/tlog-proof@v1\nindex 1\n\n" + content):
        with pytest.raises((Damaged, Misuse)):
            verify_proof(attempt, KEY.verifier)


@given(
    st.integers(0, 10**18),
    st.lists(st.binary(min_size=32, max_size=32), max_size=MAX_HASHES),
    st.binary(max_size=90),
    st.binary(max_size=90),
)
def test_a_proof_is_read_as_it_was_written(sequence: int, hashes: list[bytes], extra: bytes, note: bytes) -> None:
    proof = Proof(sequence, tuple(hashes), note, extra)
    assert parse_proof(format_proof(proof)) == proof


@given(st.binary(max_size=90), st.none() | st.builds(Body, st.binary(min_size=16, max_size=16), st.binary()))
def test_an_entry_is_read_as_it_was_put_in_and_has_one_way_to_be_put_in(leaf: bytes, body: Body | None) -> None:
    packed = pack_entry(leaf, body)
    assert split_entry(packed) == (leaf, body)
    with pytest.raises(Damaged):
        split_entry(packed + b"\x00")
    for length in range(len(packed)):
        try:
            assert (body is not None, split_entry(packed[:length])) == (True, (leaf, None))
        except Damaged:
            continue


# Others' implementations, and one from the RFC that shares no code with ours.


def rfc_root(leaf_hash: bytes, place: int, size: int, path: list[bytes]) -> bytes:
    """The head that PATH(m, D[n]) of RFC 6962, section 2.1.1, leads to, by its own recursion."""
    if size == 1:
        assert not path
        return leaf_hash
    k = 1 << (size - 1).bit_length() - 1
    *below, sibling = path
    if place < k:
        return sha256(b"\x01" + rfc_root(leaf_hash, place, k, below) + sibling).digest()
    return sha256(b"\x01" + sibling + rfc_root(leaf_hash, place - k, size - k, below)).digest()


def test_a_verifier_from_the_rfc_accepts_every_proof(sealed: Sealed) -> None:
    for sequence in range(0, 601, 5):
        proof = parse_proof(sealed.prove(sequence))
        hashed = sha256(b"\x00" + sealed.entries[sequence].leaf).digest()
        root = verify_proof(format_proof(proof), KEY.verifier).checkpoint.root
        assert rfc_root(hashed, sequence, 601, list(proof.hashes)) == root


def test_the_verifier_of_sigstore_accepts_every_proof(sealed: Sealed) -> None:
    merkle = pytest.importorskip("sigstore._internal.merkle")
    for sequence in range(0, 601, 5):
        content = sealed.prove(sequence)
        proof, proven = parse_proof(content), verify_proof(content, KEY.verifier)
        inclusion = SimpleNamespace(
            log_index=sequence, tree_size=601, hashes=list(proof.hashes), root_hash=proven.checkpoint.root
        )
        entry = SimpleNamespace(
            _inner=SimpleNamespace(inclusion_proof=inclusion, canonicalized_body=sealed.entries[sequence].leaf)
        )
        merkle.verify_merkle_inclusion(entry)
        inclusion.log_index ^= 1
        with pytest.raises(Exception, match="inclusion proof"):
            merkle.verify_merkle_inclusion(entry)


def test_a_checkpoint_signed_by_two_keys_counts_for_each(sealed: Sealed) -> None:
    """A log changes its key by signing with both for a while."""
    old = SigningKey(ORIGIN, Ed25519PrivateKey.from_private_bytes(sha256(b"an older key").digest()))
    proof = parse_proof(sealed.prove(4))
    checkpoint = verify_proof(format_proof(proof), KEY.verifier).checkpoint
    second = sign_checkpoint(checkpoint, old).rpartition(b"\n\n")[2]
    content = format_proof(proof._replace(note=proof.note + second))
    for verifier in (KEY.verifier, old.verifier):
        assert verify_proof(content, verifier).sequence == 4
    assert len(re.findall(rb"\xe2\x80\x94 ", content)) == 2
