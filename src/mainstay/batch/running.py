"""A batch from its first row to its summary: read, decide, record, put out, step by step, and go on after any end."""

from __future__ import annotations

import gc
from collections import Counter
from contextlib import contextmanager
from time import monotonic, time
from typing import TYPE_CHECKING, Final

from mainstay.authority.keys import load_key_ring, signature_of
from mainstay.batch.recording import Entries, Writer
from mainstay.batch.state import Step, is_recorded
from mainstay.batch.types import Summary
from mainstay.catalog import holds
from mainstay.decision.in_force import hold_of
from mainstay.decision.last_good import LastGood
from mainstay.decision.record import NULL, SCHEDULE
from mainstay.errors import Misuse
from mainstay.ledger.state import WAL_FOLDER
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mainstay.authority.keys import Principal
    from mainstay.batch.engines import Engine
    from mainstay.batch.inputs import Input
    from mainstay.batch.outputs import Output
    from mainstay.batch.state import Memory, Run
    from mainstay.batch.types import Decided
    from mainstay.decision.plan import ReleasePlan
    from mainstay.decision.types import Hold
    from mainstay.workspace import Workspace

MAX_STEP_BYTES: Final = 64 << 20  # of records; a piece with more is recorded in several steps

_COLLECTED_STEPS: Final = 64  # between two collections of garbage: what a step makes is no garbage of that kind


class Asker:
    """Whoever asks for a batch, looked at again whenever the keys or the holds of the workspace change."""

    def __init__(self, workspace: Workspace, release: ReleasePlan, token: str | None) -> None:
        """`token` is that of an API key; None where the release itself asks, by its schedule.

        Raises Misuse unless the key and the policies let it decide.
        """
        self._workspace = workspace
        self._release = release
        self._token = token
        self._verifier = load_verifier(workspace.keys)
        self._seen: object = None
        self._holds_seen: object = ()
        self._held: Hold | None = None
        self.principal = SCHEDULE if token is None else self._identify().key_id

    def held(self) -> Hold | None:
        """Why no model is to be asked now; None: it is. Raises Misuse when the key may decide no more."""
        if self._token is not None and signature_of(self._workspace.access) != self._seen:
            self._identify()
        seen = holds.signature_of(self._workspace.holds)
        if seen != self._holds_seen:
            standing = holds.read_holds(self._workspace.holds, self._verifier)
            found = standing.get(self._release.capability.name)
            self._held, self._holds_seen = None if found is None else hold_of(found), seen
        return self._held

    def _identify(self) -> Principal:
        name = self._release.capability.name
        self._seen = signature_of(self._workspace.access)
        principal = load_key_ring(self._workspace.access, self._verifier).identify(self._token or "")
        if principal is None:
            raise Misuse("expected an API key that is known, not expired and not revoked, found another")
        if not principal.may("decide", name):
            raise Misuse(f"this key may not decide {name}", hint="`mainstay key list` says what each key may do.")
        denial = self._release.production.authority.may(principal, "call")
        if denial is not None:
            raise Misuse(f"{name} does not let this key decide: {denial.policy}")
        return principal


