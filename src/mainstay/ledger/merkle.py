"""RFC 6962 Merkle trees over SHA-256: hashes, heads, and proofs that an entry is in a tree or a tree extends another.

A `Node` gives the hash of the perfect subtree `index` at `level`: that of the leaves [index << level,
(index + 1) << level). Everything here is computed from such nodes, wherever they are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Node: TypeAlias = Callable[[int, int], bytes]

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962, section 2.1: the hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


def parents(hashes: bytes) -> bytes:
    """One level up: the hashes of the nodes over each pair of an even number of 32-byte hashes, all concatenated."""
    sha = sha256
    return b"".join([sha(b"\x01" + hashes[at : at + 64]).digest() for at in range(0, len(hashes), 64)])


def subtree_root(hashes: bytes) -> bytes:
    """The root of a perfect subtree over 1, 2, 4, 8 ... concatenated 32-byte hashes."""
    while len(hashes) > HASH_BYTES:
        hashes = parents(hashes)
    return hashes


def peaks(start: int, end: int) -> list[tuple[int, int]]:
    """The fewest perfect subtrees that cover the leaves [start, end), left to right, as (level, index)."""
    found = []
    while start < end:
        level = (end - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        found.append((level, start >> level))
        start += 1 << level
    return found


def range_root(start: int, end: int, node: Node) -> bytes:
    """MTH(D[start:end]) of RFC 6962, for a non-empty range that is a node of some tree."""
    hashes = [node(level, index) for level, index in peaks(start, end)]
    root = hashes.pop()
    while hashes:
        root = node_hash(hashes.pop(), root)
    return root


def tree_root(size: int, node: Node) -> bytes:
    """The head of the tree of the first `size` leaves."""
    return range_root(0, size, node) if size else EMPTY_ROOT


def _split(start: int, end: int) -> int:
    """Where RFC 6962 divides the leaves [start, end): behind the largest power of two smaller than their number."""
    return start + (1 << ((end - start - 1).bit_length() - 1))


def inclusion_proof(index: int, size: int, node: Node) -> list[bytes]:
    """PATH(index, D[0:size]) of RFC 6962, section 2.1.1. Raises ValueError unless 0 <= index < size."""
    if not 0 <= index < size:
        raise ValueError(f"expected an index below {size}, found {index}")
    proof = []
    start, end = 0, size
    while end - start > 1:
        middle = _split(start, end)
        if index < middle:
            proof.append(range_root(middle, end, node))
            end = middle
        else:
            proof.append(range_root(start, middle, node))
            start = middle
    return proof[::-1]


def consistency_proof(old_size: int, size: int, node: Node) -> list[bytes]:
    """PROOF(old_size, D[0:size]) of RFC 6962, section 2.1.2; empty when the sizes are equal or the old tree is empty.

    Raises ValueError unless 0 <= old_size <= size.
    """
    if not 0 <= old_size <= size:
        raise ValueError(f"expected a size up to {size}, found {old_size}")
    if old_size in {0, size}:
        return []
    proof = []
    start, end = 0, size
    while end != old_size:
        middle = _split(start, end)
        if old_size <= middle:
            proof.append(range_root(middle, end, node))
            end = middle
        else:
            proof.append(range_root(start, middle, node))
            start = middle
    if start:  # the old tree's last subtree: a verifier knows it only when it is the whole old tree
        proof.append(range_root(start, end, node))
    return proof[::-1]


def verify_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows the leaf at `index` of the tree of `size` with head `root` (RFC 9162, 2.1.3.2).

    A tree of size zero includes nothing.
    """
    if not 0 <= index < size or not _are_hashes((leaf_hash, root, *proof)):
        return False
    place, last = index, size - 1
    found = leaf_hash
    for sibling in proof:
        if last == 0:
            return False
        if place & 1 or place == last:
            found = node_hash(sibling, found)
            while not place & 1 and place:
                place >>= 1
                last >>= 1
        else:
            found = node_hash(found, sibling)
        place >>= 1
        last >>= 1
    return last == 0 and found == root


def verify_consistency(old_size: int, size: int, old_root: bytes, root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that the tree of `size` extends that of `old_size` (RFC 9162, 2.1.4.2).

    Every tree extends the empty one: with `old_size` zero, exactly the empty root and an empty proof are accepted.
    """
    if not 0 <= old_size <= size or not _are_hashes((old_root, root, *proof)):
        return False
    if old_size == 0:
        return old_root == EMPTY_ROOT and not proof and (size > 0 or root == EMPTY_ROOT)
    if old_size == size:
        return old_root == root and not proof
    steps = list(proof)
    if old_size & (old_size - 1) == 0:
        steps.insert(0, old_root)
    if not steps:
        return False
    place, last = old_size - 1, size - 1
    while place & 1:
        place >>= 1
        last >>= 1
    old_found = found = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            old_found = node_hash(step, old_found)
            found = node_hash(step, found)
            while not place & 1 and place:
                place >>= 1
                last >>= 1
        else:
            found = node_hash(found, step)
        place >>= 1
        last >>= 1
    return last == 0 and old_found == old_root and found == root


def _are_hashes(values: Sequence[bytes]) -> bool:
    return all(len(value) == HASH_BYTES for value in values)
