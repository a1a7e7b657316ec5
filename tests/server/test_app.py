from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import tiny
from mainstay.embedded import _Host
from mainstay.server import oip
from server.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DECISIONS = f"/v1/capabilities/{tiny.NAME}/decisions"
INFER = f"/v2/models/{tiny.NAME}/infer"


class Served:
    """The tiny capability, in this process; it fails where b is POISON, and is then not tried for a minute."""

    def __init__(self, host: _Host, token: str) -> None:
        self.host = host
        self.headers = {"authorization": f"Bearer {token}"}

    def post(self, path: str, body: Any) -> Exchange:
        return Exchange(path, json.dumps(body).encode(), self.headers).run(self.host)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory: Path = tmp_path_factory.mktemp("app") / "w"
    workspace, token = tiny.make_served(
        directory, graph=tiny.probability_graph(poisonous=True), breaker={"of": 2, "failures": 0.5, "open_seconds": 60}
    )
    host = _Host(workspace)
    yield Served(host, token)
    host.close()


def test_a_decision_refused_for_want_of_a_model_says_when_to_come_again(served: Served) -> None:
    for _ in range(2):
        failed = served.post(DECISIONS, {"input": {"a": 1, "b": tiny.POISON}})
        assert (failed.status, "retry-after" in failed.answer_headers) == (502, False)
    refused = served.post(DECISIONS, {"input": {"a": 1, "b": 1}})
    assert json.loads(refused.answer)["reasons"][0]["code"] == "model_unavailable"
    assert (refused.status, refused.answer_headers["retry-after"]) == (503, "1")
    tensors = [{"name": name, "shape": [1], "datatype": "FP64", "data": [1]} for name in "ab"]
    inferred = served.post(INFER, {"inputs": tensors})
    assert (inferred.status, inferred.answer_headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize(
    ("method", "path", "status", "header"),
    [
        ("POST", DECISIONS, 401, "www-authenticate"),
        ("POST", INFER, 401, "www-authenticate"),
        ("GET", "/v2", 401, "www-authenticate"),
        ("POST", "/v2/health/live", 405, "allow"),
        ("POST", "/health/live", 405, "allow"),
    ],
)
def test_what_http_wants_beside_a_status_is_there_in_either_protocol(
    served: Served, method: str, path: str, status: int, header: str
) -> None:
    exchange = Exchange(path, method=method).run(served.host)
    assert exchange.status == status
    assert exchange.answer_headers[header]
    assert ("error" in json.loads(exchange.answer)) == path.startswith("/v2")


def test_a_path_that_only_begins_like_the_protocol_is_none_of_it(served: Served) -> None:
    assert json.loads(Exchange("/v20", method="GET").run(served.host).answer)["status"] == 404


@pytest.mark.parametrize("path", [DECISIONS, INFER])
def test_a_fault_of_ours_is_told_as_the_protocol_tells_errors(
    served: Served, path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(oip, "read_request", fail)
    service = served.host._path.services[tiny.NAME]
    monkeypatch.setattr(service, "decide", fail)
    exchange = served.post(path, {"input": {"a": 1, "b": 1}})
    assert exchange.status == 500
    assert ("error" in json.loads(exchange.answer)) == (path == INFER)
    assert "a call failed" in caplog.text


def test_an_empty_chunk_before_the_end_is_a_body_that_broke_off(served: Served) -> None:
    class Broken(Exchange):
        async def __aiter__(self) -> Any:
            yield b'{"input": {"a": 1, "b": 1}}'
            yield b""
            yield b""

    exchange = Broken(DECISIONS, b"", served.headers, parts=1).run(served.host)
    assert exchange.status == 400
    assert json.loads(exchange.answer)["type"] == "urn:mainstay:problem:broken-body"
