"""What is remembered of each witness and anchor: a small file for each, which may be lost."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, TypeAlias

import msgspec

from mainstay.files import write_atomic
from mainstay.ledger.outbound import Unanswered
from mainstay.ledger.trust_policy import shown

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger("mainstay.anchors")

Kind: TypeAlias = Literal["witness", "file", "git", "http", "settings"]


class Place(NamedTuple):
    """A witness or an anchor."""

    kind: Kind
    name: str  # the name of a witness in the policy, the URL of an anchor

    @property
    def file_name(self) -> str:
        """What is remembered of it stands in a file of this name, without an ending."""
        return f"{self.kind}-{sha256(self.name.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


class Remembered(msgspec.Struct, frozen=True):
    """How it stands with a witness or an anchor."""

    size: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0  # of the newest checkpoint it has, as far as is known
    root: str = ""  # the head of that checkpoint, hex
    stored_at: str | None = None  # when it took that, RFC 3339; None: never
    failing_since: str | None = None  # None: the last attempt succeeded
    error: str | None = None  # what failed, where it fails


SETTINGS = Place("settings", "witnesses and anchors")


def now() -> str:
    """The time, RFC 3339, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


_decode_remembered = msgspec.json.Decoder(Remembered).decode


def recall(memory: Path, place: Place) -> Remembered:
    """What is remembered. It is nothing to rely on: what cannot be read is as if nothing had been stored."""
    try:
        return _decode_remembered((memory / f"{place.file_name}.json").read_bytes())
    except (OSError, ValueError, msgspec.MsgspecError):
        return Remembered()


def remember(memory: Path, place: Place, found: Remembered) -> None:
    """Remember how it stands, durably."""
    write_atomic(memory / f"{place.file_name}.json", msgspec.json.encode(found) + b"\n")


def remember_failure(memory: Path, place: Place, before: Remembered, error: Exception) -> None:
    """Remember that it fails; logged when it did not fail before, or fails otherwise."""
    text = str(error) or type(error).__name__
    if before.failing_since is None or before.error != text:
        level = logging.WARNING if isinstance(error, Unanswered | OSError) else logging.ERROR
        logger.log(level, "not anchored: kind=%s name=%s: %s", place.kind, shown(place.name), text.replace("\n", ". "))
    failing = msgspec.structs.replace(before, failing_since=before.failing_since or now(), error=text)
    if failing != before:
        remember(memory, place, failing)
