"""The examples that stand in the C2SP specifications themselves, and their definitions word for word."""

from __future__ import annotations

import re
from base64 import b64decode
from functools import cache
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.samples import KEY, ORIGIN
from mainstay.errors import Damaged
from mainstay.ledger.entry import leaf_hash
from mainstay.ledger.merkle import HASH_BYTES, consistency_proof, inclusion_proof, verify_consistency, verify_inclusion
from mainstay.ledger.note import (
    Checkpoint,
    format_checkpoint,
    parse_checkpoint,
    sign_checkpoint,
    split_note,
    verify_note,
)
from mainstay.ledger.proof import Proof, format_proof, pack_entry, parse_proof, verify_proof
from mainstay.ledger.tiles import (
    WIDTH,
    WIDTH_BITS,
    Edge,
    TileName,
    format_index,
    hashes_of,
    node_in_tiles,
    widths,
)
from mainstay.signing import parse_vkey
from shared_data import shared_data


def specification(name: str) -> str:
    return shared_data("tlog", "c2sp", f"{name}.md").read_text("utf-8")


def blocks(name: str) -> list[str]:
    """The examples of a specification that stand between fences."""
    return re.findall(r"^```\n(.*?)^```$", specification(name), re.DOTALL | re.MULTILINE)


# Signed notes, checkpoints, cosignatures, proofs.


def test_the_note_in_the_specification_verifies_with_the_key_beside_it() -> None:
    text = specification("signed-note")
    [vkey] = re.findall(r"^    (example\.com/foo\+\S+)$", text, re.MULTILINE)
    [note] = [block for block in blocks("signed-note") if "example.com/foo" in block]
    assert verify_note(note.encode(), parse_vkey(vkey)) == "This is an example message.\n"
    assert parse_vkey(vkey).vkey == vkey


def test_the_checkpoint_in_the_specification_is_read_and_written_as_it_stands() -> None:
    [note] = blocks("tlog-checkpoint")
    text, [signature] = split_note(note.encode())
    checkpoint = parse_checkpoint(text)
    root = b64decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")
    assert checkpoint == Checkpoint("example.com/behind-the-sofa", 20_852_163, root)
    assert format_checkpoint(checkpoint) == text
    assert (signature.name, len(signature.signature)) == (checkpoint.origin, 64)


def test_the_cosigned_checkpoint_in_the_specification_says_when_its_witness_saw_it() -> None:
    note = next(block for block in blocks("tlog-cosignature") if "witness.example.com" in block)
    text, [own, witness] = split_note(note.encode())
    assert (own.name, witness.name) == ("example.com/behind-the-sofa", "witness.example.com/w1")
    seconds = int.from_bytes(witness.signature[:8], "big")
    signed = f"cosignature/v1\ntime {seconds}\n{text}"
    assert "".join(f"    {line}\n" for line in signed.splitlines()) in specification("tlog-cosignature")
    assert len(witness.signature) == 8 + 64


def test_the_proof_in_the_specification_is_read_as_far_as_it_is_printed() -> None:
    """Its signatures are shortened and its hashes are not those of a proof, which must not pass unseen."""
    [printed] = blocks("tlog-proof")
    proof = parse_proof(printed.encode())
    assert (proof.sequence, len(proof.hashes)) == (73_894, 5)
    assert proof.extra.startswith(b"age-v1.2.1-darwin-arm64.tar.gz")
    assert format_proof(proof).decode() == printed
    with pytest.raises(Damaged, match="signature by example"):
        split_note(proof.note)
    checkpoint = parse_checkpoint(proof.note.decode().partition("\n\n")[0] + "\n")
    assert (checkpoint.origin, checkpoint.size) == ("example.com/fancylog", 109_482)
    signed = format_proof(proof._replace(note=sign_checkpoint(Checkpoint(ORIGIN, 109_482, checkpoint.root), KEY)))
    with pytest.raises(Damaged, match="found hashes that lead elsewhere"):
        verify_proof(signed, KEY.verifier, leaf=b"any")


# Tiles.


