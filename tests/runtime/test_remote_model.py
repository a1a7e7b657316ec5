from __future__ import annotations

import asyncio
import json
import math
import time
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

import httpx
import jsonschema
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from client.service import breaks_off, dribbles, is_silent, never_ends, resets, running_service, says
from mainstay.capability.types import OutputField, Remote
from mainstay.runtime.remote_model import (
    PART_REQUESTS,
    BrokenAnswer,
    MissingValue,
    RemoteModel,
    RowsFailed,
    RowsRefused,
    _Answer,
)
from mainstay.runtime.types import Feature, Prediction, Unavailable
from shared_data import shared_data

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Iterator, Sequence

    from client.service import Act, Request, Service
    from mainstay.runtime.types import Result, Row

pytestmark = pytest.mark.anyio

FIELDS = ("note", "a", "b")  # the model takes a and b; rows hold them in the order of the contract
FEATURES = (Feature("a", "number", nullable=False), Feature("b", "number", nullable=True))
SUM = {"sum": OutputField(take="tensor")}
STATES_BINARY = {"name": "s", "version": "1", "extensions": ["binary_tensor_data"]}
SECRET = "s3cret-token"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def service() -> Iterator[Service]:
    with running_service() as running:
        yield running


def adds(*, status: int = 400, poison: float = 40.0) -> Act:
    """A model that adds a and b, and fails with `status` where b is `poison`."""

    def act(service: Service, connection: socket.socket, request: Request) -> None:
        inputs = {tensor["name"]: tensor["data"] for tensor in request.json["inputs"]}
        if poison in inputs["b"]:
            says(status, {"error": f"no row may have {poison}"})(service, connection, request)
            return
        sums = [a + b for a, b in zip(inputs["a"], inputs["b"], strict=True)]
        says(200, answer_of(sum=sums))(service, connection, request)

    return act


def answer_of(datatype: str = "FP64", shape: Sequence[int] | None = None, **outputs: list[Any]) -> dict[str, Any]:
    tensors = [
        {"name": name, "shape": shape or [len(data)], "datatype": datatype, "data": data}
        for name, data in outputs.items()
    ]
    return {"model_name": "adder", "id": "1", "outputs": tensors}


@asynccontextmanager
async def model_of(service: Service | str, **changes: Any) -> AsyncIterator[RemoteModel]:
    arguments: dict[str, Any] = {
        "fields": FIELDS,
        "features": FEATURES,
        "output": SUM,
        "confidence": None,
        "secret": None,
    }
    arguments |= {name: changes.pop(name) for name in list(changes) if name in arguments}
    url = service if isinstance(service, str) else service.url
    model = RemoteModel(Remote(url=url, model="adder", **changes), **arguments)
    try:
        yield model
    finally:
        await model.close()


async def predict(service: Service | str, rows: Sequence[Row], *, seconds: float = 5, **changes: Any) -> list[Result]:
    async with model_of(service, **changes) as model:
        return await model.predict(rows, asyncio.get_running_loop().time() + seconds)


async def test_a_request_is_what_the_specification_says(service: Service) -> None:
    described = yaml.safe_load(
        shared_data("protocols", "open_inference_protocol", "open_inference_rest.yaml").read_text()
    )
    service.will(adds())
    results = await predict(service, [("x", 1.0, 2.0), ("y", 0.5, 0.25)], version="v 7/2")
    assert results == [Prediction((3.0,), None), Prediction((0.75,), None)]
    (request,) = service.requests
    assert request.path == "/v2/models/adder/versions/v%207%2F2/infer"
    assert request.headers["content-type"] == "application/json"
    jsonschema.validate(
        request.json, {"$ref": "#/components/schemas/inference_request", "components": described["components"]}
    )
    assert request.json == {
        "inputs": [
            {"name": "a", "shape": [2], "datatype": "FP64", "data": [1.0, 0.5]},
            {"name": "b", "shape": [2], "datatype": "FP64", "data": [2.0, 0.25]},
        ],
        "outputs": [{"name": "sum"}],
    }


async def test_each_kind_of_feature_has_its_datatype(service: Service) -> None:
    features = (
        Feature("n", "number", nullable=False),
        Feature("i", "integer", nullable=False),
        Feature("t", "boolean", nullable=False),
        Feature("s", "string", nullable=False),
    )
    service.will(says(200, answer_of(sum=[1.0])))
    await predict(service, [(1.5, 2, True, "é")], fields=("n", "i", "t", "s"), features=features)
    sent = service.requests[0].json["inputs"]
    assert [(tensor["datatype"], tensor["data"]) for tensor in sent] == [
        ("FP64", [1.5]),
        ("INT64", [2]),
        ("BOOL", [True]),
        ("BYTES", ["é"]),
    ]


