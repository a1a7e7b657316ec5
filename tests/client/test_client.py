from __future__ import annotations

import asyncio
import inspect
import json
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import msgspec
import pytest

from client.service import (
    Act,
    Service,
    breaks_off,
    dribbles,
    is_silent,
    never_ends,
    resets,
    says,
)
from mainstay.client import protocol
from mainstay.client.client import AsyncClient, Client
from mainstay.client.errors import BadAnswer, CallRefused, Unavailable
from mainstay.client.types import Item, Outcome, Receipt, Violation
from mainstay.errors import MainstayError, Misuse

KEY = "mk_test_5d41402abc4b2a76b9719d911017c592"
DECISION = {
    "decision_id": "0192a3b4-c5d6-7012-8345-678900000007",
    "capability": "late-arrival",
    "version": "sha256:" + "ab" * 32,
    "release": 3,
    "stage": "production",
    "outcome": "answered",
    "output": {"probability": 0.25, "late": False},
    "confidence": 0.75,
    "reasons": [{"code": "low_traffic", "detail": "few like it"}],
    "receipt": {"leaf": "cd" * 32, "log": "test.example.com", "recorded_at": "2013-04-01T09:15:00.000001Z"},
}
VIOLATION = {"field": "dep_delay", "rule": "required", "expected": "an integer", "found": None}
REFUSED = {
    "type": "about:blank",
    "title": "The input breaks the contract",
    "status": 422,
    "detail": "2 violations",
    "decision_id": DECISION["decision_id"],
    "outcome": "refused",
    "reasons": [{"code": "contract_violation", "detail": "dep_delay"}],
    "violations": [VIOLATION, {"field": "humid", "rule": "maximum", "expected": "at most 100", "found": 101.5}],
    "receipt": DECISION["receipt"],
}
OBSERVED = datetime(2013, 4, 1, 8, 30, tzinfo=timezone(timedelta(hours=-4)))

Caller = Callable[..., Any]


def call_sync(url: str, method: str, *arguments: Any, options: dict[str, Any] | None = None, **named: Any) -> Any:
    with Client(url, KEY, **(options or {})) as client:
        return getattr(client, method)(*arguments, **named)


def call_async(url: str, method: str, *arguments: Any, options: dict[str, Any] | None = None, **named: Any) -> Any:
    async def run() -> Any:
        async with AsyncClient(url, KEY, **(options or {})) as client:
            return await getattr(client, method)(*arguments, **named)

    return asyncio.run(run())


