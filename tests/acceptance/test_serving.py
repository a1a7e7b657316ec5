from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import tiny
from mainstay.cli.evidence import explain_entry
from mainstay.ledger.entry import commitment, leaf_hash
from mainstay.ledger.find import find_entry

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.acceptance

GOOD = {"a": 0.5, "b": 0.25}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tiny.Up]:
    workspace, token = tiny.make_served(tmp_path_factory.mktemp("serving") / "workspace")
    with tiny.up(workspace, token) as service:
        yield service


@pytest.fixture
def http(up: tiny.Up) -> Iterator[httpx.Client]:
    with httpx.Client(headers=up.headers, timeout=10) as client:
        yield client


def test_a_decision_is_answered_with_a_receipt_of_its_record(up: tiny.Up, http: httpx.Client) -> None:
    answer = http.post(up.decisions_url, json={"input": GOOD, "key": "case-1"})
    assert answer.status_code == 200
    decision = answer.json()
    assert decision["outcome"] == "answered"
    assert decision["output"] == {"probability": pytest.approx(0.6792, abs=1e-3), "yes": True}
    assert decision["confidence"] == pytest.approx(decision["output"]["probability"])
    assert (decision["capability"], decision["release"], decision["stage"]) == ("tiny", 1, "production")
    found = find_entry(up.workspace.ledger, decision["decision_id"])
    assert found is not None
    assert leaf_hash(found.entry.leaf).hex() == decision["receipt"]["leaf"]
    leaf = json.loads(found.entry.leaf)
    assert leaf["body"] == commitment(found.entry.salt, found.entry.body)
    assert leaf["at"] == decision["receipt"]["recorded_at"]
    body = json.loads(found.entry.body)
    assert body["key"] == "case-1"
    assert body["input"]["a"] == GOOD["a"]
    assert body["output"] == decision["output"]


def test_every_broken_rule_is_listed_and_the_refusal_is_recorded(up: tiny.Up, http: httpx.Client) -> None:
    answer = http.post(up.decisions_url, json={"input": {"a": 1000, "b": "x", "c": 1}})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert {(each["field"], each["rule"]) for each in problem["violations"]} == {
        ("a", "maximum"),
        ("b", "type"),
        ("c", "unknown-field"),
    }
    assert problem["status"] == 422
    assert problem["outcome"] == "refused"
    explained = explain_entry(up.workspace, problem["decision_id"])
    assert explained["entry"]["reasons"] == ["contract_violation"]
    assert explained["body"]["input"]["a"] == 1000
    assert len(explained["body"]["details"]["violations"]) == 3


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"input"', b'{"inputs": {}}', b"\xff\xfe", b'{"input": {}, "x": 1}']
)
def test_what_is_no_call_is_refused_and_recorded(up: tiny.Up, http: httpx.Client, body: bytes) -> None:
    answer = http.post(up.decisions_url, content=body)
    assert answer.status_code == 400
    problem = answer.json()
    assert problem["reasons"][0]["code"] == "malformed_input"
    assert find_entry(up.workspace.ledger, problem["decision_id"]) is not None


def test_an_output_that_breaks_the_contract_is_not_given(up: tiny.Up, http: httpx.Client) -> None:
    answer = http.post(up.decisions_url, json={"input": {"a": 1}})  # b is missing: the graph gives NaN
    assert answer.status_code == 502
    assert answer.json()["reasons"][0]["code"] == "output_invalid"
    assert answer.json()["output"] is None


def test_many_are_decided_in_order_each_with_its_own_outcome(up: tiny.Up, http: httpx.Client) -> None:
    inputs: list[Any] = [{"input": {"a": number / 10, "b": 0}} for number in range(50)]
    inputs[7] = {"input": {"a": "seven"}}
    inputs[9] = 9
    answer = http.post(f"{up.decisions_url}/batch", json={"inputs": inputs})
    assert answer.status_code == 200
    decisions = answer.json()["decisions"]
    assert [each["outcome"] for each in decisions[:10]] == ["answered"] * 7 + ["refused", "answered", "refused"]
    assert decisions[7]["violations"][0]["field"] == "a"
    probabilities = [each["output"]["probability"] for each in decisions if each["outcome"] == "answered"]
    assert probabilities == sorted(probabilities)
    assert len({each["decision_id"] for each in decisions}) == 50


