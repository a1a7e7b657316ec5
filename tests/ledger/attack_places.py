"""What an attack says must be named."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Container

    from mainstay.ledger.findings import Finding

NO_ENTRY: Container[int | None] = (None,)
KEPT = "kept checkpoint"


class Place(NamedTuple):
    """A file, the entries that may be named in it (None: no entry), and the byte, where that is known."""

    file: str
    sequences: Container[int | None] = NO_ENTRY
    offset: int | None = None


class Planted(NamedTuple):
    """The places that are right to name first, and the kept checkpoint that verifying is given."""

    right: tuple[Place, ...]
    kept: bytes | None = None


def at(file: str, sequence: int | None = None, offset: int | None = None) -> Planted:
    """One place, and no other, is right."""
    return Planted((Place(file, (sequence,), offset),))


def is_right(finding: Finding, planted: Planted) -> bool:
    """Whether a finding names a place that is right."""
    return any(
        finding.file == place.file and finding.sequence in place.sequences and place.offset in (None, finding.offset)
        for place in planted.right
    )
