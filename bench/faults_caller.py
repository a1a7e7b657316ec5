"""Steady calls from a process of their own, each with a key and an input of its own, timed by the kernel.

An answer counts as come when its last bytes reached this process's socket (SO_TIMESTAMPNS, socket(7)), so that a
caller that is kept from the processor does not charge the server for it.
"""

from __future__ import annotations

import heapq
import json
import random
import select
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import msgspec
from faults_world import CAPABILITY, DEADLINE_SECONDS
from load import READ_BYTES, request_bytes

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

CONNECTIONS = 8
THINK_SECONDS = (0.01, 0.08)  # between an answer and the next call of a connection
CALLS_PER_CONNECTION = (20, 60)  # then it is opened anew, so that every worker gets some
OWN_DEADLINE_SHARE = 0.25  # of the calls name a deadline shorter than the declared one:
OWN_DEADLINE_SECONDS = (0.1, 0.4)
LOST_SECONDS = 10.0  # a call without an answer for so long is given up
RETRY_SECONDS = 0.02
SO_TIMESTAMPNS = 35
_STAMP = struct.Struct("qq")


class Call(msgspec.Struct, gc=False):
    """One call and what came of it. Times are Unix seconds."""

    key: str
    a: float
    b: float
    note: str | None
    allowed_seconds: float
    victim: bool  # it carries the key that will be revoked
    sent_at: float
    ended_at: float = 0.0
    status: int = 0  # of HTTP; 0: the connection broke, or nothing came
    retry_after: bool = False
    body: bytes = b""

    @property
    def overrun_seconds(self) -> float:
        """How long after its deadline it was answered."""
        return self.ended_at - self.sent_at - self.allowed_seconds


@dataclass(frozen=True)
class Progress:
    """How calls go now."""

    ended: int
    well: int  # answered in a row, to the last
    oldest: float  # when the call was sent that has been under way for longest, or now


class Callers:
    """The process that calls, as the campaign holds it."""

    def __init__(self, port: int, token: str) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(theirs, port, token), daemon=True)
        self._process.start()
        theirs.close()

    def send_note(self, note: str) -> None:
        """Put a note into one of the next calls."""
        self._pipe.send(("note", note))

    def use_victim(self, token: str | None) -> None:
        """Have every other connection call with this key; None: with its own again."""
        self._pipe.send(("victim", token))

    def progress(self) -> Progress:
        self._pipe.send(("progress", None))
        found: Progress = self._pipe.recv()
        return found

    def stop(self) -> list[Call]:
        """End; every call that was made."""
        self._pipe.send(("stop", None))
        calls = msgspec.msgpack.decode(self._pipe.recv_bytes(), type=list[Call])
        self._process.join()
        return calls


def _main(pipe: Connection, port: int, token: str) -> None:
    pipe.send_bytes(msgspec.msgpack.encode(_Caller(pipe, ("127.0.0.1", port), token).run()))


