from __future__ import annotations

from base64 import b64decode
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.ledger.entry import leaf_hash
from mainstay.ledger.merkle import (
    EMPTY_ROOT,
    Node,
    consistency_proof,
    inclusion_proof,
    node_hash,
    peaks,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from shared_data import shared_data

# RFC 6962, section 2.1, word for word, slow, and knowing nothing of how the code under test does it.


def mth(leaves: list[bytes]) -> bytes:
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = largest_power_of_two_below(len(leaves))
    return sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = largest_power_of_two_below(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def proof(m: int, leaves: list[bytes]) -> list[bytes]:
    return subproof(m, leaves, complete=True)


def subproof(m: int, leaves: list[bytes], *, complete: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if complete else [mth(leaves)]
    k = largest_power_of_two_below(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], complete=complete), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], complete=False), mth(leaves[:k])]


def largest_power_of_two_below(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def node_over(leaves: list[bytes]) -> Node:
    return lambda level, index: mth(leaves[index << level : (index + 1) << level])


def sample(count: int) -> list[bytes]:
    return [b"leaf %d" % place for place in range(count)]


sizes = st.integers(1, 130)


@given(sizes)
@settings(deadline=None)
def test_the_head_is_that_of_the_rfc(size: int) -> None:
    leaves = sample(size)
    assert tree_root(size, node_over(leaves)) == mth(leaves)


@given(sizes, st.data())
@settings(deadline=None)
def test_an_inclusion_proof_is_that_of_the_rfc_and_proves_only_its_own_entry(size: int, data: st.DataObject) -> None:
    leaves = sample(size)
    index = data.draw(st.integers(0, size - 1))
    found = inclusion_proof(index, size, node_over(leaves))
    assert found == path(index, leaves)
    hashed, root = leaf_hash(leaves[index]), mth(leaves)
    assert verify_inclusion(hashed, index, size, found, root)
    assert not verify_inclusion(leaf_hash(b"another"), index, size, found, root)
    assert not verify_inclusion(hashed, index, size, [*found, root], root)
    assert not verify_inclusion(hashed, index, size, found, EMPTY_ROOT)
    other = data.draw(st.integers(0, size - 1))
    assert verify_inclusion(hashed, other, size, found, root) == (other == index)
    if found:
        assert not verify_inclusion(hashed, index, size, found[:-1], root)


@given(sizes, st.data())
@settings(deadline=None)
def test_a_consistency_proof_is_that_of_the_rfc_and_proves_only_its_own_sizes(size: int, data: st.DataObject) -> None:
    leaves = sample(size)
    old = data.draw(st.integers(1, size))
    found = consistency_proof(old, size, node_over(leaves))
    assert found == proof(old, leaves)
    old_root, root = mth(leaves[:old]), mth(leaves)
    assert verify_consistency(old, size, old_root, root, found)
    assert not verify_consistency(old, size, old_root, EMPTY_ROOT, found)
    assert not verify_consistency(old, size, EMPTY_ROOT, root, found)
    assert not verify_consistency(old, size, old_root, root, [*found, root])
    if found:
        place = data.draw(st.integers(0, len(found) - 1))
        changed = [*found[:place], sha256(found[place]).digest(), *found[place + 1 :]]
        assert not verify_consistency(old, size, old_root, root, changed)


def test_every_tree_extends_the_empty_one() -> None:
    root = mth(sample(5))
    assert consistency_proof(0, 5, node_over(sample(5))) == []
    assert verify_consistency(0, 5, EMPTY_ROOT, root, [])
    assert verify_consistency(0, 0, EMPTY_ROOT, EMPTY_ROOT, [])
    assert not verify_consistency(0, 5, root, root, [])
    assert not verify_consistency(0, 5, EMPTY_ROOT, root, [root])
    assert not verify_consistency(0, 0, EMPTY_ROOT, root, [])


def test_the_empty_tree_includes_nothing() -> None:
    assert tree_root(0, node_over([])) == EMPTY_ROOT
    assert not verify_inclusion(leaf_hash(b""), 0, 0, [], EMPTY_ROOT)


def test_proofs_of_what_is_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="below 3"):
        inclusion_proof(3, 3, node_over(sample(3)))
    with pytest.raises(ValueError, match="up to 3"):
        consistency_proof(4, 3, node_over(sample(3)))


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_peaks_cover_a_range_once_from_left_to_right(start: int, length: int) -> None:
    at = start
    for level, index in peaks(start, start + length):
        assert index << level == at
        at += 1 << level
    assert at == start + length


def test_the_hasher_vectors_of_others_hold() -> None:
    document = msgspec.json.decode(shared_data("tlog", "rfc6962_hasher_vectors.json").read_bytes())
    for vector in document["vectors"]:
        if vector["op"] == "empty":
            found = EMPTY_ROOT
        elif vector["op"] == "leaf":
            found = leaf_hash(vector["data"].encode())
        else:
            found = node_hash(vector["left"].encode(), vector["right"].encode())
        assert found.hex() == vector["want_hex"], vector["desc"]


def decode_proof(encoded: list[str] | None) -> list[bytes]:
    return [b64decode(each) for each in encoded or ()]


def test_every_inclusion_probe_of_others_is_judged_as_they_say() -> None:
    lines = shared_data("tlog", "merkle_inclusion_probes.jsonl").read_bytes().splitlines()
    assert len(lines) == 82
    for line in lines:
        probe = msgspec.json.decode(line)
        good = verify_inclusion(
            b64decode(probe["leafHash"]),
            probe["leafIdx"],
            probe["treeSize"],
            decode_proof(probe["proof"]),
            b64decode(probe["root"]),
        )
        assert good is not probe["wantErr"], probe["probe"]


def test_every_consistency_probe_of_others_is_judged_as_they_say() -> None:
    """Those from size zero are all refused by them; none has the empty root, which alone is accepted here."""
    lines = shared_data("tlog", "merkle_consistency_probes.jsonl").read_bytes().splitlines()
    assert len(lines) == 84
    for line in lines:
        probe = msgspec.json.decode(line)
        good = verify_consistency(
            probe["size1"],
            probe["size2"],
            b64decode(probe["root1"]),
            b64decode(probe["root2"]),
            decode_proof(probe["proof"]),
        )
        assert good is not probe["wantErr"], probe["probe"]
