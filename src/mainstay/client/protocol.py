"""What both clients share: how calls are written, how answers are read, when to ask again. Nothing here does I/O."""

from __future__ import annotations

import json
import math
import random
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import httpx
import msgspec

from mainstay.capability.words import Name
from mainstay.client.errors import BadAnswer, CallRefused, Unavailable
from mainstay.client.types import Decision, Reason, Receipt, Recorded, Violation
from mainstay.errors import NOT_READ, Misuse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mainstay.client.types import Item, Outcome

MAX_ANSWER_BYTES = 64 << 20
MAX_RETRIES = 100
MAX_WAIT_SECONDS = 30.0  # between two attempts; a service that asks for more is not asked again
FIRST_WAIT_SECONDS = 0.1  # upper bound of the first wait; doubles with each attempt

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Target:
    """Where to call, as whom, how long to wait, how often to repeat. Raises Misuse when one of them cannot be.

    The key is kept out of every representation and every message.
    """

    url: str
    key: str = field(repr=False)
    timeout_seconds: float
    retries: int

    def __post_init__(self) -> None:
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise Misuse(f"expected the address of a service, such as https://decisions.example.com: {error}") from None
        if url.userinfo or url.query or url.fragment:  # not repeated: it may hold a password
            raise Misuse("expected an address without user, query or fragment; the key is an argument of its own")
        if url.scheme not in {"http", "https"} or not url.host:
            raise Misuse(f"expected an address such as https://decisions.example.com, found {self.url!r}")
        if not re.fullmatch(r"[\x21-\x7e]{1,1024}", self.key):  # httpx would name an illegal header with its value
            raise Misuse("expected a key of visible ASCII characters", hint="Make one with `mainstay key`.")
        if not 0 < self.timeout_seconds < math.inf:
            raise Misuse(f"expected a timeout above 0 seconds, found {self.timeout_seconds}")
        if not 0 <= self.retries <= MAX_RETRIES:
            raise Misuse(f"expected 0 to {MAX_RETRIES} retries, found {self.retries}")

    def settings(self) -> dict[str, Any]:
        """Arguments of `httpx.Client` and `httpx.AsyncClient`."""
        return {
            "base_url": self.url,
            "headers": {
                "authorization": f"Bearer {self.key}",
                "accept": "application/json, application/problem+json",
                "accept-encoding": "identity",  # a small compressed answer may be a huge one
                "content-type": "application/json",
            },
            "timeout": self.timeout_seconds,
            # A proxy named by the environment cannot reach the loopback of this machine.
            "trust_env": not _is_loopback(httpx.URL(self.url).host),
        }


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP POST."""

    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP response, read whole. Names of headers are matched in any case."""

    status: int
    headers: httpx.Headers
    content: bytes


class Body:
    """Collects a response; raises BadAnswer when it grows too large, Unavailable when it takes too long."""

    def __init__(self, status: int, timeout_seconds: float) -> None:
        self._status = status
        self._timeout_seconds = timeout_seconds
        self._deadline = time.monotonic() + timeout_seconds
        self._chunks: list[bytes] = []
        self._bytes = 0

    def add(self, chunk: bytes) -> None:
        self._bytes += len(chunk)
        if self._bytes > MAX_ANSWER_BYTES:
            raise BadAnswer(f"expected at most {MAX_ANSWER_BYTES} bytes, found a longer answer", status=self._status)
        if time.monotonic() > self._deadline:
            raise Unavailable(f"the answer was not complete within {self._timeout_seconds} s")
        self._chunks.append(chunk)

    def answer(self, headers: httpx.Headers) -> Answer:
        """The response when it is a success; raises CallRefused, Unavailable or BadAnswer when it is not."""
        answer = Answer(self._status, headers, b"".join(self._chunks))
        return answer if 200 <= answer.status < 300 else _refuse(answer)


class Attempts:
    """Counts the attempts of one call. Waits follow "full jitter": uniform up to a bound that doubles each time
    (M. Brooker, "Exponential backoff and jitter", 2015), on top of what the service asked for.
    """

    def __init__(self, retries: int) -> None:
        self._left = retries
        self._bound_seconds = FIRST_WAIT_SECONDS

    def pause_seconds(self, error: Unavailable) -> float:
        """How long to wait before asking again; raises `error` when the call is not to be repeated."""
        asked_seconds = error.retry_after_seconds or 0.0
        if not error.may_repeat or self._left == 0 or asked_seconds > MAX_WAIT_SECONDS:
            raise error
        self._left -= 1
        jitter_seconds = random.uniform(0, self._bound_seconds)  # noqa: S311 -- spreads load, guards nothing
        self._bound_seconds = min(2 * self._bound_seconds, MAX_WAIT_SECONDS)
        return min(asked_seconds + jitter_seconds, MAX_WAIT_SECONDS)


