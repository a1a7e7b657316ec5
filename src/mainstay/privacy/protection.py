"""What may be recorded, logged or shown of a record with classified fields, and what of it may leave for elsewhere.

Compiled once per object of a contract, into one rule for every property. The model itself is given the clear value.
What the contract does not describe (an unknown field, an array or object where something else is declared) was never
classed by anyone, and is treated like any other classification.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from mainstay.capability.classified import action_for
from mainstay.contract.rules import is_classified
from mainstay.errors import NOT_READ
from mainstay.privacy.pseudonym import Pseudonyms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from mainstay.capability.classified import Action
    from mainstay.contract.types import Property

    Rule: TypeAlias = Callable[[Any], Any]  # from a value to what is recorded of it, or _DROPPED

MASK: Final = "***"

_DROPPED: Final = object()
_CONTAINERS: Final = frozenset({dict, list})
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


class ProtectionFailed(Exception):
    """What may be recorded of a value could not be made. Says how it failed, and nothing of the value."""


class Protector:
    """Protects the records of one object of a contract."""

    def __init__(self, properties: Sequence[Property], key: bytes, actions: Mapping[str, Action]) -> None:
        """`actions` are by classification, `*` for any other; where they say nothing, a value becomes a pseudonym."""
        compiler = _Compiler(Pseudonyms(key), actions)
        self._rule = compiler.object_rule(properties, "")
        self._leaving = tuple(
            (place, rule)
            for place, rule in enumerate(compiler.leaving_rule(each) for each in properties)
            if rule is not None
        )

    def protect(self, raw: bytes) -> bytes:
        """What may be recorded of the record in `raw`, as JSON. Raises ProtectionFailed, and nothing else.

        What is not a JSON object is withheld whole.
        """
        try:
            try:
                value = _decode(raw)
            except NOT_READ:
                return self.withhold(raw)
            return _encode(self._rule(value))
        except Exception as error:  # noqa: BLE001 - whatever went wrong, no clear value may get past here or be quoted
            raise ProtectionFailed(type(error).__name__) from None

    def for_remote(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """The values as they may leave for a model elsewhere or a mirror. Raises ProtectionFailed, and nothing else.

        `row` has a value for every property, in the contract's order. A text leaves as the mask or the pseudonym that
        is recorded of it; any other classified value, and all that is dropped, as None. An array or object leaves only
        when nothing in it is classified.
        """
        if not self._leaving:
            return row
        try:
            values = list(row)
            for place, rule in self._leaving:
                values[place] = rule(values[place])
        except Exception as error:  # noqa: BLE001 - as in `protect`
            raise ProtectionFailed(type(error).__name__) from None
        return tuple(values)

    @staticmethod
    def withhold(raw: bytes) -> bytes:
        """The record of what is not recorded: its digest and its size, as JSON."""
        return _encode({"withheld": {"sha256": sha256(raw).hexdigest(), "bytes": len(raw)}})


def any_classified(properties: Iterable[Property]) -> bool:
    """Whether any of these or what they hold is classified."""
    return any(
        is_classified(each)
        or any_classified(each.properties)
        or (each.items is not None and any_classified((each.items,)))
        for each in properties
    )


class _Compiler:
    """Makes rules under one key and one declaration. Paths read `.address.lines[]`, and tell fields apart."""

    def __init__(self, pseudonyms: Pseudonyms, actions: Mapping[str, Action]) -> None:
        self._pseudonyms = pseudonyms
        self._actions = actions

    def object_rule(self, properties: Iterable[Property], path: str) -> Rule:
        """The rule of an object whose properties are declared."""
        rules = {each.name: self._rule(each, f"{path}.{each.name}") for each in properties}
        find, unknown_rule = rules.get, self._unknown_rule

        def protect_object(value: Any) -> Any:
            protected = {}
            for name, item in value.items():
                rule = find(name) or unknown_rule(f"{path}.{name}")
                recorded = rule(item)
                if recorded is not _DROPPED:
                    protected[name] = recorded
            return protected

        return protect_object

    def leaving_rule(self, declared: Property) -> Rule | None:
        """What a value of the row becomes before it leaves; None: it leaves as it is."""
        action = action_for(declared, self._actions)
        if action is None:
            return _nothing if any_classified((declared,)) else None
        if action == "drop":
            return _nothing
        rule = self._hiding_rule(action, f".{declared.name}")
        return lambda value: rule(value) if type(value) is str else None

    def _rule(self, declared: Property, path: str) -> Rule:
        action = action_for(declared, self._actions)
        if action is not None:
            return self._hiding_rule(action, path)
        unknown = self._unknown_rule(path)
        if declared.properties:
            return _only(dict, self.object_rule(declared.properties, path), unknown)
        if declared.items is not None:
            return _only(list, _array_rule(self._rule(declared.items, f"{path}[]")), unknown)
        if declared.logical_type in ("object", "array", None):
            return _same
        return lambda value: unknown(value) if type(value) in _CONTAINERS else value

    def _unknown_rule(self, path: str) -> Rule:
        action = action_for(None, self._actions)
        assert action is not None
        return self._hiding_rule(action, path)

    def _hiding_rule(self, action: Action, path: str) -> Rule:
        match action:
            case "drop":
                return _drop
            case "mask":
                return _mask
            case "pseudonym":
                return self._pseudonyms.of_field(path)


def _only(kind: type, rule: Rule, unknown: Rule) -> Rule:
    """`rule` for values of a kind; what else is there, nobody classed."""

    def protect_kind(value: Any) -> Any:
        if type(value) is kind:
            return rule(value)
        return None if value is None else unknown(value)

    return protect_kind


def _array_rule(item_rule: Rule) -> Rule:
    def protect_array(value: Any) -> Any:
        recorded = map(item_rule, value)
        return [None if item is _DROPPED else item for item in recorded]  # the others keep their positions

    return protect_array


def _same(value: Any) -> Any:
    return value


def _mask(value: Any) -> Any:
    return None if value is None else MASK


def _drop(_: Any) -> Any:
    return _DROPPED


def _nothing(_: Any) -> None:
    return None
