"""Hypothesis strategies for contracts and for the JSON that is sent against them: right, nearly right, arbitrary."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from mainstay.contract.load import parse_contract
from mainstay.contract.validator import ObjectValidator, compile_object

Json = Any  # None, bool, int, float, str, list or dict

NAMES = ("amount", "class", "a b", "x-y", "é", "f0", "f1", "a.b", "$", "None", "amount ", "日付")
EDGES = (0, 1, -1, 127, 128, -128, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 - 1, 2**64, 2**128)
STRINGS = (
    "", "a", "ab", "abc", "b\n", "ACC1", "x@example.com", "x@y", "10.0.0.1", "10.0.0.256", "::1", "::g", "example.com",
    "-a", "http://e.com/%41", "http://e.com/%4", "123e4567-e89b-12d3-a456-426614174000", "2024-02-29", "2023-02-29",
    "1900-02-29", "2000-02-29", "0000-01-01", "2024-01-01T00:00:00Z", "2024-01-01T00:00:00",
    "2024-01-01t23:59:59.123456789+05:30", "2024-01-01T24:00:00Z", "12:00:00", "12:00:00Z", "12:00:60",
    "12:00:00.5-01:00", "2024-12-31", "é\u2028", "😀😀", "٣",
)  # fmt: skip  # one a line would fill a page
PATTERNS = ("^a", "b$", "^[A-Z]{3}\\d$", "^\\d+$", "a|b", "(?i)^AB", "[[a]", "^(?<x>a)$", "\\$")
MOMENTS = {
    "date": ("2024-01-01", "2024-02-29", "1999-12-31"),
    "timestamp": ("2024-01-01T00:00:00Z", "2024-01-01 00:00:00", "2024-01-01T05:30:00.123+05:30"),
    "time": ("12:00:00", "11:59:59.999Z", "13:00:00+01:00"),
}

numbers = st.one_of(
    st.sampled_from(EDGES),
    st.integers(-20, 20),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from((0.5, -0.0, 0.1, 0.3, 0.07, 1e300, 5e-324, 3.5e38, -3.5e38, 1.0, 100.0)),
)
strings = st.one_of(st.sampled_from(STRINGS), st.text(st.characters(exclude_categories=["Cs"]), max_size=6))
scalars = st.one_of(st.none(), st.booleans(), numbers, strings)
values: st.SearchStrategy[Json] = st.recursive(
    scalars,
    lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(st.sampled_from(NAMES), below, max_size=3)),
    max_leaves=8,
)


def _some(**options: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=options)


_bounds = st.one_of(st.integers(-5, 20), st.sampled_from((0.5, 1.5, -0.5, 2**63, 2**64, -(2**63) - 1, 1e20)))
_numeric = {
    "minimum": _bounds,
    "maximum": _bounds,
    "exclusiveMinimum": _bounds,
    "exclusiveMaximum": _bounds,
    "multipleOf": st.sampled_from((1, 2, 3, 0.1, 0.5, 1.5, 2**63, 1e-3)),
}
_lengths = st.integers(0, 4)


def _dated(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    moments = st.sampled_from(MOMENTS[kind])
    zone = {} if kind == "date" else {"timezone": st.booleans()}
    return _some(minimum=moments, maximum=moments, exclusiveMinimum=moments, exclusiveMaximum=moments, **zone)


_OPTIONS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "string": _some(
        minLength=_lengths,
        maxLength=_lengths,
        pattern=st.sampled_from(PATTERNS),
        format=st.sampled_from(("email", "uuid", "uri", "hostname", "ipv4", "ipv6", "password")),
    ),
    "integer": _some(**_numeric, format=st.sampled_from([f"{s}{b}" for s in "iu" for b in (8, 16, 32, 64, 128)])),
    "number": _some(**_numeric, format=st.sampled_from(("f32", "f64"))),
    "boolean": st.just({}),
    "date": _dated("date"),
    "timestamp": _dated("timestamp"),
    "time": _dated("time"),
    "object": _some(
        minProperties=_lengths,
        maxProperties=_lengths,
        required=st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True),
    ),
    "array": _some(minItems=_lengths, maxItems=_lengths, uniqueItems=st.booleans()),
}


_SCALARS = ("string", "integer", "number", "boolean", "date", "timestamp", "time")


@st.composite
def _listed(draw: st.DrawFn, kind: str | None) -> list[dict[str, Any]]:
    """Quality checks that list or describe the valid values, sometimes."""
    arguments: dict[str, Any] = {}
    if kind not in {"object", "array"} and draw(st.booleans()):
        arguments["validValues"] = draw(st.lists(scalars, min_size=1, max_size=4))
    if kind == "string" and draw(st.booleans()):
        arguments["pattern"] = draw(st.sampled_from(PATTERNS))
    strict = draw(st.sampled_from(({"mustBe": 0}, {"mustBeLessThan": 1}, {"mustBeLessThan": 5})))
    return [{"metric": "invalidValues", "arguments": arguments, **strict}] if arguments else []


@st.composite
def properties(draw: st.DrawFn, depth: int) -> dict[str, Any]:
    """A property without its name, with properties below it to a `depth`; at 0 a scalar."""
    kind = draw(st.sampled_from((*_OPTIONS, None) if depth else (*_SCALARS, None)))
    made: dict[str, Any] = {"required": draw(st.booleans())}
    if kind is not None:
        made["logicalType"] = kind
        made["logicalTypeOptions"] = draw(_OPTIONS[kind]) if draw(st.booleans()) else {}
    if draw(st.integers(0, 3)) == 0:
        made["quality"] = draw(_listed(kind))
    if draw(st.integers(0, 5)) == 0:
        made["classification"] = draw(st.sampled_from(("restricted", "Public", "internal")))
    if kind == "object" and draw(st.booleans()):
        made["properties"] = draw(named_properties(depth - 1))
    if kind == "array" and draw(st.booleans()):
        made["items"] = draw(properties(depth - 1))
    return made


def scalar_properties() -> st.SearchStrategy[dict[str, Any]]:
    return properties(0)


@st.composite
def named_properties(draw: st.DrawFn, depth: int) -> list[dict[str, Any]]:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    return [{"name": name, **draw(properties(depth))} for name in names]


def document(fields: list[dict[str, Any]]) -> bytes:
    """A contract of one object. JSON is YAML."""
    return msgspec.json.encode(
        {
            "apiVersion": "v3.1.0",
            "kind": "DataContract",
            "id": "c",
            "version": "1.0.0",
            "status": "draft",
            "schema": [{"name": "thing", "properties": fields}],
        }
    )


def validator_of(*fields: dict[str, Any]) -> ObjectValidator:
    return compile_object(parse_contract(document(list(fields)), "contract.yaml").schema[0])


@st.composite
def fitting(draw: st.DrawFn, declared: dict[str, Any]) -> Json:
    """A value of the property's type more often than not."""
    chance = draw(st.integers(0, 9))
    if chance == 0:
        return draw(values)
    if chance == 1:
        return None
    listed = [v for check in declared.get("quality", ()) for v in check["arguments"].get("validValues", ())]
    if listed and chance < 6:
        return draw(st.sampled_from(listed))
    match declared.get("logicalType"):
        case "integer" | "number":
            return draw(numbers if chance > 4 else st.integers(-10, 20))
        case "boolean":
            return draw(st.booleans())
        case "array":
            item = fitting(declared["items"]) if "items" in declared else values
            return draw(st.lists(item, max_size=4))
        case "object":
            if "properties" in declared:
                return draw(records(declared["properties"]))
            return draw(st.dictionaries(st.sampled_from(NAMES), values, max_size=4))
        case None:
            return draw(values)
        case _:
            return draw(strings)


@st.composite
def records(draw: st.DrawFn, fields: list[dict[str, Any]]) -> dict[str, Json]:
    """A record with a value for most of the fields, and now and then for one more."""
    made = {}
    for declared in fields:
        if declared["required"] or draw(st.integers(0, 3)):
            made[declared["name"]] = draw(fitting(declared))
    if draw(st.integers(0, 15)) == 0:
        made[draw(st.sampled_from(NAMES))] = draw(scalars)
    if made and draw(st.integers(0, 15)) == 0:
        del made[draw(st.sampled_from(sorted(made)))]
    return made
