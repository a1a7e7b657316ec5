"""Holding a capability because a feed of it is stopped, stopping it itself, and lifting both. What a hold is: `holds`.

A hold is in force before it is in the ledger, and a lift is in the ledger before it is in force: whoever dies between
the two leaves a capability that is held, and what was begun is simply begun again.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from mainstay.catalog.holds import HOLDS_PAYLOAD, Document, SourceHold, Standing, Stop, find_hold, hold_file
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
            made = SourceHold(source=source, code=code, reason=reason.strip(), by=principal, since=_now())
            _write(workspace, capability, (*others, made), standing.stopped, key)
        if made.entry is None:
            change = Change(
                action="capability.held",
                subject=f"{capability}/{source}",
                principal=made.by,
                reason=made.reason,
                details={"code": made.code, "since": made.since},
            )
            made = msgspec.structs.replace(made, entry=record_change(workspace.ledger, change))
            _write(workspace, capability, (*others, made), standing.stopped, key)
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
        _write(workspace, capability, others, standing.stopped, key)
        return Standing(holds=mine, damage=standing.damage)


def stop(workspace: Workspace, capability: str, *, reason: str, principal: str, key: SigningKey) -> Stop:
    """Send every decision of a capability to its fallback ladder until it is resumed; in force when it returns.

    Stopped again, the first stop stays. A damaged document gives way: what it held for, those who run the sources hold
    again. Raises Misuse when the name is none or no reason is given, OSError when the disk will not take it.
    """
    _check_words(capability, reason, principal)
    with locked(workspace.holds / _LOCK, timeout_seconds=_LOCK_SECONDS):
        standing = find_hold(workspace.holds, capability, key.verifier) or Standing()
        made = standing.stopped
        if made is None:
            made = Stop(reason=reason.strip(), by=principal, since=_now())
            _write(workspace, capability, standing.holds, made, key)
        if made.entry is None:
            change = Change(
                action="capability.stopped",
                subject=capability,
                principal=made.by,
                reason=made.reason,
                details={"since": made.since, "damage": standing.damage},
            )
            made = msgspec.structs.replace(made, entry=record_change(workspace.ledger, change))
            _write(workspace, capability, standing.holds, made, key)
        return made


def resume(workspace: Workspace, capability: str, *, reason: str, principal: str, key: SigningKey) -> Standing | None:
    """Let a capability decide again, unless a feed of it is stopped; what is lifted, None where it was not stopped.

    A damaged document may say that it is stopped, and is removed whole. Raises as `stop` does.
    """
    _check_words(capability, reason, principal)
    with locked(workspace.holds / _LOCK, timeout_seconds=_LOCK_SECONDS):
        standing = find_hold(workspace.holds, capability, key.verifier)
        if standing is None or not (standing.stopped or standing.damage):
            return None
        change = Change(
            action="capability.resumed",
            subject=capability,
            principal=principal,
            reason=reason.strip(),
            details={"lifted": standing.stopped, "damage": standing.damage},
        )
        record_change(workspace.ledger, change)
        _write(workspace, capability, standing.holds, None, key)
        return Standing(stopped=standing.stopped, damage=standing.damage)


def _write(
    workspace: Workspace, capability: str, holds: tuple[SourceHold, ...], stopped: Stop | None, key: SigningKey
) -> None:
    """Have these in force, and no others. The lock must be held."""
    path = hold_file(workspace.holds, capability)
    if not holds and stopped is None:
        path.unlink(missing_ok=True)
        sync_directory(workspace.holds)
        return
    in_order = tuple(sorted(holds, key=lambda each: each.source))
    payload = msgspec.json.encode(
        Document(capability=capability, holds=in_order, stopped=stopped), order="deterministic"
    )
    write_atomic(path, sign_envelope(HOLDS_PAYLOAD, payload, key))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _check_words(capability: str, reason: str, principal: str) -> None:
    if not _NAME.fullmatch(capability):
        raise Misuse(f"capability {capability[:80]!r}: expected lower-case letters, digits and dashes")
    if not 1 <= len(reason.strip()) <= MAX_REASON_CHARACTERS:
        raise Misuse("a hold needs a reason, and so does lifting one: expected 1 to 10,000 characters saying why")
    if not principal.strip():
        raise Misuse("a hold needs a principal: expected who holds, or lifts")