@pytest.fixture(params=[call_sync, call_async], ids=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Caller:
    """Call a method of either client; everything here holds for both."""
    caller: Caller = request.param
    return caller


# --- what is sent and read ----------------------------------------------------------------------------------------


def test_a_decision_is_asked_for_and_read(service: Service, call: Caller) -> None:
    service.will(says(200, DECISION))
    decision = call(service.url, "decide", "late-arrival", {"carrier": "UA", "temp": None}, key="k-1", deadline_ms=50)
    assert json.loads(msgspec.json.encode(decision)) == {**DECISION, "violations": []}
    (request,) = service.requests
    assert request.line == "POST /v1/capabilities/late-arrival/decisions HTTP/1.1"
    assert request.json == {"input": {"carrier": "UA", "temp": None}, "key": "k-1", "deadline_ms": 50}
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"


def test_what_is_not_given_is_not_sent(service: Service, call: Caller) -> None:
    service.will(says(200, DECISION))
    call(service.url, "decide", "late-arrival", {})
    assert service.requests[0].json == {"input": {}}


def test_a_service_below_a_path_is_called_there(service: Service, call: Caller) -> None:
    service.will(says(200, DECISION))
    call(f"{service.url}/mainstay/", "decide", "late-arrival", {})
    assert service.requests[0].path == "/mainstay/v1/capabilities/late-arrival/decisions"


def test_members_of_an_answer_that_are_not_known_are_passed_over(service: Service, call: Caller) -> None:
    service.will(says(200, {**DECISION, "new_in_2030": [1]}))
    assert call(service.url, "decide", "late-arrival", {}).output == DECISION["output"]


def test_many_decisions_come_back_in_order_refused_ones_among_them(service: Service, call: Caller) -> None:
    refused = {"decision_id": "x", "outcome": "refused", "reasons": [], "violations": [VIOLATION], "output": None}
    service.will(says(200, {"decisions": [DECISION, refused]}))
    first, second = call(service.url, "decide_many", "late-arrival", [Item({"a": 1}, "k"), Item({"a": 2})])
    assert (first.outcome, second.outcome) == ("answered", "refused")
    assert second.violations == (msgspec.convert(VIOLATION, Violation),)
    assert service.requests[0].path == "/v1/capabilities/late-arrival/decisions/batch"
    assert service.requests[0].json == {"inputs": [{"input": {"a": 1}, "key": "k"}, {"input": {"a": 2}}]}


def test_outcomes_are_reported_by_id_or_by_key_with_times_in_utc(service: Service, call: Caller) -> None:
    service.will(says(202, {"recorded": 2, "receipts": [DECISION["receipt"]] * 2}))
    outcomes = [
        Outcome(decision_id="d-1", outcome={"late": True}, observed_at=OBSERVED),
        Outcome(key="k-2", outcome={"late": False}, observed_at=OBSERVED),
    ]
    recorded = call(service.url, "report", "late-arrival", outcomes)
    assert recorded.recorded == 2
    assert recorded.receipts == (msgspec.convert(DECISION["receipt"], Receipt),) * 2
    assert service.requests[0].path == "/v1/capabilities/late-arrival/outcomes"
    assert service.requests[0].json == {
        "outcomes": [
            {"decision_id": "d-1", "outcome": {"late": True}, "observed_at": "2013-04-01T12:30:00Z"},
            {"key": "k-2", "outcome": {"late": False}, "observed_at": "2013-04-01T12:30:00Z"},
        ]
    }


def test_nothing_to_decide_or_report_is_not_sent(service: Service, call: Caller) -> None:
    assert call(service.url, "decide_many", "late-arrival", []) == []
    assert call(service.url, "report", "late-arrival", []).recorded == 0
    assert service.requests == []


# --- refusals -----------------------------------------------------------------------------------------------------


def test_a_refusal_carries_every_violation(service: Service, call: Caller) -> None:
    service.will(says(422, REFUSED, "application/problem+json"))
    with pytest.raises(CallRefused) as caught:
        call(service.url, "decide", "late-arrival", {"humid": 101.5})
    error = caught.value
    assert (error.status, error.title, error.detail) == (422, "The input breaks the contract", "2 violations")
    assert [violation.field for violation in error.violations] == ["dep_delay", "humid"]
    assert error.violations[1].found == 101.5
    assert error.decision_id == DECISION["decision_id"]
    assert error.reasons[0].code == "contract_violation"
    assert error.receipt is not None
    assert str(error) == (
        "refused (422): The input breaks the contract: 2 violations\n"
        "  dep_delay: required: expected an integer, found None\n"
        "  humid: maximum: expected at most 100, found 101.5"
    )


def test_a_long_refusal_is_shown_in_part_and_held_whole(service: Service, call: Caller) -> None:
    violations = [{**VIOLATION, "found": "x" * 10_000}] * 500
    service.will(says(422, {**REFUSED, "violations": violations}, "application/problem+json"))
    with pytest.raises(CallRefused) as caught:
        call(service.url, "decide", "late-arrival", {})
    assert len(caught.value.violations) == 500
    assert len(str(caught.value)) < 5_000
    assert str(caught.value).endswith("and 480 more")


def test_a_refusal_without_a_problem_document_says_what_its_status_says(service: Service, call: Caller) -> None:
    service.will(says(403, b"<html>no</html>", "text/html"))
    with pytest.raises(CallRefused, match=r"^refused \(403\): Forbidden$"):
        call(service.url, "decide", "late-arrival", {})


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 499])
def test_every_status_of_the_caller_is_a_refusal_and_not_repeated(service: Service, call: Caller, status: int) -> None:
    service.will(says(status, {"title": "No"}, "application/problem+json"))
    with pytest.raises(CallRefused, match=rf"refused \({status}\): No"):
        call(service.url, "decide", "late-arrival", {}, options={"retries": 3})
    assert len(service.requests) == 1


# --- answers that are none ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            says(200, b"<html>Welcome to the hotel</html>", "text/html"),
            r"33 bytes of text/html beginning '<html>Welcome",
        ),
        (says(200, b""), "expected a decision as JSON, found 0 bytes"),
        (says(200, b"\xff\xfe{"), "expected a decision as JSON"),
        (says(200, b"[" * 100_000), "expected a decision as JSON"),
        (says(200, {"outcome": "answered"}), "missing required field `decision_id`"),
        (says(200, {**DECISION, "outcome": "perhaps"}), "outcome"),
        (says(302, b"", location="https://elsewhere.example.com"), "found status 302"),
        (says(500, b"Traceback", "text/plain"), "found status 500 with 9 bytes of text/plain beginning 'Traceback'"),
    ],
)
def test_an_answer_that_is_no_decision_is_a_bad_answer(service: Service, call: Caller, act: Act, message: str) -> None:
    service.will(act)
    with pytest.raises(BadAnswer, match=message):
        call(service.url, "decide", "late-arrival", {}, options={"retries": 3})
    assert len(service.requests) == 1


def test_fewer_decisions_than_items_are_a_bad_answer(service: Service, call: Caller) -> None:
    service.will(says(200, {"decisions": [DECISION]}))
    with pytest.raises(BadAnswer, match="expected 2 decisions, found 1"):
        call(service.url, "decide_many", "late-arrival", [Item({}), Item({})])