async def test_features_may_go_as_one_matrix(service: Service) -> None:
    service.will(says(200, answer_of(sum=[1.0, 2.0])))
    await predict(service, [("", 1.0, 2.0), ("", 3.0, 4.0)], input_tensor="input-0")
    assert service.requests[0].json["inputs"] == [
        {"name": "input-0", "shape": [2, 2], "datatype": "FP64", "data": [1.0, 2.0, 3.0, 4.0]}
    ]


@pytest.mark.parametrize("matrix", [False, True])
async def test_a_missing_number_goes_as_nan_in_binary_data(service: Service, matrix: bool) -> None:
    service.will(says(200, STATES_BINARY), says(200, answer_of(sum=[1.0, 2.0])))
    async with model_of(service, input_tensor="x" if matrix else None) as model:
        for _ in range(2):
            until = asyncio.get_running_loop().time() + 5
            await model.predict([("", 1.0, None), ("", 3.0, 4.0)], until)
    asked, request, _ = service.requests  # the extension is asked for once
    assert asked.line == "GET /v2 HTTP/1.1"
    length = int(request.headers["inference-header-content-length"])
    binary = [tensor for tensor in json.loads(request.body[:length])["inputs"] if "data" not in tensor]
    assert [tensor["parameters"] for tensor in binary] == [{"binary_data_size": 32 if matrix else 16}]
    numbers = np.frombuffer(request.body[length:], "<f8")
    np.testing.assert_array_equal(numbers, [1.0, math.nan, 3.0, 4.0] if matrix else [math.nan, 4.0])


@pytest.mark.parametrize(
    "act",
    [says(200, {"name": "s", "version": "1", "extensions": ["model_repository"]}), says(404, b""), says(200, b"hello")],
)
async def test_a_missing_number_fails_its_row_where_the_server_takes_no_binary_data(service: Service, act: Act) -> None:
    service.will(act, says(200, answer_of(sum=[7.0])))
    failed, sound = await predict(service, [("", 1.0, None), ("", 3.0, 4.0)])
    assert isinstance(failed, MissingValue)
    assert "expected a server with the extension binary_tensor_data" in str(failed)
    assert sound == Prediction((7.0,), None)


async def test_a_missing_number_is_not_sent_while_the_server_does_not_say_what_it_takes(service: Service) -> None:
    service.will(says(503, b""), says(200, answer_of(sum=[7.0])))
    failed, sound = await predict(service, [("", 1.0, None), ("", 3.0, 4.0)], retries=0)
    assert type(failed) is Unavailable
    assert sound == Prediction((7.0,), None)


async def test_a_missing_value_that_the_protocol_cannot_say_fails_its_own_row(service: Service) -> None:
    features = (Feature("a", "number", nullable=True), Feature("b", "integer", nullable=True))
    service.will(says(200, answer_of(sum=[1.0])))
    failed, sound = await predict(service, [("", 1.0, None), ("", 1.0, 2)], features=features)
    assert isinstance(failed, MissingValue)
    assert "b is missing" in str(failed)
    assert sound == Prediction((1.0,), None)
    assert service.requests[0].json["inputs"][0]["shape"] == [1]


async def test_rows_of_which_none_can_be_said_are_not_sent(service: Service) -> None:
    features = (Feature("note", "string", nullable=True),)
    (failed,) = await predict(service, [(None, 1.0, 1.0)], features=features)
    assert isinstance(failed, MissingValue)
    assert not service.requests


@pytest.mark.parametrize(("status", "kind"), [(400, RowsRefused), (422, RowsRefused), (500, RowsFailed)])
async def test_a_row_that_the_model_fails_on_fails_alone(service: Service, status: int, kind: type[Exception]) -> None:
    service.will(adds(status=status))
    rows = [("", 1.0, 40.0 if place == 77 else float(place % 40)) for place in range(100)]
    results = await predict(service, rows)
    assert [place for place, result in enumerate(results) if not isinstance(result, Prediction)] == [77]
    assert isinstance(results[77], kind)
    assert f"answered {status}: no row may have 40.0" in str(results[77])
    assert results[5] == Prediction((6.0,), None)
    assert len(service.requests) <= 15  # two for each halving


async def test_how_many_requests_a_failing_batch_makes_is_bounded(service: Service) -> None:
    service.will(says(400, {"error": "no"}))
    results = await predict(service, [("", 1.0, 1.0)] * 200)
    assert len(service.requests) == 1 + PART_REQUESTS
    assert all(isinstance(result, RowsRefused) for result in results)


