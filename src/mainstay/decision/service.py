"""The service of one release: its plans, the lanes of their models, and the decisions under way in it."""

from __future__ import annotations

import asyncio
from time import monotonic, time
from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.arrays import TooMany, split_array, split_lines
from mainstay.decision.breaker import Breaker
from mainstay.decision.guard import Trouble, contract_trouble, denial_of, guard, one_line, trouble_of
from mainstay.decision.pace import Pace
from mainstay.decision.plan import record_seconds
from mainstay.decision.record import NULL, Stamp, Took, Verdict, id_in_answer
from mainstay.decision.routing import Router
from mainstay.decision.types import MAX_CALLS, MAX_KEY_CHARACTERS, DecideManyRequest, DecideRequest, Reason
from mainstay.errors import NOT_READ
from mainstay.ledger.journal import Unrecordable
from mainstay.privacy.protection import ProtectionFailed, Protector
from mainstay.runtime.types import Crashed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.contract.types import Violation
    from mainstay.decision.ladder import RungName, Step
    from mainstay.decision.last_good import LastGood
    from mainstay.decision.path import DecisionPath
    from mainstay.decision.plan import Plan, ReleasePlan
    from mainstay.decision.shadow import Mirror, ShadowArm
    from mainstay.decision.types import Hold, Outcome
    from mainstay.runtime.types import Lane, Result, Row

RECORD_GRACE_SECONDS = 0.025  # how long after its deadline a decision is still answered if its record took so long
SUBMIT_BYTES = 8 << 20  # records of one batch are submitted in parts of about this size


_decode_one = msgspec.json.Decoder(DecideRequest).decode
_decode_many = msgspec.json.Decoder(DecideManyRequest).decode
_encode = msgspec.json.Encoder().encode

_RUNNING, _RECORDING, DONE = range(3)
"""The life of a decision: it waits for a model, then for its record, then it is answered."""


class Overloaded(Exception):
    """As many decisions wait as the capability allows, or the next would wait too long."""

    def __init__(self, detail: str, retry_seconds: float) -> None:
        super().__init__(detail)
        self.retry_seconds = retry_seconds


class Gate:
    """Opens when as many decisions as it was made for have been answered."""

    __slots__ = ("opened", "remaining", "size")

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int) -> None:
        self.size = size
        self.remaining = size
        self.opened: asyncio.Future[None] = loop.create_future()

    def arrive(self) -> None:
        self.remaining -= 1
        if self.remaining == 0 and not self.opened.done():
            self.opened.set_result(None)


class Arm:
    """One version of a release and what stands before its model."""

    __slots__ = ("breaker", "lane", "pace", "plan")

    def __init__(self, service: Service, path: DecisionPath, plan: Plan) -> None:
        self.plan = plan
        self.breaker = Breaker(plan.capability.breaker)
        self.pace = Pace(plan.capability.limits.batch)

        def deliver(items: Sequence[Pending], results: Sequence[Result]) -> None:
            service.deliver(self, items, results)

        self.lane: Lane[Pending] = plan.open_lane(path.loop, path.may_start, deliver)


class Pending:
    """A decision on its way."""

    __slots__ = (
        "answer",
        "arm",
        "begun",
        "came",
        "deadline",
        "due",
        "gate",
        "given",
        "key",
        "mirror",
        "novelty",
        "overdue",
        "plan",
        "principal",
        "reasons",
        "row",
        "run_until",
        "rung",
        "state",
        "verdict",
        "violations",
    )

    def __init__(self, principal: bytes, gate: Gate, came: float, plan: Plan) -> None:
        self.principal = principal
        self.gate = gate
        self.begun = monotonic()  # how long it took is measured: a loop's own clock counts whole milliseconds
        self.came = came  # by the loop's clock, as all its times
        self.plan = plan  # of the version that decides it
        self.arm: Arm | None = None  # where its row is running: of that version, or of one on the ladder
        self.key: bytes = NULL
        self.given: Any = NULL  # JSON: bytes, or a slice of the call's body
        self.row: Row = ()
        self.run_until = came
        self.deadline = came + plan.capability.deadline_ms / 1000
        self.due = 0.0  # when it is expected next; 0: never yet
        self.state = _RUNNING
        self.rung = -1  # the rung of the ladder it stands on
        self.reasons: tuple[Reason, ...] = ()
        self.violations: tuple[Violation, ...] = ()
        self.novelty = NULL
        self.overdue = False  # its deadline has passed
        self.verdict: Verdict | None = None
        self.answer: bytes | None = None  # None once done: it could not be recorded in time
        self.mirror: Mirror | None = None  # what shadows are given of it once it is answered


