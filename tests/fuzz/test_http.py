"""Bodies and headers that strangers send, to the application as it stands in a worker, without the sockets.

No answer is a 5xx, each is one that the OpenAPI document tells, and whatever was recorded can be read again. Both
capabilities declare a ladder, so that no 502 is owed to a model that gives NaN.
"""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from fuzz.mutations import FUZZ, HOSTILE, mutated, mutated_json
from mainstay.cli.init import create_workspace
from mainstay.cli.versions import record_promotion, record_registration
from mainstay.contract.values import nested_deeper
from mainstay.embedded import _Host
from mainstay.ledger.wal import SegmentReader, segments
from mainstay.server.openapi import describe
from server.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LADDER: dict[str, Any] = {"fallback": [{"constant": {"probability": 0.25, "yes": False}}]}
PLAIN = "plain"  # nothing in its contract is classified, and no outcome is described
CALLS = [
    {"input": {"a": 0.5, "b": 0.25, "note": "é"}, "key": "k", "deadline_ms": 5_000},
    {"input": {"a": -1, "b": None, "free": {"x": [1, "y"]}}},
]
ID = "01a1fd0b-2765-75f3-8e97-5c270000003f"
REPORTS = [
    {"decision_id": ID, "outcome": {"yes": True}, "observed_at": "2026-01-02T00:00:00Z"},
    {"key": "k", "outcome": {"yes": False, "x": [{}]}, "observed_at": "2026-01-02T00:00:00+01:00"},
]
TENSORS = {
    "id": "1",
    "parameters": {"keys": ["a", "b"], "deadline_ms": 5_000, "binary_data_output": True},
    "inputs": [
        {"name": "a", "shape": [2], "datatype": "FP64", "data": [0.5, -1]},
        {"name": "b", "shape": [2, 1], "datatype": "FP32", "data": [[0.5], [None]]},
        {"name": "note", "shape": [2], "datatype": "BYTES", "data": ["x", "y"]},
    ],
    "outputs": [{"name": "probability", "parameters": {"binary_data": False}}, {"name": "decision_id"}],
}
NAMES = (tiny.NAME, PLAIN)


class Service:
    """Both capabilities, served in this process."""

    def __init__(self, host: _Host, token: str) -> None:
        self._host = host
        self.key = f"Bearer {token}"
        self.document = describe([each.release for each in host._path.services.values()])

    def run(self, exchange: Exchange) -> Exchange:
        return exchange.run(self._host)

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None, *, parts: int = 0) -> Exchange:
        """The exchange, after holding its status to the document."""
        exchange = self.run(Exchange(path, body, {"authorization": self.key, **(headers or {})}, parts=parts))
        assert str(exchange.status) in self.document["paths"][path]["post"]["responses"], exchange.answer[:500]
        assert exchange.status < 500
        return exchange


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory: Path = tmp_path_factory.mktemp("fuzz") / "w"
    workspace, _, token = create_workspace(directory, "tests.example.com/fuzz")
    classified = copy.deepcopy(tiny.CONTRACT)
    classified["schema"][0]["properties"].append({"name": "free"})
    plain = copy.deepcopy(classified)
    del plain["schema"][0]["properties"][2]["classification"], plain["schema"][2]
    objects = {"input": "request", "output": "answer"}
    for name, changes in (
        (tiny.NAME, {"contract": classified}),
        (PLAIN, {"contract": plain, "objects": objects, "promise": {}}),
    ):
        folder = tiny.write_folder(workspace.capabilities / name, **{**changes, **LADDER, "name": name})
        record_promotion(workspace, name, record_registration(workspace, folder, None).version, "for a test")
    host = _Host(workspace)
    try:
        yield Service(host, token)
    finally:
        host.close()
    check_readable(workspace.ledger / "wal")


def check_readable(folder: Path) -> None:
    """Whoever reads a record is deeper in calls than who wrote it: nothing may be nested to the brink."""
    entries = [entry for path in segments(folder) for group in SegmentReader(path).groups() for entry in group.entries]
    assert len(entries) > 400
    for entry in entries:
        assert not nested_deeper(json.loads(entry.leaf), 8)
        assert not nested_deeper(json.loads(entry.body), 72)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [65, 500, 900, 940, 980])
