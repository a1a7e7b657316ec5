"""The JSON Schema (2020-12) of `capability.yaml`, for editors: made from the types, and from the rules that bind keys.

It refuses nothing that is accepted when a folder is read. Reading refuses more: what hangs on the contract, on files or
on two numbers has no words in a schema.
"""

from __future__ import annotations

import math
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import inspect

from mainstay.capability.checks import ALLOWED_WITH, NEEDED_BY, NEVER_ISOLATED, STATED, TENSOR_KEYS
from mainstay.capability.keeping import METRICS, OF_A_CLASS_SAID, RANGES
from mainstay.capability.keeping_checks import COSTS, NEEDED_BY_LABELS, NEVER_RETRAINED, ONLY_OF_LABELS
from mainstay.capability.ladder import RUNGS, TESTS
from mainstay.capability.source_checks import ASKED, AUTHS, DELIMITED, KEYED, KINDS, PAGE_KEYS, SECRETS, TIMED
from mainstay.capability.types import FILE_NAME, Capability

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PUBLISHED: Final = "capability.schema.json"  # beside this module; a test holds it to what `make_schema` gives
ID: Final = "urn:mainstay:schema:capability:v1"

_KINDS: Final = tuple(kind for kinds in NEEDED_BY.values() for kind in kinds)  # each needs one key
_LISTS: Final = frozenset(
    {"features", "trusted_types", "rule", "one_of", "key", "metrics"}
)  # where an empty one is as good as none
_BOUNDS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_NULL: Final = {"type": "null"}


def published_schema() -> bytes:
    """The schema as it comes with the package."""
    return files("mainstay.capability").joinpath(PUBLISHED).read_bytes()


def make_schema(meanings: Mapping[str, str]) -> dict[str, Any]:
    """The schema, with what `meanings` says of each key of the declaration: `owner.team`, `fallback[].person`.

    Raises KeyError when it says nothing of one.
    """
    (root,), parts = msgspec.json.schema_components((Capability,), ref_template="#/$defs/{name}")
    for part in parts.values():
        part["description"] = _one_line(part["description"])
    _describe(parts, meanings)
    for name, rules in _RULES.items():
        parts[name]["allOf"] = [*rules()]
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": ID, "title": FILE_NAME}
    top = parts.pop(root["$ref"].rpartition("/")[2])
    adapted: dict[str, Any] = _adapted({**made, **{key: top[key] for key in top if key != "title"}, "$defs": parts})
    return adapted


def encode_schema(schema: Mapping[str, Any]) -> bytes:
    """As it is published: for people too, and the same each time."""
    return msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"


def _describe(parts: Mapping[str, Any], meanings: Mapping[str, str]) -> None:
    for struct, path in _structs(inspect.type_info(Capability), ""):
        described = parts[struct.cls.__name__]["properties"]
        for field in struct.fields:
            given = described[field.encode_name]
            if "pattern" in given:  # which editors show where it does not match
                given["patternErrorMessage"] = f"Expected {given['description']}."
            given["description"] = meanings[f"{path}{field.encode_name}"]
            if given.get("default") is None or isinstance(given["default"], dict):  # absent, or those of its own keys
                given.pop("default", None)


def _structs(kind: inspect.Type, path: str) -> Iterator[tuple[inspect.StructType, str]]:
    """Every struct of the declaration, and the path of its keys, as the reference writes it."""
    match kind:
        case inspect.Metadata():
            yield from _structs(kind.type, path)
        case inspect.UnionType():
            for member in kind.types:
                yield from _structs(member, path)
        case inspect.VarTupleType():
            yield from _structs(kind.item_type, f"{path}[]")
        case inspect.DictType():
            yield from _structs(kind.value_type, f"{path}.NAME")
        case inspect.StructType():
            below = f"{path}." if path else ""
            yield kind, below
            for field in kind.fields:
                yield from _structs(field.type, f"{below}{field.encode_name}")


def _adapted(schema: Any) -> Any:
    """In the regular expressions of JSON Schema, `$` is the end of the text; and a bound is written in one way.

    `typing` gives the type that it made last for `Meta(le=1)` to whoever asks for `Meta(le=1.0)`, and the other way
    round: as which of the two a bound comes hangs on what the process did before.
    """
    if isinstance(schema, dict):
        made = {key: _adapted(value) for key, value in schema.items()}
        for bound in _BOUNDS:
            if isinstance(made.get(bound), float) and made[bound].is_integer():
                made[bound] = int(made[bound])
        if isinstance(made.get("pattern"), str):
            made["pattern"] = made["pattern"].replace(r"\Z", "$")
        return made
    return [_adapted(item) for item in schema] if isinstance(schema, list | tuple) else schema


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


# Rules about several keys, which the types do not have: `checks` and `ladder` tell the same


def _given(key: str) -> dict[str, Any]:
    """The key is there, and says something."""
    says = {"type": "array", "minItems": 1} if key in _LISTS else {"not": _NULL}
    return {"required": [key], "properties": {key: says}}


