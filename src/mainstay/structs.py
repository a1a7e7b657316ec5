"""Frozen msgspec types from a document, with every problem listed rather than the first.

Accepts what `msgspec.convert` accepts (a test holds the two equal), and says where the rest stands, what was expected
and which known key an unknown one resembles.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from msgspec import inspect

from mainstay.documents import BROKEN, Document, Place, Problems, Value, describe, join, nearest, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Check: TypeAlias = "Callable[[Place, Any], None]"

T = TypeVar("T")

_FAILED: Final = object()  # a problem has been told
_type_info: Final = cache(inspect.type_info)  # which takes longer than the reading of a document
_NUMBERS = (inspect.IntType, inspect.FloatType)
_LISTS = (inspect.VarTupleType, inspect.ListType)


def read_struct(
    document: Document,
    kind: type[T],
    problems: Problems,
    *,
    checks: Mapping[type, Check] | None = None,
    null_is_absent: bool = True,
) -> T | None:
    """`document` as a `kind`, or None when it has problems, all of which are then in `problems`.

    `checks[S]` is called for every value that stands where an S is expected, with its place and the S, or None when it
    could not be made. With `null_is_absent`, a field whose default is None may be written as null.
    """
    reader = _Reader(document.file, problems, checks or {}, null_is_absent)
    before = len(problems.found)
    made = reader.read(document.root, _type_info(kind), "")  # type: ignore[arg-type]  # every type is hashable
    return None if made is _FAILED or len(problems.found) > before else made


class _Reader:
    def __init__(self, file: str, problems: Problems, checks: Mapping[type, Check], null_is_absent: bool) -> None:
        self.file = file
        self.problems = problems
        self.checks = checks
        self.null_is_absent = null_is_absent

    def read(self, value: Value, kind: inspect.Type, where: str) -> Any:
        if value.data is BROKEN:
            return _FAILED
        bare, description = _unwrap(kind)
        match bare:
            case inspect.AnyType():
                return plain(value)
            case inspect.UnionType():
                return self._union(value, bare, where)
            case _ if not _takes(bare, value.data):
                return self._refuse(value, where, expectation(kind))
            case inspect.StructType():
                return self._struct(value, bare, where)
            case inspect.DictType():
                return self._dict(value, bare, where)
            case inspect.VarTupleType() | inspect.ListType():
                return self._list(value, bare, where)
            case _:
                fault = _fault(bare, value.data, description)
                if fault:
                    return self._refuse(value, where, fault)
                return float(value.data) if isinstance(bare, inspect.FloatType) else value.data

    def _refuse(self, value: Value, where: str, expected: str, found: str = "") -> Any:
        self.problems.add(self.file, value.line, where, expected, found or describe(value.data))
        return _FAILED

    def _union(self, value: Value, kind: inspect.UnionType, where: str) -> Any:
        fitting = [member for member in kind.types if _takes(_unwrap(member)[0], value.data)]
        if not fitting:
            return self._refuse(value, where, expectation(kind))
        exact = [member for member in fitting if not isinstance(_unwrap(member)[0], inspect.FloatType)]
        return self.read(value, (exact or fitting)[0], where)

    def _list(self, value: Value, kind: inspect.VarTupleType | inspect.ListType, where: str) -> Any:
        items = [self.read(item, kind.item_type, join(where, i)) for i, item in enumerate(value.data)]
        fault = _length_fault(kind, len(items), "items")
        if fault:
            return self._refuse(value, where, fault, str(len(items)))
        if _FAILED in items:
            return _FAILED
        return tuple(items) if isinstance(kind, inspect.VarTupleType) else items

    def _dict(self, value: Value, kind: inspect.DictType, where: str) -> Any:
        made: dict[str, Any] = {}
        for key, member in value.data.items():
            bare, description = _unwrap(kind.key_type)
            fault = _fault(bare, key, description)
            if fault:
                self.problems.add(self.file, member.line, join(where, key), f"as key {fault}", describe(key))
            item = self.read(member.value, kind.value_type, join(where, key))
            made[key] = _FAILED if fault else item
        fault = _length_fault(kind, len(made), "keys")
        if fault:
            return self._refuse(value, where, fault, str(len(made)))
        return _FAILED if _FAILED in made.values() else made

    def _struct(self, value: Value, kind: inspect.StructType, where: str) -> Any:
        known = {field.encode_name: field for field in kind.fields}
        made: dict[str, Any] = {}
        complete = True
        for key, member in value.data.items():
            field = known.get(key)
            if field is None:
                if kind.forbid_unknown_fields:
                    complete = False
                    self.problems.add(self.file, member.line, join(where, key), _known_key(key, known), describe(key))
                continue
            kind_here = field.type
            if field.default is None:
                kind_here = _without_null(field.type)
                if member.value.data is None:
                    complete &= self._null(member.value, kind_here, join(where, key))
                    continue
            item = self.read(member.value, kind_here, join(where, key))
            if item is _FAILED:
                complete = False
            made[field.name] = item
        for name, field in known.items():
            if field.required and name not in value.data:
                complete = False
                self.problems.add(self.file, value.line, join(where, name), expectation(field.type), "nothing")
        struct = kind.cls(**made) if complete else None
        check = self.checks.get(kind.cls)
        if check:
            check(Place(self.file, value, where, self.problems), struct)
        return struct if complete else _FAILED

    def _null(self, value: Value, kind: inspect.Type, where: str) -> bool:
        """Whether null may stand for an optional field that is None when it is absent."""
        if self.null_is_absent or isinstance(_unwrap(kind)[0], inspect.AnyType):
            return True
        self._refuse(value, where, f"{expectation(kind)}, or no such key")
        return False


def _unwrap(kind: inspect.Type) -> tuple[inspect.Type, str]:
    """The type without its metadata, and the description in there."""
    if not isinstance(kind, inspect.Metadata):
        return kind, ""
    return kind.type, (kind.extra_json_schema or {}).get("description", "")


def _without_null(kind: inspect.Type) -> inspect.Type:
    if not isinstance(kind, inspect.UnionType):
        return kind
    types = tuple(member for member in kind.types if not isinstance(member, inspect.NoneType))
    return types[0] if len(types) == 1 else inspect.UnionType(types)


def _takes(kind: inspect.Type, data: Any) -> bool:
    """Whether data of this sort can be of this type, whatever its constraints say."""
    match data:
        case None:
            return isinstance(kind, inspect.NoneType)
        case bool():
            return isinstance(kind, inspect.BoolType)
        case str():
            return isinstance(kind, inspect.StrType | inspect.LiteralType)
        case int():
            return isinstance(kind, (*_NUMBERS, inspect.LiteralType))
        case float():
            return isinstance(kind, inspect.FloatType)
        case tuple():
            return isinstance(kind, _LISTS)
        case dict():
            return isinstance(kind, inspect.StructType | inspect.DictType)
        case _:
            return False


def _fault(kind: inspect.Type, data: Any, description: str) -> str:
    """What was expected when a constraint does not hold; nothing when all do."""
    match kind:
        case inspect.StrType():
            if kind.pattern is not None and not re.search(kind.pattern, data):
                return description or f"text that matches {kind.pattern}"
            return _length_fault(kind, len(data), "characters")
        case inspect.LiteralType():
            return "" if data in kind.values else _alternatives(kind)
        case inspect.IntType() | inspect.FloatType():
            within = (
                (kind.ge is None or data >= kind.ge)
                and (kind.gt is None or data > kind.gt)
                and (kind.le is None or data <= kind.le)
                and (kind.lt is None or data < kind.lt)
            )
            return "" if within else f"{_noun(kind)}, {bounds(kind)}"
        case _:
            return ""


def _length_fault(
    kind: inspect.StrType | inspect.VarTupleType | inspect.ListType | inspect.DictType, length: int, noun: str
) -> str:
    low, high = kind.min_length, kind.max_length
    if (low is None or length >= low) and (high is None or length <= high):
        return ""
    return f"{bounds(kind)} {noun}"


def bounds(kind: inspect.Type) -> str:
    """The bounds of a type in words, without its noun: `at least 0 and at most 1`; nothing when it has none."""
    words: list[str] = []
    match kind:
        case inspect.IntType() | inspect.FloatType():
            words = [f"at least {_number(kind.ge)}"] * (kind.ge is not None)
            words += [f"above {_number(kind.gt)}"] * (kind.gt is not None)
            words += [f"at most {_number(kind.le)}"] * (kind.le is not None)
            words += [f"below {_number(kind.lt)}"] * (kind.lt is not None)
        case inspect.StrType() | inspect.VarTupleType() | inspect.ListType() | inspect.DictType():
            words = [f"at least {kind.min_length}"] * (kind.min_length is not None)
            words += [f"at most {kind.max_length}"] * (kind.max_length is not None)
    return " and ".join(words)


def _number(bound: float | None) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


def expectation(kind: inspect.Type) -> str:
    """What a type takes, in words."""
    bare, description = _unwrap(kind)
    match bare:
        case inspect.UnionType():
            return " or ".join(map(expectation, bare.types))
        case inspect.LiteralType():
            return _alternatives(bare)
        case _:
            return description or _noun(bare)


def _noun(kind: inspect.Type) -> str:
    match kind:
        case inspect.StrType():
            return "text"
        case inspect.IntType():
            return "a whole number"
        case inspect.FloatType():
            return "a number"
        case inspect.BoolType():
            return "true or false"
        case inspect.NoneType():
            return "null"
        case inspect.VarTupleType() | inspect.ListType():
            return "a list"
        case inspect.StructType() | inspect.DictType():
            return "a mapping"
        case _:
            return "a value"


def _alternatives(kind: inspect.LiteralType) -> str:
    values = [f'"{value}"' if isinstance(value, str) else str(value) for value in kind.values]
    return " or ".join(filter(None, [", ".join(values[:-1]), values[-1]]))


def _known_key(key: str, known: Mapping[str, Any]) -> str:
    near = nearest(key, known)
    return f'a known key (did you mean "{near}"?)' if near else f"a known key: {', '.join(known)}"
