"""One run over a source: what is new lands, and what landed goes through the door.

Whoever is killed in it loses nothing: what landed is there, the tables know how far the door came, and the next run
goes on from both. A source that is held lands and waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from mainstay.errors import MainstayError, Misuse
from mainstay.intake.door import Door
from mainstay.intake.fetching import Unavailable, open_fetcher
from mainstay.intake.holding import finish_hold, hold_source
from mainstay.intake.judging import Judging
from mainstay.intake.landing import landing_of
from mainstay.intake.pacing import Ran, after_failure, after_run
from mainstay.intake.run_checks import check_levels
from mainstay.intake.run_lineage import dataset_of, job_of, tell_taken
from mainstay.intake.run_notes import Notes, counts_of
from mainstay.intake.state import state_of
from mainstay.intake.types import Finding, Held
from mainstay.lake.lake import open_lake

if TYPE_CHECKING:
    from collections.abc import Callable

    from mainstay.capability.sources import Source
    from mainstay.intake.declared import InForce
    from mainstay.intake.landing import Item
    from mainstay.intake.state import Holding, State
    from mainstay.intake.types import PartFacts
    from mainstay.lineage.emitting import Emitter
    from mainstay.lineage.emitting import Run as Told
    from mainstay.signing import SigningKey
    from mainstay.workspace import Workspace

MAX_WAITING_BYTES: Final = 16 << 30  # of a held source that is asked: what is not asked for now is still there later


@dataclass(frozen=True)
class Means:
    """What runs are made with, one after the other."""

    workspace: Workspace
    key: SigningKey
    emitter: Emitter


class Run:
    """One run over a source. Whoever makes it holds the source's lock by then: a release changes what counts."""

    def __init__(
        self,
        means: Means,
        in_force: InForce,
        source: Source,
        *,
        on_progress: Callable[[str], None] = lambda _: None,
        may_go_on: Callable[[], bool] = lambda: True,
    ) -> None:
        """`on_progress` is told in words what was done, again and again; between items it is asked whether to go on."""
        self._means = means
        self._workspace = means.workspace
        self._in_force = in_force
        self._source = source
        self._tell = on_progress
        self._may_go_on = may_go_on
        self._name = in_force.capability.name
        self._lake = open_lake(means.workspace)
        self._landing = landing_of(means.workspace.data, self._name, source.name)
        self._file = state_of(means.workspace.data, self._name, source.name)
        self._notes = Notes(self._file, in_force.contract_name)
        self._origin = dataset_of(means.workspace, self._name, source)
        self._judging = Judging(
            means.workspace, self._lake, in_force, source, self._landing, self._file.read().released_to
        )
        self._taken = 0  # items
        self._ended = False  # whether the source was asked to the end of what it has

    def go(self) -> Ran:
        """Fetch and take until there is nothing new, or somebody says to stop. What goes wrong is a finding.

        Raises only what is no fault of the source, such as a state that cannot be written.
        """
        began = datetime.now(UTC)
        self._file.update(last_run_at=began)
        problem: Finding | None = None
        retry_after: float | None = None
        try:
            with self._means.emitter.run(job_of(self._name, self._source.name), only_if_moved=True) as told:
                self._work(told)
        except Unavailable as error:
            problem, retry_after = Finding(code=error.code, detail=error.detail), error.retry_after_seconds
        except Misuse as error:
            problem = Finding(code="misdeclared", detail=str(error))
        except (MainstayError, OSError) as error:
            problem = Finding(code="failed", detail=str(error))
        return self._finish(began, problem, retry_after)

    def _work(self, told: Told) -> None:
        held = finish_hold(self._workspace, self._name, self._source.name, self._means.key)
        door = self._open_door()
        if held is None:
            held = self._take_waiting(door, told)
        self._fetch(door, told, held)
        check_levels(self._lake, self._in_force, self._source, self._file)

    # The door.

    def _open_door(self) -> Door:
        described = self._in_force.described(self._source)
        door = Door(self._lake, self._name, self._source, self._in_force.contract, described, judge=self._judging)
        self._landing.reserve(door.reached)
        self._landing.sweep(door.reached)
        self._notes.totals = counts_of(door.totals)
        return door

    def _take_waiting(self, door: Door, told: Told) -> Holding | None:
        """What landed, in order; why it stopped, where the source is held at one of them."""
        for item in self._landing.waiting():
            if not self._may_go_on():
                return None
            held = self._take(door, item, told)
            if held is not None:
                return held
        return None

    def _take(self, door: Door, item: Item, told: Told) -> Holding | None:
        refused = self._file.read().refused.get(item.number)
        try:
            taken = door.take(item, self._landing.path(item), on_part=self._on_part, refused=refused)
        except Held as error:
            self._notes.totals = counts_of(door.totals)
            self._notes.took(error.taken, self._judging.take_findings())
            self._notes.write()
            return hold_source(self._workspace, self._name, self._source.name, error.hold, item.number, self._means.key)
        self._landing.drop(item)
        self._notes.totals = counts_of(door.totals)
        self._notes.took(taken, self._judging.take_findings())
        tell_taken(told, self._lake, self._origin, self._name, self._source.name, item, taken)
        self._taken += 1
        return None

    def _on_part(self, facts: PartFacts) -> None:
        self._tell(f"item {facts.item.number}: {facts.first_row + facts.rows - 1:,} rows")
        self._notes.watermark = facts.watermark or self._notes.watermark

    # The source.

    def _fetch(self, door: Door, told: Told, held: Holding | None) -> None:
        """Ask for what is new, and take each item as it lands; those of a source that is held wait."""
        fetcher = open_fetcher(self._workspace, self._name, self._source, self._landing)
        cursor = self._cursor(door)
        waiting = sum(each.bytes for each in self._landing.waiting())
        while self._may_go_on():
            if held is not None and waiting > MAX_WAITING_BYTES:
                return
            item = fetcher.step(cursor)
            if item is None:
                self._ended = True
                return
            cursor = item.cursor
            waiting += item.bytes
            self._tell(f"item {item.number}: {item.bytes:,} bytes of {item.origin}")
            self._notes.landed(item)
            if held is None:
                held = self._take(door, item, told)

    def _cursor(self, door: Door) -> Any:
        """Where the source goes on: behind what landed last, else behind what is in the tables."""
        known = [each.cursor for each in self._landing.waiting() if each.cursor is not None]
        return known[-1] if known else door.cursor

    # The end.

    def _finish(self, began: datetime, problem: Finding | None, retry_after: float | None) -> Ran:
        """What there is to remember of the run, and when the next is due."""
        now = datetime.now(UTC)
        self._notes.write()

        def finish(before: State) -> State:
            if problem is not None:
                return after_failure(before, self._source, problem, now, retry_after)
            if not self._ended and before.held is None:
                return after_run(before, self._source, now, 0.0)  # there is more
            pause = max(0.0, self._source.every_seconds - (now - began).total_seconds())
            ended = now if self._ended else before.last_success_at
            return after_run(replace(before, last_success_at=ended), self._source, now, pause)

        after = self._file.change(finish)
        return Ran(
            capability=self._name,
            source=self._source.name,
            landed=self._notes.items,
            taken=self._taken,
            counts=self._notes.counts,
            failed=None if problem is None else problem.code,
            detail="" if problem is None else problem.detail,
            held=after.held,
            again_in_seconds=max(0.0, ((after.next_run_at or now) - now).total_seconds()),
        )