@pytest.mark.parametrize("status", [401, 403, 404, 501, 504])
async def test_an_answer_that_is_not_about_the_rows_makes_the_model_unavailable(service: Service, status: int) -> None:
    service.will(says(status, {"error": "go away"}))
    results = await predict(service, [("", 1.0, 1.0)] * 4)
    assert [type(result) for result in results] == [Unavailable] * 4
    assert len(service.requests) == 1


# Retries


@pytest.mark.parametrize("trouble", [says(503, b""), says(429, b""), says(502, b"<html>"), resets])
async def test_what_the_server_has_not_decided_is_sent_again(service: Service, trouble: Act) -> None:
    service.will(trouble, trouble, adds())
    assert await predict(service, [("", 1.0, 1.0)]) == [Prediction((2.0,), None)]
    assert len(service.requests) == 3


@pytest.mark.parametrize("trouble", [says(503, b""), resets])
async def test_retries_are_as_many_as_declared(service: Service, trouble: Act) -> None:
    service.will(trouble)
    (result,) = await predict(service, [("", 1.0, 1.0)], retries=1)
    assert type(result) is Unavailable
    assert len(service.requests) == 2


async def test_a_server_that_cannot_be_reached_makes_the_model_unavailable() -> None:
    with running_service() as service:
        url = service.url
    (result,) = await predict(url, [("", 1.0, 1.0)])
    assert type(result) is Unavailable
    assert "cannot be reached: ConnectError" in str(result)


async def test_an_idle_connection_that_the_server_closed_is_replaced(service: Service) -> None:
    def closes_later(service: Service, connection: socket.socket, request: Request) -> None:
        body = json.dumps(answer_of(sum=[2.0])).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    service.will(closes_later)
    async with model_of(service, retries=1) as model:
        for _ in range(5):
            until = asyncio.get_running_loop().time() + 5
            assert await model.predict([("", 1.0, 1.0)], until) == [Prediction((2.0,), None)]


async def test_a_retry_waits_as_long_as_the_server_asks(service: Service) -> None:
    service.will(says(503, b"", retry_after="1"), adds())
    begun = time.monotonic()
    assert await predict(service, [("", 1.0, 1.0)]) == [Prediction((2.0,), None)]
    assert time.monotonic() - begun >= 1


@pytest.mark.parametrize("after", ["3600", "Wed, 21 Oct 2150 07:28:00 GMT"])
async def test_there_is_no_retry_beyond_the_time_that_is_left(service: Service, after: str) -> None:
    service.will(says(503, b"", retry_after=after), adds())
    begun = time.monotonic()
    (result,) = await predict(service, [("", 1.0, 1.0)], seconds=2)
    assert type(result) is Unavailable
    assert time.monotonic() - begun < 1
    assert len(service.requests) == 1


@pytest.mark.parametrize("after", ["soon", "-1", "Wed, 21 Oct 2015 07:28:00 GMT", "9" * 40])
async def test_a_retry_after_that_says_nothing_is_ignored(service: Service, after: str) -> None:
    service.will(says(503, b"", retry_after=after), adds())
    assert await predict(service, [("", 1.0, 1.0)]) == [Prediction((2.0,), None)]


@pytest.mark.parametrize("slow", [is_silent, dribbles])
async def test_a_server_that_is_merely_slow_is_not_asked_twice(service: Service, slow: Act) -> None:
    service.will(slow)
    begun = time.monotonic()
    (result,) = await predict(service, [("", 1.0, 1.0)], seconds=0.3)
    assert type(result) is Unavailable
    assert "had not answered when the time was up" in str(result)
    assert time.monotonic() - begun < 1
    assert len(service.requests) == 1


async def test_an_answer_that_breaks_off_is_not_asked_for_again(service: Service) -> None:
    service.will(breaks_off)
    (result,) = await predict(service, [("", 1.0, 1.0)])
    assert type(result) is Unavailable
    assert "broke off" in str(result)
    assert len(service.requests) == 1


async def test_after_the_time_nothing_is_sent_or_waited_for(service: Service) -> None:
    service.will(is_silent)
    (result,) = await predict(service, [("", 1.0, 1.0)], seconds=-1)
    assert type(result) is Unavailable


# Answers


async def test_outputs_come_from_columns_of_tensors_and_state_a_confidence(service: Service) -> None:
    output = {
        "no": OutputField(take="tensor", tensor="p", column=0),
        "yes": OutputField(take="tensor", tensor="p", column=1),
    }
    service.will(says(200, answer_of(shape=[2, 2], datatype="FP64", p=[[0.25, 0.75], [0.5, 0.5]])))
    results = await predict(service, [("", 1.0, 1.0)] * 2, output=output, confidence="yes")
    assert results == [Prediction((0.25, 0.75), 0.75), Prediction((0.5, 0.5), 0.5)]
    assert service.requests[0].json["outputs"] == [{"name": "p"}]


