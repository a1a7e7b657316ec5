"""Proofs that one entry is in the log, for anyone to check offline: C2SP tlog-proof (c2sp.org/tlog-proof).

c2sp.org/tlog-proof@v1
extra AaN7ImtpbmQiOiJk...    the leaf, and with it the body where it was asked for
index 73894                  the entry's number in the log
gSKyXoYZUgZ6jduWYrkD...      its inclusion proof (RFC 6962, section 2.1.1), from the leaf's sibling upwards

example.com/log              the checkpoint, signed by the log and perhaps cosigned by witnesses, as it is
109482
sFodV/vSp5O8n9a8QpW6...

— example.com/log hI2DJw...

The extra data is opaque to the specification, and nothing vouches for it by itself. Ours is the entry as it stands in
the files of the log (`tiles.py`): u16 bytes · leaf, then, when the body is in it, u32 bytes that follow · salt · body.
The proof is over the leaf's hash; the leaf commits to salt and body.
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import TYPE_CHECKING, NamedTuple

from mainstay.errors import Damaged, Failed, Misuse
from mainstay.ledger.entry import SALT_BYTES, commitment, leaf_hash, read_leaf
from mainstay.ledger.log import Log
from mainstay.ledger.merkle import HASH_BYTES, verify_inclusion
from mainstay.ledger.note import MAX_NOTE_BYTES, parse_checkpoint, split_note, verify_checkpoint
from mainstay.ledger.reading import read_regular
from mainstay.ledger.state import CHECKPOINT_FILE, WITNESSED_FILE
from mainstay.ledger.tiles import pack_body, pack_leaf, split_bodies, split_leaves
from mainstay.ledger.trust_policy import shown
from mainstay.signing import decode_base64

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.ledger.entry import Entry
    from mainstay.ledger.note import Checkpoint, NoteVerifier
    from mainstay.ledger.trust_policy import TrustPolicy, Verdict

SUFFIX = ".tlog-proof"
HEADER = b"c2sp.org/tlog-proof@v1"
MAX_PROOF_BYTES = 64 << 20
MAX_BODY_BYTES = 32 << 20  # in base64 and with all the rest it is a proof within its limit
MAX_HASHES = 63  # of a log below 2**63 entries

_EXTRA = b"extra "
_INDEX = re.compile(rb"index (0|[1-9][0-9]{0,18})", re.ASCII)


class Proof(NamedTuple):
    """A proof as it is written: none of it is verified."""

    sequence: int  # the number of the entry, from 0; `index` in the specification
    hashes: tuple[bytes, ...]
    note: bytes  # the signed checkpoint
    extra: bytes = b""  # empty stands for none, which is all the format can say


class Body(NamedTuple):
    """What a leaf commits to."""

    salt: bytes
    content: bytes


class Carried(NamedTuple):
    """What a proof made here carries in its extra data."""

    leaf: bytes
    body: Body | None  # None when the proof was made without it


class Proven(NamedTuple):
    """What a proof shows: this leaf is entry `sequence` of the log of this checkpoint, and commits to this body."""

    leaf: bytes
    sequence: int  # the number of the entry, from 0; `index` in the specification
    checkpoint: Checkpoint
    note: bytes  # the checkpoint as it was signed, perhaps by others too
    body: Body | None  # None when the proof does not hold it
    verdict: Verdict | None  # None when no policy was asked; then nobody's cosignature was verified


def format_proof(proof: Proof) -> bytes:
    """The content of a proof's file."""
    lines = [HEADER]
    if proof.extra:
        lines.append(_EXTRA + b64encode(proof.extra))
    lines.append(b"index %d" % proof.sequence)
    lines += map(b64encode, proof.hashes)
    return b"\n".join([*lines, b"", proof.note])


