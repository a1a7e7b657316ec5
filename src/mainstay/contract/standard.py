"""What the standard's schema demands where one key decides about others: kinds of server, of check, of value.

Each function is a check for `structs.read_struct`. They read the document rather than the types made from it, so that
they also speak where no type could be made.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mainstay.documents import BROKEN, describe

if TYPE_CHECKING:
    from mainstay.documents import Place


_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_PART = rf"{_NAME}/[A-Za-z0-9_-]+"
_REFERENCE = re.compile(
    rf"{_NAME}\.{_NAME}|(?:(?:https?://)?[A-Za-z0-9._\-/]+\.yaml#)?/?{_PART}(?:/{_PART})*"  # shorthand | qualified
)


class Keys(NamedTuple):
    """The keys a kind must have and those it may have besides."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


_HOST_DATABASE: Final = Keys(("host", "port", "database"))
_HOST_SCHEMA: Final = Keys(("host", "port", "database", "schema"))
_EMBEDDED: Final = Keys(("host", "database"), ("port",))

SERVERS: Final[dict[str, Keys]] = {
    "api": Keys(("location",)),
    "athena": Keys(("stagingDir", "schema"), ("catalog", "regionName")),
    "azure": Keys(("location", "format"), ("delimiter",)),
    "bigquery": Keys(("project", "dataset")),
    "clickhouse": _HOST_DATABASE,
    "cloudsql": _HOST_SCHEMA,
    "custom": Keys(
        (),
        (
            *("account", "catalog", "database", "dataset", "delimiter", "endpointUrl", "format", "host", "location"),
            *("path", "port", "project", "region", "regionName", "schema", "serviceName", "stagingDir", "stream"),
            "warehouse",
        ),
    ),
    "databricks": Keys(("catalog", "schema"), ("host",)),
    "db2": Keys(("host", "port", "database"), ("schema",)),
    "denodo": Keys(("host", "port"), ("database",)),
    "dremio": Keys(("host", "port"), ("schema",)),
    "duckdb": Keys(("database",), ("schema",)),
    "glue": Keys(("account", "database"), ("location", "format")),
    "hive": _EMBEDDED,
    "impala": _EMBEDDED,
    "informix": _EMBEDDED,
    "kafka": Keys(("host",), ("format",)),
    "kinesis": Keys((), ("region", "format")),
    "local": Keys(("path", "format")),
    "mysql": _HOST_DATABASE,
    "oracle": Keys(("host", "port", "serviceName")),
    "postgres": _HOST_SCHEMA,
    "postgresql": _HOST_SCHEMA,
    "presto": Keys(("host",), ("catalog", "schema")),
    "pubsub": Keys(("project",)),
    "redshift": Keys(("database", "schema"), ("host", "region", "account")),
    "s3": Keys(("location",), ("endpointUrl", "format", "delimiter")),
    "sftp": Keys(("location",), ("format", "delimiter")),
    "snowflake": Keys(("account", "database", "schema"), ("host", "port", "warehouse")),
    "sqlserver": Keys(("host", "database", "schema"), ("port",)),
    "synapse": _HOST_DATABASE,
    "trino": Keys(("host", "port", "catalog", "schema")),
    "vertica": _HOST_SCHEMA,
    "zen": _EMBEDDED,
}

OPERATORS: Final = (
    "mustBe",
    "mustNotBe",
    "mustBeGreaterThan",
    "mustBeGreaterOrEqualTo",
    "mustBeLessThan",
    "mustBeLessOrEqualTo",
    "mustBeBetween",
    "mustNotBeBetween",
)
CHECKS: Final[dict[str, Keys]] = {
    "library": Keys(("metric",), ("rule", "arguments", *OPERATORS)),
    "sql": Keys(("query",), OPERATORS),
    "custom": Keys(("engine", "implementation")),
    "text": Keys(()),
}

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
OPTIONS: Final[dict[str, tuple[str, ...]]] = {
    "string": ("minLength", "maxLength", "pattern", "format"),
    "date": ("format", *_BOUNDS),
    "timestamp": ("format", *_BOUNDS, "timezone", "defaultTimezone"),
    "time": ("format", *_BOUNDS, "timezone", "defaultTimezone"),
    "integer": ("multipleOf", "format", *_BOUNDS),
    "number": ("multipleOf", "format", *_BOUNDS),
    "object": ("maxProperties", "minProperties", "required"),
    "array": ("maxItems", "minItems", "uniqueItems"),
    "boolean": (),
}
FORMATS: Final[dict[str, tuple[str, ...]]] = {
    "integer": ("i8", "i16", "i32", "i64", "i128", "u8", "u16", "u32", "u64", "u128"),
    "number": ("f32", "f64"),
}


def check_server(place: Place, _: Any) -> None:
    kind = raw(place, "type")
    if not isinstance(kind, str) or kind not in SERVERS:
        return  # told where the type is read
    required, optional = SERVERS[kind]
    for key in place.value.data:
        if key in _ANY_SERVER and key not in required and key not in optional:
            place.add(f"a key of a {kind} server: {', '.join(required + optional)}", describe(key), key)
    for key in required:
        if key not in place.value.data:
            place.add(f"a value, for a {kind} server", "nothing", key)
    location = raw(place, "location")
    if kind == "sftp" and isinstance(location, str) and not location.startswith("sftp://"):
        place.add("a location that starts with sftp://", describe(location), "location")