async def test_a_confidence_that_is_no_number_fails_its_row(service: Service) -> None:
    service.will(says(200, answer_of(datatype="BYTES", sum=["high", "low"])))
    results = await predict(service, [("", 1.0, 1.0)] * 2, confidence="sum")
    assert [str(result) for result in results] == ["expected a number as confidence, found str"] * 2


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (says(200, b"<html>"), "expected an inference response: JSON is malformed"),
        (says(200, {"model_name": "adder"}), "missing required field `outputs`"),
        (says(200, answer_of(total=[1.0])), "expected an output tensor sum, found total"),
        (says(200, answer_of(sum=[])), r"expected 1 rows and more than 0 columns, found the shape \[0\]"),
        (says(200, answer_of(sum=[1.0, 2.0])), r"expected 1 rows and more than 0 columns, found the shape \[2\]"),
        (says(200, answer_of(sum=[1.0], shape=[1, 1, 1])), "expected a shape of 1 or 2 dimensions"),
        (says(200, answer_of(sum=["x"])), r"Expected `float \| null`, got `str`"),
        (says(200, answer_of(sum=[1.0]), content_encoding="gzip"), "without content-encoding, found gzip"),
        (says(200, answer_of(sum=[1.0]), Inference_Header_Content_Length="x"), "Inference-Header-Content-Length"),
        (says(307, b"", location="/elsewhere"), "expected an answer of 200"),
        (says(204, b""), "expected an answer of 200"),
        (never_ends, "expected an answer of at most 16777216 bytes, found more"),
    ],
)
async def test_an_answer_that_is_none_says_what_was_expected_and_found(service: Service, act: Act, said: str) -> None:
    service.will(act)
    (result,) = await predict(service, [("", 1.0, 1.0)])
    assert type(result) is BrokenAnswer
    with pytest.raises(BrokenAnswer, match=said):
        raise result
    assert len(service.requests) == 1


@given(st.binary(max_size=200), st.none() | st.integers(0, 200))
def test_an_arbitrary_answer_is_understood_or_broken_and_nothing_else(body: bytes, length: int | None) -> None:
    model = quiet_model()
    headers = httpx.Headers({} if length is None else {"inference-header-content-length": str(length)})
    with suppress(BrokenAnswer):
        model._understand(_Answer(200, headers, body), 1)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
        lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=3), below, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from(["name", "shape", "datatype", "data", "parameters"]),
)
def test_an_answer_with_anything_in_a_tensor_is_understood_or_broken(value: Any, member: str) -> None:
    document = answer_of(sum=[1.0])
    document["outputs"][0][member] = value
    try:
        (result,) = quiet_model()._understand(_Answer(200, httpx.Headers(), json.dumps(document).encode()), 1)
    except BrokenAnswer:
        return
    assert isinstance(result, Prediction)


@cache
def quiet_model() -> RemoteModel:
    """A model that opens no connection; one for all examples."""
    remote = Remote(url="http://127.0.0.1:9", model="adder")
    return RemoteModel(remote, fields=FIELDS, features=FEATURES, output=SUM, confidence=None, secret=SECRET)


# The secret, and the network


async def test_the_secret_is_sent_and_never_shown(service: Service) -> None:
    def echoes(service: Service, connection: socket.socket, request: Request) -> None:
        says(400, {"error": f"bad {request.headers['authorization']}"})(service, connection, request)

    service.will(echoes)
    (result,) = await predict(service, [("", 1.0, 1.0)], secret=SECRET)
    assert service.requests[0].headers["authorization"] == f"Bearer {SECRET}"
    assert SECRET not in str(result)
    assert "bad Bearer ***" in str(result)


async def test_proxies_of_the_environment_are_not_used(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    service.will(adds())
    assert await predict(service, [("", 1.0, 1.0)]) == [Prediction((2.0,), None)]


# What cannot be had


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"output": {"sum": OutputField(take="value")}}, "output.sum.take: expected tensor"),
        ({"output": {}}, "expected the fields that come from tensors, found none"),
        ({"confidence": "sure"}, "model.confidence: expected a property of the output, found sure"),
        ({"features": ()}, "expected features that the input has, found none"),
        ({"features": (Feature("z", "number", nullable=False),)}, "found z"),
        (
            {"features": (Feature("note", "string", nullable=False),), "input_tensor": "x"},
            "expected numbers to fill its one FP64 tensor, found text: note",
        ),
    ],
)
async def test_what_no_server_could_give_is_refused_at_once(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        await predict("http://127.0.0.1:9", [], **changes)


async def test_an_address_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"expected an address"):
        await predict("http://127.0.0.1:port", [])