class Work:
    """One run being worked on. Whoever has it holds the lock of its memory."""

    def __init__(self, workspace: Workspace, run: Run, memory: Memory, output: Output, writer: Writer) -> None:
        self._ledger = workspace.ledger
        self._run = run
        self._memory = memory
        self._output = output
        self._writer = writer
        self._entries = Entries(workspace.ledger / WAL_FOLDER)
        self._begun = monotonic()
        self._before = 0  # rows that were done when this began
        self._last_good = _open_memory(workspace, writer.release)
        self.steps: list[Step] = []

    def heal(self) -> None:
        """Bring the last step to its end, or undo it. Raises Damaged when what it left is not what was written."""
        self.steps = self._memory.steps()
        if self.steps:
            last = self.steps[-1]
            if is_recorded(self._ledger, last):
                self._output.publish(last)
            else:
                self._output.discard(last.number)
                self._memory.drop_last()
                self.steps.pop()
        self._output.discard(len(self.steps))
        self._before = sum(step.rows for step in self.steps)

    def go_on(self, given: Input, engine: Engine, held: Callable[[], Hold | None], told: Callable[[], None]) -> None:
        """Decide what is not decided yet. `told` is called after each step. Raises Failed."""
        after = self.steps[-1].last if self.steps else self._run.since
        self._begun = monotonic()
        try:
            with _little_garbage() as collect:
                for decided in engine.decide(given.pieces(after), held):
                    for part in _cut(decided):
                        self._take(part)
                        told()
                        collect()
        finally:
            self._entries.close()
            if self._last_good is not None:
                self._last_good.close()

    def finish(self) -> Summary:
        """All rows are decided."""
        self._output.finish(self.steps)
        summary = self.summary(finished=True)
        self._memory.finish(summary)
        return summary

    def _take(self, decided: Decided) -> None:
        """One step, in the order that `state` describes."""
        number = len(self.steps)
        written = self._writer.write(decided, *self._entries.place())
        digest = self._output.prepare(number, written.frame)
        step = Step(
            number=number,
            last=decided.last,
            first_id=written.first_id,
            last_id=written.last_id,
            rows=len(decided.rows),
            outcomes=written.outcomes,
            reasons=written.reasons,
            sha256=digest,
        )
        self._memory.add(step)
        self._entries.append(written.framed, step.rows)
        self._output.publish(step)
        self.steps.append(step)
        if self._last_good is not None:
            _remember(self._last_good, decided)

    def summary(self, *, finished: bool = False) -> Summary:
        """What was done so far, by this and by those that were killed before."""
        outcomes: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        for step in self.steps:
            outcomes.update(step.outcomes)
            reasons.update(step.reasons)
        rows = sum(step.rows for step in self.steps)
        seconds = monotonic() - self._begun
        return Summary(
            batch=self._run.batch,
            capability=self._run.capability,
            version=self._run.version,
            release=self._run.release,
            output=self._run.output,
            rows=rows,
            outcomes=dict(outcomes.most_common()),
            reasons=dict(reasons.most_common()),
            first_id=self.steps[0].first_id if self.steps else None,
            last_id=self.steps[-1].last_id if self.steps else None,
            finished=finished,
            seconds=seconds,
            rows_per_second=(rows - self._before) / max(seconds, 1e-9),
        )


def _open_memory(workspace: Workspace, release: ReleasePlan) -> LastGood | None:
    """Where answers are remembered by key for calls that come later, if a ladder of the release looks there."""
    if not any(step.name == "last_good" for plan in release.plans.values() for step in plan.ladder):
        return None
    workspace.memory.mkdir(parents=True, exist_ok=True)
    contract = release.production.manifest.contract.digest
    return LastGood(workspace.memory / f"{release.capability.name}.table", contract)


def _remember(last_good: LastGood, decided: Decided) -> None:
    now_ms = int(time() * 1000)
    for key, outcome, output in zip(decided.keys, decided.outcomes, decided.outputs, strict=True):
        if outcome == b"answered" and key != NULL:
            last_good.put(key, output, now_ms)


def _cut(decided: Decided) -> Iterator[Decided]:
    """Decisions in parts whose records one group holds."""
    if sum(map(len, decided.sealed)) <= MAX_STEP_BYTES:
        yield decided
        return
    start, size = 0, 0
    for place, sealed in enumerate(decided.sealed):
        size += len(sealed)
        if size > MAX_STEP_BYTES and place > start:
            yield decided.cut(start, place)
            start, size = place, len(sealed)
    yield decided.cut(start, len(decided.sealed))


@contextmanager
def _little_garbage() -> Iterator[Callable[[], None]]:
    """Collect garbage between steps only: a step makes many objects, and frees them without help."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    steps = 0

    def collect() -> None:
        nonlocal steps
        steps += 1
        if steps % _COLLECTED_STEPS == 0:
            gc.collect()

    try:
        yield collect
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
