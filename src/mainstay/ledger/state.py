"""What the sealer knows of its own progress: one small file, replaced atomically.

The file is `{"sha256":"<hex>","state":<state>}` and a newline, the digest being over the exact bytes of the state, so
that any changed byte is seen.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from mainstay.errors import NOT_READ, Damaged
from mainstay.files import write_atomic
from mainstay.ledger.reading import read_regular
from mainstay.ledger.wal import SUFFIX

if TYPE_CHECKING:
    from pathlib import Path

STATE_FILE = "sealer.json"
CHECKPOINT_FILE = "checkpoint"
WITNESSED_FILE = "witnessed"  # the newest checkpoint that enough witnesses have cosigned
LOCK_FILE = "sealer.lock"
WAL_FOLDER = "wal"
DAMAGED_FOLDER = "wal/damaged"
STATE_FORMAT: Final = "mainstay-sealer/1"
MAX_STATE_BYTES = 256 << 20  # about 80 for each segment in the folder

_FILE = re.compile(rb'\{"sha256":"([0-9a-f]{64})","state":(\{.*\})\}\n', re.DOTALL)


_Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_SegmentName = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{10}\Z")]


class Progress(msgspec.Struct, frozen=True):
    """How far a write-ahead segment is sealed."""

    offset: _Number  # bytes; the next group begins here
    entries: _Number  # sealed from before there
    finished: bool = False  # nothing follows; the segment may be deleted


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The log as far as it is durable, and how far each segment in the folder is in it."""

    format: Literal["mainstay-sealer/1"]
    size: _Number  # entries in the log
    root: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]  # hex; the head of the Merkle tree over them
    # A size of the log of which all superseded partial tiles are surely deleted, and which the checkpoint covers.
    swept: _Number
    sealed_at: str  # RFC 3339, UTC
    segments: dict[_SegmentName, Progress]

    def __post_init__(self) -> None:
        if self.swept > self.size:
            raise ValueError(f"expected at most {self.size} swept entries, found {self.swept}")


_decode_state = msgspec.json.Decoder(State).decode


def encode_state(state: State) -> bytes:
    """The content of the file."""
    content = msgspec.json.encode(state)
    return b'{"sha256":"%b","state":%b}\n' % (sha256(content).hexdigest().encode(), content)


def decode_state(content: bytes) -> State:
    """Read the content of the file. Raises Damaged when it is not what was written."""
    found = _FILE.fullmatch(content)
    if found is None or sha256(found[2]).hexdigest().encode() != found[1]:
        raise Damaged(f"{STATE_FILE}: expected a state under its SHA-256, found {len(content)} bytes that are not")
    try:
        return _decode_state(found[2])
    except NOT_READ as error:
        raise Damaged(f"{STATE_FILE}: expected {STATE_FORMAT}, found an error: {error}") from None


def load_state(ledger_dir: Path) -> State | None:
    """The state, or None when nothing was ever sealed here. Raises Damaged when it is not what was written."""
    try:
        content = read_regular(ledger_dir / STATE_FILE, MAX_STATE_BYTES)
    except FileNotFoundError:
        return None
    return decode_state(content)


def save_state(ledger_dir: Path, state: State) -> None:
    """Replace the state, durably."""
    write_atomic(ledger_dir / STATE_FILE, encode_state(state))


def segment_path(ledger_dir: Path, segment: str) -> Path:
    """Where a segment stands until it is sealed."""
    return ledger_dir / WAL_FOLDER / (segment + SUFFIX)