class Service:
    """One release being served."""

    def __init__(
        self,
        path: DecisionPath,
        release: ReleasePlan,
        last_good: LastGood | None,
        shadows: tuple[ShadowArm, ...] = (),
    ) -> None:
        self.release = release
        self.waiting = 0
        self.retired = False  # it takes no more calls: another service of its capability does
        self.held: Hold | None = None  # why its model is not asked; None: it is
        self._path = path
        self._last_good = last_good
        self._shadows = shadows
        self._limits = release.capability.limits
        self._arms = {digest: Arm(self, path, plan) for digest, plan in release.plans.items()}
        self._pace = self._arms[release.production.digest].pace
        self._queue_seconds = self._limits.queue_ms / 1000
        self._refuses_overload = release.capability.when.overloaded == "refuse"
        canary = release.release.canary
        self._router = None if canary is None else Router(release.capability.name, canary.percent)

    # 1 to 4: taking calls.

    def check_admission(self, calls: int = 1) -> bool:
        """Whether more decisions wait than the model can take in time, and the fallback is to answer this one.

        Raises Overloaded when so many more are turned away, and Unrecordable when none can be recorded.
        """
        if self.waiting + calls > self._limits.waiting:
            raise Overloaded(f"{self.waiting} decisions wait in this worker, and {self._limits.waiting} may", 1.0)
        if not self._path.journal.healthy:
            raise Unrecordable("the ledger cannot be written: its disk is full or failing")
        if self._pace.queued * self._pace.seconds_each <= self._queue_seconds:
            return False
        if self._refuses_overload:
            raise Overloaded(self._overload(), self._pace.wait_seconds)
        return True

    @property
    def sheds(self) -> bool:
        """Whether a call that came now would be turned away: `check_admission` without words, and so cheap."""
        if self.waiting >= self._limits.waiting:
            return True
        return self._pace.queued * self._pace.seconds_each > self._queue_seconds and self._refuses_overload

    def _overload(self) -> str:
        wait_ms = self._pace.wait_seconds * 1000
        return f"a decision would wait {wait_ms:.0f} ms for the model, and {self._limits.queue_ms:g} ms are allowed"

    def decide(self, principal: bytes, body: bytes) -> Pending:
        """Begin one decision; it is answered when its gate opens. Raises Overloaded and Unrecordable."""
        overloaded = self.check_admission()
        self.waiting += 1
        path = self._path
        item = Pending(principal, Gate(path.loop, 1), path.loop.time(), self.release.production)
        self._accept(item, body, overloaded=overloaded)
        return item

    def decide_many(self, principal: bytes, body: bytes, *, lines: bool) -> tuple[Gate, list[Pending]]:
        """Begin many decisions under one gate: a JSON document, or one call a line.

        Raises Overloaded, Unrecordable, and one of NOT_READ when the document is not of the documented form.
        """
        try:
            calls = split_lines(body, MAX_CALLS) if lines else split_array(_decode_many(body).inputs, MAX_CALLS)
        except TooMany:
            raise msgspec.ValidationError(f"expected at most {MAX_CALLS} calls, found more") from None
        return self.decide_each(principal, calls)

    def decide_each(
        self, principal: bytes, calls: Sequence[Any], *, plan: Plan | None = None
    ) -> tuple[Gate, list[Pending]]:
        """Begin a decision for every call under one gate, by `plan` where one is given, else by the one keys lead to.

        Raises Overloaded and Unrecordable.
        """
        overloaded = self.check_admission(len(calls))
        self.waiting += len(calls)
        loop = self._path.loop
        gate = Gate(loop, len(calls))
        items = [Pending(principal, gate, loop.time(), self.release.production) for _ in calls]
        for item, call in zip(items, calls, strict=True):
            if memoryview(call).nbytes > self._path.call_bytes:
                self._refuse_size(item, bytes(call))
            else:
                self._accept(item, call, plan, overloaded=overloaded)
        if not calls:
            gate.opened.set_result(None)
        return gate, items

    def _accept(self, item: Pending, body: Any, fixed: Plan | None = None, *, overloaded: bool) -> None:
        try:
            request = _decode_one(body)
            if request.key is not None:
                if len(request.key) > MAX_KEY_CHARACTERS:
                    raise msgspec.ValidationError(f"expected a key of at most {MAX_KEY_CHARACTERS} characters")
                item.key = _encode(request.key)
            if request.deadline_ms is not None and request.deadline_ms < 1:
                raise msgspec.ValidationError("expected a `deadline_ms` of at least 1")
        except NOT_READ as error:
            item.given = item.plan.given_malformed(bytes(body))
            self._conclude(item, Verdict("refused", reasons=(Reason("malformed_input", one_line(error)),)))
            return
        if fixed is not None:
            item.plan = fixed
        elif self._router is not None and self._router.to_canary(None if request.key is None else item.key):
            assert self.release.canary is not None
            item.plan = self.release.canary  # 5
        plan = item.plan
        allowed: float = plan.capability.deadline_ms / 1000
        if request.deadline_ms is not None:
            allowed = min(allowed, request.deadline_ms / 1000)
        item.deadline = item.came + allowed
        item.run_until = item.came + min(allowed - record_seconds(allowed), plan.run_seconds)
        try:
            item.given = plan.given(request.input)  # 4: before anything can be recorded
        except ProtectionFailed as error:
            item.given = Protector.withhold(bytes(request.input))
            self._conclude(item, Verdict("refused", reasons=(Reason("protection_failed", one_line(error)),)))
            return
        item.mirror = self._mirror(item, request) if self._shadows else None
        try:
            item.row = plan.values(plan.decode(request.input))  # 3
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._break_contract(item, bytes(request.input))
            return
        if self.held is not None and not self._answers_though_held(item, self.held):
            return
        if overloaded:
            self._settle(item, trouble_of(plan, "overloaded", self._overload()))
        else:
            self._run(item, self._arms[plan.digest])

    def _mirror(self, item: Pending, request: DecideRequest) -> Mirror | None:
        """What is kept of a call for those shadows that are given it."""
        key = None if request.key is None else item.key
        arms = [arm for arm in self._shadows if arm.takes(key)]
        return (bytes(request.input), key is not None, arms) if arms else None

    def _answers_though_held(self, item: Pending, hold: Hold) -> bool:
        """Do what is declared for a stopped feed; whether that is to ask the model all the same.

        What is stopped itself has its fallback ladder, whatever is declared. Shadows see none of it.
        """
        item.mirror = None
        if hold.code == "stopped":
            trouble = Trouble("fallback", (Reason("stopped", hold.detail),))
        else:
            trouble = trouble_of(item.plan, "feed_stopped", hold.detail)
        if trouble.behaviour == "answer":
            item.reasons = trouble.reasons
            return True
        self._settle(item, trouble)
        return False

    def _refuse_size(self, item: Pending, body: bytes) -> None:
        item.given = Protector.withhold(body)
        detail = f"expected at most {self._path.call_bytes} bytes, found {len(body)}"
        self._conclude(item, Verdict("refused", reasons=(Reason("malformed_input", detail),)))

    def _break_contract(self, item: Pending, raw: bytes) -> None:
        item.violations = item.plan.violations(raw)
        if any(each.rule == "malformed" for each in item.violations):
            item.given = item.plan.given_malformed(raw)  # whoever reads the record could not read it as JSON either
        self._settle(item, contract_trouble(item.plan, item.violations))

    # 5 and 6: running.

    def _run(self, item: Pending, arm: Arm) -> None:
        """Give the row to a model, if that is tried at all."""
        now = self._path.loop.time()
        item.arm = arm
        if not arm.lane.ready:
            self._settle(item, trouble_of(item.plan, "model_unavailable", "the model's process is starting"))
        elif not (arm.breaker.closed or arm.breaker.allows(now, item.run_until)):
            detail = "the model failed too often and is not tried for now"
            self._settle(item, trouble_of(item.plan, "model_unavailable", detail))
        else:
            item.state = _RUNNING
            arm.pace.began(now)
            self._expect(item, item.run_until)
            arm.lane.submit(item)

    def _expect(self, item: Pending, when: float) -> None:
        """Have `expire` called at `when`, unless the item is done by then."""
        item.due = when
        self._path.expect(self, item, when)

    def expire(self, item: Pending) -> None:
        """A time that the item was expected at has come: the model's, the deadline, or the grace for its record."""
        now = self._path.loop.time()
        if now < item.due:  # it was expected more than once: a later time counts
            return
        if item.overdue:
            self._finish(item, None)
            return
        if item.state == _RUNNING:
            self._give_up(item, now)
        if item.state == _RECORDING:
            item.overdue = now >= item.deadline
            self._expect(item, item.deadline + RECORD_GRACE_SECONDS if item.overdue else item.deadline)

    def _give_up(self, item: Pending, now: float) -> None:
        """The model's time is over."""
        assert item.arm is not None
        if item.arm.lane.withdraw(item):
            item.arm.breaker.failed(now)
            detail = "the model had not answered when its time was over"
        else:
            detail = "the model had not begun when its time was over: earlier decisions were still being recorded"
        item.arm.pace.gave_up(1, now)
        self._settle(item, trouble_of(item.plan, "deadline_exceeded", detail))

    def deliver(self, arm: Arm, items: Sequence[Pending], results: Sequence[Result]) -> None:
        """7: what a model gave becomes verdicts, for those that still wait for it."""
        items, results = self._awaited(arm, items, results)
        if not items:
            return
        guarded = guard(arm.plan, [item.row for item in items], results)
        ready: list[Pending] = []
        rest: list[tuple[Pending, Verdict | Trouble]] = []
        failures = 0
        for item, each in zip(items, guarded, strict=True):
            if type(each) is Verdict and item.rung < 0:
                item.verdict = each if not item.reasons else each._replace(reasons=item.reasons + each.reasons)
                ready.append(item)
            else:
                rest.append((item, each))
                failures += isinstance(each, Trouble) and each.failed
        self._account(arm, len(items) - failures, failures)
        if ready:
            self._record(ready)
        for item, each in rest:
            if isinstance(each, Trouble):
                self._settle(item, each)
            else:
                self._fall_back(item, each.output, "version")

    def _awaited(
        self, arm: Arm, items: Sequence[Pending], results: Sequence[Result]
    ) -> tuple[list[Pending], list[Result]]:
        """The items that somebody still waits for, and their results."""
        awaited, given = [], []
        for item, result in zip(items, results, strict=True):
            if item.state == _RUNNING and item.arm is arm:
                if isinstance(result, Crashed) and (now := self._path.loop.time()) >= item.run_until:
                    self._give_up(item, now)  # it was stopped because its time was over
                else:
                    awaited.append(item)
                    given.append(result)
        return awaited, given

    def _account(self, arm: Arm, answers: int, failures: int) -> None:
        """Tell the breaker and the pace how the model did."""
        now = self._path.loop.time()
        if answers:
            arm.breaker.succeeded(answers)
            arm.pace.ended(answers, now)
        if failures:
            arm.pace.gave_up(failures, now)
            for _ in range(failures):
                arm.breaker.failed(now)

    # Trouble.

    def _settle(self, item: Pending, trouble: Trouble) -> None:
        """Do what is declared for trouble. On the ladder, it means the next rung."""
        if item.rung >= 0:
            self._climb(item, item.rung + 1)
            return
        item.reasons += trouble.reasons
        item.novelty = trouble.novelty
        if trouble.behaviour == "fallback":
            self._climb(item, 0)
        elif trouble.behaviour == "review":
            self._ask_person(item, trouble.output, trouble.confidence)
        else:
            self._conclude(item, self._without_output(item, "refused"))

    def _climb(self, item: Pending, start: int) -> None:
        """Try the rungs of the ladder from `start` on, until one has an answer."""
        ladder = item.plan.ladder
        for place in range(start, len(ladder)):
            step = ladder[place]
            item.rung = place
            if step.name == "person":
                self._ask_person(item, None, NULL)
                return
            if step.name == "version":
                arm = self._arms[step.version]
                now = self._path.loop.time()
                if item.row and now < item.deadline:
                    item.run_until = item.deadline - record_seconds(item.deadline - now)
                    self._run(item, arm)
                    return
                continue
            output = self._remembered(item, step) if step.answer is None else step.answer(item.row)
            if output is not None:
                self._fall_back(item, output, step.name)
                return
        if ladder:
            item.reasons += (Reason("no_fallback", f"none of {len(ladder)} rungs had an answer"),)
        self._conclude(item, self._without_output(item, "refused"))

    def _remembered(self, item: Pending, step: Step) -> bytes | None:
        if self._last_good is None or item.key is NULL:
            return None
        return self._last_good.get(item.key, _now_ms(), step.max_age_ms)

    def _fall_back(self, item: Pending, output: bytes, rung: RungName) -> None:
        """Answer with a rung's output, unless a policy wants a person for it."""
        denial = denial_of(item.plan, item.row, output)
        if denial is not None:
            item.reasons = (*item.reasons, denial)
            self._ask_person(item, output, NULL)
            return
        try:
            recorded = item.plan.recorded(output)
        except ProtectionFailed as error:
            item.reasons = (Reason("protection_failed", one_line(error)),)
            self._conclude(item, self._without_output(item, "refused"))
            return
        verdict = self._without_output(item, "fallback")
        self._conclude(item, verdict._replace(output=output, recorded=recorded, answered_by=rung))

    def _ask_person(self, item: Pending, output: bytes | None, confidence: bytes) -> None:
        """Leave the decision to a person, who is shown what the model proposed, as it may be recorded."""
        verdict = self._without_output(item, "review")
        try:
            proposed = None if output is None else item.plan.recorded(output) or output
        except ProtectionFailed:
            proposed = None
        self._conclude(item, verdict._replace(confidence=confidence, proposed=proposed))

    @staticmethod
    def _without_output(item: Pending, outcome: Outcome) -> Verdict:
        return Verdict(outcome, reasons=item.reasons, violations=item.violations, novelty=item.novelty)

    # 8 and 9: recording and answering.

    def _conclude(self, item: Pending, verdict: Verdict) -> None:
        """Record a decision that did not come out of a batch."""
        item.verdict = verdict
        item.state = _RECORDING
        if not item.due:
            self._expect(item, item.deadline)
        self._record([item])

    def _record(self, items: list[Pending]) -> None:
        """8: as one submission, or several where they are large."""
        done = 0
        while done < len(items):
            done += self._record_part(items[done:] if done else items)

    def _record_part(self, items: list[Pending]) -> int:
        """Record the first of `items`, as many as one submission takes; how many."""
        journal = self._path.journal
        try:
            place = journal.next_place()
        except Unrecordable:
            for item in items:
                self._finish(item, None)
            return len(items)
        stamp = Stamp(place, len(items))
        now = monotonic()
        framed, answers, size = [], [], 0
        for item in items:
            assert item.verdict is not None
            item.state = _RECORDING
            took = Took(now - item.begun, item.gate.size)
            recorded = item.plan.recorder.record(stamp, item.principal, item.key, item.given, item.verdict, took)
            framed.append(recorded.framed)
            answers.append(recorded.answer)
            size += len(recorded.framed)
            if size > SUBMIT_BYTES:
                break

        def done(error: OSError | None) -> None:
            for item, answer in zip(items, answers, strict=False):
                if item.state == _RECORDING:
                    self._finish(item, None if error is not None else answer)

        journal.submit(place, b"".join(framed), len(answers), done)
        return len(answers)

    def _finish(self, item: Pending, answer: bytes | None) -> None:
        """9."""
        item.state = DONE
        item.answer = answer
        verdict = item.verdict
        if self._last_good is not None and answer is not None and item.key is not NULL:
            assert verdict is not None
            if verdict.outcome == "answered":
                self._last_good.put(item.key, verdict.output, _now_ms())
        if item.mirror is not None:
            if answer is not None:
                raw, keyed, arms = item.mirror
                for arm in arms:
                    arm.give(id_in_answer(answer), raw, keyed=keyed)
            item.mirror = None
        item.given = NULL  # the sweeper may hold the item until its deadline: keep little
        item.row = ()
        self.waiting -= 1
        self._path.observe(item, monotonic() - item.begun)
        item.gate.arrive()
        if self.retired and not self.waiting:
            self.retire()

    # The life of the service.

    async def wait_ready(self, seconds: float) -> None:
        """Wait until every model takes rows. Raises Failed when one does not in time."""
        await asyncio.gather(*(arm.lane.wait_ready(seconds) for arm in self._arms.values()))

    def start_lanes(self) -> None:
        """The journal has nothing left to write."""
        for arm in self._arms.values():
            arm.lane.start()

    def retire(self) -> None:
        """Take no more calls; let go of the models once the last one is answered."""
        self.retired = True
        if not self.waiting:
            self._path.forget(self)
            for shadow in self._shadows:
                shadow.retire()
            self._shadows = ()
            self.close()

    def close(self) -> None:
        for arm in self._arms.values():
            arm.lane.close()
        for shadow in self._shadows:
            shadow.close()
        if self._last_good is not None:
            self._last_good.close()


def _now_ms() -> int:
    return int(time() * 1000)
