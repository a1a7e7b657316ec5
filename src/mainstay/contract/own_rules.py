"""Rules of records that the standard has no words for, as its custom checks of the engine `mainstay`.

They are declared, as everything else is; `near_misses` and `dependencies` say what they mean. Here is what of them a
contract may say: each function is a check for `structs.read_struct`, over the document.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from mainstay.contract.near_misses import FARTHEST, LONGEST_VALUE, MOST_VALUES, NEAR_MISS
from mainstay.contract.standard import logical_type, raw
from mainstay.documents import describe, nearest, plain, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mainstay.contract.types import Quality
    from mainstay.documents import Place

ENGINE: Final = "mainstay"
FUNCTIONAL_DEPENDENCY: Final = "functional-dependency"
MOST_COLUMNS: Final = 8  # of a determinant

_INT64: Final = (-(2**63), 2**63 - 1)
_KEYS: Final = {
    NEAR_MISS: ("rule", "values", "distance"),
    FUNCTIONAL_DEPENDENCY: ("rule", "determinant", "dependent", "mapping"),
}
_HOMES: Final = {NEAR_MISS: "a property of logicalType string", FUNCTIONAL_DEPENDENCY: "an object"}


def implementation_of(check: Quality, rule: str) -> dict[str, Any] | None:
    """The implementation of a check, where it is this rule of ours."""
    given = check.implementation
    if check.type != "custom" or check.engine != ENGINE or not isinstance(given, dict):
        return None
    return given if given.get("rule") == rule else None


def is_own_rule(check: Quality) -> bool:
    """Whether a check is one of these, and so is asked of every record."""
    return any(implementation_of(check, rule) is not None for rule in _KEYS)


def check_object_rules(place: Place) -> None:
    """The rules among the checks of an object."""
    for implementation in _own(place, FUNCTIONAL_DEPENDENCY):
        _check_dependency(implementation, _scalar_kinds(place))


def check_property_rules(place: Place) -> None:
    """The rules among the checks of a property."""
    for implementation in _own(place, NEAR_MISS):
        if logical_type(place) not in {"string", ""}:
            implementation.add(f"no such rule but at {_HOMES[NEAR_MISS]}", NEAR_MISS, "rule")
        else:
            _check_near_misses(implementation)


def _own(place: Place, expected: str) -> Iterator[Place]:
    """The implementations at a place that are of the rule expected there; of every other the problem is told."""
    checks = place.at("quality")
    for i in range(len(checks.value.data) if isinstance(checks.value.data, tuple) else 0):
        check = checks.at(i)
        if raw(check, "type") != "custom" or raw(check, "engine") != ENGINE:
            continue
        implementation = check.at("implementation")
        if not isinstance(implementation.value.data, dict):
            if "implementation" in check.value.data:
                implementation.add("a mapping with a rule", describe(implementation.value.data))
            continue
        rule = raw(implementation, "rule")
        if rule not in _KEYS:
            found = "nothing" if rule is None else describe(rule)
            implementation.add(f"a rule of {ENGINE}: {' or '.join(_KEYS)}", found, "rule")
        elif rule != expected:
            implementation.add(f"no such rule but at {_HOMES[rule]}", str(rule), "rule")
        elif _has_its_keys(implementation, _KEYS[rule]):
            yield implementation


def _has_its_keys(implementation: Place, keys: tuple[str, ...]) -> bool:
    found = implementation.value.data
    for key in found:
        if key not in keys:
            near = nearest(key, keys)
            implementation.add(f"one of {', '.join(keys)}" + (f" (did you mean {near}?)" if near else ""), key, key)
    for key in keys:
        if key not in found:
            implementation.add("a value", "nothing", key)
    return all(key in found for key in keys)


# near-miss


def _check_near_misses(implementation: Place) -> None:
    values = implementation.at("values")
    listed = plain(values.value)
    if not isinstance(listed, list) or not 1 <= len(listed) <= MOST_VALUES:
        values.add(f"a list of 1 to {MOST_VALUES:,} texts", describe(values.value.data))
    else:
        for i, each in enumerate(listed):
            if not isinstance(each, str) or len(each) > LONGEST_VALUE:
                values.add(f"a text of at most {LONGEST_VALUE} characters", describe(each), i)
    distance = raw(implementation, "distance")
    if isinstance(distance, bool) or not isinstance(distance, int | float) or not 0 < distance <= FARTHEST:
        implementation.add(f"a share above 0, and at most {FARTHEST}", describe(distance), "distance")


# functional-dependency


def _scalar_kinds(place: Place) -> dict[str, str]:
    """The properties of an object that hold one value, with their logicalType."""
    listed = place.at("properties")
    found = {}
    for i in range(len(listed.value.data) if isinstance(listed.value.data, tuple) else 0):
        name, kind = raw(listed.at(i), "name"), logical_type(listed.at(i))
        if isinstance(name, str) and kind in _HOLDS:
            found[name] = kind
    return found


def _check_dependency(implementation: Place, kinds: Mapping[str, str]) -> None:
    determinant = _names(implementation.at("determinant"), kinds, MOST_COLUMNS)
    dependent = _names(implementation.at("dependent"), kinds, None)
    if determinant is None or dependent is None:
        return
    for name in determinant:
        if kinds[name] == "number":
            implementation.add("properties whose values are exact, and no numbers", describe(name), "determinant")
    for name in dependent:
        if name in determinant:
            implementation.add("other properties than the determinant", describe(name), "dependent")
    _check_mapping(implementation.at("mapping"), [kinds[name] for name in (*determinant, *dependent)], len(determinant))


def _names(place: Place, kinds: Mapping[str, str], most: int | None) -> list[str] | None:
    """Names of properties, each once; None after a problem."""
    given = plain(place.value)
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not names or not all(isinstance(each, str) for each in names):
        place.add("the name of a property, or a list of names", describe(place.value.data))
        return None
    if len(set(names)) < len(names) or (most is not None and len(names) > most):
        place.add("different names" + (f", at most {most}" if most else ""), describe(place.value.data))
        return None
    for name in names:
        if name not in kinds:
            near = nearest(name, kinds)
            meant = f" (did you mean {near}?)" if near else ""
            place.add(f"a property of the object that holds one value{meant}", describe(name))
            return None
    return names


def _check_mapping(place: Place, kinds: list[str], width: int) -> None:
    rows = plain(place.value)
    if not isinstance(rows, list) or not rows:
        place.add("a list of rows", describe(place.value.data))
        return
    seen: dict[tuple[Any, ...], int] = {}
    for i, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(kinds):
            place.add(f"a row of {len(kinds)} values", describe(place.at(i).value.data), i)
            continue
        faults = [j for j, kind in enumerate(kinds) if not _fits(row[j], kind, may_be_absent=j >= width)]
        if faults:
            place.add(f"a value of type {kinds[faults[0]]}", describe(row[faults[0]]), i, faults[0])
            continue
        key = tuple(row[:width])
        if key in seen:
            shown = shorten(", ".join(map(str, key)))
            place.add(f"each value of the determinant once; this is that of row {seen[key]}", shown, i)
        seen.setdefault(key, i)


def _fits(value: Any, kind: str, *, may_be_absent: bool) -> bool:
    return may_be_absent if value is None else _HOLDS[kind](value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and _INT64[0] <= value <= _INT64[1]


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_HOLDS: Final[dict[str, Callable[[Any], bool]]] = {
    "string": _is_text,
    "date": _is_text,
    "timestamp": _is_text,
    "time": _is_text,
    "integer": _is_integer,
    "number": _is_number,
    "boolean": lambda value: isinstance(value, bool),
}
