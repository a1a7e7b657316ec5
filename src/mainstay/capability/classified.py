"""What a folder declares about classified fields: the action for each, and where the declaration cannot hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from mainstay.contract.rules import OPEN_CLASSES, is_classified
from mainstay.documents import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mainstay.contract.types import Property

Action: TypeAlias = Literal["mask", "drop", "pseudonym"]

ANY_OTHER = "*"
UNLESS_SAID: Action = "pseudonym"


def action_for(declared: Property | None, protect: Mapping[str, Action]) -> Action | None:
    """What becomes of a property's values before they are recorded; None: they stay as they are.

    `declared` is None for a field that the contract does not know.
    """
    if declared is None:
        return protect.get(ANY_OTHER, UNLESS_SAID)
    if not is_classified(declared):
        return None
    return protect.get(_class_of(declared), protect.get(ANY_OTHER, UNLESS_SAID))


def protect_problems(protect: Mapping[str, Action], properties: Iterable[Property]) -> dict[str, str]:
    """By classification, what `protect` should have named instead of it.

    `properties` are those of all the objects that the capability uses.
    """
    used = sorted({_class_of(each) for each in _all(properties) if is_classified(each)})
    names = shorten(", ".join(used), 400) or "none"
    problems = {}
    for name in protect:
        if name in OPEN_CLASSES:
            problems[name] = "a classification whose values are hidden; public and internal ones never are"
        elif name != ANY_OTHER and name not in used:
            problems[name] = f"a classification that a field of the contract has: {names}"
    return problems


def remote_problems(
    properties: Iterable[Property], features: Iterable[str], protect: Mapping[str, Action]
) -> dict[str, str]:
    """By feature, why a model elsewhere could never be given a value of it that the contract would accept.

    A classified number or boolean leaves as null, as does whatever is dropped; that is no value of a required field.
    Texts leave as a mask or a pseudonym, which are texts.
    """
    by_name = {each.name: each for each in properties}
    problems = {}
    for name in features:
        declared = by_name.get(name)
        action = None if declared is None else action_for(declared, protect)
        if declared is None or action is None or not declared.required:
            continue
        if action == "drop" or declared.logical_type in ("number", "integer", "boolean"):
            kind = declared.logical_type or "value"
            problems[name] = (
                f"a feature that may leave for a remote model; this {kind} is {declared.classification}, so"
                f" ({action}) only null is ever sent, and the contract requires it"
            )
    return problems


def _class_of(declared: Property) -> str:
    return (declared.classification or "").strip().lower()


def _all(properties: Iterable[Property]) -> Iterator[Property]:
    for each in properties:
        yield each
        yield from _all(each.properties)
        if each.items is not None:
            yield from _all((each.items,))
