"""The decision path of one process: nine steps from a call to a recorded answer.

    1 identify   who calls, and whether they may (the face does it: it owns the credentials of its protocol)
    2 admit      refuse early when as many wait as the capability allows
    3 validate   the contract; all errors
    4 protect    what may be recorded of the input
    5 route      the release in force, and the lane of its model
    6 run        in batches of what is waiting; the deadline
    7 guard      the output against the contract; the fallback
    8 record     framed, group-committed
    9 answer     only after the record is on disk

Everything here runs on the event loop's thread; the model and the disk may be waited for, never the other way round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.decision.record import NULL, Stamp, Verdict
from mainstay.decision.types import MAX_KEY_CHARACTERS, DecideManyRequest, DecideRequest, Reason
from mainstay.ledger.journal import Unrecordable
from mainstay.privacy.pseudonym import Protector
from mainstay.runtime.lane import Lane, Prediction

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from mainstay.decision.plan import Plan
    from mainstay.ledger.journal import Journal
    from mainstay.runtime.lane import Result
    from mainstay.runtime.tensors import Row

TICK_SECONDS = 0.005  # how finely deadlines are kept
RECORD_GRACE_SECONDS = 0.040  # how long a record may still take once the deadline has passed
SUBMIT_BYTES = 8 << 20  # records of one batch are submitted in parts of about this size

NOT_READ = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what was expected; the last for JSON nested too deep."""

_decode_one = msgspec.json.Decoder(DecideRequest).decode
_decode_many = msgspec.json.Decoder(DecideManyRequest).decode
_encode = msgspec.json.Encoder().encode

_RUNNING, _RECORDING, _DONE = range(3)
"""The life of a decision: it waits for its model, then for its record, then it is answered."""


class Overloaded(Exception):
    """As many decisions wait as the capability allows."""


class Gate:
    """Opens when as many decisions as it was made for have been answered."""

    __slots__ = ("opened", "remaining")

    def __init__(self, loop: asyncio.AbstractEventLoop, remaining: int) -> None:
        self.remaining = remaining
        self.opened: asyncio.Future[None] = loop.create_future()

    def arrive(self) -> None:
        self.remaining -= 1
        if self.remaining == 0 and not self.opened.done():
            self.opened.set_result(None)


class Pending:
    """A decision on its way."""

    __slots__ = ("answer", "begun", "gate", "given", "key", "overdue", "principal", "row", "state", "verdict")

    def __init__(self, principal: bytes, gate: Gate, begun: float) -> None:
        self.principal = principal
        self.gate = gate
        self.begun = begun
        self.key: bytes = NULL
        self.given: Any = NULL  # JSON: bytes, or a slice of the call's body
        self.row: Row = ()
        self.state = _RUNNING
        self.overdue = False  # its deadline has passed
        self.verdict: Verdict | None = None
        self.answer: bytes | None = None  # None once done: it could not be recorded in time


class Service:
    """One release being served: the plan, its lane, and what waits in it."""

    def __init__(self, path: DecisionPath, plan: Plan) -> None:
        self.plan = plan
        self.waiting = 0
        self._path = path
        self._retired = False
        self.lane: Lane[Pending] = Lane(
            plan.model,
            path.loop,
            batch=plan.capability.limits.batch,
            inline=plan.inline,
            may_start=path.may_start,
            deliver=self._deliver,
        )

    def decide(self, principal: bytes, body: bytes) -> Pending:
        """Begin one decision; it is answered when its gate opens. Raises Overloaded."""
        self._admit(1)
        item = Pending(principal, Gate(self._path.loop, 1), self._path.loop.time())
        self._accept(item, body)
        return item

    def decide_many(self, principal: bytes, body: bytes, *, lines: bool) -> tuple[Gate, list[Pending]]:
        """Begin many decisions under one gate: a JSON document, or one call a line.

        Raises Overloaded, and one of NOT_READ when the document is not of the documented form.
        """
        calls: Sequence[Any] = body.splitlines() if lines else _decode_many(body).inputs
        self._admit(len(calls))
        loop = self._path.loop
        gate = Gate(loop, len(calls))
        items = [Pending(principal, gate, loop.time()) for _ in calls]
        for item, call in zip(items, calls, strict=True):
            if memoryview(call).nbytes > self._path.call_bytes:
                self._refuse_size(item, bytes(call))
            else:
                self._accept(item, call)
        if not calls:
            gate.opened.set_result(None)
        return gate, items

    def _admit(self, calls: int) -> None:
        if self.waiting + calls > self.plan.capability.limits.waiting:
            raise Overloaded  # 2
        if not self._path.journal.healthy:
            raise Unrecordable("the ledger cannot be written: its disk is full or failing")
        self.waiting += calls

    def _accept(self, item: Pending, body: Any) -> None:
        plan = self.plan
        try:
            request = _decode_one(body)
            if request.key is not None:
                if len(request.key) > MAX_KEY_CHARACTERS:
                    raise msgspec.ValidationError(f"expected a key of at most {MAX_KEY_CHARACTERS} characters")
                item.key = _encode(request.key)
            if request.deadline_ms is not None and request.deadline_ms < 1:
                raise msgspec.ValidationError("expected a `deadline_ms` of at least 1")
        except NOT_READ as error:
            item.given = plan.given_malformed(bytes(body))
            self._conclude(item, Verdict("refused", reasons=(Reason("malformed_input", _one_line(error)),)))
            return
        item.given = plan.given(request.input)  # 4: before anything can be recorded
        try:
            item.row = plan.values(plan.decode(request.input))  # 3
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._refuse_input(item, bytes(request.input))
            return
        allowed: float = plan.capability.deadline_ms
        if request.deadline_ms is not None:
            allowed = min(allowed, request.deadline_ms)
        self._path.expect(self, item, item.begun + allowed / 1000)
        self.lane.submit(item)  # 5, 6

    def _refuse_size(self, item: Pending, body: bytes) -> None:
        item.given = Protector.withhold(body)
        detail = f"expected at most {self._path.call_bytes} bytes, found {len(body)}"
        self._conclude(item, Verdict("refused", reasons=(Reason("malformed_input", detail),)))

    def _refuse_input(self, item: Pending, raw: bytes) -> None:
        violations = self.plan.violations(raw)
        rules = f"{len(violations)} broken rule{'' if len(violations) == 1 else 's'}"
        reason = Reason("contract_violation", f"{rules}: " + ", ".join(f"{v.field} ({v.rule})" for v in violations[:5]))
        self._conclude(item, Verdict("refused", reasons=(reason,), violations=violations))

    def retire(self) -> None:
        """Take no more calls; let go of the model once the last one is answered."""
        self._retired = True
        if not self.waiting:
            self._path.forget(self)
            self.lane.close()

    def expire(self, item: Pending) -> None:
        """The deadline of an item has come; or the grace for its record, once the deadline has passed."""
        if item.overdue:
            self._finish(item, None)
            return
        item.overdue = True
        if item.state == _RUNNING:
            self.lane.withdraw(item)
            detail = "the model had not answered when the deadline came"
            self._conclude(item, self.plan.without_model("deadline_exceeded", detail))
        self._path.expect(self, item, self._path.loop.time() + RECORD_GRACE_SECONDS)

    def _conclude(self, item: Pending, verdict: Verdict) -> None:
        """Record a decision that did not come out of a batch."""
        item.verdict = verdict
        self._record([item])

    def _deliver(self, items: Sequence[Pending], results: Sequence[Result]) -> None:
        """7: what the model gave becomes verdicts, for those that still wait for it."""
        plan = self.plan
        ready = []
        for item, result in zip(items, results, strict=True):
            if item.state == _RUNNING:
                item.verdict = _guard(plan, result)
                ready.append(item)
        if ready:
            self._record(ready)

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
        record = self.plan.recorder.record
        stamp = Stamp(place, len(items))
        framed, answers, size = [], [], 0
        for item in items:
            assert item.verdict is not None
            item.state = _RECORDING
            recorded = record(stamp, item.principal, item.key, item.given, item.verdict)
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
        item.state = _DONE
        item.answer = answer
        item.given = NULL  # the sweeper may hold the item until its deadline: keep little
        item.row = ()
        self.waiting -= 1
        self._path.observe(self.plan, item, self._path.loop.time() - item.begun)
        item.gate.arrive()
        if self._retired and not self.waiting:
            self.retire()


