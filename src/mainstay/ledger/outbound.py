"""Asking other machines, which may be slow, dead or hostile: every answer is bounded in time and in size."""

from __future__ import annotations

import asyncio
import os
import random
from email.utils import parsedate_to_datetime
from functools import lru_cache
from ipaddress import ip_address
from netrc import NetrcParseError
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

import httpx

from mainstay.errors import Failed, Misuse

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime

ANSWER_SECONDS = 10.0  # for one exchange, from the first byte sent to the last one read
MAX_ANSWER_BYTES = 1 << 20  # a note, or what else is asked for, is smaller
ATTEMPTS = 3
FIRST_WAIT_SECONDS = 0.5  # about; doubles with each attempt

T = TypeVar("T")


class Unanswered(Failed):
    """Nothing was heard, or only that it is a bad moment: asking again may help."""


class Response(NamedTuple):
    """An answer, read whole."""

    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def said(self) -> str:
        """The beginning of the body, for people."""
        text = self.body[:200].decode("utf-8", "replace").strip()
        return "".join(each if each.isprintable() else " " for each in text)

    @property
    def last_modified(self) -> datetime | None:
        """When what was asked for is said to have been stored; None when that is not said."""
        try:
            return parsedate_to_datetime(self.headers.get("last-modified", ""))
        except ValueError:
            return None


def check_url(url: str) -> str:
    """An http or https URL without its last slash. Raises Misuse when it is another, or holds a password."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise Misuse(f"expected a URL such as https://witness.example.com, found {url[:200]!a}: {error}") from None
    if parsed.userinfo:  # not repeated: it may hold a password
        raise Misuse(
            "expected a URL without user and password", hint="Put them into ~/.netrc, or the file NETRC names."
        )
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.query or parsed.fragment:
        raise Misuse(f"expected a URL such as https://witness.example.com, found {url[:200]!r}")
    return url.rstrip("/")


class Outbound:
    """Exchanges with the machine of `url`, over connections that are kept open between them."""

    def __init__(self, url: str, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        """Raises Misuse when it is no URL that could be asked."""
        self.url = check_url(url)
        self._answer_seconds = answer_seconds
        self._client = httpx.AsyncClient(
            timeout=answer_seconds,
            verify=_tls(),
            auth=_credentials(),
            headers={"accept-encoding": "identity"},  # a small compressed answer may be a huge one
            # A proxy named by the environment cannot reach the loopback of this machine.
            trust_env=not _is_loopback(httpx.URL(url).host),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def ask(
        self, method: str, path: str = "", content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        """One exchange; redirects are not followed.

        Raises Unanswered when there is no whole answer in time, or one that says to come back later; Failed when it is
        larger than MAX_ANSWER_BYTES.
        """
        try:
            async with (
                asyncio.timeout(self._answer_seconds),
                self._client.stream(method, self.url + path, content=content, headers=headers) as answer,
            ):
                response = Response(answer.status_code, answer.headers, await _read(answer))
        except TimeoutError:
            raise Unanswered(f"no answer within {self._answer_seconds:g} s") from None
        except httpx.HTTPError as error:
            raise Unanswered(f"no answer: {str(error) or type(error).__name__}") from None
        if response.status in {408, 425, 429} or response.status >= 500:
            raise Unanswered(f"answered {response.status}: {response.said}")
        return response


@lru_cache(1)
def _tls() -> ssl.SSLContext:
    """What TLS is checked by; reading the certificates takes longer than an exchange."""
    return httpx.create_ssl_context()


def _credentials() -> httpx.NetRCAuth | None:
    """Users and passwords by host, as the file NETRC names or ~/.netrc has them. Raises Misuse when it is wrong."""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return httpx.NetRCAuth(str(path)) if path.is_file() else None
    except (OSError, NetrcParseError) as error:
        raise Misuse(f"{path}: expected a file of the netrc format, found: {error}") from None


async def _read(answer: httpx.Response) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in answer.aiter_raw():
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise Failed(f"expected an answer of at most {MAX_ANSWER_BYTES:,} bytes, found a longer one")
        chunks.append(chunk)
    return b"".join(chunks)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def persistently(attempt: Callable[[], Awaitable[T]]) -> T:
    """Try up to ATTEMPTS times while it raises Unanswered, with waits between that grow and differ."""
    wait_seconds = FIRST_WAIT_SECONDS
    for _ in range(ATTEMPTS - 1):
        try:
            return await attempt()
        except Unanswered:
            await asyncio.sleep(wait_seconds * (0.5 + random.random()))  # noqa: S311 - to spread callers, no secret
            wait_seconds *= 2
    return await attempt()
