"""Which entries have left the ledger with an archive: one small file, replaced atomically before any of them goes.

The file says only where to look: each archive in it names the entry of the log that speaks of it, and `verify` holds
the file against the last of these, which speaks of all before it. Archives leave from the beginning of the log, one
behind the other, so that what is gone is always a beginning (C2SP tlog-tiles, "Pruning": the minimum index). Hash tiles
stay, and with them every proof of what is still here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from mainstay.errors import NOT_READ, Damaged, Failed
from mainstay.files import write_atomic
from mainstay.ledger.reading import read_regular

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ARCHIVES_FILE = "archives.json"
MAX_ARCHIVES_BYTES = 16 << 20
_FORMAT: Final = "mainstay-archives/1"

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class Gone(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Entries that have left: [first, size)."""

    sequence: _Count  # of the entry that says so
    at: str  # when it was recorded
    first: _Count
    size: _Count
    place: str


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: Literal["mainstay-archives/1"]
    archives: tuple[Gone, ...]


_decode = msgspec.json.Decoder(_File).decode


class Archived(Failed):
    """What was asked for has left with an archive."""

    def __init__(self, gone: Gone) -> None:
        super().__init__(
            f"entries {gone.first:,} to {gone.size - 1:,} are not here: they were archived at {gone.place}, as entry"
            f" {gone.sequence:,} of the log says, recorded {gone.at}",
            hint=f"Look there: mainstay ledger verify --directory {gone.place} --public-key FILE",
        )
        self.gone = gone


def load_archives(ledger_dir: Path) -> tuple[Gone, ...]:
    """What has left, in the order of the log; empty where nothing has. Raises Damaged when the file is not ours."""
    try:
        content = read_regular(ledger_dir / ARCHIVES_FILE, MAX_ARCHIVES_BYTES)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise Damaged(f"{ARCHIVES_FILE}: expected a file, found none: {error.strerror}") from None
    try:
        archives = _decode(content).archives
    except NOT_READ as error:
        raise Damaged(f"{ARCHIVES_FILE}: expected {_FORMAT}, found an error: {error}") from None
    behind = 0
    for each in archives:
        if each.first != behind or each.size <= each.first:
            raise Damaged(
                f"{ARCHIVES_FILE}: expected an archive of entries from {behind} on, found {each.first} to {each.size}"
            )
        behind = each.size
    return archives


def save_archives(ledger_dir: Path, archives: Sequence[Gone]) -> None:
    """Replace the file, durably."""
    content = msgspec.json.encode(_File(format=_FORMAT, archives=tuple(archives)))
    write_atomic(ledger_dir / ARCHIVES_FILE, msgspec.json.format(content) + b"\n")


def archived_until(ledger_dir: Path) -> int:
    """The first entry that has not left. Raises Damaged as `load_archives` does."""
    archives = load_archives(ledger_dir)
    return archives[-1].size if archives else 0


def archive_of(ledger_dir: Path, sequence: int) -> Gone | None:
    """With which archive an entry has left; None where it has not. Raises Damaged as `load_archives` does."""
    return next((each for each in load_archives(ledger_dir) if each.first <= sequence < each.size), None)
