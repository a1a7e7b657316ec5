"""What a policy looks at, read from the JSON form of Cedar policies.

An expression is a mapping with one key, its operator: `{".": {"left": {"Var": "context"}, "attr": "input"}}`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Expression: TypeAlias = dict[str, Any]
Path: TypeAlias = tuple[str, ...]  # below context; empty: the context itself

CONTEXT: Final = "context"
_OPERANDS: Final = frozenset({"left", "right", "arg", "if", "then", "else", "in"})
_WORDS: Final = frozenset({"attr", "pattern", "entity_type"})  # beside operands, and no expressions


class Mention(NamedTuple):
    """A place of the context that a policy looks at: its value, or only whether it is there."""

    path: Path
    presence_only: bool


def mentions(expression: Expression) -> Iterator[Mention]:
    """Every place of the context that an expression looks at. What is not understood may look at all of it."""
    path = path_of(expression)
    if path is not None:
        yield Mention(path, presence_only=False)
        return
    ((operator, body),) = expression.items()
    if operator == "has" and (owner := path_of(body["left"])) is not None:
        yield Mention((*owner, body["attr"]), presence_only=True)
    elif operator in {"Value", "Var", "Slot"}:
        return
    elif operator == "Record":
        for each in body.values():
            yield from mentions(each)
    elif isinstance(body, list):  # a set, or the arguments of a function
        for each in body:
            yield from mentions(each)
    elif isinstance(body, dict) and body.keys() <= _OPERANDS | _WORDS:
        for name in body.keys() & _OPERANDS:
            yield from mentions(body[name])
    else:
        yield Mention((), presence_only=False)


def path_of(expression: Expression) -> Path | None:
    """The place of the context that an expression is, or None when it is something else."""
    names: list[str] = []
    while "." in expression:
        access = expression["."]
        names.append(access["attr"])
        expression = access["left"]
    return tuple(reversed(names)) if expression.get("Var") == CONTEXT else None


def scope_covers(scope: dict[str, Any], entity_type: str, entity_id: str) -> bool:
    """Whether the scope of a principal, an action or a resource covers an entity that is in no other.

    A scope that is not understood covers it.
    """
    entity = {"type": entity_type, "id": entity_id}
    match scope:
        case {"op": "==" | "in", "entity": named}:
            return bool(named == entity)
        case {"op": "in", "entities": [*named]}:
            return entity in named
        case {"op": "is", "entity_type": kind, **rest}:
            inside = rest.get("in")
            return bool(kind == entity_type and (inside is None or inside == {"entity": entity}))
        case _:
            return True