def test_lines_in_give_lines_out(up: tiny.Up, http: httpx.Client) -> None:
    lines = b'{"input": {"a": 1, "b": 1}}\nnonsense\n{"input": {"a": 2, "b": 1}}\n'
    answer = http.post(f"{up.decisions_url}/batch", content=lines, headers={"content-type": "application/x-ndjson"})
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["outcome"] for line in answer.content.splitlines()] == ["answered", "refused", "answered"]


def test_a_call_too_large_within_a_batch_is_refused_alone(up: tiny.Up, http: httpx.Client) -> None:
    large = {"input": {**GOOD, "note": "x" * (1 << 20)}}
    answer = http.post(f"{up.decisions_url}/batch", json={"inputs": [{"input": GOOD}, large]})
    first, second = answer.json()["decisions"]
    assert (first["outcome"], second["outcome"]) == ("answered", "refused")
    assert second["reasons"][0]["code"] == "malformed_input"
    assert set(explain_entry(up.workspace, second["decision_id"])["body"]["input"]) == {"withheld"}


def test_a_batch_whose_records_are_large_is_recorded_in_parts(up: tiny.Up, http: httpx.Client) -> None:
    calls = [{"input": {**GOOD, "c": "\u0001" * 100_000}} for _ in range(40)]
    decisions = http.post(f"{up.decisions_url}/batch", json={"inputs": calls}).json()["decisions"]
    assert [each["outcome"] for each in decisions] == ["refused"] * 40
    assert find_entry(up.workspace.ledger, decisions[-1]["decision_id"]) is not None


@pytest.mark.parametrize("path", ["decisions/batch", "outcomes"])
def test_a_document_nested_without_end_is_refused(up: tiny.Up, http: httpx.Client, path: str) -> None:
    url = f"{up.url}/v1/capabilities/{tiny.NAME}/{path}"
    for body in (b"[" * 100_000, b'{"inputs": ' + b"[" * 100_000, b'{"outcomes": ' + b'{"a":' * 50_000):
        assert http.post(url, content=body).status_code in (400, 422)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
nearly = st.fixed_dictionaries(
    {"input": st.fixed_dictionaries({"a": anything, "b": anything}, optional={"note": anything})},
    optional={"key": anything, "deadline_ms": anything},
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200) | (anything | nearly).map(lambda value: json.dumps(value).encode()))
def test_whatever_is_sent_ends_in_one_recorded_outcome(up: tiny.Up, http: httpx.Client, body: bytes) -> None:
    answer = http.post(up.decisions_url, content=body)
    decision = answer.json()
    expected = {"answered": {200}, "refused": {400, 422, 502, 504}}
    assert answer.status_code in expected[decision["outcome"]]
    assert find_entry(up.workspace.ledger, decision["decision_id"]) is not None


def test_no_decisions_are_none(up: tiny.Up, http: httpx.Client) -> None:
    assert http.post(f"{up.decisions_url}/batch", json={"inputs": []}).json() == {"decisions": []}


