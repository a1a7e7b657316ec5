"""Holding records against an object of a contract: fast where they keep it, complete where they break it."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.contract.dependencies import compile_dependencies
from mainstay.contract.jsonschema import object_schema
from mainstay.contract.rules import Node, compile_fields, is_positional, record_struct
from mainstay.contract.types import Violation
from mainstay.contract.violations import MAX_VIOLATIONS, RECORD, find_violations, repeated_names
from mainstay.documents import join, shorten
from mainstay.errors import NOT_READ

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgspec import Raw, Struct

    from mainstay.contract.dependencies import Dependencies
    from mainstay.contract.rules import Test
    from mainstay.contract.types import Property, SchemaObject

_decode_any = msgspec.json.Decoder().decode


class ObjectValidator:
    """One object of a contract, compiled. `decode` accepts a record exactly when `violations` finds none.

    `make` makes a record, unchecked, from its values by position.

    A property that is required must be there and not null; any other may be absent or null, which are the same. Where
    a name occurs twice in an object, the last value counts, and all must be of the property's type.
    """

    def __init__(self, declared: SchemaObject) -> None:
        self.name = declared.name
        self.properties: tuple[Property, ...] = declared.properties
        self.fields: tuple[str, ...] = tuple(each.name for each in declared.properties)
        nodes = compile_fields(declared.properties, (), 1)
        self.record_type: type[Struct] = record_struct("Record", nodes)
        self.make: Callable[..., Struct] = self.record_type if is_positional(nodes) else _maker(self.fields)
        self._declared = declared
        self._root = Node("object", required=True, masked=False, type=self.record_type, fields=nodes)
        decoder = msgspec.json.Decoder(self.record_type)
        self._decode, self._decode_lines = decoder.decode, decoder.decode_lines
        self._dependencies = compile_dependencies(declared.quality, nodes)
        self._late = _late_check(self._root, "", self._dependencies)

    def decode(self, raw: bytes | Raw) -> Struct:
        """The record in `raw`, its values in the order of `fields`.

        Texts of dates and times stay as they came; whole numbers of a number property become floats. Raises
        msgspec.DecodeError when it is no JSON, and msgspec.ValidationError, which is one, when it breaks the contract.
        What they say may hold a classified value: show a caller `violations`.
        """
        try:
            record = self._decode(raw)
        except (UnicodeDecodeError, RecursionError) as error:
            raise msgspec.DecodeError(str(error)) from None
        if self._late is not None:
            self._late(record)
        return record

    def decode_lines(self, lines: bytes) -> list[Struct]:
        """The records in JSON lines, as `decode` gives each. Raises as it does when any of them breaks the contract."""
        try:
            records: list[Struct] = self._decode_lines(lines)
        except (UnicodeDecodeError, RecursionError) as error:
            raise msgspec.DecodeError(str(error)) from None
        if self._late is not None:
            for record in records:
                self._late(record)
        return records

    @staticmethod
    def values(record: Struct) -> tuple[Any, ...]:
        """The values of a decoded record, in the order of `fields`; None where there is none."""
        return msgspec.structs.astuple(record)

    def violations(self, raw: bytes | Raw) -> tuple[Violation, ...]:
        """Every rule that the record in `raw` breaks, the first thousand of them; empty when `decode` accepts it."""
        raw = bytes(raw)
        try:
            value = _decode_any(raw)
        except NOT_READ as error:
            return (Violation(RECORD, "malformed", "JSON", shorten(str(error))),)
        found = self.check(value)
        if found:
            return found
        try:
            self.decode(raw)
        except msgspec.DecodeError:
            # Every value that counts is right. What the decoder refused was replaced by a later value of its name.
            return repeated_names(raw) or (Violation(RECORD, "malformed", "what the decoder takes", "something else"),)
        return ()

    def check(self, value: Any) -> tuple[Violation, ...]:
        """Every rule that a decoded record breaks: a dict of None, bool, int, float, str, list and dict."""
        found = find_violations(self._root, value)
        if self._dependencies is None or not isinstance(value, dict) or len(found) >= MAX_VIOLATIONS:
            return found
        return (*found, *self._dependencies.violations(value))

    def json_schema(self) -> dict[str, Any]:
        """The object in JSON Schema 2020-12, for documentation; `decode` is stricter where a schema has no words."""
        return object_schema(self._declared)


def compile_object(declared: SchemaObject) -> ObjectValidator:
    """The validator of an object of a contract that `load_contract` or `parse_contract` accepted."""
    return ObjectValidator(declared)


def _maker(fields: tuple[str, ...]) -> Callable[..., Struct]:
    """What takes all values of a record by position where the record's own type cannot."""
    names = [f"f{i}" for i in range(len(fields))]
    rename = dict(zip(names, fields, strict=True))
    return msgspec.defstruct("Record", [(name, Any) for name in names], rename=rename, frozen=True, gc=False)


def _late_check(node: Node, path: str, dependencies: Dependencies | None = None) -> Callable[[Any], None] | None:
    """The tests that the decoder does not make, below a node, as one function; None when it makes all."""
    checks: list[Callable[[Any], None]] = [_enforce(test, path) for test in node.late]
    for i, (name, child) in enumerate(node.fields or ()):
        below = _late_check(child, join(path, name))
        if below is not None:
            checks.append(_on_field(attrgetter(f"f{i}"), below))
    if node.items is not None:
        below = _late_check(node.items, f"{path}[...]")
        if below is not None:
            checks.append(_on_items(below))
    if dependencies is not None:
        checks.append(dependencies.check())
    if len(checks) <= 1:
        return checks[0] if checks else None

    def check(value: Any) -> None:
        for each in checks:
            each(value)

    return check


def _enforce(test: Test, path: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if not test.holds(value):
            raise msgspec.ValidationError(f"Expected {test.expected} - at `$.{path}`")

    return check


def _on_field(get: Callable[[Any], Any], below: Callable[[Any], None]) -> Callable[[Any], None]:
    def check(record: Any) -> None:
        value = get(record)
        if value is not None:
            below(value)

    return check


def _on_items(below: Callable[[Any], None]) -> Callable[[Any], None]:
    def check(items: list[Any]) -> None:
        for item in items:
            if item is not None:
                below(item)

    return check