def test_what_is_nested_to_the_brink_is_refused_and_recorded_as_text(service: Service, name: str, depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    base = f"/v1/capabilities/{name}"
    for body in (b'{"input": %b}' % deep, b'{"input": {"a": 1, "free": %b}}' % deep):
        assert service.post(f"{base}/decisions", body).status in {400, 422}
    reported = b'{"key": "k", "observed_at": "2026-01-02T00:00:00Z", "outcome": {"yes": true, "x": %b}}' % deep
    assert service.post(f"{base}/outcomes", reported).status == 422


def test_an_outcome_that_is_no_object_is_told_wherever_its_characters_end(service: Service) -> None:
    for text in ("é" * 60, "x" + "é" * 60):
        body = json.dumps({**REPORTS[0], "outcome": text}, ensure_ascii=False).encode()
        assert service.post(f"/v1/capabilities/{PLAIN}/outcomes", body).status == 422


names = st.sampled_from(NAMES)
parts = st.sampled_from((0, 0, 1_000))


@FUZZ
@given(names, mutated_json(*CALLS) | st.sampled_from(HOSTILE) | st.binary(max_size=60), parts)
def test_a_call_ends_in_an_outcome(service: Service, name: str, body: bytes, parts: int) -> None:
    exchange = service.post(f"/v1/capabilities/{name}/decisions", body, parts=parts)
    decision = json.loads(exchange.answer)
    expected = {"answered": {200}, "fallback": {200}, "refused": {400, 422}}
    assert exchange.status in expected[decision["outcome"]]


@FUZZ
@given(names, mutated_json({"inputs": CALLS}) | st.sampled_from(HOSTILE) | st.binary(max_size=60), parts)
def test_a_batch_ends_in_an_outcome_for_each_call(service: Service, name: str, body: bytes, parts: int) -> None:
    exchange = service.post(f"/v1/capabilities/{name}/decisions/batch", body, parts=parts)
    assert (exchange.status == 200) == ("decisions" in json.loads(exchange.answer))


@FUZZ
@given(names, st.lists(mutated_json(*CALLS).map(lambda line: line.replace(b"\n", b" ")), max_size=4))
def test_lines_end_in_an_outcome_each(service: Service, name: str, lines: list[bytes]) -> None:
    path = f"/v1/capabilities/{name}/decisions/batch"
    exchange = service.post(path, b"\n".join(lines), {"content-type": "application/x-ndjson"})
    decisions = [json.loads(line) for line in exchange.answer.splitlines()]
    assert len(decisions) == len(lines) - (lines[-1:] == [b""])


@FUZZ
@given(names, mutated_json({"outcomes": REPORTS}, *REPORTS) | st.sampled_from(HOSTILE) | st.binary(max_size=60), parts)
def test_outcomes_are_recorded_or_every_broken_rule_is_told(
    service: Service, name: str, body: bytes, parts: int
) -> None:
    exchange = service.post(f"/v1/capabilities/{name}/outcomes", body, parts=parts)
    answer = json.loads(exchange.answer)
    assert "receipts" in answer if exchange.status == 202 else answer["violations"]


@FUZZ
@given(
    names, mutated_json(TENSORS) | st.sampled_from(HOSTILE) | st.binary(max_size=60), st.none() | st.text(max_size=6)
)
def test_tensors_are_decided_or_refused(service: Service, name: str, body: bytes, length: str | None) -> None:
    headers = {} if length is None else {"inference-header-content-length": length}
    service.post(f"/v2/models/{name}/infer", body, headers)


@FUZZ
@given(st.text(max_size=40) | st.sampled_from(HOSTILE).map(lambda value: value.decode("latin-1")[:60_000]), st.data())
def test_whoever_brings_no_key_is_let_in_nowhere(service: Service, header: str, data: st.DataObject) -> None:
    near = data.draw(mutated(service.key.encode()).map(lambda value: value.decode("latin-1")))
    for said in (header, near):
        call = Exchange(f"/v1/capabilities/{PLAIN}/decisions", json.dumps(CALLS[0]).encode(), {"authorization": said})
        let_in = said.partition(" ")[0].lower() == "bearer" and said.partition(" ")[2].strip() == service.key[7:]
        assert service.run(call).status == (200 if let_in else 401)


@FUZZ
@given(
    st.sampled_from(("", "/", "/v1/", "/v1/capabilities/", "/v2", "/v2/models/", f"/v2/models/{PLAIN}/")),
    st.text(max_size=30),
    st.text(max_size=8),
)
def test_any_path_and_method_have_an_answer(service: Service, head: str, rest: str, method: str) -> None:
    for asked in (method, "GET", "POST"):
        exchange = service.run(Exchange(head + rest, b"", {"authorization": service.key}, method=asked))
        assert exchange.status in {200, 400, 404, 405}
