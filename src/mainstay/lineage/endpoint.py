"""Sending events to an endpoint that speaks OpenLineage over HTTP: POST URL/api/v1/lineage.

Events leave a queue on disk in their order, one sender at a time however many processes put some there. An event is
sent at least once: a sender that is killed behind an answer sends it again, and the receiver tells it by its run.
"""

from __future__ import annotations

import logging
import os
from threading import Event, Thread
from typing import TYPE_CHECKING, Final

import httpx

from mainstay.errors import Failed, Misuse
from mainstay.lineage.sinks import Account, Queue, Waiting
from mainstay.locks import locked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

logger = logging.getLogger("mainstay.lineage")

KEY_VARIABLE: Final = "OPENLINEAGE_API_KEY"  # as the standard's own clients call it
PATH: Final = "api/v1/lineage"
ANSWER_SECONDS: Final = 5.0
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 60.0

_POLL_SECONDS: Final = 0.5
_REFUSED: Final = frozenset({400, 413, 415, 422})  # the event is at fault, and will be next time


class Unsent(Failed):
    """The endpoint did not take an event, and may later."""

    def __init__(self, message: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Sender:
    """Sends what waits in a queue, in a thread of its own, until it is closed."""

    def __init__(self, url: str, folder: Path, environment: Mapping[str, str] = os.environ) -> None:
        """Raises Misuse when `url` is none to send events to."""
        self._url = f"{check_endpoint(url)}/{PATH}"
        self.queue = Queue(folder / "waiting")
        self._account = Account(folder)
        self._lock = folder / "sending.lock"
        # A proxy named by the environment cannot reach the loopback of this machine.
        self._through_proxies = httpx.URL(url).host not in {"localhost", "127.0.0.1", "::1"}
        key = environment.get(KEY_VARIABLE, "").strip()
        self._headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
        self._stop, self._wake = Event(), Event()
        self._settled = Event()  # nothing waits that the endpoint would take now
        self._thread: Thread | None = None

    def begin(self) -> None:
        """Send from now on."""
        if self._thread is None:
            self._thread = Thread(target=self._run, name="lineage", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Say that something was put into the queue."""
        self._settled.clear()
        self._wake.set()

    def close(self, wait_seconds: float) -> None:
        """Send what waits, for as long as that; the rest is for whoever sends next."""
        if self._thread is not None:
            self._settled.wait(wait_seconds)
            self._stop.set()
            self._wake.set()
            self._thread.join(max(wait_seconds, 0.1))

    def _run(self) -> None:
        with httpx.Client(timeout=ANSWER_SECONDS, headers=self._headers, trust_env=self._through_proxies) as client:
            while not self._stop.is_set():
                self._wake.clear()
                try:
                    with locked(self._lock, timeout_seconds=0):
                        self._send_all(client)
                except (Failed, OSError):  # another process sends, or the disk is gone: it is tried again
                    pass
                if not self.queue.length:
                    self._settled.set()
                self._wake.wait(_POLL_SECONDS)

    def _send_all(self, client: httpx.Client) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._stop.is_set() and (event := self.queue.oldest()) is not None:
            try:
                self._send(client, event)
            except Unsent as error:
                self._account.add(lost=0, problem=error.message)
                self._settled.set()
                self._stop.wait(max(pause, min(error.retry_after_seconds, LONGEST_PAUSE_SECONDS)))
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            event.path.unlink(missing_ok=True)
            pause = FIRST_PAUSE_SECONDS

    def _send(self, client: httpx.Client, event: Waiting) -> None:
        """Raises Unsent when the event is to be sent again later."""
        try:
            with client.stream("POST", self._url, content=event.content) as answer:
                status, headers = answer.status_code, answer.headers
        except httpx.LocalProtocolError:  # it repeats the header, and with it the key
            raise Unsent(f"{self._url}: expected a key that a header can hold in {KEY_VARIABLE}") from None
        except httpx.HTTPError as error:
            raise Unsent(f"{self._url}: no answer: {str(error) or type(error).__name__}") from None
        if status in _REFUSED:
            problem = f"{self._url}: refused an event with status {status}"
            logger.warning("%s", problem)
            self._account.add(lost=1, problem=problem)
        elif not 200 <= status < 300:
            raise Unsent(f"{self._url}: answered {status}", _seconds(headers.get("retry-after", "")))
        elif self._account.read().problem:
            self._account.add(lost=0, problem="")


def _seconds(text: str) -> float:
    """The delay that a Retry-After header asks for; 0 when it is no number of seconds."""
    return float(text) if text.isascii() and text.isdigit() else 0.0


def check_endpoint(url: str) -> str:
    """A URL without its last slash. Raises Misuse when it is no http(s) URL, or holds a secret."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise Misuse(f"lineage: expected a URL such as https://lineage.example.com, found an error: {error}") from None
    if parsed.userinfo:  # not repeated: it may hold a password
        raise Misuse("lineage: expected a URL without user and password", hint=f"Put the key into {KEY_VARIABLE}.")
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.query or parsed.fragment:
        raise Misuse(f"lineage: expected a URL such as https://lineage.example.com, found {url[:200]!r}")
    return url.rstrip("/").removesuffix(f"/{PATH}")