def parse_proof(content: bytes) -> Proof:
    """Read a proof, anybody's, in the one form the specification allows. Raises Damaged when it is anything else."""
    if len(content) > MAX_PROOF_BYTES:
        raise Damaged(f"proof: expected at most {MAX_PROOF_BYTES:,} bytes, found {len(content):,}")
    head, blank, note = content.partition(b"\n\n")
    lines = head.split(b"\n", 3 + MAX_HASHES)
    if lines[0] != HEADER:
        raise Damaged(f"proof: expected {HEADER.decode()} on its first line, found {lines[0][:80]!r}")
    if not blank:
        raise Damaged("proof: expected an empty line and a checkpoint behind the hashes, found neither")
    extra = b""
    at = 1
    if lines[1:2] and lines[1].startswith(_EXTRA):
        extra = decode_base64(lines[1][len(_EXTRA) :], "extra data of the proof")
        if not extra:
            raise Damaged("proof: expected no line of extra data where there is none, found an empty one")
        at = 2
    found = _INDEX.fullmatch(lines[at]) if at < len(lines) else None
    if found is None:
        raise Damaged(f"proof: expected `index` and a number, found {b''.join(lines[at : at + 1])[:80]!r}")
    hashes = lines[at + 1 :]
    if len(hashes) > MAX_HASHES:
        raise Damaged(f"proof: expected at most {MAX_HASHES} hashes, found more")
    return Proof(int(found[1]), tuple(map(_parse_hash, hashes)), note, extra)


def _parse_hash(line: bytes) -> bytes:
    decoded = decode_base64(line, "hash in the proof")
    if len(decoded) != HASH_BYTES:
        raise Damaged(f"proof: expected hashes of {HASH_BYTES} bytes, found one of {len(decoded)}")
    return decoded


def pack_entry(leaf: bytes, body: Body | None) -> bytes:
    """The extra data of a proof made here."""
    return pack_leaf(leaf) if body is None else pack_leaf(leaf) + pack_body(*body)


def split_entry(extra: bytes) -> Carried:
    """What the extra data of a proof made here holds, not verified. Raises Damaged when it is another's."""
    try:
        [leaf] = split_leaves(extra, 1)
        rest = extra[len(pack_leaf(leaf)) :]
        if not rest:
            return Carried(leaf, None)
        [packed], taken = split_bodies(rest, 1)
    except Damaged as error:
        raise Damaged(f"extra data of the proof: {error}") from None
    if taken != len(rest):
        raise Damaged(f"extra data of the proof: expected a leaf and a body, found {len(rest) - taken} more bytes")
    return Carried(leaf, Body(bytes(packed[:SALT_BYTES]), bytes(packed[SALT_BYTES:])))


class Made(NamedTuple):
    """A proof, and what it shows to whoever has the log's public key."""

    content: bytes
    proven: Proven


def prove_entry(
    ledger_dir: Path, sequence: int, entry: Entry, verifier: NoteVerifier, *, with_body: bool = False
) -> Made:
    """A proof of an entry of the log in `ledger_dir`, already checked as its reader will check it.

    Raises as `choose_checkpoint`, `make_proof` and `verify_proof` do.
    """
    note = choose_checkpoint(ledger_dir, sequence)
    content = format_proof(make_proof(Log(ledger_dir), sequence, entry, note, with_body=with_body))
    return Made(content, verify_proof(content, verifier))


def choose_checkpoint(ledger_dir: Path, sequence: int) -> bytes:
    """The checkpoint to prove an entry under: the newest that witnesses cosigned when it covers it, else the newest.

    Neither signature is verified. Raises Misuse when no checkpoint covers it, Damaged when one is none.
    """
    for name in (WITNESSED_FILE, CHECKPOINT_FILE):
        try:
            note = read_regular(ledger_dir / name, MAX_NOTE_BYTES)
        except FileNotFoundError:
            continue
        if sequence < parse_checkpoint(split_note(note)[0]).size:
            return note
    raise Misuse(f"no checkpoint covers entry {sequence}")


def make_proof(log: Log, sequence: int, entry: Entry, note: bytes, *, with_body: bool = False) -> Proof:
    """The proof that `entry`, number `sequence` of `log`, is under the checkpoint `note`, whose signature is not read.

    Raises Misuse when the checkpoint does not cover it or the body is too long to be handed out, Failed when its body
    was erased, Damaged when the log's files are not whole or not those of the checkpoint.
    """
    checkpoint = parse_checkpoint(split_note(note)[0])
    if not 0 <= sequence < checkpoint.size:
        raise Misuse(f"entry {sequence} is not under a checkpoint of {checkpoint.size} entries")
    if log.size < checkpoint.size:
        raise Damaged(f"expected a log of {checkpoint.size} entries, as its checkpoint says, found {log.size}")
    body = _body_of(entry) if with_body else None
    hashes = tuple(log.inclusion_proof(sequence, checkpoint.size))
    if not verify_inclusion(entry.leaf_hash, sequence, checkpoint.size, hashes, checkpoint.root):
        raise Damaged(
            f"entry {sequence}: expected it under the checkpoint of {checkpoint.size} entries, found another tree",
            hint="`mainstay ledger verify` names the first bad place.",
        )
    return Proof(sequence, hashes, note, pack_entry(entry.leaf, body))


