"""The OpenAPI 3.1 document of what a worker serves now, made from the contracts in force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mainstay import __version__
from mainstay.decision.types import MAX_KEY_CHARACTERS, REASONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.capability.load import Declared

Schema = dict[str, Any]

DECISION_ID = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$"  # as `ledger.entry` makes ids

_PROBLEM_CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}

_TEXT: Schema = {"type": "string"}
_VIOLATION: Schema = {
    "type": "object",
    "required": ["field", "rule", "expected", "found"],
    "properties": dict.fromkeys(("field", "rule", "expected", "found"), _TEXT),
}
_REASON: Schema = {
    "type": "object",
    "required": ["code", "detail"],
    "properties": {"code": {"type": "string", "enum": sorted(REASONS)}, "detail": _TEXT},
}
_RECEIPT: Schema = {
    "type": "object",
    "description": "What proves that the record exists: the RFC 6962 hash of its leaf in the named log.",
    "required": ["leaf", "log", "recorded_at"],
    "properties": {
        "id": _TEXT,
        "leaf": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "log": _TEXT,
        "recorded_at": {"type": "string", "format": "date-time"},
    },
}
_DECISION: Schema = {
    "type": "object",
    "required": ["decision_id", "capability", "version", "release", "stage", "outcome", "reasons", "receipt"],
    "properties": {
        "decision_id": {"type": "string", "format": "uuid"},
        "capability": _TEXT,
        "version": _TEXT,
        "release": {"type": "integer"},
        "stage": _TEXT,
        "outcome": {"type": "string", "enum": ["answered", "fallback", "review", "refused"]},
        "output": {},
        "confidence": {"type": ["number", "null"]},
        "reasons": {"type": "array", "items": {"$ref": "#/components/schemas/Reason"}},
        "violations": {"type": "array", "items": {"$ref": "#/components/schemas/Violation"}},
        "receipt": {"$ref": "#/components/schemas/Receipt"},
    },
}
_PROBLEM: Schema = {
    "type": "object",
    "description": "RFC 9457. A refused decision also carries the members of a decision.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": _TEXT,
        "violations": {"type": "array", "items": {"$ref": "#/components/schemas/Violation"}},
    },
}
_RECORDED: Schema = {
    "type": "object",
    "required": ["recorded", "receipts"],
    "properties": {
        "recorded": {"type": "integer"},
        "receipts": {"type": "array", "items": {"$ref": "#/components/schemas/Receipt"}},
    },
}


def describe(served: Sequence[Declared]) -> dict[str, Any]:
    """The document for these capabilities."""
    paths: dict[str, Any] = {
        "/health/live": {"get": _open("Whether the process runs", {"200": _plain("It runs")})},
        "/health/ready": {
            "get": _open(
                "Whether it takes decisions", {"200": _plain("It does"), "503": _problem("It does not, and why")}
            )
        },
        "/metrics": {
            "get": _guarded("OpenMetrics of all workers", {"200": _plain("Metrics", "application/openmetrics-text")})
        },
        "/openapi.json": {"get": _guarded("This document", {"200": _plain("OpenAPI 3.1")})},
    }
    schemas: dict[str, Any] = {
        "Decision": _DECISION,
        "Problem": _PROBLEM,
        "Reason": _REASON,
        "Receipt": _RECEIPT,
        "Recorded": _RECORDED,
        "Violation": _VIOLATION,
    }
    for declared in served:
        name = declared.capability.name
        schemas[f"{name}.input"] = declared.input.json_schema()
        if declared.outcome is not None:
            schemas[f"{name}.outcome"] = declared.outcome.json_schema()
        base = f"/v1/capabilities/{name}"
        paths[f"{base}/decisions"] = {"post": _decide(declared)}
        paths[f"{base}/decisions/batch"] = {"post": _decide_many(declared)}
        paths[f"{base}/outcomes"] = {"post": _report(declared)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Mainstay data plane", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _call(name: str) -> Schema:
    return {
        "type": "object",
        "required": ["input"],
        "additionalProperties": False,
        "properties": {
            "input": {"$ref": f"#/components/schemas/{name}.input"},
            "key": {"type": ["string", "null"], "maxLength": MAX_KEY_CHARACTERS},
            "deadline_ms": {"type": ["number", "null"], "minimum": 1},
        },
    }


def _decide(declared: Declared) -> dict[str, Any]:
    capability = declared.capability
    operation = _guarded(
        capability.title,
        {
            "200": _json("The decision", {"$ref": "#/components/schemas/Decision"}),
            "422": _problem("The input breaks the contract; every broken rule is listed, and the refusal is recorded"),
            "502": _problem("The model failed or its output breaks the contract, and no fallback is declared"),
            "504": _problem("The model did not answer within the deadline, and no fallback is declared"),
        },
        body=_call(capability.name),
    )
    operation["description"] = capability.purpose
    return operation


def _decide_many(declared: Declared) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["inputs"],
        "additionalProperties": False,
        "properties": {
            "inputs": {
                "type": "array",
                "description": "Calls for one decision each; every item is checked on its own and has its own outcome.",
                "items": {},
                "examples": [[{"input": {}}]],
            }
        },
    }
    answer = {
        "type": "object",
        "required": ["decisions"],
        "properties": {"decisions": {"type": "array", "items": {"type": "object"}}},
    }
    title = f"{declared.capability.title}: many at once"
    return _guarded(title, {"200": _json("A decision per input, in order", answer)}, body=schema)


def _report(declared: Declared) -> dict[str, Any]:
    name = declared.capability.name
    outcome = {"type": "object"} if declared.outcome is None else {"$ref": f"#/components/schemas/{name}.outcome"}
    key: Schema = {"type": "string", "maxLength": MAX_KEY_CHARACTERS}
    decision: Schema = {"type": "string", "pattern": DECISION_ID, "description": "The decision_id of an answer."}
    none: Schema = {"type": "null"}
    one = {
        "type": "object",
        "required": ["outcome", "observed_at"],
        "additionalProperties": False,
        "properties": {
            "decision_id": {},
            "key": {},
            "outcome": outcome,
            "observed_at": {"type": "string", "format": "date-time"},
        },
        "oneOf": [
            {"required": ["decision_id"], "properties": {"decision_id": decision, "key": none}},
            {"required": ["key"], "properties": {"key": key, "decision_id": none}},
        ],
    }
    many = {
        "type": "object",
        "required": ["outcomes"],
        "additionalProperties": False,
        "properties": {"outcomes": {"type": "array", "items": one}},
    }
    responses = {
        "202": _json("Recorded", {"$ref": "#/components/schemas/Recorded"}),
        "422": _problem("The outcomes break the rules; none is recorded"),
    }
    return _guarded(f"{declared.capability.title}: what came of it", responses, body={"oneOf": [one, many]})


def _open(summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "responses": responses}


def _guarded(summary: str, responses: dict[str, Any], *, body: Schema | None = None) -> dict[str, Any]:
    common = {
        "401": _problem("The call carries no valid key"),
        "403": _problem("The key does not allow this call"),
    }
    if body is not None:
        common["400"] = _problem("The call is not of the documented form")
        common["413"] = _problem("The body is too large")
        common["503"] = _problem("Overloaded, or nothing can be recorded; try again after Retry-After seconds")
    operation = {"summary": summary, "security": [{"key": []}], "responses": dict(sorted((responses | common).items()))}
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def _json(description: str, schema: Schema) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _plain(description: str, media_type: str = "application/json") -> dict[str, Any]:
    return {"description": description, "content": {media_type: {"schema": {}}}}


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": _PROBLEM_CONTENT}
