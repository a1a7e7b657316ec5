"""What a record shows of what a model was given: all of it, or something in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.capability.classified import action_for
from mainstay.decision.replayed import Unknown
from mainstay.privacy.protection import any_classified

if TYPE_CHECKING:
    from mainstay.contract.types import Property
    from mainstay.decision.plan import Plan
    from mainstay.decision.replayed import Body, Leaf


def call_of(plan: Plan, leaf: Leaf, body: Body) -> bytes | Unknown:
    """The call that led to a decision, as far as its model could tell; or why the record does not hold it.

    A field that the record hides and that nothing looks at is left out where it may be absent.
    """
    raw = bytes(body.input)
    given = msgspec.json.decode(raw)
    withheld = plan.protector is not None or "malformed_input" in leaf.reasons
    if withheld and _is_only(given, "withheld"):
        return Unknown("input_withheld", "only a digest of the input was recorded")
    if "malformed_input" in leaf.reasons and _is_only(given, "raw"):
        return str(given["raw"]).encode()
    if not isinstance(given, dict):
        return b'{"input":%b}' % raw
    hidden = [each for each in plan.declared.input.properties if _is_hidden(each, given, plan)]
    if not hidden:
        return b'{"input":%b}' % raw
    needed = [each.name for each in hidden if each.required or _matters(each.name, plan)]
    if needed:
        return Unknown("input_hidden", f"not recorded as the model was given it: {', '.join(needed)}")
    names = {each.name for each in hidden}
    return msgspec.json.encode({"input": {name: value for name, value in given.items() if name not in names}})


def hidden_outputs(plan: Plan) -> list[str]:
    """The fields of the output of which the record cannot tell two values apart: masked ones, and dropped ones."""
    if plan.output_protector is None:
        return []
    return [each.name for each in plan.declared.output.properties if _loses(each, plan)]


def _is_only(given: Any, name: str) -> bool:
    return isinstance(given, dict) and given.keys() == {name}


def _is_hidden(declared: Property, given: dict[str, Any], plan: Plan) -> bool:
    """Whether the record holds something else than the value that was given, if one was."""
    if not any_classified((declared,)):
        return False
    if action_for(declared, plan.capability.protect) == "drop":
        return True  # whether one was given cannot be told
    return given.get(declared.name) is not None


def _loses(declared: Property, plan: Plan) -> bool:
    action = action_for(declared, plan.capability.protect)
    inner = (*declared.properties, *(() if declared.items is None else (declared.items,)))
    return action in ("mask", "drop") or any(_loses(each, plan) for each in inner)


def _matters(name: str, plan: Plan) -> bool:
    """Whether anything that decides looks at a field of the input: model, novelty, policies, rules of the ladder."""
    capability = plan.capability
    conditions = (each for rung in capability.fallback for case in rung.rule for each in case.when)
    return (
        not capability.model.features
        or name in capability.model.features
        or plan.novelty is not None
        or "input" in plan.authority.reads
        or any(condition.field == name for condition in conditions)
    )
