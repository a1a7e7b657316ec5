"""Recorded decisions again: on the version that decided, through the decision path itself, recording nothing.

The release in the record says which version decided and what stood on its ladder; both are immutable and addressed by
content. A decision made while a feed or the capability was stopped is replayed as if it were. What a deadline, a crash
or an overload had to do with a decision cannot be had again: of such a decision the fallback's answer is replayed,
where it is one that depends on the input alone.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from platform import python_version_tuple
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import msgspec

from mainstay.catalog.releases import history
from mainstay.decision.path import DecisionPath
from mainstay.decision.plan import compile_stage
from mainstay.decision.replayed import (
    Recorded,
    Replayed,
    Unknown,
    differences,
    read_decision,
    recorded_from,
    recorded_of,
)
from mainstay.decision.service import Service
from mainstay.decision.shown import call_of, hidden_outputs
from mainstay.decision.types import DecideRequest, Hold
from mainstay.errors import MainstayError, Misuse
from mainstay.ledger.journal import Unrecordable
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.catalog.types import Manifest, Release
    from mainstay.decision.plan import Plan, ReleasePlan
    from mainstay.decision.replayed import Body, Leaf
    from mainstay.decision.service import Pending
    from mainstay.decision.types import Stage
    from mainstay.ledger.entry import Entry
    from mainstay.ledger.journal import Place
    from mainstay.workspace import Workspace

BATCH = 256  # decisions that are replayed together
OPEN_STAGES = 3  # releases whose models are kept open
LEAST_SECONDS = 10.0  # what a replayed decision may take at least: it is the answer that is asked for, not its time
LONGEST_SECONDS = 600.0
SLOWER = 10  # times the declared deadline that it may take

CIRCUMSTANCES = frozenset({"deadline_exceeded", "model_crashed", "model_unavailable", "overloaded"})
"""Reasons that no input has by itself."""

_BEFORE_THE_MODEL = frozenset({"malformed_input", "contract_violation", "protection_failed"})
_HOLDS: Final = {  # the circumstances that can be had again
    "stopped": Hold("stopped", "it was stopped then"),
    "feed_stopped": Hold("feed_stopped", "a feed was stopped then"),
}
_PRINCIPAL = b"replay"

_UNOPENED = (MainstayError, OSError, ValueError, RuntimeError)
"""What keeps a release from being opened: as for the data plane, whatever a runtime raises is among them."""


class _Key(NamedTuple):
    """What decided."""

    capability: str
    release: int
    stage: Stage
    version: str


class _Case(NamedTuple):
    """A decision that is being replayed."""

    leaf: Leaf
    recorded: Recorded
    call: bytes


class _Nowhere:
    """In the place of a journal: nothing that is replayed is recorded."""

    outstanding = 0
    healthy = True

    def next_place(self) -> Place:
        raise Unrecordable("a replay is not recorded")

    def submit(self, *_: object) -> None:
        raise Unrecordable("a replay is not recorded")

    def close(self) -> None:
        """Nothing was opened."""


class Replayer:
    """Replays decisions of a workspace. Models run as they do in service: in process, isolated, or elsewhere."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._verifier = load_verifier(workspace.keys)
        self._loop = asyncio.new_event_loop()
        self._path = DecisionPath(
            self._loop,
            lambda _on_idle: _Nowhere(),
            lambda _item, _seconds: None,
            call_bytes=1 << 30,
            memory=workspace.memory,
        )
        self._open: OrderedDict[_Key, Service] = OrderedDict()
        self._releases: dict[str, dict[int, Release]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every model."""
        self._loop.run_until_complete(self._close(list(self._open.values())))
        self._open.clear()
        self._loop.close()

    def replay(self, entries: Sequence[Entry]) -> list[Replayed]:
        """The entries again, in order; at most BATCH of them are run together.

        Raises Misuse when one is no decision, and Damaged when a body is not what Mainstay records.
        """
        results: list[Replayed | None] = [None] * len(entries)
        cases: dict[_Key, list[tuple[int, Leaf, Body]]] = {}
        for place, entry in enumerate(entries):
            read = read_decision(entry)
            if read is None:
                raise Misuse("expected a decision, found another entry", hint="`mainstay explain` says what it is.")
            leaf, body = read
            if body is None:
                erased = Unknown("erased", "the body was erased: there is no input to replay")
                results[place] = _unknown(leaf, recorded_of(leaf, None), erased)
            else:
                key = _Key(leaf.capability, leaf.release, leaf.stage, leaf.version)
                cases.setdefault(key, []).append((place, leaf, body))
        for key, of_key in cases.items():
            for begin in range(0, len(of_key), BATCH):
                part = of_key[begin : begin + BATCH]
                replayed = self._replay(key, [(leaf, body) for _, leaf, body in part])
                for (place, _, _), result in zip(part, replayed, strict=True):
                    results[place] = result
        return [each for each in results if each is not None]

    def _replay(self, key: _Key, decisions: Sequence[tuple[Leaf, Body]]) -> list[Replayed]:
        """Decisions of one version in one release."""
        try:
            service = self._service(key)
        except _UNOPENED as error:
            why = Unknown("version_unavailable", " ".join(str(error).split()))
            return [_unknown(leaf, recorded_of(leaf, body), why) for leaf, body in decisions]
        plan = service.release.production
        results: list[Replayed | None] = []
        running: dict[Hold | None, list[_Case]] = {}  # by what held the capability then
        for leaf, body in decisions:
            recorded = recorded_of(leaf, body)
            call = call_of(plan, leaf, body)
            if isinstance(call, Unknown):
                results.append(_unknown(leaf, recorded, call))
            elif CIRCUMSTANCES.intersection(leaf.reasons):
                results.append(self._replay_fallback(service, _Case(leaf, recorded, call)))
            elif recorded.answered_by == "last_good":
                kept = Unknown("not_kept", "the fallback was the last good answer of that moment, which is not kept")
                results.append(_unknown(leaf, recorded, kept))
            else:
                running.setdefault(_hold_then(leaf), []).append(_Case(leaf, recorded, call))
                results.append(None)
        ran = {hold: iter(self._run(service, plan, cases, hold)) for hold, cases in running.items()}
        return [
            next(ran[_hold_then(leaf)]) if each is None else each
            for (leaf, _), each in zip(decisions, results, strict=True)
        ]

    # Running.

    def _run(self, service: Service, plan: Plan, cases: Sequence[_Case], hold: Hold | None) -> list[Replayed]:
        service.held = hold
        try:
            items = self._decide(service, plan, [case.call for case in cases])
        finally:
            service.held = None
        return [_judge(plan, case, item) for case, item in zip(cases, items, strict=True)]

    def _decide(self, service: Service, plan: Plan, calls: Sequence[bytes]) -> list[Pending]:
        async def decide() -> list[Pending]:
            gate, items = service.decide_each(_PRINCIPAL, calls, plan=plan)
            await gate.opened
            return items

        return self._loop.run_until_complete(decide()) if calls else []

    def _replay_fallback(self, service: Service, case: _Case) -> Replayed:
        """The answer of the rung that answered, when the model had not: that much depends on the input alone."""
        plan, rung = service.release.production, case.recorded.answered_by
        codes = ", ".join(sorted(CIRCUMSTANCES.intersection(case.leaf.reasons)))
        outputs: list[bytes] = []
        if rung in ("rule", "constant"):
            row = plan.values(plan.decode(msgspec.json.decode(case.call, type=DecideRequest).input))
            answers = (step.answer(row) for step in plan.ladder if step.name == rung and step.answer is not None)
            outputs = [answer for answer in answers if answer is not None][:1]
        elif rung == "version":
            others = [service.release.plans[step.version] for step in plan.ladder if step.name == "version"]
            items = [item for other in others for item in self._decide(service, other, [case.call])]
            verdicts = [item.verdict for item in items if item.verdict is not None]
            outputs = [each.output for each in verdicts if each.outcome == "answered"]
        elif rung == "last_good":
            why = Unknown("not_kept", "the fallback was the last good answer of that moment, which is not kept")
            return _unknown(case.leaf, case.recorded, why)
        if not outputs:
            why = Unknown("model_not_run", f"the model had not answered then ({codes}): there is nothing to compare")
            return _unknown(case.leaf, case.recorded, why)
        replays = [_with_output(plan, case.recorded, output) for output in outputs]
        best = min(replays, key=lambda each: len(differences(case.recorded, each)))
        detail = f"the model had not answered then ({codes}); what is replayed is its fallback, a {rung}"
        return _compared(plan, case, best, detail)

    # The versions.

    def _service(self, key: _Key) -> Service:
        """The service of what decided, its models ready. Raises one of _UNOPENED when it cannot be opened."""
        service = self._open.get(key)
        if service is None:
            service = self._open_service(key)
            self._open[key] = service
        self._open.move_to_end(key)
        try:
            # A model that was open may be starting again: what was replayed last may have ended its process.
            self._loop.run_until_complete(service.wait_ready(service.release.capability.model.start_seconds))
        except BaseException:  # whatever kept it from starting, it must not be taken for one that is ready
            self._loop.run_until_complete(self._close([self._open.pop(key)]))
            raise
        return service

    def _open_service(self, key: _Key) -> Service:
        plan = unhurried(compile_stage(self._workspace, self._release(key), key.stage))
        if plan.production.digest != key.version:
            raise Misuse(
                f"expected version {key.version}, which is recorded; found that release {key.release} of"
                f" {key.capability} names {plan.production.digest} for its {key.stage}"
            )
        while len(self._open) >= OPEN_STAGES:
            _, oldest = self._open.popitem(last=False)
            self._loop.run_until_complete(self._close([oldest]))
        return Service(self._path, plan, None)

    def _release(self, key: _Key) -> Release:
        if key.capability not in self._releases:
            found = history(self._workspace.releases, key.capability, self._verifier)
            self._releases[key.capability] = {release.number: release for release in found}
        release = self._releases[key.capability].get(key.release)
        if release is None:
            raise Misuse(f"release {key.release} of {key.capability} is not in {self._workspace.releases}")
        return release

    async def _close(self, services: Sequence[Service]) -> None:
        for service in services:
            service.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)


def unhurried(release: ReleasePlan) -> ReleasePlan:
    """The release with time enough for every model, and nothing turned away because others wait or failed."""

    def patient(plan: Plan) -> Plan:
        capability = plan.capability
        seconds = min(LONGEST_SECONDS, max(LEAST_SECONDS, SLOWER * capability.deadline_ms / 1000))
        changed = msgspec.structs.replace(
            capability,
            deadline_ms=int(seconds * 1000),
            limits=msgspec.structs.replace(capability.limits, waiting=2 * BATCH, queue_ms=LONGEST_SECONDS * 1000),
            breaker=msgspec.structs.replace(capability.breaker, failures=2.0),  # a share that none can reach
        )
        return replace(plan, declared=replace(plan.declared, capability=changed), run_seconds=seconds / 2)

    fallbacks = {digest: patient(plan) for digest, plan in release.fallbacks.items()}
    canary = None if release.canary is None else patient(release.canary)
    return replace(release, production=patient(release.production), canary=canary, fallbacks=fallbacks)


def _hold_then(leaf: Leaf) -> Hold | None:
    return next((hold for code, hold in _HOLDS.items() if code in leaf.reasons), None)


def _judge(plan: Plan, case: _Case, item: Pending) -> Replayed:
    if item.verdict is None:
        failed = Unknown("replay_failed", "the replay came to no end")
        return _unknown(case.leaf, case.recorded, failed)
    replayed = recorded_from(item.verdict)
    if CIRCUMSTANCES.intersection(replayed.reasons):
        details = "; ".join(f"{each.code}: {each.detail}" for each in item.verdict.reasons)
        failed = Unknown("replay_failed", f"the model did not answer now: {details}")
        return _unknown(case.leaf, case.recorded, failed, replayed)
    return _compared(plan, case, replayed)


def _compared(plan: Plan, case: _Case, replayed: Recorded, detail: str = "") -> Replayed:
    found = differences(case.recorded, replayed)
    unknown: Unknown | None = None
    hidden = hidden_outputs(plan)
    if plan.manifest.runtime == "remote" and not _BEFORE_THE_MODEL.intersection(case.leaf.reasons):
        now = "the same now" if not found else "something else now"
        unknown = Unknown("remote_model", f"the model runs elsewhere and may have changed; it gives {now}")
    elif not found and hidden and (case.recorded.output is not None or case.recorded.proposed is not None):
        unknown = Unknown("output_hidden", f"what is recorded agrees; not recorded in clear: {', '.join(hidden)}")
    if found and unknown is None:
        detail = "; ".join(filter(None, (detail, _environment_changes(plan.manifest))))
    verdict = _unknown(case.leaf, case.recorded, unknown, replayed) if unknown else None
    if verdict is not None:
        return msgspec.structs.replace(verdict, differences=found)
    return Replayed(
        **_facts(case.leaf),
        verdict="different" if found else "same",
        detail=detail,
        recorded=case.recorded,
        replayed=replayed,
        differences=found,
        exact=None if found else case.recorded == replayed,
    )


def _unknown(leaf: Leaf, recorded: Recorded, why: Unknown, replayed: Recorded | None = None) -> Replayed:
    return Replayed(
        **_facts(leaf),
        verdict="unknown",
        unknown=why.code,
        detail=why.detail,
        recorded=recorded,
        replayed=replayed,
    )


def _facts(leaf: Leaf) -> dict[str, Any]:
    return {
        "id": leaf.id,
        "capability": leaf.capability,
        "version": leaf.version,
        "release": leaf.release,
        "stage": leaf.stage,
        "recorded_at": leaf.at,
    }


def _with_output(plan: Plan, recorded: Recorded, output: bytes) -> Recorded:
    """The record with this output in it, as it may be recorded."""
    return msgspec.structs.replace(recorded, output=msgspec.json.decode(plan.recorded(output) or output))


def _environment_changes(manifest: Manifest) -> str:
    """What this machine has in other versions than when the version was registered; it may be the reason."""
    changes = []
    for name, then in sorted(manifest.environment.items()):
        try:
            now = ".".join(python_version_tuple()[:2]) if name == "python" else version(name)
        except PackageNotFoundError:
            now = "none"
        if now != then:
            changes.append(f"{name} {then}, here {now}")
    return f"registered with {', '.join(changes)}" if changes else ""
