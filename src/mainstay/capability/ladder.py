"""Whether a fallback ladder can be climbed: every rung says one thing, can be reached, and gives whole outputs."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

import msgspec

from mainstay.capability.checks import one_of, typed
from mainstay.documents import describe, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mainstay.capability.types import Case, Condition, Rung
    from mainstay.capability.words import Record
    from mainstay.contract.types import Property, SchemaObject
    from mainstay.contract.validator import ObjectValidator
    from mainstay.documents import Place

RUNGS: Final = ("version", "rule", "last_good", "constant", "person")
TESTS: Final = ("missing", "equals", "one_of", "at_least", "above", "at_most", "below")
BOUNDS: Final = ("at_least", "above", "at_most", "below")
ORDERED_TYPES: Final = ("integer", "number")

_IS: Final[dict[str, Callable[[object], bool]]] = {
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    **dict.fromkeys(("string", "date", "timestamp", "time"), lambda value: isinstance(value, str)),
}
"""Whether a value of a test is of a logicalType; the keys are the types a condition may be about."""


def check_rungs(place: Place, rungs: Sequence[Rung]) -> None:
    """Each rung says one thing, and a decision may come to it. `place` is that of `fallback`."""
    always: str | None = None  # the first rung that answers whatever the decision
    seen: dict[bytes, int] = {}
    for i, rung in enumerate(rungs):
        here = place.at(i)
        given = [name for name in RUNGS if getattr(rung, name) not in (None, ())]
        if len(given) != 1:
            here.add(f"exactly one of {', '.join(RUNGS)}", ", ".join(given) or "none of them")
        if rung.person is False:
            here.add("true, or no such rung", "false", "person")
        first = seen.setdefault(msgspec.json.encode(rung), i)
        if always is not None:
            here.add("a rung that can be reached", f"one after {always}, which always answers")
        elif first != i:
            here.add("each rung once", f"the same as {place.at(first).where}")
        _check_cases(here.at("rule"), rung.rule)
        if always is None and (rung.constant is not None or rung.person or any(not case.when for case in rung.rule)):
            always = here.where


def check_conditions(place: Place, rungs: Sequence[Rung], taken: SchemaObject) -> None:
    """What rules ask of the input can be asked of it."""
    properties = {each.name: each for each in taken.properties}
    for i, rung in enumerate(rungs):
        for j, case in enumerate(rung.rule):
            for k, condition in enumerate(case.when):
                here = place.at(i, "rule", j, "when", k)
                declared = properties.get(condition.field)
                if declared is None:
                    expected = one_of("property", f"the input {taken.name}", condition.field, properties)
                    here.add(expected, describe(condition.field), "field")
                else:
                    _check_condition(here, condition, declared)


def check_outputs(place: Place, rungs: Sequence[Rung], output: ObjectValidator) -> None:
    """What constants and rules give are records of the output object."""
    for i, rung in enumerate(rungs):
        if rung.constant is not None:
            _check_record(place.at(i, "constant"), rung.constant, output)
        for j, case in enumerate(rung.rule):
            _check_record(place.at(i, "rule", j, "then"), case.then, output)


def _check_record(place: Place, record: Record, output: ObjectValidator) -> None:
    for broken in output.check(record):
        place.add(f"{broken.expected} ({broken.rule})", broken.found, broken.field)


def _check_cases(place: Place, cases: Sequence[Case]) -> None:
    always: int | None = None
    for j, case in enumerate(cases):
        if always is not None:
            place.at(j).add("a case that can be reached", f"one after {place.at(always).where}, which always fits")
        elif not case.when:
            always = j
        for k, condition in enumerate(case.when):
            _check_tests(place.at(j, "when", k), condition)


def _check_tests(place: Place, condition: Condition) -> None:
    """There is a test, and a value that all of them hold for."""
    given = [name for name in TESTS if getattr(condition, name) not in (None, ())]
    if not given:
        place.add(f"at least one of {', '.join(TESTS)}", "none of them")
    if condition.missing and len(given) > 1:
        place.add("no other test beside missing: true", ", ".join(given[1:]))
    if _crossed(condition):
        place.add("bounds that some number is within", "none is")


def _crossed(condition: Condition) -> bool:
    low = max((each for each in (condition.at_least, condition.above) if each is not None), default=-inf)
    high = min((each for each in (condition.at_most, condition.below) if each is not None), default=inf)
    return low > high or (low == high and (condition.above == low or condition.below == high))


def _check_condition(place: Place, condition: Condition, declared: Property) -> None:
    """The tests are of the property's type."""
    kind = declared.logical_type
    found = f"{shorten(declared.name, 40)}, {typed(declared)}"
    if kind not in _IS:
        place.add(f"a property of logicalType {' or '.join(_IS)}", found, "field")
        return
    if condition.equals is not None and not _IS[kind](condition.equals):
        place.add(f"a value of logicalType {kind}", describe(condition.equals), "equals")
    for n, value in enumerate(condition.one_of):
        if not _IS[kind](value):
            place.at("one_of", n).add(f"a value of logicalType {kind}", describe(value))
    if kind not in ORDERED_TYPES:
        for name in BOUNDS:
            if getattr(condition, name) is not None:
                place.add(f"a property of logicalType {' or '.join(ORDERED_TYPES)}", found, name)
