"""An object of a contract in JSON Schema 2020-12, for OpenAPI. The options of the standard have the schema's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mainstay.contract.types import Property, SchemaObject

_DATED: Final = {"date": "date", "timestamp": "date-time", "time": "time"}
_NOT_OPTIONS: Final = frozenset({"format", "required", "timezone", "defaultTimezone"})


def object_schema(declared: SchemaObject) -> dict[str, Any]:
    """The schema of one record."""
    return _described(declared.description, _object(declared.properties, ()))


def _object(properties: Iterable[Property], named: Iterable[str]) -> dict[str, Any]:
    needed = set(named)
    return {
        "type": "object",
        "properties": {each.name: _value(each, _is_required(each, needed)) for each in properties},
        "required": [each.name for each in properties if _is_required(each, needed)],
        "additionalProperties": False,
    }


def _is_required(declared: Property, named: Iterable[str]) -> bool:
    return declared.required or declared.name in named


def _value(declared: Property, required: bool) -> dict[str, Any]:
    options = declared.logical_type_options
    given: dict[str, Any] = {} if options is None else msgspec.to_builtins(options)
    limits = {key: value for key, value in given.items() if value is not None and key not in _NOT_OPTIONS}
    kind = declared.logical_type
    schema: dict[str, Any] = {}
    if kind in _DATED:
        schema = {"type": "string", "format": _DATED[kind]}
    elif kind == "object" or (kind is None and declared.properties):
        named = (options.required if options else None) or ()
        schema = (
            _object(declared.properties, named) if declared.properties else {"type": "object", "required": [*named]}
        )
        schema |= limits
    elif kind == "array" or (kind is None and declared.items is not None):
        schema = {"type": "array", **limits}
        if declared.items is not None:
            schema["items"] = _value(declared.items, declared.items.required)
    elif kind is not None:
        schema = {"type": kind, **limits}
        if kind == "string" and given.get("format"):
            schema["format"] = given["format"]
    if not required and "type" in schema:
        schema["type"] = [schema["type"], "null"]
    return _described(declared.description, schema)


def _described(description: str | None, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, **schema} if description else schema
