"""The HTTP face of a witness, in granian's RSGI form.

POST /add-checkpoint             the submission prefix is where this is served
GET  /<origin hash>/checkpoint   and so is the monitoring prefix
GET  /health/live, /health/ready
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]  # it re-exports without saying so
from granian.server.embed import Server

from mainstay.errors import Damaged, Misuse
from mainstay.ledger.witness import MAX_REQUEST_BYTES, Answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mainstay.ledger.witness import Witness

logger = logging.getLogger("mainstay.witness")

BODY_SECONDS = 5.0  # for a request to come whole
MAX_WAITING = 64  # requests at once; each may hold MAX_REQUEST_BYTES
THREADS = 4  # that verify and wait for the disk
BACKLOG = 128


class Scope(Protocol):
    """What granian says of a request."""

    method: str
    path: str


class Exchange(Protocol):
    """What granian gives to read a request and answer it."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None: ...


class WitnessApplication:
    """Answers HTTP for one witness."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._threads = ThreadPoolExecutor(THREADS, "witness")
        self._waiting = 0
        self._well = True  # since the last failure something was cosigned or read

    def close(self) -> None:
        """Wait for what is being cosigned."""
        self._threads.shutdown()

    async def __rsgi__(self, scope: Scope, exchange: Exchange) -> None:
        answer = await self._answer(scope, exchange)
        headers = [("content-type", answer.content_type)]
        if answer.status == 405:
            headers.append(("allow", "POST" if scope.path == "/add-checkpoint" else "GET"))
        exchange.response_bytes(answer.status, headers, answer.body.encode())

    async def _answer(self, scope: Scope, exchange: Exchange) -> Answer:
        if scope.path == "/health/live":
            return _only("GET", scope) or Answer(200, "live\n")
        if scope.path == "/health/ready":
            return _only("GET", scope) or (Answer(200, "ready\n") if self._well else Answer(503, "not ready\n"))
        if self._waiting >= MAX_WAITING:
            return Answer(503, "too many requests at once\n")
        self._waiting += 1
        try:
            return await self._work(scope, exchange)
        finally:
            self._waiting -= 1

    async def _work(self, scope: Scope, exchange: Exchange) -> Answer:
        if scope.path == "/add-checkpoint":
            wrong = _only("POST", scope)
            if wrong is not None:
                return wrong
            body = await _read_body(exchange)
            return body if isinstance(body, Answer) else await self._run(lambda: self._witness.add_checkpoint(body))
        folder, slash, name = scope.path[1:].partition("/")
        if slash and name == "checkpoint":
            return _only("GET", scope) or await self._run(lambda: self._witness.checkpoint(folder))
        return Answer(404, "there is nothing at this path\n")

    async def _run(self, work: Callable[[], Answer]) -> Answer:
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except (OSError, Damaged) as error:
            logger.error("nothing is cosigned: %s", error)  # noqa: TRY400 - the message says all
            self._well = False
            return Answer(500, "nothing can be cosigned now; the log of this witness says why\n")
        except Exception:  # a fault of ours must leave the caller an answer, and us a trace
            logger.exception("a request failed")
            self._well = False
            return Answer(500, "nothing was cosigned; the log of this witness says why\n")
        if answer.status == 200:
            self._well = True
        return answer


def _only(method: str, scope: Scope) -> Answer | None:
    return None if scope.method == method else Answer(405, f"expected {method}\n")


async def _read_body(exchange: Exchange) -> bytes | Answer:
    """The body of a request, whole; or what to answer when it is too large, too slow, or breaks off."""
    chunks: list[bytes] = []
    size = ends = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in exchange:
                size += len(chunk)
                if size > MAX_REQUEST_BYTES:
                    return Answer(413, f"expected at most {MAX_REQUEST_BYTES} bytes\n")
                chunks.append(bytes(chunk))
                ends += not chunk
    except TimeoutError:
        return Answer(408, f"expected the request within {BODY_SECONDS:g} s\n")
    except ProtocolClosed:
        ends = 2
    if ends > 1:  # granian gives an empty chunk at the end, and another where the body broke off or had trailers
        return Answer(400, "the body did not come whole\n")
    return b"".join(chunks)


async def serve_witness(witness: Witness, host: str, port: int, on_ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT, then answer what was accepted. Raises Misuse when the port is taken."""
    _claim(host, port)
    application = WitnessApplication(witness)
    server = Server(
        application,
        address=host,
        port=port,
        interface=Interfaces.RSGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        log_level=LogLevels.error,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    loop.call_soon(on_ready)
    await server.serve()
    application.close()


def _claim(host: str, port: int) -> None:
    """Raise Misuse when nobody can listen there: granian would share the port with whoever does."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            message = f"cannot listen on {host}:{port}: {error.strerror or error}"
            raise Misuse(message, hint="Choose others with `--host` and `--port`.") from None
