"""A load of calls about real flights, and what became of every single one.

    MAINSTAY_API_KEY=ms_... python examples/flights/callers.py --url http://127.0.0.1:8321 --inputs FILE --rate 40

With `--rate`, so many calls a second are begun whatever became of those before, as callers who do not know of each
other would, over connections that reach every worker. With `--callers`, so many callers call at once and again as soon
as they are answered: a flood. It ends after `--seconds`, or when standard input does, and waits for what it has sent.

Each answer is a line of JSON on standard output, in the order of their arrival: `Called`. There is no client library in
between: one connection a call at a time, so that what is measured is the service.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECTIONS = 16  # of a steady load: the kernel deals them out to the workers, and no worker should go without
PAUSE_SECONDS = 0.05  # of a flooding caller that was turned away: less than it was asked for
ANSWER_SECONDS = 10.0  # after which a call counts as lost

Called = dict[str, Any]
"""One call: `at` and `ms` (when it was sent on the machine's monotonic clock, in seconds, and how long it took),
`status` (of HTTP; 0 when the connection broke or no answer came, which `error` explains), `retry_after`, and of the
answer `decision_id`, `release`, `outcome` and `reason` (the code of the first). What an answer does not have is null.
"""


class Connections:
    """Open connections to one service, each used by one call at a time, and the one unused for longest first."""

    def __init__(self, url: str, capability: str, key: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._head = (
            f"POST /v1/capabilities/{capability}/decisions HTTP/1.1\r\nhost: {parts.netloc}\r\n"
            f"authorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        )
        self._free: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    async def open(self, count: int) -> None:
        """Have so many ready. Raises OSError when the service cannot be reached."""
        self._free.extend([await self._open() for _ in range(count)])

    async def call(self, body: bytes) -> Called:
        """Post one decision. A connection that breaks loses the call that is on it, and no other."""
        at = time.monotonic()
        status, retry_after, content, error = 0, None, b"", None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await self._take()
                writer.write((self._head % len(body)).encode() + body)
                status, retry_after, content = await _read(reader)
                self._free.append((reader, writer))
        except (OSError, EOFError, ValueError) as broken:  # closed, no answer of HTTP, or none in time: an OSError too
            status, error = 0, f"{type(broken).__name__}: {broken}"
        took = time.monotonic() - at
        answer = json.loads(content) if status else {}
        reasons = answer.get("reasons") or [{}]
        return {
            "at": at,
            "ms": round(took * 1000, 2),
            "status": status,
            "retry_after": retry_after,
            "error": error,
            "decision_id": answer.get("decision_id"),
            "release": answer.get("release"),
            "outcome": answer.get("outcome"),
            "reason": reasons[0].get("code"),
        }

    async def _take(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that the service has not closed since, as it may at any time."""
        while self._free:
            reader, writer = self._free.popleft()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await self._open()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self._host, self._port)

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> tuple[int, str | None, bytes]:
    """Status, `Retry-After` and content of one answer. Raises EOFError when the connection ends within it."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers.get("retry-after"), await reader.readexactly(int(headers["content-length"]))


class Load:
    """Calls one after another from a list of bodies, round and round."""

    def __init__(self, connections: Connections, bodies: Sequence[bytes], stop: asyncio.Event) -> None:
        self._connections = connections
        self._bodies = bodies
        self._stop = stop
        self._sent = 0

    async def _call(self) -> Called:
        body = self._bodies[self._sent % len(self._bodies)]
        self._sent += 1
        called = await self._connections.call(body)
        sys.stdout.write(json.dumps(called) + "\n")
        return called

    async def steady(self, rate: float) -> None:
        """`rate` calls a second, each begun in its time whether or not those before were answered."""
        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(sys.maxsize):
                due = begun + number / rate
                if await _happens(self._stop, due - time.monotonic()):
                    return
                group.create_task(self._call())
                sys.stdout.flush()

    async def flood(self, callers: int) -> None:
        """`callers` of them, each with one call at a time and hardly any patience."""
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(self._insist())

    async def _insist(self) -> None:
        while not self._stop.is_set():
            called = await self._call()
            if called["status"] != 200:
                await _happens(self._stop, PAUSE_SECONDS)


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    """Wait for so long, or until it happens; whether it has."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            return await event.wait()
    except TimeoutError:
        return event.is_set()


async def _run(given: argparse.Namespace, key: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), lambda: None if os.read(sys.stdin.fileno(), 4096) else stop.set())
    if given.seconds is not None:
        loop.call_later(given.seconds, stop.set)
    bodies = [b'{"input":%b}' % line for line in given.inputs.read_bytes().splitlines()]
    connections = Connections(given.url, given.capability, key)
    load = Load(connections, bodies, stop)
    if given.rate is not None:
        await connections.open(CONNECTIONS)
        await load.steady(given.rate)
    else:
        await load.flood(given.callers)
    connections.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Call about flights, again and again.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--capability", default="late-arrival")
    parser.add_argument("--inputs", type=Path, required=True, help="JSON lines, one input each")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--rate", type=float, help="calls a second")
    kind.add_argument("--callers", type=int, help="callers that call at once")
    parser.add_argument("--seconds", type=float, help="how long; by default until standard input ends")
    given = parser.parse_args()
    key = os.environ.get("MAINSTAY_API_KEY", "")
    if not key:
        sys.exit("no API key: expected one in MAINSTAY_API_KEY")
    asyncio.run(_run(given, key))


if __name__ == "__main__":
    main()
