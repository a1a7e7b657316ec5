"""What the record of a decision tells of its nine steps, and what the entry of a change says, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import msgspec

from mainstay.decision.record import SCHEDULE
from mainstay.errors import Damaged
from mainstay.ledger.find import find_entry
from mainstay.ledger.log import Log
from mainstay.ledger.merkle import verify_inclusion
from mainstay.ledger.note import verify_checkpoint
from mainstay.ledger.review_entries import RESOLVED
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from mainstay.ledger.find import Found
    from mainstay.workspace import Workspace

StepName = Literal["identify", "admit", "validate", "protect", "route", "run", "guard", "record", "answer"]

STEPS: Final[tuple[StepName, ...]] = (
    "identify",
    "admit",
    "validate",
    "protect",
    "route",
    "run",
    "guard",
    "record",
    "answer",
)
_STOPPED_AT: Final[dict[str, StepName]] = {
    "malformed_input": "validate",
    "contract_violation": "validate",
    "protection_failed": "protect",
    "overloaded": "admit",
    "feed_stopped": "route",
    "stopped": "route",
    "deadline_exceeded": "run",
    "model_error": "run",
    "model_crashed": "run",
    "model_unavailable": "run",
    "output_invalid": "guard",
    "out_of_distribution": "guard",
    "low_confidence": "guard",
    "outside_authority": "guard",
}
_ASKED: Final = frozenset({"run", "guard"})  # where a decision is stopped whose model was asked
_NOT_RUN: Final = frozenset({"admit", "validate", "protect", "route"})  # where a decision is stopped before its model


class Step(NamedTuple):
    """One step of a decision. What stopped it there is told; a fallback or a person may have gone on from there."""

    step: StepName
    verdict: Literal["passed", "stopped here", "not reached"]
    detail: str = ""


class _Reason(NamedTuple):
    code: str
    detail: str

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}" if self.detail else self.code

    @property
    def step(self) -> StepName | None:
        """Where it stopped the decision. What may be recorded of an output is made after the model ran."""
        if self.code == "protection_failed" and "output" in self.detail:
            return "guard"
        return _STOPPED_AT.get(self.code)


def steps_of(leaf: dict[str, Any], body: dict[str, Any] | None, *, sequence: int | None) -> list[Step]:
    """The verdict of each step, as far as the record of a decision tells. Without its body, reasons are codes."""
    details = (body or {}).get("details") or {}
    reasons = [_Reason(each["code"], each["detail"]) for each in details.get("reasons", ())]
    reasons = reasons or [_Reason(code, "") for code in leaf["reasons"]]
    answered = leaf["outcome"] == "answered"  # what is answered all the same was doubted, and stopped nowhere
    stops = [] if answered else [(each.step, each) for each in reasons if each.step is not None]
    if any(each.step in _ASKED and each.code != "outside_authority" for _, each in stops):
        stops = [(step, each) for step, each in stops if each.code != "feed_stopped"]  # declared: answer
    first = min((step for step, _ in stops), key=STEPS.index, default=None)
    found = []
    for name in STEPS:
        here = [reason for step, reason in stops if step == name]
        if name in ("record", "answer"):
            found.append(Step(name, "passed", _ending(name, leaf, details, sequence)))
        elif here and name in (first, "guard"):
            found.append(Step(name, "stopped here", "; ".join(map(str, here))))
        elif first is not None and not _was_reached(name, first, leaf):
            found.append(Step(name, "not reached"))
        else:
            found.append(Step(name, "passed", _what_passed(name, leaf, body, reasons)))
    return found


def asker_of(leaf: dict[str, Any]) -> str:
    """Who asked for a decision: a key, or the schedule of the capability itself."""
    return "the schedule" if leaf["principal"] == SCHEDULE else f"key {leaf['principal']}"


def source_line(source: dict[str, Any] | None) -> str | None:
    """Where the input of a decision stood, if a batch made it."""
    if source is None:
        return None
    if "table" in source:
        return f"{source['table']}, item {source['item']}, row {source['row']}, in batch {source['batch']}"
    return f"{source['file']}, row {source['row']}, in batch {source['batch']}"


def _was_reached(name: StepName, first: StepName, leaf: dict[str, Any]) -> bool:
    """Whether a step was reached although the decision was stopped at `first`.

    What may be recorded is made of every input, and of what a fallback answers the guard is asked, too.
    """
    if name == "run":
        return first not in _NOT_RUN
    if name == "guard":
        return first == "guard" or leaf["outcome"] == "fallback"
    return True


def _what_passed(name: StepName, leaf: dict[str, Any], body: dict[str, Any] | None, reasons: list[_Reason]) -> str:
    match name:
        case "identify":
            return asker_of(leaf)
        case "protect":
            return _protected((body or {}).get("input"), erased=body is None)
        case "route":
            return f"release {leaf['release']}, {leaf['stage']}"
        case "guard":
            if leaf["outcome"] == "fallback":
                return "the fallback's answer"
            doubts = "; ".join(map(str, reasons))
            return (
                f"answered in spite of {doubts}" if doubts else f"policy {leaf['policy']}" if "policy" in leaf else ""
            )
    return ""


def _protected(given: Any, *, erased: bool) -> str:
    if erased:
        return "what was recorded of the input has been erased"
    if isinstance(given, dict) and given.keys() == {"withheld"}:
        return "of the input only a digest is recorded"
    return ""


def _ending(name: StepName, leaf: dict[str, Any], details: dict[str, Any], sequence: int | None) -> str:
    if name == "record":
        return "on disk, not sealed yet" if sequence is None else f"entry {sequence} of the log"
    by = f", by {details['answered_by']}" if details.get("answered_by") else ""
    meaning = {"review": ", left to a person", "refused": ", no answer"}
    return f"{leaf['outcome']}{by}{meaning.get(leaf['outcome'], '')}"


def step_lines(steps: list[Step]) -> list[str]:
    """The steps for people, one a line."""
    return [
        f"{f'{number} {each.step}':<12} {each.verdict}{f': {each.detail}' if each.detail else ''}"
        for number, each in enumerate(steps, 1)
    ]


def change_facts(leaf: dict[str, Any], body: dict[str, Any] | None) -> list[tuple[str, Any]]:
    """A change for people: what was changed, by whom and why, and each of its details."""
    facts: list[tuple[str, Any]] = [
        ("change", leaf["action"]),
        ("subject", leaf["subject"]),
        ("by", leaf["principal"]),
    ]
    if body is None:
        return facts
    facts.append(("reason", body["reason"]))
    details = body["details"]
    if not isinstance(details, dict):
        return facts if details is None else [*facts, ("details", details)]
    return facts + [(name.replace("_", " "), value) for name, value in details.items() if value not in (None, [], {})]


def capability_seen(workspace: Workspace, leaf: dict[str, Any], body: dict[str, Any] | None) -> str | None:
    """Of which capability an entry shows a decision, or what came of one; None: of none."""
    if "capability" in leaf:
        return str(leaf["capability"])
    if leaf.get("action") != RESOLVED:
        return None
    if body is not None:
        return str(body["details"]["capability"])
    found = find_entry(workspace.ledger, leaf["subject"])
    return None if found is None else str(msgspec.json.decode(found.entry.leaf)["capability"])


def is_proven(workspace: Workspace, found: Found) -> bool | None:
    """Whether the signed checkpoint covers an entry; None while it is not sealed."""
    if found.sequence is None:
        return None
    log, verifier = Log(workspace.ledger), load_verifier(workspace.keys)
    note = log.note()
    if note is None:
        return False
    try:
        checkpoint = verify_checkpoint(note, verifier, workspace.settings.log)
        proof = log.inclusion_proof(found.sequence, checkpoint.size)
    except Damaged:
        return False
    return verify_inclusion(found.entry.leaf_hash, found.sequence, checkpoint.size, proof, checkpoint.root)
