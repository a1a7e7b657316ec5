"""Shadows: versions that decide beside those in force, after the answer and without effect.

What a shadow is given is a copy of the call, and the id of the decision that was made of it. It waits in a queue of its
own, and what finds that full is dropped and counted. Its model runs in a process of its own behind all others, so that
it can crash, hang or eat memory by itself. The contract and the guards are its own, held against the copy as if it had
decided. What would have become of the decision is an entry of kind `shadow` in a journal that nobody waits for; nothing
else is done: nothing is remembered, nobody is asked, no breaker counts.

The work of all shadows in this process, checking and recording, takes at most LOOP_SHARE of the event loop's time, a
few rows at once.
"""

from __future__ import annotations

import logging
from collections import deque
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from mainstay.decision.guard import Trouble, contract_trouble, denial_of, guard, one_line, trouble_of
from mainstay.decision.plan import record_seconds
from mainstay.decision.record import NULL, Stamp, Verdict
from mainstay.decision.routing import Sample
from mainstay.decision.types import Reason
from mainstay.ledger.journal import Unrecordable
from mainstay.privacy.protection import ProtectionFailed
from mainstay.runtime.types import Prediction

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from mainstay.decision.path import Recording
    from mainstay.decision.plan import Plan, ShadowPlan
    from mainstay.runtime.types import Lane, Result, Row

    # The input of a call as it came, whether it has a business key, and who is given it.
    Mirror: TypeAlias = "tuple[bytes, bool, Sequence[ShadowArm]]"

logger = logging.getLogger("mainstay.decision")

Fate: TypeAlias = Literal["compared", "dropped", "failed"]
"""What it would have decided is recorded; so it is, but its model did not answer; it never came to that."""

CountShadow: TypeAlias = "Callable[[str, Fate, int, float], None]"
"""Is told of so many decisions of a capability, and how many seconds each took the shadow; 0 of those dropped."""

GATHER_SECONDS: Final = 0.02  # how long a first decision waits for others, to be checked together for less
STEP_ROWS: Final = 32  # that are checked, or held against the guards, without a pause
LOOP_SHARE: Final = 0.1  # of the event loop's time that shadows may take
PATIENCE: Final = 4  # times the time that the model has when it decides: it runs behind all others
COMMIT_SECONDS: Final = 0.25  # how long records gather to be one group
TIMER_EARLY_SECONDS: Final = 0.001  # what the loop's timers may be early: they count milliseconds
WAITING_RECORDS: Final = 4_096  # for a disk that does not answer; then more are dropped
RETIRE_SECONDS: Final = 5.0  # for what waits for a shadow whose release is over


class _Mirrored:
    """A decision as a shadow has it."""

    __slots__ = ("begun", "decision_id", "keyed", "raw", "row", "run_until")

    def __init__(self, decision_id: bytes, raw: bytes, *, keyed: bool) -> None:
        self.decision_id = decision_id
        self.raw = raw
        self.keyed = keyed  # it has a business key
        self.row: Row = ()
        self.begun = 0.0  # measured: a loop's own clock counts whole milliseconds
        self.run_until = 0.0  # by the loop's clock