class _Problem(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 9457, with what a refused decision adds."""

    title: str = ""
    detail: str = ""
    decision_id: str | None = None
    reasons: tuple[Reason, ...] = ()
    violations: tuple[Violation, ...] = ()
    receipt: Receipt | None = None


class _Batch(msgspec.Struct, frozen=True):
    decisions: list[Decision]


# --- calls --------------------------------------------------------------------------------------------------------


def decide_call(capability: str, record: Mapping[str, Any], key: str | None, deadline_ms: int | None) -> Call:
    """Raises Misuse when the name cannot be one, the record is not JSON, or the deadline is not above 0."""
    if deadline_ms is not None and deadline_ms < 1:
        raise Misuse(f"expected a deadline of at least 1 ms, found {deadline_ms}")
    body = _present({"input": dict(record), "key": key, "deadline_ms": deadline_ms})
    return Call(_path(capability, "decisions"), _encode(body))


def decide_many_call(capability: str, items: Sequence[Item]) -> Call:
    """Raises Misuse when the name cannot be one, or an input is not JSON."""
    inputs = [_present({"input": item.input, "key": item.key}) for item in items]
    return Call(_path(capability, "decisions/batch"), _encode({"inputs": inputs}))


def report_call(capability: str, outcomes: Sequence[Outcome]) -> Call:
    """Raises Misuse when an outcome is not JSON, names no decision or two, or has a time without an offset."""
    return Call(_path(capability, "outcomes"), _encode({"outcomes": [_outcome(outcome) for outcome in outcomes]}))


def _outcome(outcome: Outcome) -> dict[str, Any]:
    if (outcome.decision_id is None) == (outcome.key is None):
        raise Misuse("expected an outcome to name its decision by one of decision_id and key, found neither or both")
    return _present(
        {
            "decision_id": outcome.decision_id,
            "key": outcome.key,
            "outcome": outcome.outcome,
            "observed_at": outcome.observed_at,
        }
    )


def _present(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _path(capability: str, what: str) -> str:
    try:
        name = msgspec.convert(capability, Name)
    except msgspec.ValidationError:
        raise Misuse(f"expected the name of a capability, such as late-arrival, found {capability!r}") from None
    return f"/v1/capabilities/{name}/{what}"


def _encode(body: dict[str, Any]) -> bytes:
    try:
        # Not msgspec: it would write NaN as null, and a gap is for the caller to declare.
        return json.dumps(body, allow_nan=False, separators=(",", ":"), default=_plain).encode()
    except (TypeError, ValueError, RecursionError) as error:
        hint = "Use plain Python values; write None where nothing was measured."
        raise Misuse(f"expected values that JSON can hold: {error}", hint=hint) from None


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise TypeError(f"the time {value.isoformat()} does not say its offset from UTC")
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"found a {type(value).__name__}")


# --- answers ------------------------------------------------------------------------------------------------------


def read_decision(answer: Answer) -> Decision:
    """Raises BadAnswer when it is not a decision."""
    return _read(answer, Decision, "a decision")


def read_decisions(answer: Answer, count: int) -> list[Decision]:
    """One per item sent, in order. Raises BadAnswer when they are not decisions, or not as many."""
    decisions = _read(answer, _Batch, "a batch of decisions").decisions
    if len(decisions) != count:
        raise BadAnswer(f"expected {count} decisions, found {len(decisions)}", status=answer.status)
    return decisions


def read_recorded(answer: Answer, count: int) -> Recorded:
    """Raises BadAnswer when it does not say that as many outcomes were recorded as were sent."""
    recorded = _read(answer, Recorded, "a count of recorded outcomes")
    if recorded.recorded != count:
        raise BadAnswer(f"expected {count} outcomes recorded, found {recorded.recorded}", status=answer.status)
    return recorded


def _read(answer: Answer, kind: type[Read], name: str) -> Read:
    try:
        return msgspec.json.decode(answer.content, type=kind)
    except NOT_READ as error:
        message = f"expected {name} as JSON, found {_describe(answer)}: {error}"
        raise BadAnswer(message, status=answer.status) from None


def _refuse(answer: Answer) -> NoReturn:
    """Raise what a status other than 2xx means."""
    problem = _problem(answer)
    if answer.status in {429, 503}:
        raise Unavailable(
            f"the service cannot answer now ({answer.status}): {problem.detail or problem.title}",
            status=answer.status,
            retry_after_seconds=_retry_after_seconds(answer.headers.get("retry-after")),
            may_repeat=True,
        )
    if 400 <= answer.status < 500 or problem.decision_id is not None:  # a recorded refusal, such as a late model's
        raise CallRefused(
            status=answer.status,
            title=problem.title,
            detail=problem.detail,
            violations=problem.violations,
            reasons=problem.reasons,
            decision_id=problem.decision_id,
            receipt=problem.receipt,
        )
    message = f"expected success or a reasoned refusal, found status {answer.status} with {_describe(answer)}"
    raise BadAnswer(message, status=answer.status)


def _problem(answer: Answer) -> _Problem:
    """The problem document, or what the status alone says when there is none: a proxy's page, half a document."""
    try:
        problem = msgspec.json.decode(answer.content, type=_Problem)
    except NOT_READ:
        problem = _Problem()
    if problem.title:
        return problem
    known = answer.status in HTTPStatus.__members__.values()
    return msgspec.structs.replace(problem, title=HTTPStatus(answer.status).phrase if known else "no reason given")


def _describe(answer: Answer) -> str:
    kind = answer.headers.get("content-type", "no declared type")
    start = answer.content[:60].decode("utf-8", "replace")
    return f"{len(answer.content)} bytes of {kind} beginning {start!r}"


def _retry_after_seconds(value: str | None) -> float | None:
    """RFC 9110, section 10.2.3: seconds, or a date. None when absent or neither."""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


# --- failures of the transport ------------------------------------------------------------------------------------


def transport_failure(error: httpx.HTTPError, target: Target) -> Unavailable:
    """What a failure below HTTP means. Too slow is not repeated: the caller's time is up."""
    if isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
        return Unavailable(f"no answer from {target.url} within {target.timeout_seconds} s")
    kind = type(error).__name__
    return Unavailable(f"the connection to {target.url} failed: {kind}: {error}".rstrip(": "), may_repeat=True)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
