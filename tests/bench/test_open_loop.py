from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    Program = Callable[[str], ModuleType]

REQUEST = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n"
STALL_SECONDS = 0.3


@contextmanager
def server(answer: Callable[[int], bytes]) -> Iterator[tuple[str, int]]:
    """Answers call by call, one at a time; `answer` gets the number of the call."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_serve, args=(listening, answer))
        thread.start()
        yield listening.getsockname()
        thread.join(timeout=10)
    assert not thread.is_alive()


def _serve(listening: socket.socket, answer: Callable[[int], bytes]) -> None:
    connection, _ = listening.accept()
    with connection:
        number = 0
        while connection.recv(4096):
            connection.sendall(answer(number))
            number += 1


def _response(status: int, body: bytes = b"{}") -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)


@pytest.mark.acceptance
def test_a_server_that_stalls_is_charged_for_every_call_that_was_due_meanwhile(program: Program) -> None:
    open_loop = program("open_loop")

    def stall_once(number: int) -> bytes:
        time.sleep(STALL_SECONDS if number == 10 else 0)
        return _response(200)

    with server(stall_once) as address:
        offered = open_loop.offer(address, [REQUEST], per_second=100, seconds=1.0, connections=1)
    assert offered.due == 100
    assert offered.statuses == {200: offered.sent}
    assert offered.sent + offered.unsent == offered.due
    waited_since_due = sum(seconds > 0.1 for seconds in offered.answered_since_due)
    waited_since_sent = sum(seconds > 0.1 for seconds in offered.answered_since_sent)
    assert waited_since_sent == 1
    assert waited_since_due >= 15  # about 20: those due in the first 0.2 s of the stall


@pytest.mark.acceptance
def test_callers_without_patience_give_up_what_finds_no_free_connection(program: Program) -> None:
    open_loop = program("open_loop")

    def slow(_number: int) -> bytes:
        time.sleep(0.05)
        return _response(200)

    with server(slow) as address:
        offered = open_loop.offer(address, [REQUEST], per_second=100, seconds=0.5, connections=1, patience_seconds=0.02)
    assert offered.given_up >= 25
    assert offered.sent + offered.given_up + offered.unsent == offered.due
    assert max(offered.answered_since_due) < 0.2


@pytest.mark.acceptance
def test_refusals_are_counted_by_status_and_timed_apart(program: Program) -> None:
    open_loop = program("open_loop")
    with server(lambda number: _response(429 if number % 2 else 200, b"x" * 10_000)) as address:
        offered = open_loop.offer(address, [REQUEST, REQUEST], per_second=200, seconds=0.5, connections=1)
    assert sum(offered.statuses.values()) == offered.sent == 100
    assert abs(offered.statuses[200] - offered.statuses[429]) <= 1
    assert len(offered.answered_since_due) == offered.statuses[200]
    assert len(offered.refused_since_sent) == offered.statuses[429]


@pytest.mark.acceptance
def test_a_connection_that_breaks_is_counted_and_replaced(program: Program) -> None:
    open_loop = program("open_loop")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_break_then_serve, args=(listening,))
        thread.start()
        offered = open_loop.offer(listening.getsockname(), [REQUEST], per_second=100, seconds=0.3, connections=1)
        thread.join(timeout=10)
    assert offered.failed == 1
    assert offered.statuses[200] >= 25


def _break_then_serve(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    connection.recv(4096)
    connection.close()
    _serve(listening, lambda _number: _response(200))
