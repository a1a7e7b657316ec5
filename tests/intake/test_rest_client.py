from __future__ import annotations

import gzip
import time
import zlib

import httpx
import pytest

from intake.api import Reply, Request, api, in_turn
from mainstay.intake import rest_client
from mainstay.intake.fetching import Unavailable
from mainstay.intake.rest_client import HttpClient, follow

LIMIT = 10_000


def get(url: str, *, timeout_seconds: float = 5.0) -> rest_client.Answer:
    return HttpClient(timeout_seconds=timeout_seconds, max_answer_bytes=LIMIT).get(httpx.URL(url), {"x-key": "k"})


def fails(reply: Reply, code: str, *, timeout_seconds: float = 5.0) -> None:
    with api(in_turn(reply)) as server, pytest.raises(Unavailable) as caught:
        get(server.url, timeout_seconds=timeout_seconds)
    assert caught.value.code == code, caught.value


def packed(content: bytes, **headers: str) -> Reply:
    return Reply(content, headers={"content-encoding": "gzip"} | headers)


def test_one_connection_serves_many_calls() -> None:
    with api(in_turn(Reply(b"[1]"))) as server:
        client = HttpClient(timeout_seconds=5, max_answer_bytes=LIMIT)
        assert [client.get(httpx.URL(server.url), {}).body for _ in range(3)] == [b"[1]"] * 3
        assert len(server._open) == 1


def test_an_answer_may_be_packed() -> None:
    content = b"[" + b" " * 5_000 + b"]"
    halves = gzip.compress(content[:2_000]) + gzip.compress(content[2_000:])
    for body in (gzip.compress(content), halves):
        with api(in_turn(packed(body))) as server:
            assert get(server.url).body == content
    with api(in_turn(packed(b""))) as server:
        assert get(server.url).body == b""


@pytest.mark.parametrize("piece_bytes", [1, 7, 4_096])
def test_what_is_unpacked_does_not_depend_on_the_size_of_its_pieces(
    piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest_client, "PIECE_BYTES", piece_bytes)
    content = bytes(range(256)) * 8
    with api(in_turn(packed(gzip.compress(content)))) as server:
        assert get(server.url).body == content


def test_a_bomb_is_left_when_it_has_grown_beyond_the_limit() -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.flush()
    begun = time.process_time()
    fails(packed(bomb), "too_large")
    assert time.process_time() - begun < 1.0


@pytest.mark.parametrize("chunked", [False, True])
def test_an_answer_beyond_the_limit_is_left(chunked: bool) -> None:
    piece = b"1000\r\n" + b" " * 4_096 + b"\r\n"
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    fails(Reply(raw=head + piece * 20) if chunked else Reply(b" " * (LIMIT + 1)), "too_large")


def test_an_answer_at_the_limit_is_taken() -> None:
    with api(in_turn(Reply(b" " * LIMIT))) as server:
        assert len(get(server.url).body) == LIMIT


@pytest.mark.parametrize(
    "body", [b"no gzip", gzip.compress(b"[1, 2]", mtime=0)[:-4], gzip.compress(b"[1]", mtime=0) + b"\x1f\x8b"]
)
def test_a_packed_answer_that_is_broken_is_not_whole(body: bytes) -> None:
    fails(packed(body), "not_whole")


def test_an_encoding_that_was_not_asked_for_is_refused() -> None:
    fails(Reply(b"x", headers={"content-encoding": "br"}), "not_json")


@pytest.mark.parametrize(
    "raw", [b"", b"SSH-2.0-Open\r\n", b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-"]
)
def test_what_is_no_http_is_a_source_that_is_down(raw: bytes) -> None:
    fails(Reply(raw=raw), "source_down")


@pytest.mark.parametrize(
    "reply",
    [
        Reply(hangs=True),
        Reply(b"[]", drips=True),  # each byte comes well within the time for one read
        Reply(raw=b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 500, drips=True),  # ends where the connection does
    ],
)
def test_the_time_of_a_call_is_that_of_all_of_it(reply: Reply) -> None:
    begun = time.monotonic()
    fails(reply, "source_slow", timeout_seconds=0.5)
    assert time.monotonic() - begun < 2.0


def test_a_call_after_one_that_was_late_goes_well() -> None:
    with api(in_turn(Reply(hangs=True), Reply(b"[1]"))) as server:
        client = HttpClient(timeout_seconds=0.3, max_answer_bytes=LIMIT)
        with pytest.raises(Unavailable, match="source_slow"):
            client.get(httpx.URL(server.url), {})
        assert client.get(httpx.URL(server.url), {}).body == b"[1]"


def test_a_redirect_within_the_origin_is_followed_with_the_credentials() -> None:
    def answer(request: Request) -> Reply:
        return Reply(b"[1]") if request.path == "/b" else Reply(status=301, headers={"location": "/b"})

    with api(answer) as server:
        assert get(f"{server.url}/a").body == b"[1]"
        assert server.requests[1].headers["x-key"] == "k"


def test_a_redirect_elsewhere_is_not_followed() -> None:
    with api(in_turn(Reply(b"[1]"))) as other:
        for location in (other.url, f"http://localhost:{other.port}/", "https://127.0.0.1/", "ftp://127.0.0.1/", "//x"):
            fails(Reply(status=302, headers={"location": location}), "redirected")
        assert other.requests == []


def test_redirects_without_end_are_left() -> None:
    fails(Reply(status=302, headers={"location": "/"}), "redirected")


@pytest.mark.parametrize("reference", ["http://user@a.example/x", "http://a.example:99999999/", "http://[", "data:x"])
def test_only_an_address_of_the_same_origin_is_followed(reference: str) -> None:
    with pytest.raises(Unavailable, match="redirected"):
        follow(httpx.URL("http://a.example/"), reference)


def test_the_usual_port_of_a_scheme_may_be_said() -> None:
    assert str(follow(httpx.URL("https://a.example/x"), "https://a.example:443/y#z")) == "https://a.example/y"
