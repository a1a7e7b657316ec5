"""An archive of a log: a directory that verifies by itself, with nothing but the public key.

    checkpoint               the head of the log of the entries that have been archived until and with this one, signed
    tile/, bodies/           as in the ledger: the hashes of the whole log until there, the entries [first, size)
    archive.json             what this is: a DSSE envelope of a Manifest, signed by the key of the log
    erasures.jsonl           the requests behind the entries archived that are about them, with proofs

An archive with `first` above zero is what C2SP tlog-tiles calls a pruned log with that minimum index. A request stands
in the log behind what it is about, so that the one that explains an empty body here may stand behind the archive's end:
then the archive brings it with it. The first line of the file is a later checkpoint of the log and the proof that it
extends the archive's, each other line an entry and the proof that it is in the log of that checkpoint (RFC 6962).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from mainstay.errors import NOT_READ, Damaged
from mainstay.files import sync_directory, write_all, write_atomic
from mainstay.ledger.entry import Entry, commitment, read_leaf
from mainstay.ledger.merkle import verify_consistency, verify_inclusion
from mainstay.ledger.note import parse_checkpoint, split_note, verify_checkpoint
from mainstay.ledger.reading import open_regular, read_regular
from mainstay.signing import open_envelope, sign_envelope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from mainstay.ledger.log import Log
    from mainstay.ledger.note import Checkpoint
    from mainstay.signing import SigningKey, Verifier

MANIFEST_FILE: Final = "archive.json"
ERASURES_FILE: Final = "erasures.jsonl"
MAX_MANIFEST_BYTES = 1 << 20
MAX_LINE_BYTES = 64 << 20
MANIFEST_PAYLOAD: Final = "application/vnd.mainstay.archive+json"

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an archive is."""

    format: Literal["mainstay-archive/1"]
    log: str
    first: _Count
    size: _Count  # it holds the entries [first, size)
    head: str  # hex; of the log of `size` entries
    made_at: str  # RFC 3339, UTC


class _Later(msgspec.Struct, frozen=True):
    """A checkpoint behind the archive, and the proof that it extends the archive's."""

    checkpoint: bytes
    consistency: list[bytes]


class _Proven(msgspec.Struct, frozen=True):
    """An entry, and the proof that it is in the log of that checkpoint."""

    sequence: _Count
    leaf: bytes
    salt: bytes
    body: bytes
    inclusion: list[bytes]


_manifest = msgspec.json.Decoder(Manifest).decode
_later = msgspec.json.Decoder(_Later).decode
_proven = msgspec.json.Decoder(_Proven).decode
_encode = msgspec.json.Encoder().encode


def is_archive(directory: Path) -> bool:
    """Whether a directory says that it is an archive; whether it is, its signature tells."""
    return os.path.lexists(directory / MANIFEST_FILE)


def write_manifest(directory: Path, manifest: Manifest, key: SigningKey) -> None:
    """Sign what an archive is, durably."""
    write_atomic(directory / MANIFEST_FILE, sign_envelope(MANIFEST_PAYLOAD, _encode(manifest), key) + b"\n")


def read_manifest(directory: Path, verifier: Verifier) -> Manifest:
    """What an archive is. Raises Damaged when that is not signed by the key."""
    try:
        content = read_regular(directory / MANIFEST_FILE, MAX_MANIFEST_BYTES)
        return _manifest(open_envelope(content.rstrip(b"\n"), MANIFEST_PAYLOAD, verifier))
    except OSError as error:
        raise Damaged(f"{MANIFEST_FILE}: expected a file, found none: {error.strerror}") from None
    except NOT_READ as error:
        raise Damaged(f"{MANIFEST_FILE}: expected what an archive is, found an error: {error}") from None


def write_erasures(directory: Path, log: Log, size: int, entries: Iterable[tuple[int, Entry]]) -> None:
    """Put entries behind those of an archive of `size` beside it, each with its proof, in one step."""
    note = log.note()
    assert note is not None, "an archive is of a log that has a checkpoint"
    later = parse_checkpoint(split_note(note)[0])
    fresh = directory / f".{ERASURES_FILE}.{os.getpid()}.tmp"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        write_all(descriptor, _encode(_Later(note, log.consistency_proof(size, later.size))) + b"\n")
        for sequence, entry in entries:
            proven = _Proven(sequence, *entry, log.inclusion_proof(sequence, later.size))
            write_all(descriptor, _encode(proven) + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(directory / ERASURES_FILE)
    sync_directory(directory)


def read_erasures(directory: Path, head: Checkpoint, verifier: Verifier, origin: str) -> Iterator[tuple[int, Entry]]:
    """The entries that an archive with the head `head` brings with it, proven. Raises Damaged when one is not."""
    try:
        descriptor = open_regular(directory / ERASURES_FILE)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Damaged(f"{ERASURES_FILE}: expected a file, found none: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        try:
            first = _later(_line(file))
            later = verify_checkpoint(first.checkpoint, verifier, origin)
            if not verify_consistency(head.size, later.size, head.root, later.root, first.consistency):
                raise Damaged(f"{ERASURES_FILE}: expected a checkpoint that extends the archive's, found another")
            while line := _line(file):
                yield _prove(_proven(line), later)
        except NOT_READ as error:
            raise Damaged(f"{ERASURES_FILE}: expected entries with their proofs, found an error: {error}") from None


def _line(file: BinaryIO) -> bytes:
    line = file.readline(MAX_LINE_BYTES)
    if line and not line.endswith(b"\n"):
        raise Damaged(f"{ERASURES_FILE}: expected lines of at most {MAX_LINE_BYTES:,} bytes, found more or no end")
    return line


def _prove(found: _Proven, later: Checkpoint) -> tuple[int, Entry]:
    entry = Entry(found.leaf, found.salt, found.body)
    leaf = read_leaf(entry.leaf)
    if leaf is None or leaf.body != commitment(entry.salt, entry.body):
        raise Damaged(f"{ERASURES_FILE}: expected the body of entry {found.sequence}, found another")
    if not verify_inclusion(entry.leaf_hash, found.sequence, later.size, found.inclusion, later.root):
        raise Damaged(f"{ERASURES_FILE}: expected an entry of the log, found entry {found.sequence}, which is not")
    return found.sequence, entry
