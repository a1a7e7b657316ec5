"""Which values that break a contract may be made into ones that keep it: the custom property `mainstay.coerce`.

    - name: ordered
      logicalType: date
      customProperties:
        - property: mainstay.coerce
          value: [trim, {missing: ["", n/a]}, {date: ["%d.%m.%Y"]}]

It is asked where records come in (`intake.coercion` makes the new values) and never of a call: a caller mends its
record itself. `docs/reference/contract-rules.md` says what each form does.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mainstay.contract.standard import logical_type, raw
from mainstay.documents import describe, nearest, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.contract.types import Property
    from mainstay.documents import Place

COERCE: Final = "mainstay.coerce"
MOST_LISTED: Final = 100  # texts that mean no value, or formats of dates
LONGEST: Final = 200  # characters of each

_TEXTS: Final = ("string", "date", "timestamp", "time")
_NUMBERS: Final = ("integer", "number")
_SCALARS: Final = (*_TEXTS, *_NUMBERS, "boolean")
_OF: Final[dict[str, tuple[str, ...]]] = {  # each form, and the logical types it makes values of
    "trim": _SCALARS,
    "missing": _SCALARS,
    "number": _NUMBERS,
    "integer": ("integer",),
    "boolean": ("boolean",),
    "date": ("date", "timestamp"),
    "case": ("string",),
}
_LISTED: Final = ("missing", "date")  # forms that list values: `{missing: [...]}`
_DIRECTIVES: Final = "YymBbdjHIMSfpz%"
_DIRECTIVE: Final = re.compile(r"%(.?)", re.DOTALL)


class Coercion(NamedTuple):
    """What a property allows. Whatever comes out is held against the contract as if it had come so."""

    trim: bool = False  # spaces and line breaks around a text go
    missing: tuple[Any, ...] = ()  # texts and numbers that mean: no value
    number: bool = False  # a text that is a number
    integer: bool = False  # a whole number that is written with a fraction
    boolean: bool = False  # yes and no, Y and N, on and off, 1 and 0, and true and false as texts
    dates: tuple[str, ...] = ()  # formats, as `datetime.strptime` has them
    case: bool = False  # a listed text in other letters: the listed one


def coercion_of(declared: Property) -> Coercion | None:
    """What a property of a contract that was accepted allows; None where it says nothing."""
    for each in declared.custom_properties:
        if each.property == COERCE:
            listed = [form if isinstance(form, dict) else {form: ()} for form in each.value]
            forms = {name: given for form in listed for name, given in form.items()}
            return Coercion(
                trim="trim" in forms,
                missing=tuple(forms.get("missing", ())),
                number="number" in forms,
                integer="integer" in forms,
                boolean="boolean" in forms,
                dates=tuple(forms.get("date", ())),
                case="case" in forms,
            )
    return None


def check_object_coercions(place: Place) -> None:
    """What the properties of an object say of coercion."""
    for declared in _each(place.at("properties")):
        for given in _given(declared):
            _check_forms(given.at("value"), declared)


def check_property_coercions(place: Place) -> None:
    """What stands below a property may not say it: only a record's own fields are coerced."""
    for declared in (*_each(place.at("properties")), place.at("items")):
        for given in _given(declared):
            given.add("no such property but at the properties of an object of the contract", COERCE, "property")


def _given(declared: Place) -> list[Place]:
    if not isinstance(declared.value.data, dict):
        return []
    found = [each for each in _each(declared.at("customProperties")) if raw(each, "property") == COERCE]
    for again in found[1:]:
        again.add("each custom property once", COERCE, "property")
    return found[:1]


def _each(place: Place) -> Iterator[Place]:
    items = place.value.data
    for i in range(len(items) if isinstance(items, tuple) else 0):
        yield place.at(i)


def _check_forms(place: Place, declared: Place) -> None:
    kind = logical_type(declared)
    if not isinstance(place.value.data, tuple) or not place.value.data:
        place.add(f"a list of forms: {', '.join(_OF)}", describe(place.value.data))
        return
    seen: set[str] = set()
    for i, form in enumerate(_each(place)):
        found = form.value.data
        name = next(iter(found)) if isinstance(found, dict) and len(found) == 1 else found
        if not isinstance(name, str) or name not in _OF:
            near = nearest(name, _OF) if isinstance(name, str) else None
            meant = f" (did you mean {near}?)" if near else ""
            place.add(f"one of {', '.join(_OF)}{meant}", describe(found), i)
        elif name in seen:
            place.add("each form once", name, i)
        elif kind not in _OF[name]:
            place.add(f"a form for logicalType {kind or '(none)'}; {name} is for {', '.join(_OF[name])}", name, i)
        elif (name in _LISTED) != isinstance(found, dict):
            expected = f"a list, as in {name}: [...]" if name in _LISTED else f"{name} alone, which lists nothing"
            place.add(expected, describe(found), i)
        elif isinstance(found, dict):
            _check_listed(form.at(name), name)
        seen.add(str(name))
    if "case" in seen and not any(raw(each.at("arguments"), "validValues") for each in _each(declared.at("quality"))):
        place.add("a check of invalidValues with the listed texts, where case is allowed", "none")


def _check_listed(place: Place, name: str) -> None:
    listed = plain(place.value)
    if not isinstance(listed, list) or not 1 <= len(listed) <= MOST_LISTED:
        place.add(f"a list of 1 to {MOST_LISTED} values", describe(place.value.data))
        return
    for i, each in enumerate(listed):
        if isinstance(each, str) and len(each) > LONGEST:
            place.add(f"at most {LONGEST} characters", f"{len(each)}", i)
        elif name == "date":
            problem = _format_problem(each)
            if problem:
                place.add(problem, describe(each), i)
        elif isinstance(each, bool) or not isinstance(each, str | int | float):
            place.add("a text or a number", describe(each), i)


def _format_problem(text: Any) -> str | None:
    """What a format of dates lacks."""
    found = _DIRECTIVE.findall(text) if isinstance(text, str) else []
    if not found or any(each == "" or each not in _DIRECTIVES for each in found):
        return f"a format such as %d.%m.%Y, of the directives {' '.join('%' + each for each in _DIRECTIVES)}"
    has = set(found)
    whole = has & {"Y", "y"} and ("j" in has or (has & {"m", "B", "b"} and "d" in has))
    return None if whole else "a format with a year, a month and a day"
