"""An open-loop HTTP load generator: requests are due at a constant rate, whether or not earlier ones are answered.

A request that is sent late, because every connection waits for an answer or because the generator itself is slow, is
timed from when it was due. So a server that stalls is charged for all that would have come meanwhile ("coordinated
omission", G. Tene). One thread and one epoll, so that a single core can offer more than a server on another can take.
"""

from __future__ import annotations

import gc
import math
import select
import socket
import time
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

READ_BYTES = 65_536
READS_A_TURN = 32  # answers taken before the schedule is looked at again
DRAIN_SECONDS = 2.0
LATE_SECONDS = 0.001  # a request sent so long after it was due, though a connection was free, is the generator's fault


def quantile_ms(seconds: Sequence[float], share: float) -> float:
    """What `share` of the times, at least one, stayed under, in milliseconds."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000


@dataclass
class Offered:
    """What came of a run."""

    per_second: float  # the rate of the schedule
    seconds: float
    due: int = 0
    sent: int = 0
    given_up: int = 0  # found no free connection for as long as a caller has patience
    late: int = 0  # sent LATE_SECONDS after they were due though a connection was free
    failed: int = 0  # connections that broke, and answers that did not come within DRAIN_SECONDS of the end
    statuses: dict[int, int] = field(default_factory=dict)
    answered_since_due: array[float] = field(default_factory=lambda: array("d"))  # seconds, of status 200
    answered_since_sent: array[float] = field(default_factory=lambda: array("d"))
    refused_since_sent: array[float] = field(default_factory=lambda: array("d"))  # of any other status

    @property
    def unsent(self) -> int:
        """Due before the end, and still waiting for a free connection then."""
        return self.due - self.sent - self.given_up


class _Connection:
    __slots__ = ("buffer", "due_at", "sent_at", "socket")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self.buffer = b""
        self.due_at = self.sent_at = 0.0


def offer(
    address: tuple[str, int],
    requests: Sequence[bytes],
    *,
    per_second: float,
    seconds: float,
    connections: int,
    patience_seconds: float = math.inf,
) -> Offered:
    """Send the requests, again and again from the first, at `per_second` over `connections` connections.

    One that has found no free connection for `patience_seconds` is given up: a caller's pool would do so.
    """
    offered = Offered(per_second, seconds, due=int(per_second * seconds))
    generator = _Generator(address, requests, offered, patience_seconds)
    generator.open(connections)
    gc.collect()
    gc.disable()  # a collection would be taken for latency
    try:
        generator.run()
    finally:
        gc.enable()
        generator.close()
    return offered


class _Generator:
    def __init__(
        self, address: tuple[str, int], requests: Sequence[bytes], offered: Offered, patience_seconds: float
    ) -> None:
        self.offered = offered
        self._address = address
        self._requests = requests
        self._patience_seconds = patience_seconds
        self._next = 0  # the first request that is neither sent nor given up
        self._poll = select.epoll()
        self._idle: list[_Connection] = []
        self._busy: dict[int, _Connection] = {}
        self._starved = False  # the last turn ended with requests due and no free connection

    def open(self, connections: int) -> None:
        for _ in range(connections):
            connection = _Connection(self._address)
            self._poll.register(connection.socket.fileno(), select.EPOLLIN)
            self._idle.append(connection)

    def close(self) -> None:
        self.offered.failed += len(self._busy)
        for connection in (*self._idle, *self._busy.values()):
            connection.socket.close()
        self._poll.close()

    def run(self) -> None:
        offered = self.offered
        begun = time.perf_counter()
        end = begun + offered.seconds
        while (now := time.perf_counter()) < end:
            self._send_due(begun, now)
            self._read(self._pause(begun))
        deadline = end + DRAIN_SECONDS
        while self._busy and time.perf_counter() < deadline:
            self._read(0.05)

    def _pause(self, begun: float) -> float:
        """How long nothing is due; 0 when it is less than a poll can wait."""
        if not self._idle:
            return 0.05
        wait = begun + self._next / self.offered.per_second - time.perf_counter()
        return wait - 0.001 if wait > 0.002 else 0.0

    def _send_due(self, begun: float, now: float) -> None:
        """Send what is due, as far as connections are free."""
        offered, idle, busy, requests = self.offered, self._idle, self._busy, self._requests
        due = min(offered.due, int((now - begun) * offered.per_second) + 1)
        number, count = self._next, len(requests)
        if (
            self._starved
            and (lost := math.floor(max(0.0, now - begun - self._patience_seconds) * offered.per_second)) > number
        ):
            offered.given_up += lost - number
            number = lost
        first = number
        while number < due and idle:
            connection = idle.pop()
            connection.due_at = begun + number / offered.per_second
            connection.sent_at = sent_at = time.perf_counter()
            if not self._starved and sent_at - connection.due_at > LATE_SECONDS:
                offered.late += 1
            connection.socket.send(requests[number % count])  # one that is broken says so when it is read
            busy[connection.socket.fileno()] = connection
            number += 1
        offered.sent += number - first
        self._next = number
        self._starved = number < due

    def _read(self, timeout: float) -> None:
        for number, _events in self._poll.poll(timeout, READS_A_TURN):
            connection = self._busy.get(number)
            if connection is None:  # an idle one that the server has closed
                connection = next(each for each in self._idle if each.socket.fileno() == number)
                self._idle.remove(connection)
                self._replace(connection)
            elif (status := _answer(connection)) is None:
                continue
            else:
                del self._busy[number]
                if status:
                    self._count(connection, status)
                    self._idle.append(connection)
                else:
                    self.offered.failed += 1
                    self._replace(connection)

    def _count(self, connection: _Connection, status: int) -> None:
        now = time.perf_counter()
        offered = self.offered
        offered.statuses[status] = offered.statuses.get(status, 0) + 1
        if status == 200:
            offered.answered_since_due.append(now - connection.due_at)
            offered.answered_since_sent.append(now - connection.sent_at)
        else:
            offered.refused_since_sent.append(now - connection.sent_at)

    def _replace(self, connection: _Connection) -> None:
        self._poll.unregister(connection.socket.fileno())
        connection.socket.close()
        self.open(1)


def _answer(connection: _Connection) -> int | None:
    """Its status once the answer is whole; None before; 0 when the connection is gone."""
    try:
        chunk = connection.socket.recv(READ_BYTES)
    except OSError:
        return 0
    if not chunk:
        return 0
    data = connection.buffer + chunk if connection.buffer else chunk
    head_end = data.find(b"\r\n\r\n")
    if head_end >= 0:
        at = data.lower().find(b"content-length:", 0, head_end)
        length = int(data[at + 15 : data.find(b"\r", at)]) if at >= 0 else 0
        if len(data) >= head_end + 4 + length:
            connection.buffer = b""
            return int(data[9:12])
    connection.buffer = data
    return None
