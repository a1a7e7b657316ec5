"""What a contract must not say although the standard's schema lets it: names twice, bounds that cross, broken patterns.

Each function is a check for `structs.read_struct`, over the document, so that it also speaks where other problems are.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mainstay.contract.coercions import check_object_coercions, check_property_coercions
from mainstay.contract.formats import moment_reader, to_python
from mainstay.contract.own_rules import check_object_rules, check_property_rules
from mainstay.contract.standard import OPTIONS, logical_type, raw
from mainstay.documents import describe, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.documents import Place

MAX_NAME = 256  # characters
_UNUSABLE = re.compile(r'["\\\x00-\x1f]')  # msgspec cannot look for them
_DATED = frozenset({"date", "timestamp", "time"})


def check_contract(place: Place, _: Any) -> None:
    _check_names(place, "schema", "object")


def check_object(place: Place, _: Any) -> None:
    _check_names(place, "properties", "property")
    check_object_rules(place)
    check_object_coercions(place)


def check_property(place: Place, _: Any) -> None:
    _check_names(place, "properties", "property")
    kind = logical_type(place)
    if kind is None and raw(place, "properties") is not None and raw(place, "items") is not None:
        place.add("properties or items, or a logicalType to choose between them", "both", "items")
    options = place.at("logicalTypeOptions")
    if isinstance(options.value.data, dict):
        _check_bounds(options, kind)
        _check_lengths(options)
        _check_pattern(options.at("pattern"))
        _check_required(place, options.at("required"))
    check_property_rules(place)
    check_property_coercions(place)
    for check in _each(place.at("quality")):
        if raw(check, "metric") == "invalidValues":
            _check_invalid_values(check.at("arguments"), kind)


def _each(place: Place) -> Iterator[Place]:
    items = place.value.data
    for i in range(len(items) if isinstance(items, tuple) else 0):
        yield place.at(i)


def _check_names(place: Place, key: str, noun: str) -> None:
    seen: dict[str, int] = {}
    for each in _each(place.at(key)):
        name = raw(each, "name")
        if not isinstance(name, str):
            continue
        spot = each.at("name")
        if name in seen:
            spot.add(f"another name than that of the {noun} on line {seen[name]}", describe(name))
        elif not name or len(name) > MAX_NAME or _UNUSABLE.search(name):
            spot.add(
                f"1 to {MAX_NAME} characters, none of them a quote, a backslash or a control character", describe(name)
            )
        seen.setdefault(name, spot.value.line)


def _check_bounds(options: Place, kind: str | None) -> None:
    read: Any = moment_reader(kind) if kind in _DATED else _number
    values = {}
    for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
        bound = raw(options, key)
        if bound is None or not isinstance(bound, str if kind in _DATED else int | float):
            continue  # absent, or told by the standard's checks
        values[key] = read(bound)
        if values[key] is None:
            options.add(f"a {kind} such as RFC 3339 has" if kind in _DATED else "a finite number", describe(bound), key)
    for low in ("minimum", "exclusiveMinimum"):
        for high in ("maximum", "exclusiveMaximum"):
            lower, upper = values.get(low), values.get(high)
            if lower is None or upper is None:
                continue
            is_empty = lower > upper or (lower == upper and (low, high) != ("minimum", "maximum"))
            if is_empty:
                shown = shorten(str(raw(options, low)))
                options.add(f"more than {low}, {shown}", describe(raw(options, high)), high)


def _number(bound: float) -> float | None:
    try:
        return float(bound)
    except OverflowError:
        return None


def _check_lengths(options: Place) -> None:
    for noun in ("Length", "Items", "Properties"):
        low, high = raw(options, f"min{noun}"), raw(options, f"max{noun}")
        if isinstance(low, int) and isinstance(high, int) and low > high:
            options.add(f"at least min{noun}, {low}", str(high), f"max{noun}")


def _check_pattern(place: Place) -> None:
    if not isinstance(place.value.data, str):
        return
    try:
        to_python(place.value.data)
    except ValueError as error:
        place.add(f"a regular expression ({shorten(str(error))})", describe(place.value.data))


def _check_required(place: Place, required: Place) -> None:
    """Names in `required` stand among the properties, where there are any."""
    names = [raw(each, "name") for each in _each(place.at("properties"))]
    for each in _each(required):
        name = each.value.data
        if isinstance(name, str) and names and name not in names:
            each.add("the name of a property", describe(name))


def _check_invalid_values(arguments: Place, kind: str | None) -> None:
    if not isinstance(arguments.value.data, dict):
        return
    values = raw(arguments, "validValues")
    if values is not None and not isinstance(values, tuple):
        arguments.add("a list", describe(values), "validValues")
    elif values is not None and kind in {"object", "array"}:
        arguments.add("no such argument unless the values are scalars", describe(values), "validValues")
    pattern = raw(arguments, "pattern")
    if pattern is None:
        return
    if not isinstance(pattern, str):
        arguments.add("a regular expression", describe(pattern), "pattern")
    elif kind in OPTIONS and kind != "string":
        arguments.add("no such argument unless logicalType is string", describe(pattern), "pattern")
    else:
        _check_pattern(arguments.at("pattern"))
