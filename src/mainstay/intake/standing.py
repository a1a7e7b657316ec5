"""How a source stands, from what is kept beside its rows. No table is read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from msgspec import Struct

from mainstay.capability.words import Owner  # noqa: TC001 - msgspec reads the types of a struct
from mainstay.intake.findings import severity_of
from mainstay.intake.landing import landing_of
from mainstay.intake.state import Counts, Found, Holding, state_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.capability.sources import Source
    from mainstay.intake.declared import InForce
    from mainstay.intake.state import State
    from mainstay.workspace import Workspace

Word: TypeAlias = Literal["well", "troubled", "late", "failing", "held", "new"]
"""`well`: nothing to see to. `troubled`: a check fails. `late`: nothing came for too long. `failing`: the last run did.
`held`: rows do not come through the door. `new`: it was never run."""

KINDS: Final = ("rest", "sql", "files", "push")


class Standing(Struct, frozen=True, kw_only=True):
    """How a source stands now."""

    capability: str
    source: str
    kind: str
    owner: Owner
    state: Word
    contract: str  # id@version, in force now
    version: str | None  # None: nothing is in production, and the folder counts
    last_run_at: datetime | None
    next_run_at: datetime | None
    last_success_at: datetime | None
    last_arrival_at: datetime | None
    watermark: datetime | None
    counts: Counts
    waiting_items: int
    waiting_bytes: int
    failures: int
    held: Holding | None
    findings: tuple[Found, ...]  # what is so now first, then what happened or passed, the newest first

    @property
    def lag_seconds(self) -> float | None:
        """Since the last arrival; None where nothing ever came."""
        if self.last_arrival_at is None:
            return None
        return max(0.0, (datetime.now(UTC) - self.last_arrival_at).total_seconds())


def standing_of(workspace: Workspace, in_force: InForce, source: Source) -> Standing:
    """How one source of a capability stands. Raises Damaged when a manifest of its landing is."""
    name = in_force.capability.name
    state = state_of(workspace.data, name, source.name).read()
    waiting = landing_of(workspace.data, name, source.name).waiting()
    return Standing(
        capability=name,
        source=source.name,
        kind=next(kind for kind in KINDS if getattr(source, kind) is not None),
        owner=source.owner or in_force.capability.owner,
        state=_word(state),
        contract=in_force.contract_name,
        version=in_force.version,
        last_run_at=state.last_run_at,
        next_run_at=state.next_run_at,
        last_success_at=state.last_success_at,
        last_arrival_at=state.last_arrival_at,
        watermark=state.watermark,
        counts=state.counts,
        waiting_items=len(waiting),
        waiting_bytes=sum(each.bytes for each in waiting),
        failures=state.failures,
        held=state.held,
        findings=tuple(_sorted(state.found)),
    )


def _word(state: State) -> Word:
    lasting = {each.code for each in state.found if each.lasts}
    if state.held is not None:
        return "held"
    if state.last_run_at is None:
        return "new"
    if state.failures:
        return "failing"
    if "late_feed" in lasting:
        return "late"
    return "troubled" if any(severity_of(code) != "note" for code in lasting) else "well"


def _sorted(found: Sequence[Found]) -> list[Found]:
    newest = sorted(found, key=lambda each: each.last, reverse=True)
    return [each for each in newest if each.lasts] + [each for each in newest if not each.lasts]
