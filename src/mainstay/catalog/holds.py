"""Holds: which capabilities answer with their fallback, because a feed of theirs or they themselves are stopped.

    holds/<capability>.json    DSSE envelope of a Document, replaced atomically; none: the capability is not held
    holds/lock                 held by whoever places or lifts one

A feed that is stopped has the effect that the capability declares for it. One that is stopped itself, by a person or
by its rollout, gives every decision to the fallback ladder, whatever is declared.

A hold is for safety, so whatever stands at that place holds: a document that is damaged, or that somebody else signed,
does so too, and says it. Here holds are read, as workers do; `holding` places and lifts them.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from mainstay.errors import NOT_READ, Damaged
from mainstay.signing import open_envelope

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.signing import Verifier

HOLDS_PAYLOAD: Final = "application/vnd.mainstay.holds+json"

_MAX_ENVELOPE_BYTES: Final = 1 << 20
_FILE = re.compile(r"([a-z][a-z0-9-]{1,62})\.json")

Signature: TypeAlias = tuple[tuple[str, int, int, int], ...]


class SourceHold(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a capability is held because of one of its sources."""

    source: str
    code: str  # of the finding that stopped it, such as bad_share
    reason: str  # for people
    by: str  # the principal
    since: str  # RFC 3339
    entry: str | None = None  # of the ledger; None: whoever held it has not come so far


class Stop(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a capability itself is stopped."""

    reason: str  # for people
    by: str  # the principal: a person, or the rollout
    since: str  # RFC 3339
    entry: str | None = None  # of the ledger; None: whoever stopped it has not come so far


class Document(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The holds of a capability, at most one of each source, and whether it is stopped itself."""

    format: Literal["mainstay-holds/1"] = "mainstay-holds/1"
    capability: str
    holds: tuple[SourceHold, ...]
    stopped: Stop | None = None


class Standing(Struct, frozen=True, kw_only=True):
    """That a capability is held, and why. With nothing that says so, its document is there and cannot be relied on."""

    holds: tuple[SourceHold, ...] = ()
    damage: str = ""
    stopped: Stop | None = None

    @property
    def detail(self) -> str:
        """On one line, for callers and records: that it is stopped itself, or else which feeds are."""
        if self.stopped is not None:
            return f"it is stopped since {self.stopped.since}, by {self.stopped.by}"
        if not self.holds:
            return "it is held, and the document that says why cannot be relied on"
        return "; ".join(f"source {each.source} is stopped since {each.since}: {each.code}" for each in self.holds)


def find_hold(holds: Path, capability: str, verifier: Verifier) -> Standing | None:
    """Whether a capability is held and why; None where it is not."""
    path = hold_file(holds, capability)
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_ENVELOPE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Standing(damage=f"{path}: expected a readable file, found: {error.strerror}")
    try:
        document = msgspec.json.decode(open_envelope(content, HOLDS_PAYLOAD, verifier), type=Document)
    except Damaged as error:
        return Standing(damage=f"{path}: {error.message}")
    except NOT_READ as error:
        return Standing(damage=f"{path}: signed, but no holds: {error}")
    if document.capability != capability or not (document.holds or document.stopped):
        return Standing(damage=f"{path}: expected holds of {capability!r}, found those of {document.capability!r}")
    return Standing(holds=document.holds, stopped=document.stopped)


def read_holds(holds: Path, verifier: Verifier) -> dict[str, Standing]:
    """Every capability that is held. Raises OSError when the directory cannot be read."""
    found = {name: find_hold(holds, name, verifier) for name in _names(holds)}
    return {name: standing for name, standing in found.items() if standing is not None}


def signature_of(holds: Path) -> Signature:
    """A cheap fingerprint of every hold: name, inode, modification time in ns, size. Each change of one changes it.

    Raises OSError when the directory cannot be read.
    """
    found = []
    for name in _names(holds):
        try:
            stat = hold_file(holds, name).lstat()
        except FileNotFoundError:
            continue
        found.append((name, stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(found)


def _names(holds: Path) -> list[str]:
    try:
        names = os.listdir(holds)  # noqa: PTH208 - only the names
    except FileNotFoundError:
        return []
    return sorted(match[1] for name in names if (match := _FILE.fullmatch(name)) is not None)


def hold_file(holds: Path, capability: str) -> Path:
    """Where the document of a capability stands."""
    return holds / f"{capability}.json"