class DecisionPath:
    """All that a process serves: services by capability, one journal, one sweeper of deadlines."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        journal_factory: Callable[[Callable[[], None]], Journal],
        observe: Callable[[Plan, Pending, float], None],
        *,
        call_bytes: int,
    ) -> None:
        """`call_bytes` is the most that one call of a batch may have.

        `journal_factory` is given what to call whenever the journal has nothing left to write.
        """
        self.loop = loop
        self.observe = observe
        self.call_bytes = call_bytes
        self.services: dict[str, Service] = {}
        self._retiring: list[Service] = []
        self._deadlines: dict[int, list[tuple[Service, Pending]]] = {}
        self._sweeping = False
        self.journal = journal_factory(self._start_lanes)

    @property
    def in_flight(self) -> int:
        return sum(service.waiting for service in (*self.services.values(), *self._retiring))

    def serve(self, plans: dict[str, Plan]) -> None:
        """Take these plans from now on. Calls begun under earlier ones end under them."""
        before = self.services
        self.services = {
            name: before[name] if name in before and before[name].plan is plan else Service(self, plan)
            for name, plan in plans.items()
        }
        for name, service in before.items():
            if self.services.get(name) is not service:
                self._retiring.append(service)
                service.retire()

    def forget(self, service: Service) -> None:
        """A retired service has answered its last call."""
        self._retiring.remove(service)

    def may_start(self) -> bool:
        """A batch begins when the last group is on disk, so that what comes meanwhile makes one batch and one group."""
        return self.journal.outstanding == 0

    def expect(self, service: Service, item: Pending, deadline: float) -> None:
        """Have `service.expire(item)` called at `deadline` (seconds of the loop's clock), if the item is not done."""
        tick = int(deadline / TICK_SECONDS) + 1
        self._deadlines.setdefault(tick, []).append((service, item))
        if not self._sweeping:
            self._sweeping = True
            self.loop.call_later(TICK_SECONDS, self._sweep)

    def _sweep(self) -> None:
        now = int(self.loop.time() / TICK_SECONDS)
        for tick in [tick for tick in self._deadlines if tick <= now]:
            for service, item in self._deadlines.pop(tick):
                if item.state != _DONE:
                    service.expire(item)
        self._sweeping = bool(self._deadlines)
        if self._sweeping:
            self.loop.call_later(TICK_SECONDS, self._sweep)

    def _start_lanes(self) -> None:
        for service in (*self.services.values(), *self._retiring):
            service.lane.start()


def _guard(plan: Plan, result: Result) -> Verdict:
    """The verdict on what the model gave for one row."""
    if not isinstance(result, Prediction):
        # What a graph says of its failure may quote the input.
        detail = _one_line(result) if plan.protector is None else type(result).__name__
        return plan.without_model("model_error", detail)
    output = _encode(plan.make_output(*result.values))
    try:
        plan.check_output(output)
    except msgspec.ValidationError as error:
        return plan.without_model("output_invalid", _one_line(error))
    confidence = NULL if result.confidence is None else b"%a" % result.confidence
    return Verdict("answered", output, confidence)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
