from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from openapi_spec_validator import validate

import tiny
from mainstay.cli.init import create_workspace
from mainstay.cli.versions import record_promotion, record_registration
from mainstay.decision.plan import compile_release
from mainstay.decision.types import REASONS
from mainstay.embedded import _Host
from mainstay.server.openapi import describe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.workspace import Workspace

OTHER = "other"  # no outcome is described
HTTP = Path(__file__).resolve().parents[2] / "docs" / "reference" / "http.md"
BASE = f"/v1/capabilities/{tiny.NAME}"
GOOD = {"a": 0.5, "b": 0.25}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made, _, _ = create_workspace(tmp_path_factory.mktemp("openapi") / "w", "tests.example.com/openapi")
    contract = copy.deepcopy(tiny.CONTRACT)
    del contract["schema"][2]
    changes: dict[str, dict[str, Any]] = {
        tiny.NAME: {},
        OTHER: {
            "contract": contract,
            "objects": {"input": "request", "output": "answer"},
            "promise": {},
            "sources": [{"name": "orders", "push": {}}, {"name": "rates", "rest": {"url": "http://x"}, "key": ["a"]}],
        },
    }
    for name, changed in changes.items():
        folder = tiny.write_folder(made.capabilities / name, name=name, **changed)
        record_promotion(made, name, record_registration(made, folder, None).version, "for a test")
    return made


@pytest.fixture(scope="module")
def host(workspace: Workspace) -> Iterator[_Host]:
    opened = _Host(workspace)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def document(host: _Host) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(
        json.dumps(describe([each.release for each in host._path.services.values()]), allow_nan=False)
    )
    return made


def responses(document: dict[str, Any], path: str, method: str = "post") -> dict[str, Any]:
    found: dict[str, Any] = document["paths"][path][method]["responses"]
    return found


def schema_of(document: dict[str, Any], name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}


def test_the_document_keeps_the_standard(document: dict[str, Any]) -> None:
    validate(document)
    ids = [operation["operationId"] for _, operation in operations(document) if "operationId" in operation]
    assert len(ids) == len(set(ids)) == 19


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in ("get", "post"):
            if method in item:
                yield f"{method.upper()} {path}", item[method]


def test_every_route_is_described_and_nothing_else(host: _Host, document: dict[str, Any]) -> None:
    digest = r"sha256(:|%3A)[0-9a-f]{64}"
    routes = {f"{route.method} {re.sub(digest, '{version}', path)}" for path, route in host._app._routes.items()}
    assert routes == {name for name, _ in operations(document)}


def test_what_asks_for_a_key_says_so_and_what_it_says_to_strangers(document: dict[str, Any]) -> None:
    without = {name for name, operation in operations(document) if "security" not in operation}
    assert without == {
        f"GET {path}" for path in ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready")
    }
    for name, operation in operations(document):
        if name not in without:
            assert operation["responses"]["401"]["headers"]["WWW-Authenticate"]["required"]


