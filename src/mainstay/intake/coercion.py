"""Making the values of bad records into such as keep the contract, where the contract allows it (`mainstay.coerce`).

Only a value that breaks a rule is touched, and what is made of it must keep every rule; the record is then held against
the whole contract again. What the values were is kept.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from mainstay.contract.coercions import coercion_of
from mainstay.contract.columns_records import NotJson
from mainstay.contract.rules import compile_fields
from mainstay.contract.validator import compile_object
from mainstay.contract.values import json_key
from mainstay.contract.violations import as_tested, is_of_kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mainstay.contract.coercions import Coercion
    from mainstay.contract.rules import Node
    from mainstay.contract.types import SchemaObject

MOST_REMEMBERED: Final = 65_536  # values of a field
LONGEST_REMEMBERED: Final = 200  # characters

_NUMBER: Final = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_MOST_DIGITS: Final = 40
_TRUE: Final = frozenset({"true", "t", "yes", "y", "on", "1"})
_FALSE: Final = frozenset({"false", "f", "no", "n", "off", "0"})
_EXACT: Final = 2**53
_SAME: Final = object()  # what stands for: nothing can be made of it


class Coerced(NamedTuple):
    """A record that keeps the contract, and what it was before."""

    values: tuple[Any, ...]  # as `ObjectValidator.values` gives them
    originals: dict[str, Any]  # of each field that was coerced: JSON


class Coercer:
    """What one object of a contract allows to be made of values."""

    def __init__(self, declared: SchemaObject) -> None:
        nodes = dict(compile_fields(declared.properties, (), 1))
        self._validator = compile_object(declared)
        self._fields = {
            each.name: _Field(nodes[each.name], allowed)
            for each in declared.properties
            if (allowed := coercion_of(each)) is not None
        }
        # The walk over records is asked too where the JSON of a value may lose what makes it wrong: a NaN in a list.
        self._is_nested = any(node.kind in {"object", "array", "any"} for node in nodes.values())

    def __bool__(self) -> bool:
        """Whether anything may be coerced at all."""
        return bool(self._fields)

    def coerce(self, record: Mapping[str, Any]) -> Coerced | None:
        """What a record that breaks the contract becomes, or None where it cannot be mended."""
        mended = dict(record)
        originals = {}
        for name, field in self._fields.items():
            value = record.get(name)
            if value is None:
                continue
            made = field.made(value)
            if made is not _SAME:
                originals[name] = value
                mended[name] = made
        if not originals or any(isinstance(value, NotJson) for value in mended.values()):
            return None
        if self._is_nested and self._validator.check(mended):
            return None
        try:
            values = self._validator.values(self._validator.decode(msgspec.json.encode(mended)))
        except (msgspec.DecodeError, OverflowError, TypeError, UnicodeEncodeError):  # the latter: no text, no JSON
            return None
        return Coerced(values, originals)


class _Field:
    """What one field allows; it remembers what it made of short values."""

    def __init__(self, node: Node, allowed: Coercion) -> None:
        self._node = node
        self._allowed = allowed
        self._missing = frozenset(map(json_key, allowed.missing))
        self._listed = _by_letters(node) if allowed.case else {}
        self._remembered: dict[tuple[type, Any], Any] = {}

    def made(self, value: Any) -> Any:
        """What a value becomes; _SAME where it keeps the rules as it is, or nothing can be made of it."""
        if isinstance(value, list | dict):
            return _SAME
        if isinstance(value, str) and len(value) > LONGEST_REMEMBERED:
            return self._make(value)
        key = (type(value), value)
        if key not in self._remembered:
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = self._make(value)
        return self._remembered[key]

    def _make(self, value: Any) -> Any:
        if not isinstance(value, NotJson) and self._keeps(value):
            return _SAME
        return next((made for made in self._tried(value) if self._keeps(made)), _SAME)

    def _keeps(self, value: Any) -> bool:
        """Whether a scalar keeps every rule of the field."""
        if value is None:
            return not self._node.required
        if not is_of_kind(self._node, value):
            return False
        tested = as_tested(self._node, value)
        return all(test.holds(tested) for test in self._node.tests)

    def _tried(self, value: Any) -> Iterator[Any]:
        """What may be made of a value, best first."""
        allowed = self._allowed
        bare = str(value).strip() if isinstance(value, str) else value
        if self._missing and (json_key(value) in self._missing or (allowed.trim and json_key(bare) in self._missing)):
            yield None
        if isinstance(value, NotJson):
            return
        if allowed.trim and isinstance(value, str):
            yield bare
        if allowed.boolean and not isinstance(value, bool):
            yield from _boolean(bare)
        if allowed.number and isinstance(value, str):
            bare = _number(bare)
            if bare is not None:
                yield bare
        if allowed.integer and isinstance(bare, float) and bare.is_integer() and abs(bare) <= _EXACT:
            yield int(bare)
        if isinstance(bare, str):
            yield from (self._listed[letters] for letters in (bare.casefold(),) if letters in self._listed)
            yield from self._dates(bare)

    def _dates(self, text: str) -> Iterator[str]:
        for form in self._allowed.dates:
            with suppress(ValueError, OverflowError):
                yield self._written(datetime.strptime(text, form))  # noqa: DTZ007 - the contract says what zone is meant

    def _written(self, found: datetime) -> str:
        """An instant as the contract has texts of it."""
        if self._node.kind == "date":
            return found.date().isoformat()
        options = self._node.options
        if options is not None and options.timezone is False:
            return found.isoformat() if found.tzinfo is None else ""
        default = (options.default_timezone if options is not None else None) or "UTC"
        if found.tzinfo is None:
            return f"{found.isoformat()}Z" if default.upper() in {"UTC", "ETC/UTC", "Z"} else ""
        return f"{found.astimezone(UTC).replace(tzinfo=None).isoformat()}Z"


def _by_letters(node: Node) -> dict[str, str]:
    """The listed texts of a field, by themselves in one case; without those that differ in their case alone."""
    listed = [
        text for test in node.tests if test.rule == "valid-values" for text in test.given if isinstance(text, str)
    ]
    found: dict[str, str | None] = {}
    for text in listed:
        letters = text.casefold()
        found[letters] = text if found.get(letters, text) == text else None
    return {letters: text for letters, text in found.items() if text is not None}


def _boolean(value: Any) -> Iterator[bool]:
    text = value.casefold() if isinstance(value, str) else ""
    if text in _TRUE or value == 1:
        yield True
    elif text in _FALSE or value == 0:
        yield False


def _number(text: str) -> int | float | None:
    """The number that a text is; None where it is none, or more than a double holds."""
    if not _NUMBER.fullmatch(text):
        return None
    if text.lstrip("+-").isdigit():
        return int(text) if len(text) <= _MOST_DIGITS else None
    number = float(text)
    return None if number in {float("inf"), float("-inf")} else number
