"""C2SP signed notes and the checkpoints of a transparency log (c2sp.org/signed-note, c2sp.org/tlog-checkpoint).

example.com/log            origin
20852163                   number of entries
CsUYapGGPo4dkMgIAUqom...   head of the Merkle tree, base64

— example.com/log Az3grl...
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mainstay.errors import Damaged
from mainstay.ledger.merkle import HASH_BYTES
from mainstay.signing import decode_base64, is_key_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mainstay.signing import SigningKey

MAX_NOTE_BYTES = 1 << 20
MAX_SIGNATURES = 64  # verifiers must accept 16
KEY_ID_BYTES = 4

_DASH = "\N{EM DASH} "
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)  # below 2**63
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


class NoteVerifier(Protocol):
    """A public key that signs notes, of whatever signature type."""

    @property
    def name(self) -> str: ...
    @property
    def key_id(self) -> bytes: ...
    @property
    def public_key(self) -> bytes: ...
    @property
    def vkey(self) -> str: ...
    def verify(self, content: bytes, signature: bytes) -> bool:
        """Whether `signature`, as it stands behind the key id in a signature line, is this key's over the text."""


class NoteSignature(NamedTuple):
    """One signature line."""

    name: str
    key_id: bytes
    signature: bytes

    @property
    def line(self) -> str:
        """As it stands in a note, with its newline."""
        return f"{_DASH}{self.name} {b64encode(self.key_id + self.signature).decode()}\n"

    def claims(self, verifier: NoteVerifier) -> bool:
        """Whether it says to be by this key: then it must verify."""
        return (self.name, self.key_id) == (verifier.name, verifier.key_id)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log: who it is, how many entries it has, and the Merkle tree head over them."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()


def sign_note(text: str, key: SigningKey) -> bytes:
    """`text` with one signature line. Raises ValueError when the text cannot be a note's."""
    if not text.endswith("\n") or _CONTROL.search(text):
        raise ValueError("a note ends in a newline and holds no other control character")
    signature = NoteSignature(key.name, key.verifier.key_id, key.sign(text.encode()))
    return f"{text}\n{signature.line}".encode()


def add_signatures(note: bytes, signatures: Iterable[NoteSignature]) -> bytes:
    """A note with more signature lines, none of them verified; one by a key that has signed already replaces it.

    Raises Damaged when it is not a note.
    """
    text, present = split_note(note)
    by_key = {each[:2]: each for each in (*present, *signatures)}
    return "".join((text, "\n", *(each.line for each in by_key.values()))).encode()


def split_note(content: bytes) -> tuple[str, list[NoteSignature]]:
    """The text and the signatures of a note, none of them verified. Raises Damaged when it is not a note."""
    if len(content) > MAX_NOTE_BYTES:
        raise Damaged(f"note: expected at most {MAX_NOTE_BYTES} bytes, found {len(content)}")
    try:
        note = content.decode()
    except UnicodeDecodeError as error:
        raise Damaged(f"note: expected UTF-8, found another byte at {error.start}") from None
    if _CONTROL.search(note):
        raise Damaged("note: expected no control characters")
    body, blank, block = note.rpartition("\n\n")
    if not blank or not block.endswith("\n"):
        raise Damaged("note: expected a text, an empty line and lines of signatures")
    return body + "\n", parse_signatures(block)


def parse_signatures(block: str) -> list[NoteSignature]:
    """The signatures in a block of signature lines, none of them verified. Raises Damaged when it is not one."""
    if not block.endswith("\n"):
        raise Damaged("note: expected lines of signatures, each with a newline")
    lines = block[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise Damaged(f"note: expected at most {MAX_SIGNATURES} signatures, found {len(lines)}")
    return [_parse_signature(line) for line in lines]


def _parse_signature(line: str) -> NoteSignature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space or not is_key_name(name):
        raise Damaged(f"note: expected a signature line, found {line[:80]!r}")
    decoded = decode_base64(encoded.encode(), f"signature by {name}")
    if len(decoded) <= KEY_ID_BYTES:
        raise Damaged(f"signature by {name}: expected a key id and a signature, found {len(decoded)} bytes")
    return NoteSignature(name, decoded[:KEY_ID_BYTES], decoded[KEY_ID_BYTES:])


def verify_note(content: bytes, verifier: NoteVerifier) -> str:
    """The text of a note signed by `verifier`; signatures by other keys are ignored.

    Raises Damaged when it is not a note, or is not signed by this key, or a signature by it is wrong.
    """
    text, signatures = split_note(content)
    ours = [each for each in signatures if each.claims(verifier)]
    if not ours:
        names = ", ".join(sorted({f"{each.name} ({each.key_id.hex()})" for each in signatures}))
        raise Damaged(f"note: expected a signature by {verifier.name} ({verifier.key_id.hex()}), found {names[:400]}")
    encoded = text.encode()
    if not all(verifier.verify(encoded, each.signature) for each in ours):
        raise Damaged(f"note: the signature by {verifier.name} is not over this text")
    return text


def format_checkpoint(checkpoint: Checkpoint) -> str:
    """The text of a checkpoint."""
    root = b64encode(checkpoint.root).decode()
    lines = (checkpoint.origin, str(checkpoint.size), root, *checkpoint.extensions)
    return "".join(f"{line}\n" for line in lines)


def parse_checkpoint(text: str) -> Checkpoint:
    """Read the text of a checkpoint. Raises Damaged when it is not one."""
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() or not all(lines):
        raise Damaged("checkpoint: expected an origin, a size and a root hash, each on a line of its own")
    origin, size, root, *extensions = lines
    if not _SIZE.fullmatch(size):
        raise Damaged(f"checkpoint: expected a number of entries, found {size[:80]!r}")
    decoded = decode_base64(root.encode("utf-8", "replace"), "root hash of the checkpoint")
    if len(decoded) != HASH_BYTES:
        raise Damaged(f"checkpoint: expected a root hash of {HASH_BYTES} bytes, found {len(decoded)}")
    return Checkpoint(origin, int(size), decoded, tuple(extensions))


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> bytes:
    """A checkpoint as a signed note."""
    return sign_note(format_checkpoint(checkpoint), key)


def verify_checkpoint(content: bytes, verifier: NoteVerifier, origin: str) -> Checkpoint:
    """The checkpoint of the log `origin` in a note signed by `verifier`. Raises Damaged when it is anything else."""
    checkpoint = parse_checkpoint(verify_note(content, verifier))
    if checkpoint.origin != origin:
        raise Damaged(f"checkpoint: expected the log {origin}, found {checkpoint.origin[:200]}")
    return checkpoint
