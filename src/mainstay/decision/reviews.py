"""What a person decides in place of the capability: held to the contract and protected like any output, then recorded.

The contract and the protection are those of the version that left the decision to a person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from mainstay.capability.load import load_capability
from mainstay.catalog.versions import open_version
from mainstay.errors import Failed, Misuse
from mainstay.privacy.protection import ProtectionFailed, Protector, any_classified
from mainstay.privacy.pseudonym import load_pseudonym_key

if TYPE_CHECKING:
    from mainstay.capability.load import Declared
    from mainstay.ledger.review_entries import Resolution, ReviewVerdict
    from mainstay.ledger.reviews import Review, ReviewQueue
    from mainstay.workspace import Workspace

MAX_REASON_CHARACTERS = 10_000

_encode = msgspec.json.Encoder().encode


class Ruling(NamedTuple):
    """What a person decided: `accepted` takes the proposed output, `changed` the one given here, `rejected` none."""

    verdict: ReviewVerdict
    reason: str
    principal: str  # who decided
    output: bytes | None = None  # JSON
    again: bool = False  # this may revise an earlier one


def resolve(workspace: Workspace, queue: ReviewQueue, decision_id: str, ruling: Ruling) -> Resolution:
    """Record what a person decided about a decision that waits for one, durably. The recorded output is protected.

    Raises Misuse when no such decision was left to a person, it is resolved already, or the output breaks the contract;
    Failed when what may be recorded of the output could not be made; OSError when the disk will not take it. Nothing
    was recorded then that anyone may rely on.
    """
    if not 1 <= len(ruling.reason.strip()) <= MAX_REASON_CHARACTERS:
        raise Misuse("a resolution needs a reason: expected 1 to 10,000 characters saying why")
    if (ruling.output is not None) != (ruling.verdict == "changed"):
        raise Misuse("an output of one's own goes with the verdict `changed`, and with no other")
    review = queue.find(decision_id)
    output = None
    if ruling.verdict == "accepted":
        output = msgspec.Raw(_accepted(workspace, review))
    elif ruling.output is not None:
        output = msgspec.Raw(_changed(workspace, review, ruling.output))
    return queue.record(
        review, ruling.verdict, output, reason=ruling.reason, principal=ruling.principal, again=ruling.again
    )


def _accepted(workspace: Workspace, review: Review) -> bytes:
    """The output that was proposed, as it was recorded: protected already."""
    proposed = review.details.get("proposed")
    if proposed is None:
        raise Misuse(
            f"{review.id} has no proposed output to accept", hint="Give the output with --output, or use --reject."
        )
    declared = _declared(workspace, review)
    recorded = _encode(proposed)
    if not any_classified(declared.output.properties):  # what is recorded of a classified one need not keep it
        _hold_to_contract(declared, recorded)
    return recorded


def _changed(workspace: Workspace, review: Review, output: bytes) -> bytes:
    declared = _declared(workspace, review)
    _hold_to_contract(declared, output)
    properties = declared.output.properties
    if not any_classified(properties):
        return output
    protector = Protector(properties, load_pseudonym_key(workspace.keys), declared.capability.protect)
    try:
        return protector.protect(output)
    except ProtectionFailed as error:
        raise Failed(f"what may be recorded of the output could not be made ({error}); nothing was recorded") from None


def _declared(workspace: Workspace, review: Review) -> Declared:
    return load_capability(open_version(workspace.versions, review.leaf["version"]).folder)


def _hold_to_contract(declared: Declared, output: bytes) -> None:
    violations = declared.output.violations(output)
    if violations:
        broken = "\n".join(
            f"{each.field}: {each.rule}: expected {each.expected}, found {each.found}" for each in violations
        )
        raise Misuse(f"the output breaks the contract of {declared.capability.name}\n{broken}")