def _not_given(keys: Iterable[str]) -> dict[str, Any]:
    return {"properties": {key: {"maxItems": 0} if key in _LISTS else _NULL for key in keys}}


def _where(key: str, values: Iterable[Any], then: dict[str, Any]) -> dict[str, Any]:
    return {"if": _where_is(key, values), "then": then}


def _model_rules() -> Iterator[dict[str, Any]]:
    """The model has the keys of its kind."""
    for key, needing in NEEDED_BY.items():
        yield _where("kind", needing, _given(key))
    for key, having in (NEEDED_BY | ALLOWED_WITH).items():
        yield _where("kind", [kind for kind in _KINDS if kind not in having], _not_given([key]))
    yield {"properties": {"features": {"uniqueItems": True}}}
    yield _where("kind", NEVER_ISOLATED, {"properties": {"run": {"const": "auto"}}})


def _capability_rules() -> Iterator[dict[str, Any]]:
    """Keys of the declaration that depend on the kind of model, or on an outcome."""
    remote = {"take": {"const": "tensor"}}
    elsewhere = {"additionalProperties": {"properties": remote}}
    here = {"minProperties": 1, "additionalProperties": {"properties": {"take": {"not": remote["take"]}}}}
    others = [kind for kind in _KINDS if kind not in {"python", "remote"}]
    yield _where_model(["python"], {"properties": {"output": {"maxProperties": 0}}})
    yield _where_model(["remote"], {"properties": {"output": elsewhere}})
    yield _where_model(others, {"required": ["output"], "properties": {"output": here}})
    confidence = {"properties": {"model": _given("confidence")}}
    yield {"if": {**_model_of(STATED), "allOf": [_given("min_confidence")]}, "then": confidence}
    outcome = {"properties": {"objects": _given("outcome")}}
    for key, below in (("promise", "positive"), ("reference", "label")):
        needs = {"type": "object", **_given(below)}
        yield {"if": {"required": [key], "properties": {key: needs}}, "then": outcome}

    yield from _keeping_rules()


def _keeping_rules() -> Iterator[dict[str, Any]]:
    """What being kept in production needs elsewhere in the declaration."""
    labels = _at("monitoring", _given("labels"))
    yield {"if": labels, "then": _at("objects", _given("outcome"))}
    yield {"if": _given("retraining"), "then": labels}
    yield _where_model(NEVER_RETRAINED, _not_given(["retraining"]))
    canary = _at("rollout", _at("canary", _at("guards", _given("quality"))))
    counted = _at("rollout", _at("canary", _at("min_labels", {"minimum": 1}, kind="integer")))
    yield {"if": {"anyOf": [canary, counted]}, "then": labels}
    costs = {"anyOf": [_at(name, {"exclusiveMinimum": 0}, kind="number") for name in COSTS]}
    guarded = _at("rollout", _at("canary", _at("guards", _given("cost"))))
    yield {"if": {"anyOf": [guarded, _at("service_levels", _given("cost_per_decision"))]}, "then": _at("cost", costs)}


def _at(key: str, what: dict[str, Any], kind: str = "object") -> dict[str, Any]:
    """The key is there, of this type, and is so."""
    return {"required": [key], "properties": {key: {"type": kind, **what}}}


def _model_of(kinds: Iterable[str]) -> dict[str, Any]:
    model = {"type": "object", "required": ["kind"], "properties": {"kind": {"enum": [*kinds]}}}
    return {"required": ["model"], "properties": {"model": model}}


def _where_model(kinds: Iterable[str], then: dict[str, Any]) -> dict[str, Any]:
    return {"if": _model_of(kinds), "then": then}


def _output_rules() -> Iterator[dict[str, Any]]:
    """What says where in a tensor a value stands goes with a tensor."""
    for key in TENSOR_KEYS:
        yield {"if": {"required": [key]}, "then": {"properties": {"take": {"const": "tensor"}}}}


def _rung_rules() -> Iterator[dict[str, Any]]:
    """A rung says exactly one thing."""
    yield _one_of(RUNGS)
    yield {"properties": {"person": {"enum": [True, None]}}}


def _condition_rules() -> Iterator[dict[str, Any]]:
    """A condition has a test, and no other beside `missing: true`."""
    yield {"anyOf": [_given(name) for name in TESTS]}
    rest = [name for name in TESTS if name != "missing"]
    yield _where("missing", [True], _not_given(rest))


def _source_rules() -> Iterator[dict[str, Any]]:
    """A source is of one kind, and has what its ways with records need."""
    yield _one_of(KINDS)
    for kind in KINDS:
        if kind not in ASKED:
            yield {"if": _given(kind), "then": _not_given(["cursor"])}
        else:
            yield {"if": _given(kind), "then": {"anyOf": [_given("cursor"), _given("key")]}}
    asking = {"required": ["rest"], "properties": {"rest": {"type": "object", **_given("cursor_parameter")}}}
    yield {"if": asking, "then": _given("cursor")}
    yield {"if": {"allOf": [_given("rest"), _given("cursor")]}, "then": asking}
    for name, ways in KEYED.items():
        yield _where(name, ways, _given("key"))
    yield _where("late", TIMED, _given("event_time"))
    above = {"required": ["allowed_lateness_seconds"], "properties": {"allowed_lateness_seconds": {"minimum": 1e-9}}}
    yield {"if": above, "then": _given("event_time")}
    yield {"properties": {"key": {"uniqueItems": True}}}


