"""What came of a campaign: each call held against what is right, what is in the ledger, and its deadline."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple

from faults_inject import HARMLESS
from faults_world import fallback_output, right_output

from mainstay.cli.common import signing_key
from mainstay.ledger.log import Log
from mainstay.ledger.upkeep import keep_sealed
from mainstay.ledger.verify import verify_ledger
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from faults_caller import Call
    from faults_inject import Fault
    from faults_machine import Waits
    from faults_world import World

    from mainstay.ledger.entry import Entry
    from mainstay.workspace import Workspace

LATE_SECONDS = 0.05  # past the deadline is what an answer may be
FORCE_SECONDS = 2.0  # within which a release or a revoked key must count at every worker
SAME = 1e-6  # between two probabilities that are the same, one of them in single precision
MAX_EXAMPLES = 20
PROBLEM = "urn:mainstay:problem:"
COME_BACK = {429: "overloaded", 503: "unrecorded"}


class Injection(NamedTuple):
    """One fault; Unix seconds."""

    begun: float
    over: float  # or in force


@dataclass
class Findings:
    """What a campaign comes to. Counts of calls, and seconds."""

    fault: str
    times: int = 0
    seconds: float = 0.0
    calls: int = 0
    answered: int = 0
    fallback: int = 0
    refused: int = 0
    broken: int = 0  # connections that broke, where that is to be expected
    late: int = 0
    starved: int = 0  # of those, while the loop of a worker waited for a core for longer than they are late
    worst_overrun_ms: float = -math.inf  # past the deadline; negative: all were before it
    wrong: int = 0
    unclear: int = 0  # neither an answer, nor a fallback whose reason fits, nor a clear refusal
    unrecorded: int = 0
    doubled: int = 0
    ledger_findings: int = 0
    recovery_seconds: list[float] = field(default_factory=list)
    refusals: dict[str, int] = field(default_factory=dict)  # by the last part of their type
    examples: list[str] = field(default_factory=list)  # of what must not be

    @property
    def ok(self) -> bool:
        misses = (self.late, self.wrong, self.unclear, self.unrecorded, self.doubled, self.ledger_findings)
        return not any(misses)

    @property
    def recovery(self) -> str:
        """Median and maximum."""
        if not self.recovery_seconds:
            return ""
        return f"{statistics.median(self.recovery_seconds):.2f}, {max(self.recovery_seconds):.2f}"

    def note(self, what: str, call: Call) -> None:
        """Keep an example."""
        if len(self.examples) < MAX_EXAMPLES:
            took = (call.ended_at - call.sent_at) * 1000
            told = call.body[:400].decode("utf-8", "replace")
            allowed = call.allowed_seconds * 1000
            self.examples.append(
                f"{what}: {call.key} note={call.note} sent={call.sent_at:.3f} took {took:.0f} of {allowed:.0f} ms, "
                f"status {call.status}: {told}"
            )


def audit(
    fault: Fault,
    calls: Sequence[Call],
    injections: Sequence[Injection],
    world: World,
    waits: Waits,
) -> Findings:
    """Judge every call of a campaign whose service has ended."""
    found = Findings(fault.name, len(injections), calls=len(calls))
    if calls:
        found.seconds = calls[-1].ended_at - calls[0].sent_at
    for call in calls:
        _judge(call, fault, world.versions, injections, found)
        if call.status:
            _hold_against_deadline(call, waits, found)
    _hold_against_ledger(calls, world.workspace, found)
    found.recovery_seconds = list(_recoveries(fault, calls, injections))
    if fault.counts and max(found.recovery_seconds, default=0.0) > FORCE_SECONDS:
        found.unclear += 1
        found.examples.append(f"in force only after {max(found.recovery_seconds):.2f} s")
    return found


def _hold_against_deadline(call: Call, waits: Waits, found: Findings) -> None:
    overrun = call.overrun_seconds
    found.worst_overrun_ms = max(found.worst_overrun_ms, overrun * 1000)
    if overrun > LATE_SECONDS:
        waited = waits.longest_seconds(call.sent_at, call.ended_at)
        found.late += 1
        found.starved += waited >= overrun
        found.note(f"late by {overrun * 1000:.0f} ms, a loop waited {waited * 1000:.0f} ms for a core", call)


def _judge(
    call: Call, fault: Fault, versions: Mapping[str, int], injections: Sequence[Injection], found: Findings
) -> None:
    told: Any = json.loads(call.body) if call.status else {}
    if call.status == 200 and told["outcome"] == "answered":
        right = right_output(versions[told["version"]], call.a, call.b)
        if call.note in HARMLESS and _same(told["output"], right):
            found.answered += 1
        else:
            found.wrong += 1
            found.note("wrong answer", call)
    elif call.status == 200 and told["outcome"] == "fallback":
        if not _same(told["output"], fallback_output(call.b)):
            found.wrong += 1
            found.note("wrong fallback", call)
        elif {reason["code"] for reason in told["reasons"]} <= fault.reasons:
            found.fallback += 1
        else:
            found.unclear += 1
            found.note("fallback for a reason that does not fit", call)
    elif not call.status and fault.resets:
        found.broken += 1
    elif call.status and _is_clear(call, told, injections):
        found.refused += 1
        name = told["type"].removeprefix(PROBLEM)
        found.refusals[name] = found.refusals.get(name, 0) + 1
    else:
        found.unclear += 1
        found.note("unclear", call)


def _is_clear(call: Call, told: Any, injections: Sequence[Injection]) -> bool:
    """Whether a refusal says what is the matter and what to do."""
    if call.status in COME_BACK:
        return call.retry_after and told.get("type") == PROBLEM + COME_BACK[call.status]
    revoked = any(each.over <= call.ended_at for each in injections if each.begun <= call.sent_at)
    return call.status == 401 and call.victim and revoked and told.get("type") == PROBLEM + "unauthorized"


def _same(output: Any, expected: Mapping[str, Any]) -> bool:
    if not isinstance(output, dict) or output.keys() != expected.keys() or output["yes"] is not expected["yes"]:
        return False
    return math.isclose(output["probability"], expected["probability"], abs_tol=SAME)


# The ledger.


def _hold_against_ledger(calls: Sequence[Call], workspace: Workspace, found: Findings) -> None:
    """Look for every decision that a caller was given, as it was given, and for keys that were decided twice."""
    stop = Event()
    stop.set()
    key = signing_key(workspace)
    keep_sealed(workspace, key, stop)  # what the service left to the next one
    report = verify_ledger(workspace.ledger, load_verifier(workspace.keys))
    found.ledger_findings = len(report.findings)
    found.examples += map(str, report.findings[:MAX_EXAMPLES])
    log = Log(workspace.ledger)
    decided = dict(_decisions(log.entries(0, log.size)))
    keys = Counter(body["key"] for _, body, _ in decided.values())
    found.doubled = sum(count - 1 for count in keys.values())
    given: set[str] = set()
    for call in calls:
        told = json.loads(call.body) if call.body else {}
        if "decision_id" not in told:
            continue
        found.doubled += told["decision_id"] in given
        given.add(told["decision_id"])
        if not _is_recorded(call, told, decided.get(told["decision_id"])):
            found.unrecorded += 1
            found.note("not recorded as it was told", call)


def _decisions(entries: Iterable[Entry]) -> Iterable[tuple[str, tuple[Any, Any, str]]]:
    """Of each decision its id, leaf, body and receipt."""
    for entry in entries:
        leaf = json.loads(entry.leaf)
        if leaf["kind"] == "decision":
            yield leaf["id"], (leaf, json.loads(entry.body), sha256(b"\x00" + entry.leaf).hexdigest())


def _is_recorded(call: Call, told: Any, record: tuple[Any, Any, str] | None) -> bool:
    if record is None:
        return False
    leaf, body, receipt = record
    given = {"a": call.a, "b": call.b} | ({} if call.note is None else {"note": call.note})
    return (
        (leaf["outcome"], leaf["version"], leaf["release"]) == (told["outcome"], told["version"], told["release"])
        and leaf["reasons"] == [reason["code"] for reason in told["reasons"]]
        and (body["key"], body["input"], body["output"]) == (call.key, given, told["output"])
        and told["receipt"]["leaf"] == receipt
    )


# Recovery.


def _recoveries(fault: Fault, calls: Sequence[Call], injections: Sequence[Injection]) -> Iterable[float]:
    """For each fault how long callers noticed it once it was over, or had come into force."""
    ends = [each.begun for each in injections[1:]] + [math.inf]
    releases = sorted((call.sent_at, json.loads(call.body)["release"]) for call in calls if b'"release"' in call.body)
    before = releases[0][1] if releases else 0
    for injection, end in zip(injections, ends, strict=True):
        if fault.counts == "release":
            before += 1
            old = [sent for sent, release in releases if release < before and sent > injection.over]
        elif fault.counts == "key":
            own = (call for call in calls if injection.begun <= call.sent_at < end)
            old = [call.sent_at for call in own if call.victim and call.status == 200 and call.sent_at > injection.over]
        else:
            own = (call for call in calls if injection.over <= call.ended_at < end)
            old = [call.ended_at for call in own if b'"outcome":"answered"' not in call.body]
        yield max(0.0, max(old, default=0.0) - injection.over)