class Tree:
    """A tree that grows by leaves, as hash tiles in memory, by level and number."""

    def __init__(self) -> None:
        self.edge = Edge()
        self.full: dict[TileName, bytes] = {}

    def grow(self, hashes: bytes) -> None:
        while hashes:
            room = (WIDTH - self.edge.size % WIDTH) * HASH_BYTES
            self.full.update(self.edge.append(hashes[:room]))
            hashes = hashes[room:]

    def tile(self, level: int, number: int) -> bytes:
        name = TileName(hashes_of(level), number)
        if name in self.full:
            return self.full[name]
        return next(content for each, content in self.edge.partial_tiles() if each[:2] == name[:2])


def hash_at(place: int) -> bytes:
    return leaf_hash(b"%d" % place)


@cache
def mth(start: int, end: int) -> bytes:
    """MTH(D[start:end]) of RFC 6962, section 2.1, where leaf number n is n in decimal."""
    if end - start < 2:
        return hash_at(start) if start < end else sha256(b"").digest()
    middle = start + (1 << (end - start - 1).bit_length() - 1)
    return sha256(b"\x01" + mth(start, middle) + mth(middle, end)).digest()


def path(place: int, start: int, end: int) -> list[bytes]:
    """PATH(place, D[start:end]) of RFC 6962, section 2.1.1."""
    if end - start == 1:
        return []
    middle = start + (1 << (end - start - 1).bit_length() - 1)
    if place < middle:
        return [*path(place, start, middle), mth(middle, end)]
    return [*path(place, middle, end), mth(start, middle)]


def test_the_path_in_the_specification_is_ours() -> None:
    [(number, encoded)] = re.findall(r"index (\d+) will be encoded as\s+`([x\d/]+)`", specification("tlog-tiles"))
    assert format_index(int(number)) == encoded


def test_a_log_of_the_size_in_the_specification_has_the_tiles_it_says() -> None:
    text = " ".join(specification("tlog-tiles").split())
    sentence = (
        "a tree of size 70,000 will be represented by 273 full level 0 tiles, one partial level 0 tile of width 112,"
        " one full level 1 tile, one partial level 1 tile of width 17, and one partial level 2 tile of width 1."
    )
    assert sentence in text
    tree = Tree()
    tree.grow(b"".join(map(hash_at, range(70_000))))
    assert sorted(name.folder for name in tree.full) == ["tile/0"] * 273 + ["tile/1"]
    partial = {name.path for name, _ in tree.edge.partial_tiles()}
    assert partial == {"tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"}
    assert "size 256 will be represented by a full level 0 tile and a partial level 1 tile of width 1" in text
    assert widths(256) == [0, 1]
    for level, number, at in [(0, 0, 0), (0, 272, 255), (0, 273, 111), (1, 0, 255), (1, 1, 16), (2, 0, 0)]:
        first = (number * WIDTH + at) << (WIDTH_BITS * level)
        wanted = mth(first, first + (1 << (WIDTH_BITS * level)))
        assert tree.tile(level, number)[at * HASH_BYTES :][:HASH_BYTES] == wanted


def test_proofs_from_the_tiles_of_a_tree_of_every_size_are_those_of_the_rfc() -> None:
    tree = Tree()
    for size in range(1, 601):
        tree.grow(hash_at(size - 1))
        node = node_in_tiles(tree.tile)
        places = range(size) if size < 40 else {0, 1, size // 3, size // 2, size - 2, size - 1}
        for place in places:
            proof = inclusion_proof(place, size, node)
            assert proof == path(place, 0, size), (place, size)
            assert verify_inclusion(hash_at(place), place, size, proof, mth(0, size))
            old = place + 1
            extends = consistency_proof(old, size, node)
            assert verify_consistency(old, size, mth(0, old), mth(0, size), extends), (old, size)


@given(st.integers(1, 2_000), st.data())
def test_a_proof_file_over_a_tree_of_any_size_shows_its_leaf_and_no_other(size: int, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, size - 1))
    note = sign_checkpoint(Checkpoint(ORIGIN, size, mth(0, size)), KEY)
    content = format_proof(Proof(place, tuple(path(place, 0, size)), note, pack_entry(b"%d" % place, None)))
    assert verify_proof(content, KEY.verifier).sequence == place
    other = data.draw(st.integers(0, size).filter(lambda each: each != place))
    for wrong in ({"sequence": other}, {"extra": pack_entry(b"%d" % other, None)}):
        with pytest.raises(Damaged):
            verify_proof(format_proof(parse_proof(content)._replace(**wrong)), KEY.verifier)