class ShadowArm:
    """One shadow in one worker. Its methods belong to the event loop's thread, and return at once."""

    def __init__(self, desk: ShadowDesk, shadow: ShadowPlan, loop: asyncio.AbstractEventLoop) -> None:
        plan = shadow.plan
        self._desk = desk
        self._shadow = shadow
        self._plan = plan
        self._loop = loop
        self._sample = Sample(plan.capability.name, shadow.share)
        self._queue: deque[_Mirrored] = deque()
        self._running = 0  # in its lane
        self._gather_until = 0.0
        self._started = False  # its model has been ready once
        self._timer: asyncio.TimerHandle | None = None
        self._retiring: asyncio.TimerHandle | None = None
        self._closed = False
        allowed = plan.capability.deadline_ms / 1000
        self._run_seconds = PATIENCE * min(allowed - record_seconds(allowed), plan.run_seconds)
        self._lane: Lane[_Mirrored] = plan.open_lane(loop, lambda: True, self._deliver)
        self.takes: Callable[[bytes | None], bool] = self._sample.takes

    def give(self, decision_id: bytes, raw: bytes, *, keyed: bool) -> None:
        """Have it decide about an input, when it comes to that."""
        self._started = self._started or self._lane.ready
        if self._closed or not self._started or len(self._queue) >= self._shadow.queue:
            self._count("dropped", 1, 0.0)
            return
        if not self._queue:
            self._gather_until = self._loop.time() + GATHER_SECONDS
        self._queue.append(_Mirrored(decision_id, raw, keyed=keyed))
        self._go_on()

    def retire(self) -> None:
        """Its release is over: what waits is still done, if that does not take long."""
        if not (self._queue or self._running):
            self.close()
        else:
            self._retiring = self._loop.call_later(RETIRE_SECONDS, self.close)

    def close(self) -> None:
        """End its model. What still waits is dropped."""
        if self._closed:
            return
        self._closed = True
        for timer in (self._timer, self._retiring):
            if timer is not None:
                timer.cancel()
        if left := len(self._queue) + self._running:
            self._count("dropped", left, 0.0)
        self._queue.clear()
        self._lane.close()
        self._desk.forget(self)

    # Each step begins when the one before it has ended, and a pause after it.

    def _go_on(self) -> None:
        if self._queue and not self._running and self._timer is None:
            self._timer = self._loop.call_at(max(self._gather_until, self._desk.free_at), self._step)

    def _pause(self, begun: float) -> None:
        """Go on, when the loop may be held again after it was since `begun` (`time.monotonic`)."""
        self._desk.charge(begun)
        if self._retiring is not None and not (self._queue or self._running):
            self.close()
        elif not self._closed:
            self._go_on()

    def _step(self) -> None:
        begun, now = monotonic(), self._loop.time()
        self._timer = None
        if now < self._desk.free_at - TIMER_EARLY_SECONDS:  # another shadow came first
            self._go_on()
            return
        ready: list[_Mirrored] = []
        for _ in range(min(STEP_ROWS, len(self._queue))):
            item = self._queue.popleft()
            item.begun, item.run_until = begun, now + self._run_seconds
            try:
                item.row = self._plan.values(self._plan.decode(item.raw))
            except (msgspec.DecodeError, UnicodeDecodeError):
                self._conclude(item, self._broken(item))
                continue
            if self._lane.ready:
                ready.append(item)
            else:
                self._conclude(item, trouble_of(self._plan, "model_unavailable", "the model's process is starting"))
        self._running = len(ready)
        for item in ready:
            self._lane.submit(item)
        self._lane.start()
        self._pause(begun)

    def _deliver(self, items: Sequence[_Mirrored], results: Sequence[Result]) -> None:
        if self._closed:
            return
        begun, now = monotonic(), self._loop.time()
        self._running -= len(items)
        late = [
            not isinstance(each, Prediction) and now >= item.run_until
            for item, each in zip(items, results, strict=True)
        ]
        guarded = guard(self._plan, [item.row for item in items], results)
        for item, each, is_late in zip(items, guarded, late, strict=True):
            detail = "the model had not answered when its time was over"
            self._conclude(item, trouble_of(self._plan, "deadline_exceeded", detail, failed=True) if is_late else each)
        self._pause(begun)

    def _broken(self, item: _Mirrored) -> Verdict:
        violations = self._plan.violations(item.raw)
        verdict = would_be(self._plan, (), contract_trouble(self._plan, violations), keyed=item.keyed)
        return verdict._replace(violations=violations)

    def _conclude(self, item: _Mirrored, found: Verdict | Trouble) -> None:
        if isinstance(found, Trouble):
            failed = found.failed or found.reasons[0].code == "model_unavailable"
            self._record(item, would_be(self._plan, item.row, found, keyed=item.keyed), failed=failed)
        else:
            self._record(item, found, failed=False)

    def _record(self, item: _Mirrored, verdict: Verdict, *, failed: bool) -> None:
        seconds = monotonic() - item.begun
        recorder = self._shadow.recorder

        def frame(stamp: Stamp) -> bytes:
            return recorder.record(stamp, item.decision_id, verdict, seconds)

        taken = self._desk.record(frame)
        self._count(("failed" if failed else "compared") if taken else "dropped", 1, seconds if taken else 0.0)

    def _count(self, fate: Fate, decisions: int, seconds: float) -> None:
        self._desk.count(self._plan.capability.name, fate, decisions, seconds)


def would_be(plan: Plan, row: Row, trouble: Trouble, *, keyed: bool) -> Verdict:
    """How a decision would have ended that meets with trouble, as far as the input alone says.

    What a rung of the ladder would have answered that depends on more (another version, the last good answer) is left
    out: the outcome is `fallback` by that rung, without an output. `keyed` says whether there is a business key.
    """
    bare = Verdict("refused", reasons=trouble.reasons, novelty=trouble.novelty)
    if trouble.behaviour == "review":
        return _reviewed(plan, bare, trouble.output, trouble.confidence)
    if trouble.behaviour != "fallback":
        return bare
    for step in plan.ladder:
        if step.name == "person":
            return bare._replace(outcome="review")
        if (step.name == "version" and not row) or (step.name == "last_good" and not keyed):
            continue
        if step.answer is None:
            return bare._replace(outcome="fallback", answered_by=step.name)
        output = step.answer(row)
        if output is not None:
            return _fallen_back(plan, row, bare._replace(outcome="fallback", output=output, answered_by=step.name))
    if not plan.ladder:
        return bare
    return bare._replace(
        reasons=(*bare.reasons, Reason("no_fallback", f"none of {len(plan.ladder)} rungs had an answer"))
    )