def test_every_429_and_503_says_when_to_come_again(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for status in {"429", "503"} & operation["responses"].keys():
            assert operation["responses"][status]["headers"]["Retry-After"]["required"], name


@pytest.mark.parametrize(
    ("path", "method", "statuses"),
    [
        (f"{BASE}/decisions", "post", "200 400 401 403 404 413 422 429 502 503 504"),
        (f"{BASE}/decisions/batch", "post", "200 400 401 403 404 413 429 503"),
        (f"{BASE}/outcomes", "post", "202 400 401 403 404 413 422 503"),
        (f"/v1/capabilities/{OTHER}/sources/orders/events", "post", "202 400 401 403 404 413 503"),
        (f"/v2/models/{tiny.NAME}/infer", "post", "200 400 401 403 404 409 413 415 422 429 502 503 504"),
        (f"/v2/models/{tiny.NAME}", "get", "200 401 403 404"),
        ("/metrics", "get", "200 401 403"),
        ("/openapi.json", "get", "200 401"),
        ("/v2", "get", "200 401"),
        ("/health/ready", "get", "200 503"),
        ("/health/live", "get", "200"),
    ],
)
def test_the_statuses_of_a_call_are_those_it_can_end_with(
    document: dict[str, Any], path: str, method: str, statuses: str
) -> None:
    assert sorted(responses(document, path, method)) == statuses.split()


def test_every_reason_is_described_at_its_status(document: dict[str, Any]) -> None:
    assert document["components"]["schemas"]["Reason"]["properties"]["code"]["enum"] == sorted(REASONS)
    for code, (status, _) in REASONS.items():
        described = responses(document, f"{BASE}/decisions")[str(status)]["description"]
        assert (f"`{code}`" in described) == (code != "outside_authority")


def test_the_page_about_http_has_the_same_reasons_and_statuses() -> None:
    table = HTTP.read_text().partition("| reason | status when refused |")[2]
    rows = re.findall(r"^\| `([a-z_]+)` \| ([0-9]{3}) \|", table, re.MULTILINE)
    assert {code: int(status) for code, status in rows} == {code: status for code, (status, _) in REASONS.items()}


def decision(**changes: Any) -> dict[str, Any]:
    made = {
        "decision_id": "01a1fd0b-2765-75f3-8e97-5c270000003f",
        "capability": tiny.NAME,
        "version": "sha256:" + "0" * 64,
        "release": 1,
        "stage": "production",
        "outcome": "answered",
        "output": {"probability": 0.5, "yes": True},
        "confidence": None,
        "reasons": [],
        "receipt": {"leaf": "0" * 64, "log": "l", "recorded_at": "2026-01-02T00:00:00Z"},
    }
    return made | changes


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({}, True),
        ({"stage": "canary", "outcome": "fallback"}, True),
        ({"outcome": "review", "output": None}, True),
        ({"outcome": "review"}, False),
        ({"output": None}, False),
        ({"output": {"probability": 2, "yes": True}}, False),
        ({"outcome": "fallback", "output": None}, False),
        ({"outcome": "refused", "output": None}, False),
        ({"reasons": [{"code": "because", "detail": ""}]}, False),
    ],
)
def test_only_who_answered_has_an_output_and_it_keeps_the_contract(
    document: dict[str, Any], changes: dict[str, Any], holds: bool
) -> None:
    validator = jsonschema.Draft202012Validator(schema_of(document, f"{tiny.NAME}.decision"))
    assert validator.is_valid(decision(**changes)) is holds


@pytest.mark.parametrize(
    ("body", "holds"),
    [
        ({"input": GOOD}, True),
        ({"input": GOOD, "key": None, "deadline_ms": 1.5}, True),
        ({"input": GOOD, "key": "x" * 513}, False),
        ({"input": GOOD, "deadline_ms": 0.5}, False),
        ({"input": {"a": 101}}, False),
        ({"input": {"b": 1}}, False),
        ({"input": {**GOOD, "c": 1}}, False),
        ({"input": GOOD, "x": 1}, False),
        ({}, False),
    ],
)
def test_a_call_is_described_as_it_is_read(document: dict[str, Any], body: dict[str, Any], holds: bool) -> None:
    validator = jsonschema.Draft202012Validator(schema_of(document, f"{tiny.NAME}.call"))
    assert validator.is_valid(body) is holds


def test_the_example_of_an_inference_request_is_one(document: dict[str, Any]) -> None:
    schema = document["components"]["schemas"][f"{tiny.NAME}.tensors"]
    (example,) = schema["examples"]
    jsonschema.validate(example, schema_of(document, f"{tiny.NAME}.tensors"))
    assert [each["name"] for each in example["inputs"]] == ["a", "b", "note"]


def test_while_a_canary_decides_its_version_and_its_output_are_described_too(workspace: Workspace) -> None:
    contract = copy.deepcopy(tiny.CONTRACT)
    contract["schema"][1]["properties"][0]["description"] = "The chance of a yes."
    folder = tiny.write_folder(workspace.capabilities / tiny.NAME, contract=contract)
    version = record_registration(workspace, folder, None).version
    release = record_promotion(workspace, tiny.NAME, version, "for a test", canary_percent=10)
    document = describe([compile_release(workspace, release)])
    validate(document)
    schemas = document["components"]["schemas"]
    assert len(schemas[f"{tiny.NAME}.output"]["anyOf"]) == 2
    (parameter,) = document["paths"][f"/v2/models/{tiny.NAME}/versions/{{version}}"]["parameters"]
    assert parameter["schema"]["enum"] == [release.version, version]
