"""The clients that others wrote for the Open Inference Protocol, against our server.

`kserve` wants other versions of what is installed here, so it has an environment of its own, whose Python
MAINSTAY_KSERVE_PYTHON names; without it, its test skips.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import httpx
import jsonschema
import numpy as np
import pytest
import tritonclient.http as triton  # type: ignore[import-untyped]  # ships no types
import yaml

import tiny
from mainstay.ledger.find import find_entry
from shared_data import shared_data

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.acceptance

RECORDS = [{"a": 0.5, "b": 0.25, "note": "private"}, {"a": -1.0, "b": 1.5, "note": "é"}]
UNFIT = 1_000.0  # beyond the contract's maximum for `a`


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tiny.Up]:
    workspace, token = tiny.make_served(tmp_path_factory.mktemp("oip") / "workspace")
    with tiny.up(workspace, token) as service:
        yield service


@pytest.fixture
def http(up: tiny.Up) -> Iterator[httpx.Client]:
    with httpx.Client(headers=up.headers, base_url=up.url, timeout=10) as client:
        yield client


@pytest.fixture
def client(up: tiny.Up) -> Iterator[Any]:
    with triton.InferenceServerClient(up.url.removeprefix("http://")) as connected:
        yield connected


def triton_inputs(records: list[dict[str, Any]], *, binary: bool) -> list[Any]:
    inputs = []
    for name, datatype, dtype in (("a", "FP64", np.float64), ("b", "FP64", np.float64), ("note", "BYTES", np.object_)):
        made = triton.InferInput(name, [len(records)], datatype)
        made.set_data_from_numpy(np.array([record[name] for record in records], dtype), binary_data=binary)
        inputs.append(made)
    return inputs


def native(http: httpx.Client, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    inputs = [{"input": record} for record in records]
    answer = http.post(f"/v1/capabilities/{tiny.NAME}/decisions/batch", json={"inputs": inputs})
    assert answer.status_code == 200
    decisions: list[dict[str, Any]] = answer.json()["decisions"]
    return decisions


def recorded(up: tiny.Up, decision_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The leaf and the body of a decision, without what differs between any two decisions."""
    found = find_entry(up.workspace.ledger, decision_id)
    assert found is not None
    leaf, body = json.loads(found.entry.leaf), json.loads(found.entry.body)
    assert 0 <= body.pop("seconds") < 60
    return {name: value for name, value in leaf.items() if name not in {"id", "at", "body"}}, body


def valid(document: Any, schema: str) -> None:
    described = yaml.safe_load(
        shared_data("protocols", "open_inference_protocol", "open_inference_rest.yaml").read_text()
    )
    jsonschema.validate(document, {"$ref": f"#/components/schemas/{schema}", "components": described["components"]})


# Clients of others


def test_tritonclient_sees_the_server_and_the_model(up: tiny.Up, client: Any, http: httpx.Client) -> None:
    version = native(http, RECORDS[:1])[0]["version"]
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(tiny.NAME, headers=up.headers)
    assert client.is_model_ready(tiny.NAME, version, headers=up.headers)
    assert client.get_server_metadata(headers=up.headers)["extensions"] == ["binary_tensor_data"]
    described = client.get_model_metadata(tiny.NAME, version, headers=up.headers)
    assert described["versions"] == [version]
    assert [each["name"] for each in described["inputs"]] == ["a", "b", "note"]


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_gets_what_a_native_call_gets_and_leaves_the_same_record(
    up: tiny.Up, client: Any, http: httpx.Client, binary: bool
) -> None:
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("probability", "yes", "decision_id")]
    result = client.infer(
        tiny.NAME, triton_inputs(RECORDS, binary=binary), outputs=outputs, request_id="7", headers=up.headers
    )
    decisions = native(http, RECORDS)
    assert result.get_response()["id"] == "7"
    assert result.as_numpy("probability").tolist() == [each["output"]["probability"] for each in decisions]
    assert result.as_numpy("yes").tolist() == [each["output"]["yes"] for each in decisions]
    ids = [each.decode() if isinstance(each, bytes) else each for each in result.as_numpy("decision_id").tolist()]
    for decision_id, decision in zip(ids, decisions, strict=True):
        assert recorded(up, decision_id) == recorded(up, decision["decision_id"])