def _fallen_back(plan: Plan, row: Row, verdict: Verdict) -> Verdict:
    """A rung's answer, unless a policy wants a person for it."""
    denial = denial_of(plan, row, verdict.output)
    if denial is not None:
        bare = verdict._replace(output=NULL, answered_by="", reasons=(*verdict.reasons, denial))
        return _reviewed(plan, bare, verdict.output, NULL)
    try:
        return verdict._replace(recorded=plan.recorded(verdict.output))
    except ProtectionFailed as error:
        return Verdict("refused", reasons=(Reason("protection_failed", one_line(error)),), novelty=verdict.novelty)


def _reviewed(plan: Plan, bare: Verdict, output: bytes | None, confidence: bytes) -> Verdict:
    try:
        proposed = None if output is None else plan.recorded(output) or output
    except ProtectionFailed:
        proposed = None
    return bare._replace(outcome="review", confidence=confidence, proposed=proposed)


class ShadowDesk:
    """The shadows of a process, and the journal of what they would have decided."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, open_journal: Callable[[], Recording], count: CountShadow
    ) -> None:
        """The journal is opened with the first shadow, on another thread."""
        self.count = count
        self.free_at = 0.0  # when shadows may hold the loop again
        self._loop = loop
        self._open_journal = open_journal
        self._journal: Recording | None = None
        self._opening: Thread | None = None
        self._arms: set[ShadowArm] = set()
        self._waiting: list[Callable[[Stamp], bytes]] = []
        self._timer: asyncio.TimerHandle | None = None

    def open(self, shadow: ShadowPlan) -> ShadowArm:
        """A shadow whose model is being started."""
        arm = ShadowArm(self, shadow, self._loop)
        self._arms.add(arm)
        self._have_journal()
        return arm

    def forget(self, arm: ShadowArm) -> None:
        self._arms.discard(arm)

    def charge(self, begun: float) -> None:
        """The loop was held since `begun`: it is left alone so long that this is LOOP_SHARE of its time.

        `begun` is of `time.monotonic`: a step takes less than the milliseconds that the loop's own clock counts.
        """
        held = monotonic() - begun
        self.free_at = max(self.free_at, self._loop.time()) + held * (1 / LOOP_SHARE - 1)

    def record(self, frame: Callable[[Stamp], bytes]) -> bool:
        """Record an entry with the others of these moments; whether there is room for it."""
        if len(self._waiting) >= WAITING_RECORDS:
            return False
        self._waiting.append(frame)
        if self._timer is None:
            self._timer = self._loop.call_later(COMMIT_SECONDS, self._commit)
        return True

    def close(self) -> None:
        """Close every shadow, record what there is, and close the journal in good order."""
        for arm in tuple(self._arms):
            arm.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._opening is not None:
            self._opening.join()
        if self._journal is not None:
            while self._waiting and self._submit(self._journal):
                pass
            self._journal.close()

    def _have_journal(self) -> None:
        if self._journal is None and (self._opening is None or not self._opening.is_alive()):
            self._opening = Thread(target=self._open, name="shadow-journal", daemon=True)
            self._opening.start()

    def _open(self) -> None:
        """On a thread of its own: the disk may be slow."""
        try:
            self._journal = self._open_journal()
        except OSError as error:
            logger.error("the ledger takes no records of shadows, tried again: %s", error)  # noqa: TRY400 - says all

    def _commit(self) -> None:
        """Have what waits written, a few at once."""
        begun = monotonic()
        self._timer = None
        if self._journal is None:
            self._have_journal()
        elif self._submit(self._journal) and self._waiting:
            self.charge(begun)
            self._timer = self._loop.call_at(self.free_at, self._commit)
            return
        if self._waiting:
            self._timer = self._loop.call_later(COMMIT_SECONDS, self._commit)

    def _submit(self, journal: Recording) -> bool:
        """Give some records to the journal; whether it takes any."""
        frames = self._waiting[: 2 * STEP_ROWS]
        try:
            place = journal.next_place()
        except Unrecordable:
            return False
        del self._waiting[: len(frames)]
        stamp = Stamp(place, len(frames))
        journal.submit(place, b"".join([frame(stamp) for frame in frames]), len(frames), self._written)
        return True

    @staticmethod
    def _written(error: OSError | None) -> None:
        if error is not None:
            logger.error("records of shadows lost: %s", error)
