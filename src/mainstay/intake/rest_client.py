"""One HTTP call, bounded in every way: how long it takes as a whole, how large the answer is, and where it leads.

What is not bounded by the library is bounded here: its times are those of one read, and a server that sends a byte now
and then is never late by them; and it unpacks a compressed answer whole, however large.
"""

from __future__ import annotations

import socket
import weakref
import zlib
from contextlib import suppress
from functools import cache
from threading import Timer
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx

from mainstay.intake.fetching import Unavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator, Mapping

CONNECT_SECONDS: Final = 10.0  # at most, of the time that a call has
MAX_REDIRECTS: Final = 5  # within one origin
PIECE_BYTES: Final = 1 << 20  # of an answer that is unpacked

_IDENTITY: Final = frozenset({"", "identity"})
_GZIP: Final = frozenset({"gzip", "x-gzip"})
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS


class Answer(NamedTuple):
    """What a server said. The body of an error is not read."""

    url: httpx.URL  # that gave it
    status: int
    headers: httpx.Headers
    links: dict[str | None, dict[str, str]]  # of its `Link` header, as httpx reads it
    body: bytes


class HttpClient:
    """Makes calls one after the other, over one connection that is kept."""

    def __init__(self, *, timeout_seconds: float, max_answer_bytes: int) -> None:
        """A call takes `timeout_seconds` at most, from its beginning to the last byte of its answer.

        Proxies and certificate authorities are taken from the variables that httpx documents.
        """
        self._timeout_seconds = timeout_seconds
        self._max_answer_bytes = max_answer_bytes
        self._watch = _Watch()
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout_seconds, connect=min(timeout_seconds, CONNECT_SECONDS)),
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
            headers={"accept": "application/json", "accept-encoding": "gzip", "user-agent": "mainstay"},
            follow_redirects=False,
            verify=_authorities(),
        )
        weakref.finalize(self, self._client.close)

    def get(self, url: httpx.URL, headers: Mapping[str, str]) -> Answer:
        """The answer to a GET; redirects are followed within the origin of `url`.

        Raises Unavailable: source_down, source_slow, redirected, not_whole, too_large.
        """
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._call(self._client.build_request("GET", url, headers=dict(headers), extensions=self._watched))
            location = answer.headers.get("location")
            if not 300 <= answer.status < 400 or location is None:
                return answer
            url = follow(url, location)
        raise Unavailable("redirected", f"more than {MAX_REDIRECTS} redirects, one after the other")

    def post_form(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        """The answer to a form; a redirect is an answer like another. Raises Unavailable as `get` does."""
        return self._call(
            self._client.build_request("POST", url, data=dict(form), headers=dict(headers), extensions=self._watched)
        )

    @property
    def _watched(self) -> dict[str, Any]:
        return {"trace": self._watch.trace}

    def _call(self, request: httpx.Request) -> Answer:
        where = f"{request.method} {origin_of(request.url)}{request.url.path}"
        slow = Unavailable("source_slow", f"{where}: no whole answer within {self._timeout_seconds:g} s")
        failure, answer = slow, None
        timer = Timer(self._timeout_seconds, self._watch.expire)
        self._watch.expired = False
        timer.start()
        try:
            answer = self._exchange(request, where)
        except Unavailable as error:
            failure = error
        except httpx.ConnectTimeout:
            failure = Unavailable("source_down", f"{where}: no connection in time")
        except httpx.TimeoutException:
            failure = slow
        except httpx.TransportError as error:
            failure = Unavailable("source_down", f"{where}: {_cause(error)}")
        finally:
            timer.cancel()
            timer.join()  # it may be at it just now
        if self._watch.expired:
            raise slow
        if answer is None:
            raise failure
        return answer

    def _exchange(self, request: httpx.Request, where: str) -> Answer:
        response = self._client.send(request, stream=True)
        try:
            body = self._read(response, where) if response.is_success else b""
        finally:
            response.close()
        return Answer(request.url, response.status_code, response.headers, response.links, body)

    def _read(self, response: httpx.Response, where: str) -> bytes:
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding not in _IDENTITY | _GZIP:
            raise Unavailable("not_json", f"{where}: expected JSON, plain or as gzip; found {encoding[:40]!r}")
        body = bytearray()
        try:
            for piece in _unpacked(response.iter_raw()) if encoding in _GZIP else response.iter_raw():
                body += piece
                if len(body) > self._max_answer_bytes:
                    detail = f"{where}: the answer has more than {self._max_answer_bytes} bytes (max_answer_bytes)"
                    raise Unavailable("too_large", detail)
        except (httpx.RemoteProtocolError, httpx.ReadError, EOFError):
            raise Unavailable("not_whole", f"{where}: the answer ended before its end") from None
        except zlib.error:
            raise Unavailable("not_whole", f"{where}: the answer is said to be gzip, and is not") from None
        return bytes(body)


@cache
def _authorities() -> ssl.SSLContext:
    """Whom to trust; reading their certificates takes longer than many a call."""
    return httpx.create_ssl_context()


def origin_of(url: httpx.URL) -> str:
    """The scheme, host and port of an address."""
    default = {"http": 80, "https": 443}[url.scheme]
    return f"{url.scheme}://{url.host}:{url.port or default}"


def follow(url: httpx.URL, reference: str) -> httpx.URL:
    """The address that `reference` means at `url`. Raises Unavailable (`redirected`) when it is of another origin.

    Credentials go with every call, and must not go elsewhere.
    """
    try:
        target = url.join(reference)
        elsewhere = target.scheme not in {"http", "https"} or origin_of(target) != origin_of(url) or target.userinfo
    except (httpx.InvalidURL, ValueError):  # of a port that is none
        raise Unavailable("redirected", "expected an address to go on at, found something else") from None
    if elsewhere:
        detail = f"{origin_of(url)} sends on to another origin, where credentials must not go"
        raise Unavailable("redirected", f"{detail}: {target.scheme}://{target.host}")
    return target.copy_with(fragment=None)


class _Watch:
    """Ends a call whose time is over, by shutting down the socket that it uses."""

    def __init__(self) -> None:
        self.expired = False
        self._socket: socket.socket | None = None

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """What httpcore calls at each stage of a call (its extension `trace`)."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")
            if self.expired:
                self.expire()

    def expire(self) -> None:
        """The time is over."""
        self.expired = True
        if self._socket is not None:
            with suppress(OSError):  # it has been closed
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # that of a TLS socket would drop its state


def _unpacked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """A gzip body of one or more members, unpacked in pieces of 1 MiB at most. Raises EOFError when it is cut."""
    inflater, begun = zlib.decompressobj(_GZIP_WINDOW), False
    for chunk in chunks:
        rest = chunk
        while rest:
            if inflater.eof:
                inflater = zlib.decompressobj(_GZIP_WINDOW)
            begun = True
            yield inflater.decompress(rest, PIECE_BYTES)
            rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
    while begun and not inflater.eof:  # what it holds back when a piece is full
        piece = inflater.decompress(b"", PIECE_BYTES)
        if not piece:
            raise EOFError
        yield piece


def _cause(error: BaseException) -> str:
    """The innermost reason: httpx says only that an attempt failed."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error) or type(error).__name__
