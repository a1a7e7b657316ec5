"""Holding a capability because a feed of it is stopped, and lifting that again. What a hold is: `holds`.

A hold is in force before it is in the ledger, and a lift is in the ledger before it is in force: whoever dies between
the two leaves a capability that is held, and what was begun is simply begun again.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from mainstay.catalog.holds import HOLDS_PAYLOAD, Document, SourceHold, Standing, find_hold, hold_file
from mainstay.errors import Misuse
from mainstay.files import sync_directory, write_atomic
from mainstay.ledger.change import Change, record_change
from mainstay.locks import locked
from mainstay.signing import sign_envelope

if TYPE_CHECKING:
    from mainstay.signing import SigningKey
    from mainstay.workspace import Workspace

MAX_REASON_CHARACTERS: Final = 10_000

_LOCK: Final = "lock"
_LOCK_SECONDS: Final = 30.0
_NAME = re.compile(r"[a-z][a-z0-9-]{1,62}")


def hold(
    workspace: Workspace, capability: str, source: str, *, code: str, reason: str, principal: str, key: SigningKey
) -> SourceHold | None:
    """Send the decisions of a capability to their fallback until `source` is lifted; in force when it returns.

    Held again for the same source, the first hold stays. None: a damaged document holds already, and is left there.
    Raises Misuse when a name is none or no reason is given, OSError when the disk will not take it.
    """
    _check_words(capability, reason, principal)
    if not _NAME.fullmatch(source):
        raise Misuse(f"source {source[:80]!r}: expected lower-case letters, digits and dashes")
    with locked(workspace.holds / _LOCK, timeout_seconds=_LOCK_SECONDS):
        standing = find_hold(workspace.holds, capability, key.verifier) or Standing()
        if standing.damage:
            return None
        others = tuple(each for each in standing.holds if each.source != source)
        made = next((each for each in standing.holds if each.source == source), None)
        if made is None:
            now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            made = SourceHold(source=source, code=code, reason=reason.strip(), by=principal, since=now)
            _write(workspace, capability, (*others, made), key)
        if made.entry is None:
            made = msgspec.structs.replace(made, entry=_record(workspace, "capability.held", capability, made))
            _write(workspace, capability, (*others, made), key)
        return made


def lift(
    workspace: Workspace, capability: str, source: str, *, reason: str, principal: str, key: SigningKey
) -> Standing | None:
    """Let `source` hold its capability no more; what is lifted, None where it did not hold.

    A damaged document is removed whole: which sources it held for cannot be known, and those that are stopped are held
    again by whoever runs them. Raises as `hold` does.
    """
    _check_words(capability, reason, principal)
    with locked(workspace.holds / _LOCK, timeout_seconds=_LOCK_SECONDS):
        standing = find_hold(workspace.holds, capability, key.verifier)
        if standing is None:
            return None
        mine = tuple(each for each in standing.holds if each.source == source)
        if not (mine or standing.damage):
            return None
        change = Change(
            action="capability.released",
            subject=f"{capability}/{source}",
            principal=principal,
            reason=reason.strip(),
            details={"lifted": mine, "damage": standing.damage},
        )
        record_change(workspace.ledger, change)
        others = tuple(each for each in standing.holds if each.source != source)
        if others:
            _write(workspace, capability, others, key)
        else:
            hold_file(workspace.holds, capability).unlink(missing_ok=True)
            sync_directory(workspace.holds)
        return Standing(holds=mine, damage=standing.damage)


def _write(workspace: Workspace, capability: str, holds: tuple[SourceHold, ...], key: SigningKey) -> None:
    document = Document(capability=capability, holds=tuple(sorted(holds, key=lambda each: each.source)))
    payload = msgspec.json.encode(document, order="deterministic")
    write_atomic(hold_file(workspace.holds, capability), sign_envelope(HOLDS_PAYLOAD, payload, key))


def _record(workspace: Workspace, action: str, capability: str, made: SourceHold) -> str:
    change = Change(
        action=action,
        subject=f"{capability}/{made.source}",
        principal=made.by,
        reason=made.reason,
        details={"code": made.code, "since": made.since},
    )
    return record_change(workspace.ledger, change)


def _check_words(capability: str, reason: str, principal: str) -> None:
    if not _NAME.fullmatch(capability):
        raise Misuse(f"capability {capability[:80]!r}: expected lower-case letters, digits and dashes")
    if not 1 <= len(reason.strip()) <= MAX_REASON_CHARACTERS:
        raise Misuse("a hold needs a reason, and so does lifting one: expected 1 to 10,000 characters saying why")
    if not principal.strip():
        raise Misuse("a hold needs a principal: expected who holds, or lifts")