def _pages_rules() -> Iterator[dict[str, Any]]:
    """Pages have the keys of their style."""
    for key, styles in PAGE_KEYS.items():
        here = {"required": ["style"], "properties": {"style": {"enum": [*styles]}}}
        yield {"if": _given(key), "then": here}
    yield _where("style", PAGE_KEYS["path"], _given("path"))


def _files_rules() -> Iterator[dict[str, Any]]:
    """Only CSV has a delimiter."""
    yield {"if": _given("delimiter"), "then": {"properties": {"format": {"enum": [*DELIMITED, None]}}}}


def _auth_rules() -> Iterator[dict[str, Any]]:
    """An API knows who asks by one way."""
    yield _one_of(AUTHS)


def _secret_rules() -> Iterator[dict[str, Any]]:
    """A secret is in one place."""
    yield _one_of(SECRETS)


def _monitoring_rules() -> Iterator[dict[str, Any]]:
    """Metrics are those of the kind of label, and each property is named once."""
    yield {"properties": {"segments": {"uniqueItems": True}, "ignore": {"uniqueItems": True}}}
    yield {"if": _given("metrics"), "then": _given("labels")}
    for kind, names in METRICS.items():
        labels = {"labels": {"type": "object", **_where_is("kind", [kind])}}
        metrics = {"items": {"properties": {"name": {"enum": [*names]}}}}
        yield {"if": {"required": ["labels"], "properties": labels}, "then": {"properties": {"metrics": metrics}}}
    said = {"type": "array", "contains": {"type": "object", **_where_is("name", OF_A_CLASS_SAID)}}
    of_a_class = {"required": ["metrics", "labels"], "properties": {"metrics": said, "labels": {"type": "object"}}}
    yield {"if": of_a_class, "then": _at("labels", _given("prediction"))}


def _label_rules() -> Iterator[dict[str, Any]]:
    """Labels have the keys of their kind."""
    for key, needing in NEEDED_BY_LABELS.items():
        yield _where("kind", needing, _given(key))
    for key, having in ONLY_OF_LABELS.items():
        yield _where("kind", [kind for kind in METRICS if kind not in having], _not_given([key]))


def _metric_rules() -> Iterator[dict[str, Any]]:
    """A metric is held against what it can be."""
    others = [name for kind, names in METRICS.items() if kind != "ranking" for name in names]
    yield _where("name", dict.fromkeys(others), {"not": {"required": ["top"]}})
    for low, high in dict.fromkeys([(0.0, 1.0), *RANGES.values()]):
        names = [name for name in _metric_names() if RANGES.get(name, (0.0, 1.0)) == (low, high)]
        bound = {"minimum": low} if math.isfinite(low) else {}
        bound |= {"maximum": high} if math.isfinite(high) else {}
        if bound:
            yield _where("name", names, {"properties": {"at_least": bound, "at_most": bound}})


def _metric_names() -> Iterable[str]:
    return dict.fromkeys(name for names in METRICS.values() for name in names)


def _level_rules() -> Iterator[dict[str, Any]]:
    """A share of the calls is answered within some time."""
    yield {"if": {"required": ["latency_share"]}, "then": _given("latency_ms")}


def _rollout_rules() -> Iterator[dict[str, Any]]:
    """Each stage is named once."""
    yield {"properties": {"required": {"uniqueItems": True}, "four_eyes": {"uniqueItems": True}}}


def _canary_rules() -> Iterator[dict[str, Any]]:
    """Steps ascend."""
    yield {"properties": {"steps": {"uniqueItems": True}}}


def _retraining_rules() -> Iterator[dict[str, Any]]:
    """A table has a column that orders it, and each file is named once."""
    yield {"properties": {"files": {"uniqueItems": True}}}
    yield {"if": _given("table"), "then": _given("time")}
    yield {"if": _given("time"), "then": _given("table")}


def _where_is(key: str, values: Iterable[Any]) -> dict[str, Any]:
    return {"required": [key], "properties": {key: {"enum": [*values]}}}


def _one_of(keys: Iterable[str]) -> dict[str, Any]:
    """Exactly one of the keys is given."""
    return {"oneOf": [_given(name) for name in keys]}


_RULES: Final = {
    "Capability": _capability_rules,
    "ModelSource": _model_rules,
    "OutputField": _output_rules,
    "Rung": _rung_rules,
    "Condition": _condition_rules,
    "Source": _source_rules,
    "Pages": _pages_rules,
    "Files": _files_rules,
    "RestAuth": _auth_rules,
    "Secret": _secret_rules,
    "Monitoring": _monitoring_rules,
    "Labels": _label_rules,
    "Metric": _metric_rules,
    "ServiceLevels": _level_rules,
    "Rollout": _rollout_rules,
    "CanaryStage": _canary_rules,
    "Retraining": _retraining_rules,
}