class _Line:
    """One connection, open or to be opened, and the call under way on it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.socket: socket.socket | None = None
        self.calls_left = 0
        self.call: Call | None = None
        self.buffer = b""

    def open(self, address: tuple[str, int]) -> socket.socket:
        self.socket = socket.create_connection(address, timeout=1)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self.calls_left = random.randint(*CALLS_PER_CONNECTION)
        self.buffer = b""
        return self.socket


class _Caller:
    def __init__(self, pipe: Connection, address: tuple[str, int], token: str) -> None:
        self._pipe = pipe
        self._address = address
        self._token = token
        self._victim: str | None = None
        self._notes: deque[str] = deque()
        self._calls: list[Call] = []
        self._well = 0
        self._lines = [_Line(number) for number in range(CONNECTIONS)]
        self._open: dict[int, _Line] = {}
        self._due = [(time.time(), number) for number in range(CONNECTIONS)]
        self._poll = select.epoll()
        self._stopping = False

    def run(self) -> list[Call]:
        self._poll.register(self._pipe.fileno(), select.EPOLLIN)
        while not self._stopping or any(line.call for line in self._lines):
            now = time.time()
            while not self._stopping and self._due and self._due[0][0] <= now:
                self._send(self._lines[heapq.heappop(self._due)[1]])
            wait = self._due[0][0] - now if self._due and not self._stopping else 0.05
            for number, _ in self._poll.poll(max(0.0, min(wait, 0.05))):
                if number == self._pipe.fileno():
                    self._obey(*self._pipe.recv())
                else:
                    self._read(self._open[number])
            for line in self._lines:
                if line.call is not None and time.time() - line.call.sent_at > LOST_SECONDS:
                    self._break(line)
        return self._calls

    def _obey(self, order: str, given: Any) -> None:
        if order == "note":
            self._notes.append(given)
        elif order == "victim":
            self._victim = given
        elif order == "stop":
            self._stopping = True
        else:
            under_way = (line.call.sent_at for line in self._lines if line.call is not None)
            self._pipe.send(Progress(len(self._calls), self._well, min(under_way, default=time.time())))

    def _send(self, line: _Line) -> None:
        if line.socket is None and not self._connect(line):
            heapq.heappush(self._due, (time.time() + RETRY_SECONDS, line.number))
            return
        victim = self._victim is not None and line.number % 2 == 0
        note = self._notes.popleft() if self._notes else None
        call = Call(
            key=f"case-{random.getrandbits(64):016x}",
            a=random.uniform(-3, 3),
            b=random.uniform(-3, 3),
            note=note,
            allowed_seconds=DEADLINE_SECONDS,
            victim=victim,
            sent_at=0.0,
        )
        given: dict[str, Any] = {"input": {"a": call.a, "b": call.b}, "key": call.key}
        if note is not None:
            given["input"]["note"] = note
        if random.random() < OWN_DEADLINE_SHARE:
            call.allowed_seconds = random.uniform(*OWN_DEADLINE_SECONDS)
            given["deadline_ms"] = call.allowed_seconds * 1000
        token = self._victim if victim and self._victim is not None else self._token
        request = request_bytes(f"/v1/capabilities/{CAPABILITY}/decisions", json.dumps(given).encode(), token)
        line.call = call
        assert line.socket is not None
        call.sent_at = time.time()
        try:
            line.socket.send(request)
        except OSError:
            self._break(line)

    def _connect(self, line: _Line) -> bool:
        try:
            opened = line.open(self._address)
        except OSError:
            return False
        self._open[opened.fileno()] = line
        self._poll.register(opened.fileno(), select.EPOLLIN)
        return True

    def _read(self, line: _Line) -> None:
        assert line.socket is not None
        try:
            chunk, ancillary, _, _ = line.socket.recvmsg(READ_BYTES, 64)
        except OSError:
            chunk, ancillary = b"", []
        if not chunk:
            self._break(line)
            return
        line.buffer += chunk
        head, found, body = line.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        fields = dict(field.lower().split(b":", 1) for field in head.split(b"\r\n")[1:])
        if len(body) < int(fields.get(b"content-length", b"0")):
            return
        call = line.call
        assert call is not None, "an answer that nobody asked for"
        call.status, call.body, call.retry_after = int(head[9:12]), body, b"retry-after" in fields
        self._end(line, call, _came_at(ancillary))
        line.calls_left -= 1
        if not line.calls_left:
            self._close(line)

    def _end(self, line: _Line, call: Call, at: float) -> None:
        call.ended_at = at
        self._calls.append(call)
        if b'"outcome":"answered"' in call.body:
            self._well += 1
        else:
            self._well = 0
        line.call, line.buffer = None, b""
        heapq.heappush(self._due, (time.time() + random.uniform(*THINK_SECONDS), line.number))

    def _break(self, line: _Line) -> None:
        """The connection is gone, and with it what came of its call."""
        self._close(line)
        if line.call is not None:
            self._end(line, line.call, time.time())

    def _close(self, line: _Line) -> None:
        if line.socket is not None:
            del self._open[line.socket.fileno()]
            self._poll.unregister(line.socket.fileno())
            line.socket.close()
            line.socket = None


def _came_at(ancillary: list[tuple[int, int, bytes]]) -> float:
    for _, kind, content in ancillary:
        if kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = _STAMP.unpack(content)
            return float(seconds + nanoseconds / 1e9)
    return time.time()
