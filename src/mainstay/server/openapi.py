"""The OpenAPI 3.1 document of what a worker serves now, made from the releases in force.

Every status that a call can end with is described, except 405, which is what the methods that are not described get.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mainstay import __version__
from mainstay.decision.outcomes import MAX_REPORTS
from mainstay.decision.types import MAX_CALLS, MAX_KEY_CHARACTERS, REASONS
from mainstay.intake.pushing import MAX_EVENTS
from mainstay.intake.pushing import MAX_KEY_CHARACTERS as MAX_IDEMPOTENCY_CHARACTERS
from mainstay.runtime.oip import DATATYPES
from mainstay.server.oip import MAX_DEADLINE_MS, MAX_ROWS, NOT_CARRIED, compile_signature

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.decision.plan import ReleasePlan
    from mainstay.server.oip import OIPSignature

Schema = dict[str, Any]

DECISION_ID: Final = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$"  # as `ledger.entry` makes ids
JSON: Final = "application/json"
LINES: Final = "application/x-ndjson"
BINARY: Final = "application/octet-stream"
PROBLEM: Final = "application/problem+json"
METRICS: Final = "application/openmetrics-text"

_RETRY: Final[Schema] = {
    "Retry-After": {"description": "Seconds", "required": True, "schema": {"type": "integer", "minimum": 1}}
}
_CHALLENGE: Final[Schema] = {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}}
_HEADERS: Final = {401: _CHALLENGE, 429: _RETRY, 503: _RETRY}

_KEY: Final = {
    400: "The call is not of the documented form, or did not come whole",
    401: "The call carries no valid key",
    403: "The key, or a policy, does not allow this call",
    404: "Nothing of this name is in production any more",
    413: "The body is too large",
    415: "The body is compressed",
    429: "Too many decisions wait",
    503: "Nothing can be recorded, so nothing is decided",
}
_CALLING: Final = (401, 403, 404, 413, 503)

_TEXT: Final[Schema] = {"type": "string"}
_NONE: Final[Schema] = {"type": "null"}
_VERSION: Final[Schema] = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Schema, *optional: str, closed: bool = False) -> Schema:
    """An object whose properties are all required but the `optional` ones."""
    required = [name for name in properties if name not in optional]
    schema: Schema = {"type": "object", "required": required, "properties": properties}
    return {**schema, "additionalProperties": False} if closed else schema


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _decision(outcome: Schema, output: Schema) -> Schema:
    return _object(
        {
            "decision_id": {"type": "string", "pattern": DECISION_ID},
            "capability": _TEXT,
            "version": _VERSION,
            "release": {"type": "integer", "minimum": 1},
            "stage": {"type": "string", "enum": ["production", "canary"]},
            "outcome": outcome,
            "output": output,
            "confidence": {"type": ["number", "null"]},
            "reasons": _list(_ref("Reason")),
            "violations": _list(_ref("Violation")),
            "receipt": _ref("Receipt"),
        },
        "violations",
    )


_COMPONENTS: Final[dict[str, Schema]] = {
    "Problem": {
        "description": "RFC 9457.",
        **_object(
            {
                "type": {"type": "string", "format": "uri"},
                "title": _TEXT,
                "status": {"type": "integer"},
                "detail": _TEXT,
                "violations": _list(_ref("Violation")),
            },
            "violations",
        ),
    },
    "Refused": {
        "description": "A decision that nobody makes. It is recorded like any other.",
        **_decision({"const": "refused"}, _NONE),
    },
    "Refusal": {
        "description": "A refused decision as a problem: it has the members of both.",
        "allOf": [_ref("Problem"), _ref("Refused")],
    },
    "Reason": _object({"code": {"type": "string", "enum": sorted(REASONS)}, "detail": _TEXT}),
    "Violation": _object(dict.fromkeys(("field", "rule", "expected", "found"), _TEXT)),
    "Receipt": {
        "description": "What proves that the record exists: the RFC 6962 hash of its leaf in the named log.",
        **_object(
            {
                "id": {"type": "string", "pattern": DECISION_ID},
                "leaf": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                "log": _TEXT,
                "recorded_at": {"type": "string", "format": "date-time"},
            },
            "id",
        ),
    },
    "Recorded": _object({"recorded": {"type": "integer", "minimum": 0}, "receipts": _list(_ref("Receipt"))}),
    "Accepted": _object({"accepted": {"type": "integer", "minimum": 0, "maximum": MAX_EVENTS}}),
    "Health": _object({"status": {"type": "string", "enum": ["live", "ready"]}}),
    "InferenceError": _object({"error": _TEXT}, closed=True),
    "InferenceHealth": _object({"live": {"type": "boolean"}, "ready": {"type": "boolean"}}, "ready"),
    "InferenceServer": _object({"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)}),
    "InferenceModelReady": _object({"name": _TEXT, "ready": {"type": "boolean"}}),
    "InferenceModel": _object(
        {
            "name": _TEXT,
            "platform": _TEXT,
            "versions": _list(_VERSION),
            "inputs": _list(_ref("TensorMetadata")),
            "outputs": _list(_ref("TensorMetadata")),
            "properties": {"type": "object", "additionalProperties": _TEXT},
        }
    ),
    "TensorMetadata": _object(
        {
            "name": _TEXT,
            "datatype": {"type": "string", "enum": [*DATATYPES]},
            "shape": _list({"type": "integer", "minimum": -1}),
        }
    ),
    "OutputTensor": _object(
        {
            "name": _TEXT,
            "shape": _list({"type": "integer", "minimum": 1, "maximum": MAX_ROWS}),
            "datatype": {"type": "string", "enum": [*DATATYPES]},
            "parameters": {"type": "object"},
            "data": {"type": "array", "items": {"type": ["boolean", "number", "string"]}},
        },
        *("parameters", "data"),
    ),
    "InferenceResponse": _object(
        {
            "model_name": _TEXT,
            "model_version": _VERSION,
            "id": _TEXT,
            "parameters": _object({"decision_ids": _TEXT, "outcomes": _TEXT, "release": {"type": "integer"}}),
            "outputs": _list(_ref("OutputTensor")),
        },
        *("model_version", "id"),
    ),
}


def describe(served: Sequence[ReleasePlan]) -> dict[str, Any]:
    """The document for these releases."""
    paths: dict[str, Any] = {
        "/health/live": {"get": _open("Whether the process runs", _json("It does", "Health"))},
        "/health/ready": {"get": _open("Whether it takes decisions", _json("It does", "Health"), "Problem")},
        "/metrics": {"get": _told("OpenMetrics of all workers", _content("Metrics", METRICS, _TEXT), 401, 403)},
        "/openapi.json": {"get": _told("This document", _content("OpenAPI 3.1", JSON, {"type": "object"}), 401)},
        "/v2": {"get": _inferring("The server", _json("What it speaks", "InferenceServer"), 401)},
        "/v2/health/live": {"get": _open("Whether the process runs", _json("It does", "InferenceHealth"))},
        "/v2/health/ready": {
            "get": _open("Whether it takes decisions", _json("It does", "InferenceHealth"), "InferenceError")
        },
    }
    schemas = {**_COMPONENTS}
    for release in served:
        name = release.capability.name
        schemas |= _schemas_of(release)
        base = f"/v1/capabilities/{name}"
        paths[f"{base}/decisions"] = {"post": _decide(release)}
        paths[f"{base}/decisions/batch"] = {"post": _decide_many(release)}
        paths[f"{base}/outcomes"] = {"post": _report(release)}
        for source in release.production.declared.capability.sources:
            if source.push is not None:
                paths[f"{base}/sources/{source.name}/events"] = {"post": _push(release, source.name)}
        paths |= _inference_paths(release)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Mainstay data plane", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _schemas_of(release: ReleasePlan) -> dict[str, Schema]:
    """What callers send and get, by the contracts of the versions that decide."""
    declared = release.production.declared
    name = declared.capability.name
    outputs = [declared.output.json_schema()]
    if release.canary is not None and release.canary.declared.output.json_schema() not in outputs:
        outputs.append(release.canary.declared.output.json_schema())
    decision = _decision({"type": "string", "enum": ["answered", "fallback", "review"]}, {})
    schemas = {
        f"{name}.input": declared.input.json_schema(),
        f"{name}.call": _call(name),
        f"{name}.output": outputs[0] if len(outputs) == 1 else {"anyOf": outputs},
        f"{name}.decision": {
            **decision,
            "oneOf": [
                {"properties": {"outcome": {"enum": ["answered", "fallback"]}, "output": _ref(f"{name}.output")}},
                {
                    "description": "A person decides; a fallback may be one, too.",
                    "properties": {"outcome": {"const": "review"}, "output": _NONE},
                },
            ],
        },
        f"{name}.tensors": _inference_request(compile_signature(declared, release.production.digest)),
    }
    if declared.outcome is not None:
        schemas[f"{name}.outcome"] = declared.outcome.json_schema()
    return schemas


# The native interface


def _call(name: str) -> Schema:
    return _object(
        {
            "input": _ref(f"{name}.input"),
            "key": {"type": ["string", "null"], "maxLength": MAX_KEY_CHARACTERS},
            "deadline_ms": {"type": ["number", "null"], "minimum": 1},
        },
        *("key", "deadline_ms"),
        closed=True,
    )


def _decide(release: ReleasePlan) -> dict[str, Any]:
    capability = release.capability
    operation = _told(capability.title, _json("The decision", f"{capability.name}.decision"), *_CALLING, 429)
    operation["responses"] |= {str(status): _refused(status, words) for status, words in _reasons_by_status().items()}
    operation["description"] = capability.purpose
    return _with_body(operation, f"decide-{capability.name}", {JSON: _ref(f"{capability.name}.call")})


def _reasons_by_status() -> dict[int, str]:
    """Why a decision may be refused, for each status that tells it."""
    found: dict[int, list[str]] = {}
    for code, (status, title) in REASONS.items():
        if code != "outside_authority":  # that is always a person's decision
            found.setdefault(status, []).append(f"{title} (`{code}`)")
    return {status: "; ".join(titles) for status, titles in found.items()}


def _refused(status: int, words: str) -> Schema:
    """The answer for a status that a refused decision has; where a call may also end so before, either document."""
    if status in {400, 429, *_CALLING}:
        document: Schema = {"anyOf": [_ref("Refusal"), _ref("Problem")]}
        words = f"{_KEY[status]}; or the decision is refused: {words}"
    else:
        document = _ref("Refusal")
    return _content(words, PROBLEM, document, _HEADERS.get(status))


def _decide_many(release: ReleasePlan) -> dict[str, Any]:
    name = release.capability.name
    calls = {
        "type": "array",
        "description": "Calls for one decision each; every item is checked on its own and has its own outcome.",
        "items": {"anyOf": [_ref(f"{name}.call"), {"description": "What is no call is refused alone."}]},
        "maxItems": MAX_CALLS,
    }
    decisions = _object({"decisions": _list({"anyOf": [_ref(f"{name}.decision"), _ref("Refused")]})})
    answer = _content("A decision per call, in order, each with its own outcome", JSON, decisions)
    answer["content"][LINES] = {"schema": {"type": "string", "description": "A decision a line."}}
    operation = _told(f"{release.capability.title}: many at once", answer, 400, *_CALLING, 429)
    operation["description"] = f"As `{LINES}`, one call a line, answered with one decision a line."
    return _with_body(operation, f"decide-many-{name}", {JSON: _object({"inputs": calls}, closed=True), LINES: {}})


def _report(release: ReleasePlan) -> dict[str, Any]:
    name = release.capability.name
    known = release.production.declared.outcome is not None
    key: Schema = {"type": "string", "maxLength": MAX_KEY_CHARACTERS}
    decision: Schema = {"type": "string", "pattern": DECISION_ID, "description": "The decision_id of an answer."}
    one = {
        **_object(
            {
                "decision_id": {},
                "key": {},
                "outcome": _ref(f"{name}.outcome") if known else {"type": "object"},
                "observed_at": {"type": "string", "format": "date-time"},
            },
            *("decision_id", "key"),
            closed=True,
        ),
        "oneOf": [
            {"required": ["decision_id"], "properties": {"decision_id": decision, "key": _NONE}},
            {"required": ["key"], "properties": {"key": key, "decision_id": _NONE}},
        ],
    }
    many = _object({"outcomes": {**_list(one), "maxItems": MAX_REPORTS}}, closed=True)
    title = f"{release.capability.title}: what came of it"
    operation = _told(title, _json("Recorded", "Recorded"), 400, *_CALLING, success=202)
    operation["responses"]["422"] = _content("The outcomes break the rules; none is recorded", PROBLEM, _ref("Problem"))
    return _with_body(operation, f"report-{name}", {JSON: {"oneOf": [one, many]}})


def _push(release: ReleasePlan, source: str) -> dict[str, Any]:
    name = release.capability.name
    event: Schema = {"type": "object", "description": "What is in it is judged when it is taken into the table."}
    many = {**_list(event), "maxItems": MAX_EVENTS}
    answer = _json("Every event is on disk, and none is judged yet", "Accepted")
    operation = _told(f"{release.capability.title}: events for {source}", answer, 400, *_CALLING, success=202)
    operation["responses"]["503"]["description"] = "Nothing can be kept, or too many events wait for the table"
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A call that comes again with the same key, caller and events is taken once, for a day.",
        "schema": {"type": "string", "minLength": 1, "maxLength": MAX_IDEMPOTENCY_CHARACTERS, "pattern": "^[ -~]*$"},
    }
    bodies = {JSON: {"oneOf": [event, many]}, LINES: {}}
    return {**_with_body(operation, f"push-{name}-{source}", bodies), "parameters": [key]}


# The Open Inference Protocol


def _inference_paths(release: ReleasePlan) -> dict[str, Any]:
    """The capability by its name, as keys are routed, and each of its versions by its own."""
    versions = [plan.digest for plan in (release.production, release.canary) if plan is not None]
    version = {"name": "version", "in": "path", "required": True, "schema": {"type": "string", "enum": versions}}
    name, title = release.capability.name, release.capability.title
    paths = {}
    for path, parameters, label in (("", [], name), ("/versions/{version}", [version], f"{name}-version")):
        base = f"/v2/models/{name}{path}"
        shared = {"parameters": parameters} if parameters else {}
        told = _inferring(f"{title}: its tensors", _json("The model", "InferenceModel"), 401, 403, 404)
        ready = _inferring(
            f"{title}: whether it takes decisions", _json("It does", "InferenceModelReady"), 401, 403, 404
        )
        paths[base] = {**shared, "get": told | {"operationId": f"model-{label}"}}
        paths[f"{base}/ready"] = {**shared, "get": ready | {"operationId": f"ready-{label}"}}
        paths[f"{base}/infer"] = {**shared, "post": _infer(release, f"infer-{label}")}
    return paths


def _infer(release: ReleasePlan, operation_id: str) -> dict[str, Any]:
    answer = _json("A row of each tensor for each row of the request", "InferenceResponse")
    answer["content"][BINARY] = {}
    operation = _inferring(f"{release.capability.title}: a decision for each row", answer, 400, *_CALLING, 415, 429)
    said = _reasons_by_status() | {NOT_CARRIED: "Decided and recorded, and no tensor can carry the answer"}
    for status, words in said.items():
        if str(status) not in operation["responses"]:
            operation["responses"][str(status)] = _content(words, JSON, _ref("InferenceError"))
    length = {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "description": "How many bytes of the body are JSON; tensors as binary data stand behind it.",
        "schema": {"type": "integer", "minimum": 0},
    }
    bodies = {JSON: _ref(f"{release.capability.name}.tensors"), BINARY: {}}
    return {**_with_body(operation, operation_id, bodies), "parameters": [length]}


def _inference_request(signature: OIPSignature) -> Schema:
    """A request in JSON. How shapes, data and the contract belong together is in words a schema does not have."""
    value: Schema = {"type": ["boolean", "number", "string", "null"]}
    parameters: Schema = {"type": ["object", "null"]}
    tensor = _object(
        {
            "name": _TEXT if signature.numeric else {"type": "string", "enum": [*signature.inputs]},
            "shape": {
                **_list({"type": "integer", "minimum": 1, "maximum": max(MAX_ROWS, len(signature.inputs))}),
                "minItems": 1,
                "maxItems": 2,
            },
            "datatype": {"type": "string", "enum": [*DATATYPES]},
            "parameters": parameters,
            "data": _list({"anyOf": [value, _list(value)]}),
        },
        *("parameters", "data"),
    )
    named = [*(signature.outputs | signature.on_request)]
    asked = _object({"name": {"type": "string", "enum": named}, "parameters": parameters}, "parameters")
    keys = {"type": ["array", "string", "null"], "items": {"type": ["string", "null"], "maxLength": MAX_KEY_CHARACTERS}}
    deadline = {"type": ["number", "null"], "minimum": 1, "maximum": MAX_DEADLINE_MS}
    return _object(
        {
            "id": {"type": ["string", "null"]},
            "parameters": {**parameters, "properties": {"keys": keys, "deadline_ms": deadline}},
            "inputs": {**_list(tensor), "minItems": 1, "maxItems": len(signature.inputs)},
            "outputs": {"type": ["array", "null"], "items": asked},
        },
        *("id", "parameters", "outputs"),
    ) | {"examples": [_example(signature)]}


def _example(signature: OIPSignature) -> dict[str, Any]:
    """A request of one row that has the right form."""
    values = {"number": 0.5, "integer": 1, "boolean": True, "text": "text", "json": "{}"}
    inputs = [
        {"name": port.name, "shape": [1], "datatype": port.datatype, "data": [values[port.kind]]}
        for port in signature.inputs.values()
    ]
    return {"inputs": inputs}


# Operations


def _open(summary: str, answer: Schema, error: str | None = None) -> dict[str, Any]:
    """An operation that asks for no key; `error` is the schema of what says that it is not ready."""
    responses = {"200": answer}
    if error is not None:
        media_type = PROBLEM if error == "Problem" else JSON
        responses["503"] = _content("It does not, and why", media_type, _ref(error), _RETRY)
    return {"summary": summary, "responses": responses}


def _told(summary: str, answer: Schema, *statuses: int, success: int = 200) -> dict[str, Any]:
    """An operation of the native interface, with the problems it may end in."""
    problems = {str(each): _content(_KEY[each], PROBLEM, _ref("Problem"), _HEADERS.get(each)) for each in statuses}
    return {"summary": summary, "security": [{"key": []}], "responses": {str(success): answer, **problems}}


def _inferring(summary: str, answer: Schema, *statuses: int) -> dict[str, Any]:
    """An operation of the Open Inference Protocol, with the errors it may end in."""
    errors = {str(each): _content(_KEY[each], JSON, _ref("InferenceError"), _HEADERS.get(each)) for each in statuses}
    return {"summary": summary, "security": [{"key": []}], "responses": {"200": answer, **errors}}


def _with_body(operation: dict[str, Any], operation_id: str, bodies: dict[str, Schema]) -> dict[str, Any]:
    content = {media_type: {"schema": schema} if schema else {} for media_type, schema in bodies.items()}
    responses = dict(sorted(operation["responses"].items()))
    body = {"required": True, "content": content}
    return {**operation, "operationId": operation_id, "responses": responses, "requestBody": body}


def _json(description: str, name: str) -> Schema:
    return _content(description, JSON, _ref(name))


def _content(description: str, media_type: str, schema: Schema, headers: Schema | None = None) -> Schema:
    answer = {"description": description, "content": {media_type: {"schema": schema}}}
    return answer if headers is None else {**answer, "headers": headers}
