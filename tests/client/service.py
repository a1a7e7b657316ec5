"""A small service on a real socket that answers as it is told, well or badly."""

from __future__ import annotations

import json
import socket
import socketserver
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Request:
    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Act = Callable[["Service", socket.socket, Request], None]


def says(status: int, body: object, content_type: str = "application/json", **headers: str) -> Act:
    """Answer properly. Bytes are sent as they are, anything else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"content-type: {content_type}", f"content-length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]

    def act(service: Service, connection: socket.socket, request: Request) -> None:
        connection.sendall("\r\n".join([*lines, "connection: close", "", ""]).encode() + content)

    return act


def resets(service: Service, connection: socket.socket, request: Request) -> None:
    """Break the connection as a killed process does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def breaks_off(service: Service, connection: socket.socket, request: Request) -> None:
    """Promise more bytes than are sent."""
    connection.sendall(b'HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{"decision_id": "0192')


def is_silent(service: Service, connection: socket.socket, request: Request) -> None:
    service.closing.wait(10)


def dribbles(service: Service, connection: socket.socket, request: Request) -> None:
    """Send a byte now and then, always in time for the next read and never done."""
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    _send_until_closed(service, connection, b" ", 0.05)


def never_ends(service: Service, connection: socket.socket, request: Request) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
    _send_until_closed(service, connection, b" " * (1 << 20), 0)


def _send_until_closed(service: Service, connection: socket.socket, content: bytes, pause_seconds: float) -> None:
    try:
        while not service.closing.wait(pause_seconds):
            connection.sendall(content)
    except OSError:
        return  # the client has had enough, as it should


@dataclass
class Service:
    """Acts in turn, one act per request; the last is repeated."""

    url: str = ""
    acts: deque[Act] = field(default_factory=deque)
    requests: list[Request] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def will(self, *acts: Act) -> None:
        self.acts.extend(acts)

    def handle(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            line = stream.readline().decode().strip()
            headers: dict[str, str] = {}
            while header := stream.readline().decode().strip():
                name, _, value = header.partition(":")
                headers[name.lower()] = value.strip()
            request = Request(line, headers, stream.read(int(headers.get("content-length", 0))))
        self.requests.append(request)
        act = self.acts.popleft() if len(self.acts) > 1 else self.acts[0]
        act(self, connection, request)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = False
    allow_reuse_address = True


@contextmanager
def running_service() -> Iterator[Service]:
    service = Service()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            service.handle(self.request)

    with _Server(("127.0.0.1", 0), Handler) as server:
        service.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield service
        finally:
            service.closing.set()
            server.shutdown()
            thread.join()
