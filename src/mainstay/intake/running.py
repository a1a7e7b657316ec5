"""The process that takes data in: `python -m mainstay.intake.running WORKSPACE`.

It runs every source in force when it is due, in a few processes of its own, so that one that is slow holds up no other
and one that hangs can be ended. It loads none of what they need. It ends when its standard input does, and so with
whoever started it; and when no source is in force any more.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Condition, Thread
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias

from mainstay.errors import Failed, MainstayError
from mainstay.intake.declared import Declarations
from mainstay.intake.landing import landing_of
from mainstay.intake.pacing import Order, after_failure, due_in_seconds
from mainstay.intake.slots import Ended, Slot
from mainstay.intake.state import state_of
from mainstay.intake.types import Finding
from mainstay.processes import begin_beside

if TYPE_CHECKING:
    from collections.abc import Mapping
    from threading import Event

    from mainstay.capability.sources import Source
    from mainstay.intake.declared import InForce
    from mainstay.intake.pacing import Ran
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.intake")

_IDLE_SECONDS: Final = 300.0  # a working process that had nothing to do for so long is ended, and its memory free
_SILENCE_SECONDS: Final = 600.0  # of a run, beside the times that its source has
_BUSY_SECONDS: Final = 2.0  # until a source is looked at again that somebody else runs

Key: TypeAlias = tuple[str, str]  # capability, source


def main() -> None:
    """Take in until standard input ends, or a signal says so."""
    workspace, stop = begin_beside("intake")
    take_in(workspace, stop)


def take_in(workspace: Workspace, stop: Event) -> None:
    """Run sources until `stop` is set, or none is in force."""
    declarations, schedule = Declarations(workspace), Schedule(workspace)
    threads: list[Thread] = []
    try:
        while not stop.is_set():
            sources = schedule.declare(declarations.look())
            if not sources:
                return
            while len(threads) < min(workspace.settings.intake_workers, sources):
                threads.append(Thread(target=_work, args=(workspace, schedule), name=f"slot-{len(threads)}"))
                threads[-1].start()
            stop.wait(workspace.settings.refresh_seconds)
            if not all(thread.is_alive() for thread in threads):
                raise Failed("a thread of the intake ended by itself; the log says why")  # and all of it begins anew
    finally:
        schedule.close()
        for thread in threads:
            thread.join()


def _work(workspace: Workspace, schedule: Schedule) -> None:
    """One slot: run what is due, until the schedule is closed."""
    slot = Slot(workspace.root, lambda: schedule.closed)
    try:
        while not schedule.closed:
            due = schedule.take(_IDLE_SECONDS)
            if due is None:
                slot.end()
                continue
            try:
                _run(workspace, slot, due)
            finally:
                schedule.give_back(due)
    finally:
        slot.end()


def _run(workspace: Workspace, slot: Slot, due: Due) -> None:
    """Have one source run, and note where the process was lost over it."""
    capability, source = due.key[0], due.source
    drafts = None if source.push is not None else landing_of(workspace.data, *due.key).folder
    try:
        ran = slot.follow(Order(capability, source.name), _silence_seconds(source), drafts)
    except Ended as ended:
        problem = Finding(code=ended.code, detail=ended.detail)
    except OSError as error:  # no memory, no processes: later there may be
        problem = Finding(code="failed", detail=f"no process could be begun: {error.strerror}")
    else:
        due.busy = ran is None
        _tell(due, ran)
        return
    logger.error("run lost: capability=%s source=%s code=%s: %s", *due.key, problem.code, problem.detail)
    now = datetime.now(UTC)
    try:
        state_of(workspace.data, *due.key).change(lambda before: after_failure(before, source, problem, now))
    except (MainstayError, OSError) as error:
        logger.error("state not kept: capability=%s source=%s: %s", *due.key, error)  # noqa: TRY400 - the message says all
        due.busy = True


def _tell(due: Due, ran: Ran | None) -> None:
    """Log what changed: a failure that begins or has passed, a hold, rows that came."""
    if ran is None:
        return
    complaint = ran.failed or ("held" if ran.held is not None else "")
    if complaint != due.complaint:
        if ran.failed:
            logger.error("run failed: capability=%s source=%s code=%s: %s", *due.key, ran.failed, ran.detail)
        elif ran.held is not None:
            logger.error("held: capability=%s source=%s code=%s: %s", *due.key, ran.held.code, ran.held.reason)
        else:
            logger.info("well again: capability=%s source=%s", *due.key)
        due.complaint = complaint
    rows = ran.counts
    if ran.landed or rows.rows:
        logger.info(
            "took in: capability=%s source=%s items=%d rows=%d accepted=%d quarantined=%d repeated=%d",
            *due.key,
            ran.taken,
            rows.rows,
            rows.accepted,
            rows.quarantined,
            rows.repeated,
        )


def _silence_seconds(source: Source) -> float:
    """How long a run may go without a sign of life: a step gives none before it ends."""
    if source.rest is not None:
        return _SILENCE_SECONDS + source.rest.timeout_seconds * (source.rest.retries + 1)
    if source.sql is not None:
        return _SILENCE_SECONDS + source.sql.timeout_seconds
    return _SILENCE_SECONDS


@dataclass
class Due:
    """A source, and when it is run next."""

    key: Key
    source: Source
    version: object  # in force when it was declared
    at: float = 0.0  # on the monotonic clock
    seen: object = None  # the state file that `at` was read from
    running: bool = False
    changed: bool = False  # whether its declaration did while it ran
    busy: bool = False  # whether somebody else ran it, or nothing could be kept of its run
    complaint: str = ""


class Schedule:
    """Which sources are due, for any number of threads."""

    def __init__(self, workspace: Workspace) -> None:
        self.closed = False
        self._workspace = workspace
        self._known: dict[Key, Due] = {}
        self._changed = Condition()

    def declare(self, in_force: Mapping[str, InForce]) -> int:
        """Take what is declared now: how many sources there are. A new one, and one that changed, is due at once.

        A state that somebody else changed counts too, such as when a source was released.
        """
        with self._changed:
            declared = {
                (name, source.name): (source, (each.version, each.contract_name))
                for name, each in in_force.items()
                for source in each.capability.sources
            }
            for key in self._known.keys() - declared.keys():
                del self._known[key]
            for key, (source, version) in declared.items():
                known = self._known.get(key)
                if known is None:
                    self._known[key] = known = Due(key, source, version)
                elif (known.source, known.version) != (source, version):
                    known.source, known.version, known.at = source, version, monotonic()
                    known.seen, known.changed = self._look(key), known.running
                    continue
                if not known.running and self._look(key) != known.seen:
                    self._read(known)
            self._changed.notify_all()
            return len(declared)

    def take(self, wait_seconds: float) -> Due | None:
        """The source that has been due for longest, which is then running; None where there is none in that time."""
        until = monotonic() + wait_seconds
        with self._changed:
            while not self.closed:
                now = monotonic()
                waiting = [each for each in self._known.values() if not each.running]
                first = min(waiting, key=lambda each: each.at, default=None)
                if first is not None and first.at <= now:
                    first.running, first.busy = True, False
                    return first
                if now >= until:
                    return None
                self._changed.wait(min(until, first.at if first is not None else until) - now)
        return None

    def give_back(self, due: Due) -> None:
        """It is not running any more; its state says when it is due again."""
        with self._changed:
            due.running = False
            self._read(due)
            if due.changed:
                due.at, due.changed = monotonic(), False
            if due.busy:
                due.at = monotonic() + _BUSY_SECONDS
            self._changed.notify()

    def close(self) -> None:
        """Have everybody stop."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def _read(self, due: Due) -> None:
        due.seen = self._look(due.key)
        state = state_of(self._workspace.data, *due.key).read()
        due.at = monotonic() + due_in_seconds(state, due.source, datetime.now(UTC))

    def _look(self, key: Key) -> object:
        return state_of(self._workspace.data, *key).fingerprint()


if __name__ == "__main__":
    main()
