"""Making what is what should be: the release that a rollout's last move asks for, published once.

A move is written first, and carried out after. Whoever dies anywhere between leaves a row whose release is missing, and
the next to look at it finds out what was done by the mark of the release in force:

1. that release bears the mark of the move: it was published, and is only to be noted down;
2. the champion still decides, and no stranger beside it: the release is published now;
3. somebody put something else into force without the rollout: the rollout is over, and what was done by hand stays.

All of it happens under a lock of the capability, so that nobody publishes for a move that is not the last one.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mainstay.capability.load import load_capability
from mainstay.catalog.releases import (
    end_shadow,
    history,
    publish,
    publish_canary,
    publish_shadow,
    read_current,
    roll_back,
)
from mainstay.catalog.versions import FOLDER, version_path
from mainstay.errors import Misuse
from mainstay.ledger.change import Change, record_change
from mainstay.locks import locked
from mainstay.rollout import store
from mainstay.rollout.moves import ended_row, write_end
from mainstay.rollout.types import PRINCIPAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from mainstay.capability.types import Capability
    from mainstay.catalog.types import Release
    from mainstay.rollout.types import Event, Rollout, Stage
    from mainstay.signing import SigningKey
    from mainstay.state.database import Database
    from mainstay.state.lease import Lease
    from mainstay.workspace import Workspace

T = TypeVar("T")

FOLDER_OF_LOCKS: Final = "rollouts"
_LOCK_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Steering:
    """What it takes to move rollouts. With a lease, nothing is written unless its holder still is the holder."""

    workspace: Workspace
    key: SigningKey
    database: Database
    lease: Lease | None = None

    def write(self, work: Callable[[Connection], T]) -> T:
        """One transaction, fenced where there is a lease. Raises as `Database.write` and `Lease.write` do."""
        return self.database.write(work) if self.lease is None else self.lease.write(work)

    def in_force(self, capability: str) -> Release | None:
        """The release in force; None where there is none. Raises Damaged when it is not what was signed."""
        try:
            return read_current(self.workspace.releases, capability, self.key.verifier)
        except Misuse:
            return None


@contextmanager
def steered(workspace: Workspace, capability: str) -> Iterator[None]:
    """Be the one who moves the rollouts of a capability. Raises Failed when somebody else does for too long."""
    with locked(workspace.data / FOLDER_OF_LOCKS / f"{capability}.lock", timeout_seconds=_LOCK_SECONDS):
        yield


def declared_by(workspace: Workspace, version: str) -> Capability:
    """What a version declares: of the champion, how whatever is to follow it comes into production."""
    return load_capability(version_path(workspace.versions, version) / FOLDER).capability


def settle(steering: Steering, rollout: Rollout) -> Rollout:
    """Carry out the last move of a rollout as far as that is still to be done; the rollout as it is then.

    The lock of the capability must be held. Raises as publishing does, Moved when another move came between.
    """
    found = steering.in_force(rollout.capability)
    if rollout.release is None and found is not None and found.rollout == rollout.mark:
        return _note(steering, rollout, found)
    if rollout.release is not None and (found is None or found.number == rollout.release or fits(found, rollout)):
        return rollout
    if not _may_publish(found, rollout):
        return _give_way(steering, rollout, found)
    if rollout.release is not None:  # it stood, and somebody has taken it back by publishing what was before
        return _give_way(steering, rollout, found)
    made = _publish(steering, rollout, found)
    if made is None:
        number = 0 if found is None else found.number
        return steering.write(lambda connection: store.save_release(connection, rollout, number))
    if made.rollout != rollout.mark:  # somebody published between our look and the lock of the releases
        return settle(steering, rollout)
    return _note(steering, rollout, made)


def fits(release: Release, rollout: Rollout) -> bool:
    """Whether a release gives the version of a rollout the place that its stage asks for."""
    canary = release.canary
    beside = release.version == rollout.champion
    match rollout.stage:
        case "shadow":
            return beside and any(each.version == rollout.version for each in release.shadows)
        case "canary":
            mine = canary is not None and canary.version == rollout.version and canary.percent == rollout.percent
            return beside and mine
        case "production":
            return release.version == rollout.version
        case "retired":
            return release.version != rollout.version
        case "rolled_back" | "stopped_by_hand":
            return not _holds(release, rollout.version)


def _holds(release: Release, version: str) -> bool:
    canary = release.canary
    named = {release.version, *(each.version for each in release.shadows)}
    return version in named or (canary is not None and canary.version == version)


def _may_publish(found: Release | None, rollout: Rollout) -> bool:
    """Whether what is in force is what the move was decided on, as far as it decides."""
    if found is None:
        return rollout.champion is None
    if found.number == rollout.base:
        return True
    if rollout.stage in {"rolled_back", "stopped_by_hand"}:
        return True  # what is left of it goes, whatever else is in force
    strange = found.canary is not None and found.canary.version != rollout.version
    return found.version == rollout.champion and not strange


def _publish(steering: Steering, rollout: Rollout, found: Release | None) -> Release | None:
    """The release for the last move; None where nothing is to be published, since what is in force is that already."""
    by = _principal(steering, rollout)
    said: dict[str, Any] = {"key": steering.key, "reason": rollout.reason, "principal": by, "rollout": rollout.mark}
    workspace, name, version = steering.workspace, rollout.capability, rollout.version
    match rollout.stage:
        case "shadow":
            stage = declared_by(workspace, rollout.champion or version).rollout.shadow
            return publish_shadow(workspace, name, version, share=stage.share, queue=stage.queue, **said)
        case "canary":
            return publish_canary(workspace, name, version, rollout.percent, **said)
        case "production":
            return publish(workspace, name, version, **said)
        case "retired":
            return None
        case "rolled_back" | "stopped_by_hand":
            return None if found is None else _take_out(steering, rollout, found, said)


def _take_out(steering: Steering, rollout: Rollout, found: Release, said: dict[str, Any]) -> Release | None:
    """The release without the version of a rollout, wherever in it that stands."""
    workspace, name = steering.workspace, rollout.capability
    if found.version == rollout.version:
        return roll_back(workspace, name, to=_clean_release(steering, rollout), **said)
    if found.canary is not None and found.canary.version == rollout.version:
        return publish(workspace, name, found.version, **said)
    if any(each.version == rollout.version for each in found.shadows):
        return end_shadow(workspace, name, rollout.version, **said)
    return None


def _clean_release(steering: Steering, rollout: Rollout) -> int | None:
    """The newest release in which the champion decided alone; None where there is none any more."""
    past = history(steering.workspace.releases, rollout.capability, steering.key.verifier)
    return next((each.number for each in past[::-1] if each.version == rollout.champion and each.canary is None), None)


def _principal(steering: Steering, rollout: Rollout) -> str:
    """Who made the last move."""
    events = steering.database.read(lambda connection: store.list_events(connection, rollout.id))
    return next((each.by for each in events[::-1] if each.number == rollout.moves), PRINCIPAL)


def _note(steering: Steering, rollout: Rollout, release: Release) -> Rollout:
    """Put a release of ours into the ledger and say in the row that it is there.

    Whoever dies between the two puts it there once more: as the same release, with the same number.
    """
    record_release(steering.workspace, release)
    return steering.write(lambda connection: store.save_release(connection, rollout, release.number))


def record_release(workspace: Workspace, release: Release) -> None:
    """Put a release into the ledger."""
    change = Change(
        action="release.published",
        subject=f"{release.capability}/{release.number}",
        principal=release.published_by,
        reason=release.reason,
        details=release,
    )
    record_change(workspace.ledger, change)


def _give_way(steering: Steering, rollout: Rollout, found: Release | None) -> Rollout:
    """End a rollout because somebody put something else into force; what they did stays."""
    reason = "no release is in force any more"
    if found is not None:
        reason = f"release {found.number} by {found.published_by} put something else into force"
    stage: Stage = "retired" if rollout.stage == "production" else "stopped_by_hand"
    after = ended_row(rollout, stage, reason, found)
    ended = steering.write(lambda connection: write_end(connection, rollout, after, PRINCIPAL, None))
    return settle(steering, ended)


def tell(steering: Steering) -> int:
    """Put what happened into the ledger, where it is not there yet; how many entries were made.

    Each has the rollout and the number of the event in its details: whoever dies between writing an entry and noting
    it down writes one more that says the same of both.
    """
    events = steering.database.read(store.list_untold)
    for event in events:
        entry = record_change(steering.workspace.ledger, _change(event))
        steering.write(partial(store.save_entry, event=event, entry=entry))
    return len(events)


def _change(event: Event) -> Change:
    return Change(
        action=event.action,
        subject=str(event.details.get("capability", event.rollout)),
        principal=event.by,
        reason=event.reason,
        details={**event.details, "rollout": event.rollout, "number": event.number, "at": event.at},
    )
