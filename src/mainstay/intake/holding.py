"""Holding a source, and letting it go on.

A held source is in three places: its state says it, the capability goes to its fallback where the hold asks for that,
and the ledger has it. They are written in this order, each of them once however often it is begun again: whoever dies
on the way leaves a source that is held, and its next run does the rest.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from mainstay.catalog import holding, holds
from mainstay.errors import Misuse
from mainstay.intake.landing import landing_of
from mainstay.intake.state import Holding, noted, passed, state_of
from mainstay.intake.types import Finding
from mainstay.ledger.change import Change, record_change

if TYPE_CHECKING:
    from mainstay.intake.state import State, StateFile
    from mainstay.intake.types import Hold
    from mainstay.signing import SigningKey
    from mainstay.workspace import Workspace

PRINCIPAL: Final = "mainstay:intake"  # who holds: nobody asked for it
MAX_REASON_CHARACTERS: Final = 4_000  # it names columns of others, as many as came
RELEASE_SECONDS: Final = 60.0  # how long a release waits for a run to end


class Released(Struct, frozen=True, kw_only=True):
    """What was let go on."""

    held: Holding | None  # None: only its capability was held
    item: int | None  # that goes through now, whatever it is, or is refused; None: none waited
    refused: bool
    waiting: int  # items that come behind it, and are judged as any
    entry: str  # of the ledger


def hold_source(workspace: Workspace, capability: str, source: str, hold: Hold, item: int, key: SigningKey) -> Holding:
    """Hold a source because of an item; in force when it returns. Raises OSError when the disk will not take it."""
    now = datetime.now(UTC)
    reason = hold.reason[:MAX_REASON_CHARACTERS]
    made = Holding(code=hold.code, reason=reason, since=now, item=item, fallback=hold.fallback)
    finding = Finding(code=hold.code, detail=reason, item=item)
    file = state_of(workspace.data, capability, source)

    def held(before: State) -> State:
        return noted(replace(before, held=before.held or made), [finding], now, until="release")

    file.change(held)
    return finish_hold(workspace, capability, source, key) or made


def finish_hold(workspace: Workspace, capability: str, source: str, key: SigningKey) -> Holding | None:
    """Do what is left of holding a source; None where it is not held."""
    file = state_of(workspace.data, capability, source)
    held = file.read().held
    if held is None:
        return None
    if held.fallback:  # again and again: whoever was killed in releasing the source may have lifted it already
        holding.hold(workspace, capability, source, code=held.code, reason=held.reason, principal=PRINCIPAL, key=key)
    if held.entry is not None:
        return held
    change = Change(
        action="source.held",
        subject=f"{capability}/{source}",
        principal=PRINCIPAL,
        reason=held.reason,
        details={"code": held.code, "item": held.item, "since": held.since, "fallback": held.fallback},
    )
    return file.update(held=replace(held, entry=record_change(workspace.ledger, change))).held


def release_source(
    workspace: Workspace,
    capability: str,
    source: str,
    *,
    reason: str,
    principal: str,
    key: SigningKey,
    refuse: bool = False,
) -> Released:
    """Let a held source go on: the item that was held goes through the door, and those behind it are judged as any.

    With `refuse`, what is not taken of that item yet goes into quarantine, whatever it is.

    Raises Misuse when it is not held or no reason is given, and Failed when a run of it does not end.
    """
    if not reason.strip():
        raise Misuse("releasing a source needs a reason: expected some words saying why, found none")
    file = state_of(workspace.data, capability, source)
    with file.running(timeout_seconds=RELEASE_SECONDS):
        held = file.read().held
        lifted = holding.lift(workspace, capability, source, reason=reason, principal=principal, key=key)
        standing = holds.find_hold(workspace.holds, capability, key.verifier)
        if held is None and lifted is None and (standing is None or not standing.damage):
            raise Misuse(
                f"{capability}/{source}: expected a source that is held, found one that is not",
                hint=f"See how it is: mainstay intake status {capability}",
            )
        numbers = [each.number for each in landing_of(workspace.data, capability, source).waiting()]
        item = held.item if held is not None else min(numbers, default=None)
        change = Change(
            action="source.released",
            subject=f"{capability}/{source}",
            principal=principal,
            reason=reason.strip(),
            details={"held": held, "item": item, "refused": refuse},
        )
        entry = record_change(workspace.ledger, change)
        _let_go(file, item, reason.strip() if refuse else None)
        behind = sum(item is None or number > item for number in numbers)
        return Released(held=held, item=item, refused=refuse, waiting=behind, entry=entry)


def _let_go(file: StateFile, item: int | None, refused: str | None) -> None:
    """`refused` is why the item is kept out; None: it is let in."""
    now = datetime.now(UTC)

    def free(before: State) -> State:
        kept_out = {} if item is None or refused is None else {item: refused}
        released_to = max(before.released_to, item or 0)
        freed = replace(before, held=None, released_to=released_to, refused=kept_out, next_run_at=None)
        return passed(freed, "release", now)

    file.change(free)