def test_fewer_outcomes_recorded_than_sent_are_a_bad_answer(service: Service, call: Caller) -> None:
    service.will(says(202, {"recorded": 0, "receipts": []}))
    with pytest.raises(BadAnswer, match="expected 1 outcomes recorded, found 0"):
        call(service.url, "report", "late-arrival", [Outcome(key="k", outcome={}, observed_at=OBSERVED)])


def test_an_answer_without_end_is_cut_off(service: Service, call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_ANSWER_BYTES", 4 << 20)
    service.will(never_ends)
    with pytest.raises(BadAnswer, match="expected at most 4194304 bytes"):
        call(service.url, "decide", "late-arrival", {})


def test_compression_that_was_not_asked_for_is_not_undone(service: Service, call: Caller) -> None:
    service.will(says(200, b"\x1f\x8b" + b"\0" * 100, content_encoding="gzip"))
    with pytest.raises(BadAnswer, match="expected a decision as JSON"):
        call(service.url, "decide", "late-arrival", {})
    assert service.requests[0].headers["accept-encoding"] == "identity"


# --- no answer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", [resets, breaks_off], ids=["reset", "half a body"])
def test_a_broken_connection_is_unavailable_and_not_repeated_by_itself(
    service: Service, call: Caller, act: Act
) -> None:
    service.will(act)
    with pytest.raises(Unavailable, match=r"the connection to http://127\.0\.0\.1:\d+ failed") as caught:
        call(service.url, "decide", "late-arrival", {})
    assert caught.value.status is None
    assert len(service.requests) == 1


def test_a_service_that_is_not_there_is_unavailable(unused_url: str, call: Caller) -> None:
    with pytest.raises(Unavailable, match="ConnectError"):
        call(unused_url, "decide", "late-arrival", {})


@pytest.mark.parametrize("act", [is_silent, dribbles])
def test_a_slow_service_is_unavailable_when_the_time_is_up(service: Service, call: Caller, act: Act) -> None:
    service.will(act)
    started = time.monotonic()
    with pytest.raises(Unavailable, match=r"within 0\.2 s"):
        call(service.url, "decide", "late-arrival", {}, options={"timeout_seconds": 0.2, "retries": 3})
    assert time.monotonic() - started < 2
    assert len(service.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_says_when_to_come_back(service: Service, call: Caller, status: int) -> None:
    service.will(says(status, {"title": "Busy", "detail": "the queue is full"}, retry_after="7"))
    with pytest.raises(Unavailable, match=rf"cannot answer now \({status}\): the queue is full") as caught:
        call(service.url, "decide", "late-arrival", {})
    assert (caught.value.status, caught.value.retry_after_seconds) == (status, 7.0)
    assert len(service.requests) == 1


@pytest.mark.parametrize("value", ["soon", "-1", "1e9", "nan", "", "Sun, 99 Nov 2013 08:49:37 GMT"])
def test_a_time_to_come_back_that_means_nothing_is_none(service: Service, call: Caller, value: str) -> None:
    service.will(says(503, {}, retry_after=value))
    with pytest.raises(Unavailable) as caught:
        call(service.url, "decide", "late-arrival", {})
    assert caught.value.retry_after_seconds is None


def test_a_date_to_come_back_is_read(service: Service, call: Caller) -> None:
    service.will(says(503, {}, retry_after=format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)))
    with pytest.raises(Unavailable) as caught:
        call(service.url, "decide", "late-arrival", {})
    assert caught.value.retry_after_seconds == pytest.approx(60, abs=5)


def test_a_date_gone_by_means_now(service: Service, call: Caller) -> None:
    service.will(says(503, {}, retry_after="Sun, 06 Nov 1994 08:49:37 GMT"))
    with pytest.raises(Unavailable) as caught:
        call(service.url, "decide", "late-arrival", {})
    assert caught.value.retry_after_seconds == 0


# --- retries ------------------------------------------------------------------------------------------------------


def test_with_retries_a_broken_connection_and_a_busy_service_are_tried_again(service: Service, call: Caller) -> None:
    service.will(resets, says(503, {}), breaks_off, says(429, {}, retry_after="0"), says(200, DECISION))
    decision = call(service.url, "decide", "late-arrival", {"a": 1}, key="k", options={"retries": 4})
    assert decision.outcome == "answered"
    assert len(service.requests) == 5
    assert {request.body for request in service.requests} == {b'{"input":{"a":1},"key":"k"}'}


def test_retries_end(service: Service, call: Caller) -> None:
    service.will(says(503, {"title": "Busy"}))
    with pytest.raises(Unavailable, match="Busy"):
        call(service.url, "decide", "late-arrival", {}, options={"retries": 2})
    assert len(service.requests) == 3


def test_a_wait_asked_for_is_kept(service: Service, call: Caller) -> None:
    service.will(says(503, {}, retry_after="1"), says(200, DECISION))
    started = time.monotonic()
    call(service.url, "decide", "late-arrival", {}, options={"retries": 1})
    assert 1 <= time.monotonic() - started < 3


def test_a_service_that_asks_for_a_long_wait_is_not_asked_again(service: Service, call: Caller) -> None:
    service.will(says(503, {}, retry_after="3600"))
    with pytest.raises(Unavailable) as caught:
        call(service.url, "decide", "late-arrival", {}, options={"retries": 3})
    assert caught.value.retry_after_seconds == 3600
    assert len(service.requests) == 1


# --- misuse, and the key ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("decide", ("late-arrival", {"temp": float("nan")}), "expected values that JSON can hold"),
        ("decide", ("late-arrival", {"temp": {1, 2}}), "found a set"),
        ("decide", ("late-arrival", {"at": datetime(2013, 4, 1)}), "does not say its offset"),  # noqa: DTZ001 -- the point
        (
            "decide",
            ("../../admin", {}),
            r"expected the name of a capability.*found '\.\./\.\./admin'",
        ),
        ("decide", ("", {}), "expected the name of a capability"),
        ("decide_many", ("late-arrival", [Item({"temp": float("inf")})]), "expected values that JSON can hold"),
        ("report", ("late-arrival", [Outcome(outcome={}, observed_at=OBSERVED)]), "found neither or both"),
        (
            "report",
            ("late-arrival", [Outcome(outcome={}, observed_at=OBSERVED, key="k", decision_id="d")]),
            "found neither or both",
        ),
    ],
)
def test_a_wrong_call_is_misuse_and_not_sent(
    service: Service, call: Caller, method: str, arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(Misuse, match=message):
        call(service.url, method, *arguments)
    assert service.requests == []


def test_a_deadline_of_nothing_is_misuse(service: Service, call: Caller) -> None:
    with pytest.raises(Misuse, match="at least 1 ms, found 0"):
        call(service.url, "decide", "late-arrival", {}, deadline_ms=0)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("decisions.example.com", {}, "expected an address such as"),
        ("ftp://decisions.example.com", {}, "expected an address such as"),
        ("https://", {}, "expected an address such as"),
        ("http://decisions.example.com:port", {}, "expected the address of a service"),
        ("https://user:hunter2@decisions.example.com", {}, "without user"),
        ("https://decisions.example.com", {"timeout_seconds": 0}, "timeout above 0"),
        ("https://decisions.example.com", {"timeout_seconds": float("nan")}, "timeout above 0"),
        ("https://decisions.example.com", {"retries": -1}, "0 to 100 retries"),
    ],
)
def test_a_client_that_could_not_work_is_not_made(
    kind: type[Client | AsyncClient], url: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(Misuse, match=message) as caught:
        kind(url, KEY, **options)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "ключ"])
