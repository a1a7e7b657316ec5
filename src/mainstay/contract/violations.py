"""Why a record is refused: every rule it breaks, found by a walk over the nodes. Only refused records pay for it."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mainstay.contract.rules import MAX_DEPTH
from mainstay.contract.types import Violation
from mainstay.contract.values import is_json, is_text, kind_of, nested_deeper, show
from mainstay.documents import MAX_SHOWN, join, nearest, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mainstay.contract.rules import Node
    from mainstay.contract.types import Rule

MAX_VIOLATIONS: Final = 1_000  # of one record; who breaks more will read them after the first are mended
RECORD: Final = "$"
MASKED: Final = "(masked)"

_MAX_SUGGESTIONS: Final = 20  # searching for near names costs more than all other checks
_WORDS: Final = {
    "string": "a string",
    "date": "a string with a date",
    "timestamp": "a string with a date and time",
    "time": "a string with a time",
    "integer": "an integer, written without a fraction",
    "number": "a finite number",
    "boolean": "true or false",
    "object": "an object",
    "array": "an array",
    "any": "a value that JSON has",
}


def find_violations(root: Node, value: Any) -> tuple[Violation, ...]:
    """Every violation of a decoded record, the first MAX_VIOLATIONS of them, in the order of the contract."""
    if nested_deeper(value, MAX_DEPTH):
        return (Violation(RECORD, "malformed", f"at most {MAX_DEPTH} levels", "more"),)
    if not isinstance(value, dict):
        return (Violation(RECORD, "not-an-object", "a JSON object", kind_of(value)),)
    walk = _Walk()
    walk.visit(root, value, "", masked=False)
    return tuple(walk.found)


def find_in_fields(
    fields: Iterable[tuple[str, Node]], known: Mapping[str, Node], record: dict[str, Any]
) -> tuple[Violation, ...]:
    """What `find_violations` says of a record in which only `fields`, and such as are not `known`, break rules.

    The record, not nested too deeply, may leave the others out.
    """
    walk = _Walk()
    walk.visit_fields(fields, known, record, "", masked=False)
    return tuple(walk.found)


def repeated_names(raw: bytes) -> tuple[Violation, ...]:
    """A violation for every name that occurs twice in one object of `raw`, which is JSON."""
    repeated: dict[str, None] = {}

    def note(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                repeated[name] = None
            seen.add(name)

    json.loads(raw, object_pairs_hook=note)
    return tuple(
        Violation(shorten(name), "duplicate-key", "each name once", "it again, beside a value the contract refuses")
        for name in list(repeated)[:MAX_VIOLATIONS]
    )


class _Walk:
    def __init__(self) -> None:
        self.found: list[Violation] = []
        self._suggested = 0

    def _add(self, path: str, rule: Rule, expected: str, found: str) -> None:
        if len(self.found) < MAX_VIOLATIONS:
            self.found.append(Violation(path or RECORD, rule, expected, found))

    def visit(self, node: Node, value: Any, path: str, *, masked: bool) -> None:
        """The violations of a value that is not null."""
        masked = masked or node.masked
        shown = MASKED if masked else None
        if not is_of_kind(node, value):
            self._add(path, "type", _WORDS[node.kind], shown or show(value))
            return
        tested = as_tested(node, value)
        for test in node.tests:
            if not test.holds(tested):
                where = join(path, test.at) if test.at else path
                expected = test.expected if test.said is None or masked else test.said(tested)
                self._add(where, test.rule, expected, "nothing" if test.at else shown or show(value))
        if node.fields is not None:
            self.visit_fields(node.fields, dict(node.fields), value, path, masked=masked)
        if node.items is not None:
            self._visit_items(node.items, value, path, masked=masked)

    def visit_fields(
        self,
        fields: Iterable[tuple[str, Node]],
        known: Mapping[str, Node],
        value: dict[str, Any],
        path: str,
        *,
        masked: bool,
    ) -> None:
        """The violations of an object's `fields`, and of its members that are not `known`."""
        for name, node in fields:
            self._visit_member(node, value.get(name), present=name in value, path=join(path, name), masked=masked)
        for name in value:
            if len(self.found) >= MAX_VIOLATIONS:
                return
            if name not in known:
                self._add(join(path, name), "unknown-field", self._known_field(name, known), f'"{shorten(name, 78)}"')

    def _visit_items(self, node: Node, value: Sequence[Any], path: str, *, masked: bool) -> None:
        for i, item in enumerate(value):
            if len(self.found) >= MAX_VIOLATIONS:
                return
            self._visit_member(node, item, present=True, path=join(path, i), masked=masked)

    def _visit_member(self, node: Node, value: Any, *, present: bool, path: str, masked: bool) -> None:
        if value is not None:
            self.visit(node, value, path, masked=masked)
        elif node.required:
            self._add(path, "required", "a value", "null" if present else "nothing")

    def _known_field(self, name: str, known: Mapping[str, Node]) -> str:
        self._suggested += 1
        near = None
        if self._suggested <= _MAX_SUGGESTIONS and len(name) <= MAX_SHOWN:
            near = _nearest(name, tuple(known))
        return f'a field of the contract (did you mean "{near}"?)' if near else "a field of the contract"


@lru_cache(maxsize=256)
def _nearest(name: str, known: tuple[str, ...]) -> str | None:
    """As `nearest`, which is slow; a table with a wrong column asks it once for each row."""
    return nearest(name, known)


def is_of_kind(node: Node, value: Any) -> bool:
    """Whether a value that is not null is what the node's logicalType takes; what is below it aside, where declared."""
    match node.kind:
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return _is_finite(value)
        case "boolean":
            return isinstance(value, bool)
        case "object":
            return isinstance(value, dict) and (all(map(is_text, value)) if node.fields is not None else is_json(value))
        case "array":
            return isinstance(value, list | tuple) and (node.items is not None or is_json(value))
        case "any":
            return is_json(value)
        case _:
            return is_text(value)


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def as_tested(node: Node, value: Any) -> Any:
    """The value as the fast path would test it: a number as a double, the items of an array as their types."""
    if node.kind == "number":
        return float(value)
    if node.kind == "object" and node.fields is not None:
        known = {name for name, _ in node.fields}
        return {name: item for name, item in value.items() if name in known and item is not None}
    if any(test.rule == "unique-items" for test in node.tests):
        try:
            return msgspec.convert(value, node.type)
        except (msgspec.ValidationError, OverflowError):  # an item breaks rules of its own, which are told
            return value
    return value
