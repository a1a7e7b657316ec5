"""Which entries of a log are not here, and on whose word: those that left a ledger, those an archive does not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mainstay.errors import Damaged
from mainstay.ledger.archive_files import (
    ERASURES_FILE,
    MANIFEST_FILE,
    Manifest,
    is_archive,
    read_erasures,
    read_manifest,
)
from mainstay.ledger.archives import ARCHIVES_FILE, Gone, load_archives
from mainstay.ledger.bodies import read_body
from mainstay.ledger.entry import Entry, commitment, read_leaf
from mainstay.ledger.erasure_entries import read_departed
from mainstay.ledger.tiles import ENTRIES, WIDTH, TileName, split_leaves
from mainstay.ledger.treecheck import read_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.ledger.erasedcheck import Trusted
    from mainstay.ledger.findings import Findings


class Around(NamedTuple):
    """What stands around the entries that are here."""

    first: int  # the entries before are not here
    gone: tuple[Gone, ...]  # where they are, as the log says
    archive: Manifest | None  # what the directory is, where it is an archive


def look_around(root: Path, trusted: Trusted, findings: Findings) -> Around:
    """Which entries are not here. Raises Enough when there are too many findings."""
    if is_archive(root):
        return _archive(root, trusted, findings)
    try:
        archives = load_archives(root)
    except Damaged as error:
        findings.add(ARCHIVES_FILE, error.message.removeprefix(f"{ARCHIVES_FILE}: "))
        return Around(0, (), None)
    if not archives:
        return Around(0, (), None)
    *earlier, last = archives
    if not _is_said(root, last, earlier, trusted.head.size):
        what = f"expected that entry {last.sequence} says that entries 0 to {last.size - 1} left with these archives"
        findings.add(ARCHIVES_FILE, f"{what}, found that it does not")
        return Around(0, (), None)
    return Around(last.size, archives, None)


def _archive(root: Path, trusted: Trusted, findings: Findings) -> Around:
    try:
        manifest = read_manifest(root, trusted.verifier)
    except Damaged as error:
        findings.add(MANIFEST_FILE, error.message.removeprefix(f"{MANIFEST_FILE}: "))
        return Around(0, (), None)
    head = trusted.head
    if (manifest.log, manifest.size, manifest.head) != (trusted.origin, head.size, head.root.hex()):
        findings.add(
            MANIFEST_FILE,
            f"expected an archive of {trusted.origin} up to {head.size} entries with the head {head.root.hex()}, as the"
            f" checkpoint says, found one of {manifest.log[:200]} up to {manifest.size} with {manifest.head[:64]}",
        )
    if not manifest.first < manifest.size or manifest.first % WIDTH or manifest.size % WIDTH:
        findings.add(
            MANIFEST_FILE, f"expected whole bundles, found the entries {manifest.first} to {manifest.size - 1}"
        )
        return Around(0, (), manifest)
    return Around(manifest.first, (), manifest)


def _is_said(root: Path, gone: Gone, earlier: list[Gone], size: int) -> bool:
    """Whether the entry that is named says what the file says. That it is in the log is checked with all others."""
    number, place = divmod(gone.sequence, WIDTH)
    if gone.sequence >= size:
        return False
    name = TileName(ENTRIES, number, min(WIDTH, size - number * WIDTH))
    try:
        leaf = split_leaves(read_file(root, name), name.width)[place]
    except (Damaged, OSError):
        return False
    body, decoded = read_body(root, gone.sequence), read_leaf(leaf)
    if body is None or decoded is None or decoded.body != commitment(*body):
        return False
    found = read_departed(Entry(leaf, *body), gone.sequence)
    if found is None or not found.departure.remove:
        return False
    said = found.departure
    same = (said.first, said.size, said.place, found.at) == (gone.first, gone.size, gone.place, gone.at)
    return same and list(said.earlier) == earlier


def proven_erasures(root: Path, trusted: Trusted, findings: Findings) -> Iterator[tuple[int, Entry]]:
    """The requests that an archive brings with it, proven. Raises Enough when there are too many findings."""
    try:
        yield from read_erasures(root, trusted.head, trusted.verifier, trusted.origin)
    except Damaged as error:
        findings.add(ERASURES_FILE, error.message.removeprefix(f"{ERASURES_FILE}: "))