def test_a_key_that_cannot_be_sent_is_refused_without_repeating_it(key: str) -> None:
    with pytest.raises(Misuse) as caught:
        Client("https://decisions.example.com", key)
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_no_representation_holds_the_key(kind: type[Client | AsyncClient]) -> None:
    client = kind("https://decisions.example.com", KEY)
    shown = f"{client!r} {client!s} {vars(client)} {client._http.headers!r}"
    assert repr(client) == f"{kind.__name__}('https://decisions.example.com')"
    assert KEY not in shown


@pytest.mark.parametrize("act", [resets, breaks_off, says(503, {}), says(401, {}), says(500, b""), says(200, b"<")])
def test_no_error_holds_the_key(service: Service, call: Caller, act: Act) -> None:
    service.will(act)
    with pytest.raises(MainstayError) as caught:
        call(service.url, "decide", "late-arrival", {})
    assert service.requests[0].headers["authorization"] == f"Bearer {KEY}"
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(vars(caught.value))
    assert KEY not in shown


def test_a_proxy_of_the_environment_is_not_asked_to_reach_this_machine(
    service: Service, unused_url: str, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", unused_url)
    monkeypatch.setenv("http_proxy", unused_url)
    service.will(says(200, DECISION))
    assert call(service.url, "decide", "late-arrival", {}).outcome == "answered"


def test_the_clients_are_twins() -> None:
    def surface(kind: type) -> dict[str, tuple[list[inspect.Parameter], str | None]]:
        public = {name: method for name, method in vars(kind).items() if inspect.isfunction(method) and name[0] != "_"}
        methods = {**public, "__init__": vars(kind)["__init__"]}
        return {
            name: (list(inspect.signature(method).parameters.values()), method.__doc__)
            for name, method in methods.items()
        }

    assert surface(Client) == surface(AsyncClient)
