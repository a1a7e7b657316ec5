"""An entry of the ledger: a public leaf and a private body that the leaf commits to.

The **leaf** is compact JSON without personal data; its RFC 6962 hash, SHA-256(0x00 || leaf), stands in the Merkle
log for ever. The **body** (who, key, input, output) is kept beside the log and may be erased: the leaf holds only
`"body": hex(SHA-256(salt || body))` with 16 random bytes of salt, so that an erased body cannot be guessed back.

An entry id is a UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then 40 bits that name the write-ahead segment and
32 bits that count entries within it. The id alone therefore says where the entry was written.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Literal, NamedTuple

import msgspec

from mainstay.errors import NOT_READ

SALT_BYTES = 16
SEGMENT_HEX = 10  # 40 bits
MAX_LEAF_BYTES = 0xFFFF  # C2SP tlog-tiles: an entry bundle counts the bytes of a leaf in 16 bits

Kind = Literal["decision", "outcome", "change", "shadow"]


class Entry(NamedTuple):
    """The three parts of an entry, as bytes."""

    leaf: bytes
    salt: bytes
    body: bytes

    @property
    def leaf_hash(self) -> bytes:
        """What the Merkle log holds of it."""
        return leaf_hash(self.leaf)


class EntryId(NamedTuple):
    """Where an entry was written: segment, counter within it, and when (Unix milliseconds)."""

    segment: str
    counter: int
    milliseconds: int


class Leaf(msgspec.Struct, frozen=True):
    """What every leaf holds. A kind may add fields of its own."""

    kind: Kind
    id: str
    at: str  # RFC 3339, UTC, microseconds
    body: str  # hex SHA-256 of salt and body


# How the leaves that Mainstay writes begin, so that loops over millions need not parse JSON: kind, milliseconds,
# segment, counter. `read_id` is the same for any leaf.
LEAF_HEAD = re.compile(
    rb'\{"kind":"(decision|outcome|change|shadow)","id":"'
    rb'([0-9a-f]{8}-[0-9a-f]{4})-(7[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{4})([0-9a-f]{8})"'
)
_ID = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-7([0-9a-f]{3})-8([0-9a-f]{3})-([0-9a-f]{4})([0-9a-f]{8})", re.ASCII)
_decode_leaf = msgspec.json.Decoder(Leaf).decode


def leaf_hash(leaf: bytes) -> bytes:
    """RFC 6962, section 2.1: the hash of a leaf."""
    return sha256(b"\x00" + leaf).digest()


def commitment(salt: bytes, body: bytes) -> str:
    """The value of `body` in a leaf."""
    return sha256(salt + body).hexdigest()


def format_id(segment: str, counter: int, milliseconds: int) -> str:
    """The id of entry `counter` of `segment`.

    >>> format_id("0123456789", 7, 0x0192A3B4C5D6)
    '0192a3b4-c5d6-7012-8345-678900000007'
    """
    time = f"{milliseconds:012x}"
    return f"{time[:8]}-{time[8:]}-7{segment[:3]}-8{segment[3:6]}-{segment[6:]}{counter:08x}"


def parse_id(text: str) -> EntryId | None:
    """The parts of an id, or None when `text` is not one of ours."""
    found = _ID.fullmatch(text.lower())
    if found is None:
        return None
    high, low, *segment, counter = found.groups()
    return EntryId("".join(segment), int(counter, 16), int(high + low, 16))


def read_leaf(leaf: bytes) -> Leaf | None:
    """What every leaf holds, or None when `leaf` is not a leaf of Mainstay."""
    try:
        return _decode_leaf(leaf)
    except NOT_READ:
        return None


def read_id(leaf: bytes) -> EntryId | None:
    """The id in a leaf, or None when there is none."""
    found = LEAF_HEAD.match(leaf)
    if found is not None:
        _, milliseconds, segment, counter = found.groups()
        return EntryId(plain_segment(segment), int(counter, 16), int(milliseconds.replace(b"-", b""), 16))
    decoded = read_leaf(leaf)
    return None if decoded is None else parse_id(decoded.id)


def plain_segment(in_id: bytes) -> str:
    """The segment's name from the 14 bytes that hold it within an id.

    >>> plain_segment(b"7012-8345-6789")
    '0123456789'
    """
    return (in_id[1:4] + in_id[6:9] + in_id[10:]).decode()


def segment_in_id(segment: str) -> bytes:
    """The bytes that hold the name of a segment within an id: what `plain_segment` reads.

    >>> segment_in_id("0123456789")
    b'7012-8345-6789'
    """
    return f"7{segment[:3]}-8{segment[3:6]}-{segment[6:]}".encode()
