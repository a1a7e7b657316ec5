"""An HTTP server on a real socket that says whatever a test wants it to say, down to each byte and when it comes."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STEP_SECONDS = 0.02  # between two bytes of a reply that drips


@dataclass
class Request:
    """What a client sent."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Reply:
    """What is said: a status, headers and a body, or `raw` bytes in their place."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None  # all of it; the connection is closed behind it
    drips: bool = False  # a byte at a time
    hangs: bool = False  # nothing comes, and the connection stays open

    def encode(self) -> bytes:
        if self.raw is not None:
            return self.raw
        headers = {"content-type": "application/json", "content-length": str(len(self.body))} | self.headers
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status} Said\r\n{head}\r\n".encode() + self.body


def said(value: Any, **more: Any) -> Reply:
    """A reply with a JSON document."""
    return Reply(json.dumps(value).encode(), **more)


class Api:
    """A server and what it was asked."""

    def __init__(self, answer: Callable[[Request], Reply]) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ended = threading.Event()
        self._open: set[socket.socket] = set()
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _accept(self) -> None:
        threads = []
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.add(connection)
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                threads.append(thread)
                thread.start()
        for thread in threads:
            thread.join()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file, suppress(OSError):
            while (request := _read(file)) is not None:
                self.requests.append(request)
                reply = self.answer(request)
                if reply.hangs:
                    self._ended.wait(30)
                    break
                content = reply.encode()
                for at in range(0, len(content), 1 if reply.drips else max(1, len(content))):
                    connection.sendall(content[at : at + 1] if reply.drips else content)
                    if reply.drips and self._ended.wait(STEP_SECONDS):
                        break
                if reply.raw is not None:
                    break
        self._open.discard(connection)


def _read(file: Any) -> Request | None:
    line = file.readline().decode("latin-1").split()
    if len(line) < 3:
        return None
    headers = {}
    while (header := file.readline().decode("latin-1").strip()) != "":
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    body = file.read(int(headers.get("content-length", "0")))
    split = urlsplit(line[1])
    return Request(line[0], split.path, dict(parse_qsl(split.query, keep_blank_values=True)), headers, body)


@contextmanager
def api(answer: Callable[[Request], Reply]) -> Iterator[Api]:
    """A server that answers each request so, until the block ends."""
    server = Api(answer)
    try:
        yield server
    finally:
        server.close()


def in_turn(*replies: Reply) -> Callable[[Request], Reply]:
    """Each reply once, in order, and the last one for ever."""
    left = list(replies)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]