def test_a_stranger_is_told_nothing(up: tiny.Up) -> None:
    for path in ("decisions", "decisions/batch", "outcomes"):
        for headers in ({}, {"authorization": "Bearer ms_00000000_" + "A" * 43}, {"authorization": "Basic eDp5"}):
            for name in (tiny.NAME, "no-such-capability"):
                answer = httpx.post(f"{up.url}/v1/capabilities/{name}/{path}", json={}, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"].startswith("Bearer")
    assert httpx.get(f"{up.url}/metrics").status_code == 401
    assert httpx.get(f"{up.url}/openapi.json").status_code == 401


def test_paths_and_methods_that_are_not_served_are_named(up: tiny.Up, http: httpx.Client) -> None:
    assert http.post(f"{up.url}/v1/capabilities/other/decisions", json={}).status_code == 404
    assert http.get(f"{up.url}/nothing").status_code == 404
    answer = http.get(up.decisions_url)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


def test_a_body_over_the_limit_is_not_read(up: tiny.Up, http: httpx.Client) -> None:
    answer = http.post(up.decisions_url, content=b" " * ((1 << 20) + 1))
    assert answer.status_code == 413
    chunked = http.post(up.decisions_url, content=iter([b" " * 600_000, b" " * 600_000]))
    assert chunked.status_code == 413


def test_a_chunked_body_within_the_limit_is_decided(up: tiny.Up, http: httpx.Client) -> None:
    answer = http.post(up.decisions_url, content=iter([b'{"input": {"a": 1,', b' "b": 2}}']))
    assert answer.status_code == 200


def test_a_classified_value_is_recorded_as_a_pseudonym(up: tiny.Up, http: httpx.Client) -> None:
    secret = "wears a red hat"
    ids = [
        http.post(up.decisions_url, json={"input": {**GOOD, "note": secret}}).json()["decision_id"],
        http.post(up.decisions_url, json={"input": {**GOOD, "a": "wrong", "note": secret}}).json()["decision_id"],
        http.post(up.decisions_url, content=b'{"input": {"note": "' + secret.encode()).json()["decision_id"],
    ]
    bodies = [explain_entry(up.workspace, each)["body"] for each in ids]
    assert bodies[0]["input"]["note"].startswith("pseudonym:")
    assert bodies[0]["input"]["note"] == bodies[1]["input"]["note"]
    assert set(bodies[2]["input"]) == {"withheld"}
    stored = b"".join(path.read_bytes() for path in up.workspace.data.rglob("*") if path.is_file())
    assert secret.encode() not in stored


def test_a_classified_value_shows_in_no_violation(up: tiny.Up, http: httpx.Client) -> None:
    answer = http.post(up.decisions_url, json={"input": {**GOOD, "note": 4711}})
    assert answer.status_code == 422
    assert "4711" not in answer.text


def test_the_openapi_document_is_valid_and_knows_the_contract(up: tiny.Up, http: httpx.Client) -> None:
    document = http.get(f"{up.url}/openapi.json").json()
    validate(document)
    schema = document["components"]["schemas"]["tiny.input"]
    assert schema["properties"]["a"]["maximum"] == 100
    assert schema["required"] == ["a"]


def test_metrics_are_read_by_a_client_that_others_wrote(up: tiny.Up, http: httpx.Client) -> None:
    http.post(up.decisions_url, json={"input": GOOD})
    answer = http.get(f"{up.url}/metrics")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    answered = [
        sample.value
        for sample in families["mainstay_decisions"].samples
        if sample.labels == {"capability": "tiny", "stage": "production", "outcome": "answered", "reason": ""}
    ]
    assert answered[0] >= 1
    assert "mainstay_decision_seconds" in families


def test_health_is_told_without_a_key(up: tiny.Up) -> None:
    assert httpx.get(f"{up.url}/health/live").json() == {"status": "live"}
    assert httpx.get(f"{up.url}/health/ready").json() == {"status": "ready"}


def test_outcomes_are_joined_whatever_the_order(up: tiny.Up, http: httpx.Client) -> None:
    url = f"{up.url}/v1/capabilities/{tiny.NAME}/outcomes"
    early = {"key": "later-case", "outcome": {"yes": False}, "observed_at": "2026-01-02T00:00:00Z"}
    assert http.post(url, json=early).status_code == 202  # nobody knows this key yet
    decision = http.post(up.decisions_url, json={"input": GOOD, "key": "later-case"}).json()["decision_id"]
    by_id = {"decision_id": decision, "outcome": {"yes": True}, "observed_at": "2026-01-03T00:00:00+01:00"}
    stale = {**by_id, "outcome": {"yes": False}, "observed_at": "2026-01-01T00:00:00Z"}
    answer = http.post(url, json={"outcomes": [by_id, by_id, stale]})
    assert answer.json()["recorded"] == 3
    assert len({receipt["leaf"] for receipt in answer.json()["receipts"]}) == 3
    deadline = time.monotonic() + 10
    while len(outcomes := explain_entry(up.workspace, decision)["outcomes"]) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [each["outcome"]["yes"] for each in outcomes] == [False, False, True, True]


def test_a_call_with_one_broken_outcome_is_refused_whole(up: tiny.Up, http: httpx.Client) -> None:
    url = f"{up.url}/v1/capabilities/{tiny.NAME}/outcomes"
    good = {"key": "k", "outcome": {"yes": True}, "observed_at": "2026-01-02T00:00:00Z"}
    broken = [
        {**good, "outcome": {"yes": "maybe"}},
        {**good, "observed_at": "yesterday"},
        {**good, "observed_at": "2026-01-02T00:00:00"},
        {**good, "key": None},
        {**good, "decision_id": "not-an-id", "key": None},
        {**good, "extra": 1},
    ]
    for item in broken:
        answer = http.post(url, json={"outcomes": [good, item]})
        assert answer.status_code == 422, item
        assert answer.json()["violations"][0]["field"].startswith("outcomes[1]"), item
        assert http.post(url, json=item).status_code == 422