def _body_of(entry: Entry) -> Body:
    if not entry.body:
        raise Failed("its body was erased: a proof of the leaf alone can still be made")
    if len(entry.body) > MAX_BODY_BYTES:
        raise Misuse(f"its body has {len(entry.body):,} bytes: expected at most {MAX_BODY_BYTES:,} in a proof")
    body = Body(entry.salt, entry.body)
    _hold_body(entry.leaf, body)
    return body


def verify_proof(
    content: bytes, verifier: NoteVerifier | None, *, policy: TrustPolicy | None = None, leaf: bytes | None = None
) -> Proven:
    """What a proof shows to somebody who trusts nothing but a public key of the log, whose name is the log's origin.

    These are the steps of the specification. With `policy`, its quorum must have cosigned; a policy that lists logs
    may stand in place of `verifier`, and when both are given both must agree. `leaf` is for a proof that carries none,
    such as another application's; where it carries one, the two must be the same.

    Raises Misuse when no leaf or no key is known, Damaged when the proof does not show it, Failed when it does and the
    quorum has not cosigned.
    """
    proof = parse_proof(content)
    carried = _carried(proof.extra, leaf)  # 1
    hashed = leaf_hash(carried.leaf)
    checkpoint, verdict = _trusted(proof.note, verifier, policy)  # 2
    if verdict is not None and not verdict.satisfied:  # 3
        raise Failed(_lacking(verdict))
    if proof.sequence >= checkpoint.size:  # 4
        raise Damaged(f"proof: expected an entry below {checkpoint.size}, found {proof.sequence}")
    if not verify_inclusion(hashed, proof.sequence, checkpoint.size, proof.hashes, checkpoint.root):
        raise Damaged(
            f"proof: expected the leaf {hashed.hex()} at {proof.sequence} of {checkpoint.size} entries"
            " under the signed root, found hashes that lead elsewhere"
        )
    if carried.body is not None:
        _hold_body(carried.leaf, carried.body)
    return Proven(carried.leaf, proof.sequence, checkpoint, proof.note, carried.body, verdict)


def _trusted(
    note: bytes, verifier: NoteVerifier | None, policy: TrustPolicy | None
) -> tuple[Checkpoint, Verdict | None]:
    """The checkpoint, its log's signature verified, and what the policy says of it."""
    if verifier is None:
        if policy is None:
            raise Misuse("a proof is checked with the public key of its log: found none")
        verdict = policy.evaluate(note)
        return verdict.checkpoint, verdict
    checkpoint = verify_checkpoint(note, verifier, verifier.name)
    return checkpoint, None if policy is None else policy.evaluate(note, [verifier])


def _lacking(verdict: Verdict) -> str:
    by = ", ".join(shown(each.witness) for each in verdict.cosigned) or "nobody"
    missing = ", ".join(map(shown, verdict.missing)) or "nobody"
    return f"expected the quorum of the policy to have cosigned, found {by}; missing: {missing}"


def _carried(extra: bytes, leaf: bytes | None) -> Carried:
    if leaf is None:
        if not extra:
            raise Misuse("the proof carries no leaf", hint="Give the leaf's exact bytes with --leaf.")
        return split_entry(extra)
    try:
        carried = split_entry(extra)
    except Damaged:  # none, or another application's, which means nothing to us
        return Carried(leaf, None)
    if carried.leaf != leaf:
        raise Damaged(f"proof: expected the leaf {leaf_hash(leaf).hex()}, found {leaf_hash(carried.leaf).hex()}")
    return carried


def _hold_body(leaf: bytes, body: Body) -> None:
    decoded = read_leaf(leaf)
    promised = None if decoded is None else decoded.body
    found = commitment(*body)
    if found != promised:
        raise Damaged(f"body: expected what the leaf commits to, {promised}, found {found}")
