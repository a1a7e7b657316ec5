"""A capability as the Open Inference Protocol shows it: requests for it, and native decisions of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import yaml

from mainstay.capability.load import Declared
from mainstay.capability.types import Capability
from mainstay.contract.load import parse_contract
from mainstay.contract.validator import compile_object
from mainstay.server.oip import InferRequest, OIPSignature, compile_signature, read_request
from shared_data import shared_data

VERSION = "sha256:" + "a" * 64
IDS = [f"0192f0c1-0000-7000-8000-{place:012x}" for place in range(20)]

PropertyList = list[dict[str, Any]]

INPUT: PropertyList = [
    {"name": "x", "logicalType": "number", "required": True},
    {"name": "n", "logicalType": "integer"},
    {"name": "ok", "logicalType": "boolean"},
    {"name": "text", "logicalType": "string"},
    {"name": "day", "logicalType": "date"},
    {"name": "lines", "logicalType": "array", "items": {"logicalType": "string"}},
]
OUTPUT: PropertyList = [
    {"name": "p", "logicalType": "number", "required": True},
    {"name": "late", "logicalType": "boolean"},
    {"name": "label", "logicalType": "string"},
    {"name": "count", "logicalType": "integer"},
    {"name": "parts", "logicalType": "object", "properties": [{"name": "a", "logicalType": "number"}]},
]
NUMBERS: PropertyList = [
    {"name": "x", "logicalType": "number", "required": True},
    {"name": "n", "logicalType": "integer", "required": True},
    {"name": "y", "logicalType": "number"},
]


def declared_of(taken: PropertyList, given_back: PropertyList) -> Declared:
    document = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "c",
        "version": "1.0.0",
        "status": "active",
        "schema": [
            {"name": "request", "logicalType": "object", "properties": taken},
            {"name": "answer", "logicalType": "object", "properties": given_back},
        ],
    }
    contract = parse_contract(json.dumps(document).encode(), "contract.odcs.yaml")
    capability = {
        "apiVersion": "mainstay/v1",
        "name": "late",
        "title": "Late?",
        "purpose": "Tests",
        "owner": {"team": "tests", "contact": "tests@example.com"},
        "objects": {"input": "request", "output": "answer"},
        "model": {"kind": "python", "call": "predict.py:predict"},
        "samples": "samples.jsonl",
    }
    request, answer = map(compile_object, contract.schema)
    return Declared(
        folder=Path(),
        capability=msgspec.convert(capability, Capability),
        contract=contract,
        authority=b"",
        input=request,
        output=answer,
        outcome=None,
    )


DECLARED = declared_of(INPUT, OUTPUT)
MIXED = compile_signature(DECLARED, VERSION)
NUMERIC = compile_signature(declared_of(NUMBERS, OUTPUT), VERSION)


def tensor(name: str, datatype: str, data: list[Any], shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": name, "shape": shape or [len(data)], "datatype": datatype, "data": data}


def read(inputs: list[dict[str, Any]], signature: OIPSignature = MIXED, **members: Any) -> InferRequest:
    return read_request(signature, {}, json.dumps({"inputs": inputs, **members}).encode())


def records(request: InferRequest) -> list[Any]:
    return [json.loads(call)["input"] for call in request.calls]


def decision(place: int = 0, **changes: Any) -> bytes:
    document = {
        "decision_id": IDS[place],
        "capability": "late",
        "version": VERSION,
        "release": 7,
        "stage": "production",
        "outcome": "answered",
        "output": {"p": 0.1, "late": False, "label": "é", "count": 3, "parts": {"a": 0.5}},
        "confidence": 0.9,
        "reasons": [],
        "receipt": {"leaf": "0" * 64, "log": "l", "recorded_at": "2024-01-01T00:00:00Z"},
    }
    return json.dumps(document | changes).encode()


def valid(document: Any, schema: str) -> None:
    """Raises unless the document is what the specification's OpenAPI says; skips the test where that is absent."""
    described = yaml.safe_load(
        shared_data("protocols", "open_inference_protocol", "open_inference_rest.yaml").read_text()
    )
    jsonschema.validate(document, {"$ref": f"#/components/schemas/{schema}", "components": described["components"]})
