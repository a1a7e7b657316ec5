"""The event loop's end of an isolated process: frames to it and from it, what it prints, and that it has ended."""

from __future__ import annotations

import logging
import os
import signal
from threading import Thread
from typing import TYPE_CHECKING, Final

from mainstay.runtime.frames import BrokenProtocol, Inbox, frame
from mainstay.runtime.process import OUTPUT_BYTES

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from mainstay.runtime.process import ChildProcess

# What a model prints may be its input, which nobody has masked: it is logged only to who asks for DEBUG.
printed = logging.getLogger("mainstay.runtime.printed")

TAIL_BYTES: Final = 4_096  # kept of what was printed last
LOGGED_BYTES_PER_SECOND: Final = 16 << 10
GRACE_SECONDS: Final = 0.1  # to end for a process that has closed its socket
_CHUNK_BYTES: Final = 1 << 18
PAUSE_SECONDS: Final = 0.005  # between two reads: a flood is drained at 50 MB/s, for 1 or 2 % of the loop's time


class Link:
    """One process from its start to its end. Belongs to the event loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        child: ChildProcess,
        *,
        on_frame: Callable[[bytes], None],
        on_end: Callable[[str, str], None],
    ) -> None:
        """`on_frame` gets the payload of each frame, and may raise BrokenProtocol, which ends the process.

        `on_end` is called once, when the process has ended and everything is cleared away: with why, such as "was
        ended by signal SIGSEGV", and the end of what it printed.
        """
        self._loop = loop
        self._child = child
        self._on_frame = on_frame
        self._on_end = on_end
        self._inbox = Inbox()
        self._unsent = memoryview(b"")
        self._stopped: str | None = None  # why, when it was us
        self._open = True  # whether we still listen
        self._ended = False
        self._grace: asyncio.TimerHandle | None = None
        self._abandoned = False
        self._drain = Drain(loop, child.output, child.pid)
        loop.add_reader(child.socket.fileno(), self._read)
        loop.add_reader(child.exited, self._end)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def ending(self) -> bool:
        """Whether it has ended or is about to: nothing sent now would be answered."""
        return self._ended or not self._open

    def send(self, payload: bytes) -> None:
        """To be called when nothing is on its way."""
        self._unsent = memoryview(frame(payload))
        if not self._push():
            self._loop.add_writer(self._child.socket.fileno(), self._write)

    def stop(self, why: str) -> None:
        """Kill the process; `on_end` follows with `why`."""
        if self._stopped is None:
            self._stopped = why
        self._shut()
        self._child.kill()

    def abandon(self) -> Thread:
        """Kill the process and clear it away on the thread returned; `on_end` is not called."""
        self._abandoned = True
        self._shut()
        self._cancel_grace()
        self._loop.remove_reader(self._child.exited)
        self._drain.close()
        self._child.kill()
        # The memory of a process is given back while it ends, for longer than the loop should be held.
        reaper = Thread(target=self._child.reap, name="reap")
        reaper.start()
        return reaper

    def _push(self) -> bool:
        """Send what the socket takes; whether that was all."""
        try:
            sent = self._child.socket.send(self._unsent)
        except BlockingIOError:
            return False
        except OSError:
            return True  # nobody reads any more; that it ended is told elsewhere
        self._unsent = self._unsent[sent:]
        return not self._unsent

    def _write(self) -> None:
        if self._push():
            self._loop.remove_writer(self._child.socket.fileno())

    def _read(self) -> bool:
        """Take what has come, at most a chunk of it; whether there may be more."""
        try:
            chunk = self._child.socket.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            chunk = b""  # it ended with something of ours unread
        if not chunk:
            # Nearly always it is just about to end; then its own end says more.
            self._shut()
            self._grace = self._loop.call_later(GRACE_SECONDS, self.stop, "closed its connection to the worker")
            return False
        try:
            payload = self._inbox.feed(chunk)
            if payload is not None:
                self._on_frame(payload)
        except BrokenProtocol as error:
            self.stop(f"broke the protocol: {error}")
        return self._open

    def _shut(self) -> None:
        """Listen no more."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._child.socket.fileno())
            self._loop.remove_writer(self._child.socket.fileno())

    def _cancel_grace(self) -> None:
        if self._grace is not None:
            self._grace.cancel()

    def _end(self) -> None:
        """It has ended. What it had sent before that still counts."""
        self._ended = True
        while self._open and self._read():
            pass
        if self._abandoned:
            return
        self._shut()
        self._cancel_grace()
        self._loop.remove_reader(self._child.exited)
        self._child.kill()  # what it started may hold the pipe, and print on
        self._drain.close()
        code = self._child.reap()
        if self._stopped is not None and code == -signal.SIGKILL:
            self._on_end(self._stopped, self._drain.tail)
        else:
            self._on_end(_how(code), self._drain.tail)


def _how(code: int) -> str:
    if code >= 0:
        return f"ended itself with exit code {code}"
    if code == -signal.SIGKILL:
        return "was ended by signal SIGKILL, as the kernel does when memory runs out"
    known = {each.value: each.name for each in signal.Signals}
    return f"was ended by signal {known.get(-code, -code)}"


class Drain:
    """Reads what a process prints, so that it is never held up: keeps the end of it, and logs a little."""

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptor: int, pid: int) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._pid = pid
        self._tail = b""
        self._second = 0.0
        self._logged = 0  # bytes in that second
        self._pause: asyncio.TimerHandle | None = None
        loop.add_reader(descriptor, self._read)

    @property
    def tail(self) -> str:
        """The end of what was printed, complete once the process has ended and the drain is closed."""
        return self._tail.decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Take what still stands in the pipe; the descriptor is the caller's."""
        self._take()
        self._loop.remove_reader(self._descriptor)
        if self._pause is not None:
            self._pause.cancel()

    def _read(self) -> None:
        self._loop.remove_reader(self._descriptor)
        if self._take():
            self._pause = self._loop.call_later(PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._descriptor, self._read)

    def _take(self) -> bool:
        """Read once; whether there may be more."""
        try:
            chunk = os.read(self._descriptor, OUTPUT_BYTES)
        except BlockingIOError:
            return True
        self._tail = (self._tail + chunk[-TAIL_BYTES:])[-TAIL_BYTES:]
        if chunk and printed.isEnabledFor(logging.DEBUG):
            self._log(chunk)
        return bool(chunk)

    def _log(self, chunk: bytes) -> None:
        now = self._loop.time()
        if now - self._second >= 1:
            self._second, self._logged = now, 0
        shown = chunk[: LOGGED_BYTES_PER_SECOND - self._logged]
        if shown:
            self._logged += len(shown)
            printed.debug("printed by pid=%d: %s", self._pid, shown.decode("utf-8", "replace").rstrip())
