"""What our client makes of answers that are none of ours."""

from __future__ import annotations

import json
from contextlib import suppress

import httpx
from hypothesis import given
from hypothesis import strategies as st

from fuzz.mutations import FUZZ, HOSTILE, mutated_json
from mainstay.client.errors import BadAnswer, CallRefused, Unavailable
from mainstay.client.protocol import Answer, Body, read_decision, read_decisions, read_recorded

DECISION = {
    "decision_id": "01a1fd0b-2765-75f3-8e97-5c270000003f",
    "capability": "tiny",
    "version": "sha256:" + "0" * 64,
    "release": 1,
    "stage": "production",
    "outcome": "refused",
    "output": {"p": 0.5},
    "confidence": 0.5,
    "reasons": [{"code": "contract_violation", "detail": "d"}],
    "violations": [{"field": "a", "rule": "maximum", "expected": "100", "found": "1000"}],
    "receipt": {"leaf": "0" * 64, "log": "l", "recorded_at": "2026-01-02T00:00:00Z"},
}
PROBLEM = {"type": "urn:x", "title": "t", "status": 422, "detail": "d", **DECISION}
RECORDED = {"recorded": 1, "receipts": [{"id": "x", **DECISION["receipt"]}]}  # type: ignore[dict-item]  # it is one
DATES = ("1", "-1", "1e9", "999999999999", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 99999 07:28:00 +9999", "²", "")

bodies = mutated_json(DECISION, PROBLEM, RECORDED, {"decisions": [DECISION]}) | st.sampled_from(HOSTILE)
contents = bodies | st.binary(max_size=40)
retries = st.sampled_from(DATES) | st.text(st.characters(max_codepoint=255), max_size=40)


@FUZZ
@given(
    contents, st.sampled_from((200, 202, 204, 400, 401, 403, 422, 429, 500, 502, 503, 504, 599)), st.none() | retries
)
def test_any_answer_is_read_or_told_as_what_it_is(content: bytes, status: int, retry: str | None) -> None:
    headers = {"content-type": "application/json"} | ({} if retry is None else {"retry-after": retry})
    body = Body(status, 10)
    body.add(content)
    for read in (read_decision, lambda answer: read_decisions(answer, 1), lambda answer: read_recorded(answer, 1)):
        with suppress(BadAnswer, CallRefused, Unavailable):
            read(body.answer(httpx.Headers(headers, encoding="latin-1")))


def test_the_valid_answers_that_are_changed_are_valid_unchanged() -> None:
    def of(document: object) -> Answer:
        return Answer(200, httpx.Headers(), json.dumps(document).encode())

    assert read_decision(of(DECISION)).decision_id == DECISION["decision_id"]
    assert len(read_decisions(of({"decisions": [DECISION]}), 1)) == 1
    assert read_recorded(of(RECORDED), 1).recorded == 1