def test_tritonclient_is_told_of_a_row_that_breaks_the_contract(up: tiny.Up, client: Any) -> None:
    unfit = [RECORDS[0], RECORDS[1] | {"a": UNFIT}]
    with pytest.raises(triton.InferenceServerException, match=r"row 1, decision .*: contract_violation") as raised:
        client.infer(tiny.NAME, triton_inputs(unfit, binary=True), headers=up.headers)
    assert raised.value.status() == "422"
    decision_id = raised.value.message().split("row 1, decision ")[1].split(":")[0]
    leaf, _ = recorded(up, decision_id)
    assert leaf["outcome"] == "refused"


KSERVE_CLIENT = """
import asyncio, json, sys
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
import numpy as np

url, token, name = sys.argv[1:]
headers = {"authorization": f"Bearer {token}"}

async def main():
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    told = {"live": await client.is_server_live(url), "ready": await client.is_server_ready(url)}
    told["model"] = await client.is_model_ready(url, name, headers=headers)
    for binary in (False, True):
        inputs = []
        for tensor, data in (("a", [0.5, -1.0]), ("b", [0.25, 1.5])):
            made = InferInput(tensor, [2], "FP64")
            made.set_data_from_numpy(np.array(data), binary_data=binary)
            inputs.append(made)
        request = InferRequest(name, inputs, request_id="9", parameters={"binary_data_output": binary})
        answer = await client.infer(url, request, model_name=name, headers=dict(headers))
        told["binary" if binary else "json"] = {
            "id": answer.id,
            "parameters": answer.parameters,
            **{output.name: output.as_numpy().tolist() for output in answer.outputs},
        }
    await client.close()
    print(json.dumps(told))

asyncio.run(main())
"""


def test_kserves_client_gets_what_a_native_call_gets(up: tiny.Up, http: httpx.Client) -> None:
    python = os.environ.get("MAINSTAY_KSERVE_PYTHON")
    if python is None:
        pytest.skip("MAINSTAY_KSERVE_PYTHON names no Python of an environment with kserve")
    command = [python, "-W", "ignore", "-c", KSERVE_CLIENT, up.url, up.token, tiny.NAME]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])
    decisions = native(http, [{"a": 0.5, "b": 0.25}, {"a": -1.0, "b": 1.5}])
    assert (told["live"], told["ready"], told["model"]) == (True, True, True)
    for form in ("json", "binary"):
        assert told[form]["id"] == "9"
        assert told[form]["probability"] == [each["output"]["probability"] for each in decisions]
        assert told[form]["yes"] == [each["output"]["yes"] for each in decisions]
        assert told[form]["parameters"]["outcomes"] == "answered,answered"


# The specification


def test_what_is_answered_is_what_the_specification_says(http: httpx.Client) -> None:
    valid(http.get("/v2").json(), "metadata_server_response")
    valid(http.get(f"/v2/models/{tiny.NAME}").json(), "metadata_model_response")
    tensors = [{"name": name, "shape": [1], "datatype": "FP64", "data": [0.5]} for name in ("a", "b")]
    answer = http.post(f"/v2/models/{tiny.NAME}/infer", json={"inputs": tensors})
    assert answer.status_code == 200
    valid(answer.json(), "inference_response")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/nobody", 404),
        ("GET", f"/v2/models/{tiny.NAME}/versions/sha256:{'0' * 64}", 404),
        ("GET", "/v2/models/nobody/ready", 404),
        ("POST", "/v2/models/nobody/infer", 404),
        ("POST", f"/v2/models/{tiny.NAME}/infer", 400),
        ("POST", f"/v2/models/{tiny.NAME}/versions/1/infer", 404),
        ("GET", f"/v2/models/{tiny.NAME}/infer", 405),
        ("GET", "/v2/nothing", 404),
    ],
)
def test_an_error_is_what_the_specification_says(http: httpx.Client, method: str, path: str, status: int) -> None:
    answer = http.request(method, path)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    valid(answer.json(), "inference_error_response")


def test_without_a_key_only_health_is_answered(up: tiny.Up) -> None:
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert httpx.get(up.url + path).status_code == 200
    answer = httpx.post(f"{up.url}/v2/models/{tiny.NAME}/infer", json={"inputs": []})
    assert answer.status_code == 401
    assert list(answer.json()) == ["error"]