_ANY_SERVER = frozenset(key for keys in SERVERS.values() for key in keys.required + keys.optional)
_ANY_CHECK = frozenset(key for keys in CHECKS.values() for key in keys.required + keys.optional)


def check_quality(place: Place, _: Any) -> None:
    kinds = check_kinds(raw(place, "type"), raw(place, "metric"))
    allowed = {key for kind in kinds for keys in CHECKS[kind] for key in keys}
    name = " and ".join(kinds) or "described"
    for key in place.value.data:
        if key in _ANY_CHECK and key not in allowed:
            place.add(f"no such key in a {name} check", describe(key), key)
    for kind in kinds:
        for key in CHECKS[kind].required:
            if key not in place.value.data:
                place.add(f"a value, for a {kind} check", "nothing", key)
    operators = [key for key in OPERATORS if key in place.value.data]
    if len(operators) != 1 and not {"library", "sql"}.isdisjoint(kinds):
        place.add(f"one of {', '.join(OPERATORS)}", " and ".join(operators) or "none")
    for key in ("mustBeBetween", "mustNotBeBetween"):
        interval = place.at(key).value.data
        if isinstance(interval, tuple) and len(interval) == 2 and interval[0].data == interval[1].data:
            place.add("two different numbers", describe(interval[0].data), key)


def check_kinds(kind: Any, metric: Any) -> list[str]:
    """Which kinds a check is of. A metric makes it a library check, whatever its type says besides."""
    kinds = [kind] if isinstance(kind, str) and kind in CHECKS else []
    return kinds if not isinstance(metric, str) or "library" in kinds else ["library", *kinds]


def check_object(place: Place, _: Any) -> None:
    """Relationships of an object say both ends, each one column or each several."""
    for relationship in _relationships(place):
        ends = [relationship.at(key).value.data for key in ("from", "to")]
        if "from" not in relationship.value.data:
            relationship.add("a reference, in an object's relationship", "nothing", "from")
        elif (
            isinstance(ends[0], str | tuple) and isinstance(ends[1], str | tuple) and type(ends[0]) is not type(ends[1])
        ):
            relationship.add("two references or two lists of them", "one of each", "from")


def check_property(place: Place, _: Any) -> None:
    for relationship in _relationships(place):
        if "from" in relationship.value.data:
            relationship.add("no such key; a property's relationship starts at the property", '"from"', "from")
    kind = logical_type(place)
    for key, owner in (("properties", "object"), ("items", "array")):
        if key in place.value.data and kind not in {None, "", owner}:
            place.add(f"no such key unless logicalType is {owner}", describe(key), key)
    options = place.at("logicalTypeOptions")
    if isinstance(options.value.data, dict):
        _check_options(options, kind)


def _relationships(place: Place) -> list[Place]:
    listed = place.at("relationships")
    count = len(listed.value.data) if isinstance(listed.value.data, tuple) else 0
    found = [each for each in map(listed.at, range(count)) if isinstance(each.value.data, dict)]
    for each in found:
        for end in ("from", "to"):
            _check_references(each.at(end))
    return found


def _check_references(place: Place) -> None:
    match place.value.data:
        case ():
            place.add("at least one reference", "an empty list")
        case tuple() as several:
            for i in range(len(several)):
                _check_references(place.at(i))
        case str() as text if not _REFERENCE.fullmatch(text):
            place.add("a reference such as table.column or /schema/table/properties/column", describe(text))


def _check_options(options: Place, kind: str | None) -> None:
    keys = options.value.data
    if kind is None:
        for key in keys:
            if key in _ANY_OPTION:
                options.add("no such key without a logicalType", describe(key), key)
        return
    if kind not in OPTIONS:
        return  # told where the type is read
    for key in keys:
        if key in _ANY_OPTION and key not in OPTIONS[kind]:
            fitting = ", ".join(OPTIONS[kind]) or "none"
            options.add(f"an option of logicalType {kind}: {fitting}", describe(key), key)
    names = raw(options, "required")
    texts = [each.data for each in names if isinstance(each.data, str)] if isinstance(names, tuple) else []
    if len(set(texts)) < len(texts):
        options.add("different names", describe(names), "required")
    of_numbers = kind in FORMATS
    for key in _BOUNDS:
        bound = raw(options, key)
        if bound is None or key not in OPTIONS[kind]:
            continue
        if isinstance(bound, bool) or isinstance(bound, int | float) != of_numbers:
            options.add("a number" if of_numbers else f"a {kind} in quotes", describe(bound), key)
    named = raw(options, "format")
    if of_numbers and isinstance(named, str) and named not in FORMATS[kind]:
        options.add(f"one of {', '.join(FORMATS[kind])}", describe(named), "format")


_ANY_OPTION = frozenset(key for keys in OPTIONS.values() for key in keys)


def logical_type(place: Place) -> str | None:
    """The logicalType of a property: None where there is none, and nothing where it is no text."""
    kind = raw(place, "logicalType")
    return kind if kind is None or isinstance(kind, str) else ""


def raw(place: Place, key: str) -> Any:
    """What stands under a key, and None where nothing readable does."""
    member = place.value.data.get(key) if isinstance(place.value.data, dict) else None
    return None if member is None or member.value.data is BROKEN else member.value.data
