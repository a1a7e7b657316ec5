"""A closed-loop HTTP load generator: each connection sends its next request when it has the answer to the last.

One thread and one epoll, so that a single core drives a server on another to saturation. Connections that the server
drops are opened again; their request counts as failed.
"""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass, field

READ_BYTES = 65_536
CONNECT_RETRY_SECONDS = 0.02


@dataclass
class Load:
    """What came of a run."""

    seconds: float = 0.0
    answered: int = 0
    failed: int = 0  # connections that broke before the answer was whole
    statuses: dict[int, int] = field(default_factory=dict)
    latencies_seconds: list[float] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return self.answered / self.seconds if self.seconds else 0.0

    def quantile_ms(self, share: float) -> float:
        """The latency that `share` of the answers stayed under, in milliseconds."""
        ordered = sorted(self.latencies_seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000 if ordered else float("nan")


class _Connection:
    __slots__ = ("buffer", "sent_at", "socket")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self.buffer = b""
        self.sent_at = 0.0


def request_bytes(path: str, body: bytes, token: str = "") -> bytes:
    """One HTTP/1.1 POST."""
    authorization = f"authorization: Bearer {token}\r\n" if token else ""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{authorization}"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def drive(
    address: tuple[str, int], request: bytes, *, connections: int, seconds: float, keep_bodies: bool = False
) -> Load:
    """Send `request` over `connections` connections for `seconds`."""
    load = Load()
    poll = select.epoll()
    open_connections: dict[int, _Connection] = {}
    begun = time.perf_counter()
    end = begun + seconds
    missing = connections
    while (now := time.perf_counter()) < end:
        while missing:
            connection = _connect(address)
            if connection is None:
                break
            poll.register(connection.socket.fileno(), select.EPOLLIN)
            open_connections[connection.socket.fileno()] = connection
            connection.sent_at = time.perf_counter()
            connection.socket.send(request)
            missing -= 1
        for number, _events in poll.poll(min(0.1, end - now)):
            connection = open_connections[number]
            if not _answer(connection, load, keep_bodies=keep_bodies) or not _send(connection, request):
                poll.unregister(number)
                open_connections.pop(number).socket.close()
                load.failed += 1
                missing += 1
    load.seconds = time.perf_counter() - begun
    _collect_the_rest(open_connections, poll, load, keep_bodies=keep_bodies)
    return load


def _connect(address: tuple[str, int]) -> _Connection | None:
    try:
        return _Connection(address)
    except OSError:
        time.sleep(CONNECT_RETRY_SECONDS)
        return None


def _send(connection: _Connection, request: bytes) -> bool:
    """Send the next request unless an answer is still incomplete."""
    if connection.buffer:
        return True
    connection.sent_at = time.perf_counter()
    try:
        connection.socket.send(request)
    except OSError:
        return False
    return True


def _answer(connection: _Connection, load: Load, *, keep_bodies: bool) -> bool:
    """Read what has come; False when the connection is gone."""
    try:
        chunk = connection.socket.recv(READ_BYTES)
    except OSError:
        return False
    if not chunk:
        return False
    data = connection.buffer + chunk
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        connection.buffer = data
        return True
    head = data[:head_end].lower()
    at = head.find(b"content-length:")
    line_end = head.find(b"\r\n", at)
    length = int(head[at + 15 : line_end if line_end > 0 else None])
    if len(data) < head_end + 4 + length:
        connection.buffer = data
        return True
    connection.buffer = b""
    status = int(data[9:12])
    load.statuses[status] = load.statuses.get(status, 0) + 1
    load.answered += 1
    load.latencies_seconds.append(time.perf_counter() - connection.sent_at)
    if keep_bodies:
        load.bodies.append(data[head_end + 4 :])
    return True


def _collect_the_rest(
    connections: dict[int, _Connection], poll: select.epoll, load: Load, *, keep_bodies: bool
) -> None:
    """Take the answers that are still on their way, so that nothing acknowledged is missed."""
    waiting = set(connections)
    deadline = time.perf_counter() + 2
    while waiting and time.perf_counter() < deadline:
        for number, _events in poll.poll(0.1):
            if number not in waiting:
                continue
            connection = connections[number]
            if not _answer(connection, load, keep_bodies=keep_bodies) or not connection.buffer:
                waiting.discard(number)
                poll.unregister(number)
    for connection in connections.values():
        connection.socket.close()
    poll.close()
