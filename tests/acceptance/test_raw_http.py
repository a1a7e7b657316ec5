"""Bytes that no HTTP client would send, against a worker that really runs: it lives, serves others, records well."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

import tiny
from mainstay.ledger.find import find_entry
from mainstay.ledger.verify import verify_ledger
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.acceptance

PATH = b"/v1/capabilities/tiny/decisions"
CALL = b'{"input": {"a": 0.5, "b": 0.25}}'
CHUNKED = b"Transfer-Encoding: chunked\r\n"
REFUSED = {0, 400, 413, 414, 431, 501}  # 0: closed without an answer
SLOW_SECONDS = 3.0
MILLIONS = 31 << 20
LARGEST_BYTES = 512 << 20
DROPS = 200  # connections dropped at every place of a request


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tiny.Up]:
    workspace, token = tiny.make_served(tmp_path_factory.mktemp("raw") / "workspace")
    with tiny.up(workspace, token) as service:
        yield service
        state = json.loads((workspace.run / "up.json").read_text())
    assert set(state["deaths"].values()) == {0}
    assert "a call failed" not in (workspace.run / "up.log").read_text()
    assert not verify_ledger(workspace.ledger, load_verifier(workspace.keys)).findings


@contextmanager
def connection(up: tiny.Up, seconds: float = 10) -> Iterator[socket.socket]:
    host, port = up.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as opened:
        yield opened


def request(
    up: tiny.Up, *, method: bytes = b"POST", path: bytes = PATH, headers: bytes = b"", body: bytes = b""
) -> bytes:
    key = b"Authorization: Bearer %b\r\n" % up.token.encode()
    return b"%b %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%b%b\r\n%b" % (method, path, key, headers, body)


def whole(up: tiny.Up) -> bytes:
    return request(up, headers=b"Content-Length: %d\r\n" % len(CALL), body=CALL)


def exchange(up: tiny.Up, sent: bytes) -> tuple[int, bytes]:
    """The status and the body of the answer to these bytes; 0 where there was none."""
    received = b""
    with connection(up) as opened:
        try:
            opened.sendall(sent)
            while block := opened.recv(65_536):
                received += block
        except (ConnectionResetError, BrokenPipeError):  # it was answered, or not, before all of it was sent
            pass
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]) if head else 0, body


def check_serves(up: tiny.Up) -> None:
    begun = time.monotonic()
    answer = httpx.post(up.decisions_url, content=CALL, headers=up.headers, timeout=10)
    assert answer.json()["outcome"] == "answered"
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\x01\x02 no request at all\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /health/live\r\n\r\n",
        b"GET /health/live HTTP/7.3\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nX : y\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nX: a\r\n folded\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nX: a\rb\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nX: " + b"a" * 2_000_000 + b"\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\n" + b"X: a\r\n" * 10_000 + b"\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/\xc3\x28 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
    ],
    ids=range(16),
)
def test_what_is_no_request_is_refused(up: tiny.Up, sent: bytes) -> None:
    status, _ = exchange(up, sent)
    assert status in REFUSED
    check_serves(up)


@pytest.mark.parametrize(
    "lengths",
    [
        b"Content-Length: -1\r\n",
        b"Content-Length: +32\r\n",
        b"Content-Length: 0x20\r\n",
        b"Content-Length: 32, 32\r\n",
        b"Content-Length: 99999999999999999999999999\r\n",
        b"Content-Length: 999999999999\r\n",
        b"Content-Length: 32\r\nContent-Length: 5\r\n",
        "Content-Length: ³²\r\n".encode(),
    ],
)
def test_a_length_that_is_none_or_two_is_refused(up: tiny.Up, lengths: bytes) -> None:
    status, body = exchange(up, request(up, headers=lengths, body=CALL))
    assert status in REFUSED
    assert b"decision_id" not in body


@pytest.mark.parametrize(
    "body",
    [
        b"%x\r\n%b\r\nzz\r\n" % (len(CALL), CALL),
        b"%x\r\n%b\r\n-1\r\n" % (len(CALL), CALL),
        b"%x\r\n%b\r\nffffffffffffffffffff\r\n" % (len(CALL), CALL),
        b"%x\r\n%b__0\r\n\r\n" % (len(CALL), CALL),
        b"%x\r\n%b\r\n0\r\nno trailer\r\n\r\n" % (len(CALL), CALL),
        b"zz\r\n%b\r\n0\r\n\r\n" % CALL,
    ],
)
def test_chunks_that_break_off_decide_nothing_however_whole_the_call_looks(up: tiny.Up, body: bytes) -> None:
    status, answer = exchange(up, request(up, headers=CHUNKED, body=body))
    assert status == 400
    assert b"decision_id" not in answer


def test_chunks_of_any_size_make_one_call(up: tiny.Up) -> None:
    for size in (1, 5, len(CALL)):
        parts = [CALL[at : at + size] for at in range(0, len(CALL), size)]
        body = b"".join(b"%x;note=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        status, answer = exchange(up, request(up, headers=CHUNKED, body=body))
        assert (status, json.loads(answer)["outcome"]) == (200, "answered")


def test_lines_whose_caller_goes_away_are_not_decided(up: tiny.Up) -> None:
    before = decisions(up)
    headers = CHUNKED + b"Content-Type: application/x-ndjson\r\n"
    with connection(up) as opened:
        lines = (CALL + b"\n") * 3
        opened.sendall(request(up, path=PATH + b"/batch", headers=headers, body=b"%x\r\n%b\r\n" % (len(lines), lines)))
        time.sleep(0.2)
    time.sleep(0.2)
    assert decisions(up) == before


def decisions(up: tiny.Up) -> int:
    text = httpx.get(f"{up.url}/metrics", headers=up.headers).text
    counted = (line.rpartition(" ")[2] for line in text.splitlines() if line.startswith("mainstay_decisions_total{"))
    return sum(map(int, counted))


@pytest.mark.parametrize(
    "key", [b"\xff\xfe", b"Bearer", b"Bearer " + b"x" * 60_000, "Bearer ﬃ".encode(), b"bearer\tms"]
)
def test_a_key_that_is_none_lets_nobody_in(up: tiny.Up, key: bytes) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: %b\r\nContent-Length: %d\r\n\r\n%b"
    status, _ = exchange(up, head % (PATH, key, len(CALL), CALL))
    assert status == 401


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        (b"GET", b"http://other.example/health/live", {200}),
        (b"POST", PATH + b"/", {404}),
        (b"POST", b"/" + PATH, {404}),
        (b"POST", b"/v1/x/.." + PATH[3:], {404}),
        (b"GET", b"/v1/" + b"a" * 10_000, {404}),
        (b"GET", b"/v1/%ff%fe%00%80", {404}),
        (b"GET", b"/v2/models/%f0%28%8c%28/ready", {404}),
        (b"OPTIONS", b"*", {404}),
        (b"CONNECT", b"other.example:443", {404}),
        (b"post", PATH, {405}),
        (b"DELETE", PATH, {405}),
        (b"A" * 5_000, b"/health/live", {405}),
        (b"HEAD", b"/health/live", {405}),
    ],
)
def test_any_method_and_any_path_have_an_answer(up: tiny.Up, method: bytes, path: bytes, expected: set[int]) -> None:
    status, _ = exchange(up, request(up, method=method, path=path))
    assert status in expected


def test_requests_in_one_stream_are_answered_in_order(up: tiny.Up) -> None:
    calls = [b'{"input": {"a": %d, "b": -9}, "key": "p%d"}' % (number, number) for number in range(15)]
    stream = b"".join(request(up, headers=b"Content-Length: %d\r\n" % len(call), body=call) for call in calls)
    stream = stream.replace(b"Connection: close\r\n", b"", len(calls) - 1)
    received = b""
    with connection(up) as opened:
        opened.sendall(stream)
        while block := opened.recv(65_536):
            received += block
    answers = [json.loads(part[: part.rindex(b"}") + 1]) for part in received.split(b"\r\n\r\n")[1:]]
    probabilities = [answer["output"]["probability"] for answer in answers]
    assert len(probabilities) == 15
    assert probabilities == sorted(probabilities)
    assert all(find_entry(up.workspace.ledger, answer["decision_id"]) is not None for answer in answers)


def test_callers_that_drip_or_stop_halfway_hold_up_nobody(up: tiny.Up) -> None:
    with ExitStack() as stack:
        sent = whole(up)
        half = [stack.enter_context(connection(up)) for _ in range(60)]
        for place, opened in enumerate(half):
            opened.sendall(sent[: len(sent) * place // len(half)])
        dripping = [stack.enter_context(connection(up)) for _ in range(15)]
        until, at = time.monotonic() + SLOW_SECONDS, 0
        while time.monotonic() < until:
            for opened in dripping:
                opened.sendall(sent[at : at + 1])
            at += 1
            check_serves(up)
        for opened in dripping:
            opened.sendall(sent[at:])
            assert opened.recv(12) == b"HTTP/1.1 200"
    check_serves(up)


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        (PATH + b"/batch", b"", b'{"inputs":[%b1]}' % (b"1," * MILLIONS)),
        (PATH + b"/batch", b"Content-Type: application/x-ndjson\r\n", b"1\n" * MILLIONS),
        (b"/v1/capabilities/tiny/outcomes", b"", b'{"outcomes":[%b1]}' % (b"1," * MILLIONS)),
        *(
            (
                b"/v2/models/tiny/infer",
                b"",
                b'{"inputs":[{"name":"%b","shape":[1],"datatype":"%b","data":[%b%b]}]}' % (*said, element),
            )
            for element, said in (
                (b"1", (b"a", b"FP64", b"1," * MILLIONS)),
                (b'""', (b"note", b"BYTES", b'"",' * (MILLIONS // 2))),
            )
        ),
    ],
    ids=["calls", "lines", "outcomes", "numbers", "texts"],
)
def test_millions_of_items_are_refused_before_they_are_made(
    up: tiny.Up, path: bytes, headers: bytes, body: bytes
) -> None:
    begun = time.monotonic()
    status, answer = exchange(
        up, request(up, path=path, headers=headers + b"Content-Length: %d\r\n" % len(body), body=body)
    )
    assert status in {400, 422}, answer[:200]
    assert time.monotonic() - begun < 4
    check_serves(up)
    assert peak_bytes(up) < LARGEST_BYTES


def peak_bytes(up: tiny.Up) -> int:
    """The most memory that the worker ever held."""
    number = json.loads((up.workspace.run / "up.json").read_text())["processes"]["worker-0"]
    for line in Path(f"/proc/{number}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    pytest.fail("the kernel does not say how much memory a process held")


def test_callers_that_go_away_at_any_place_leave_the_worker_as_it_was(up: tiny.Up) -> None:
    sent = whole(up)
    for place in range(DROPS):
        with connection(up) as opened:
            opened.sendall(sent[: 1 + len(sent) * place // DROPS])
    check_serves(up)
