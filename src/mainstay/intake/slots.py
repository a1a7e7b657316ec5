"""The place of one working process: begun when there is work, told what to do, and ended when it hangs."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from time import monotonic, time
from typing import TYPE_CHECKING, Final

import msgspec

from mainstay.errors import NOT_READ, MainstayError
from mainstay.intake.pacing import Order, Said

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mainstay.intake.pacing import Ran

_POLL_SECONDS: Final = 0.5
_END_SECONDS: Final = 8.0  # longer than a working process gives itself
_READ_BYTES: Final = 65_536
_MAX_LINE_BYTES: Final = 1 << 20


class Ended(MainstayError):
    """A working process that was given an order is no more. `code` is one of `findings`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Slot:
    """At most one working process at a time. For one thread."""

    def __init__(self, root: Path, ends: Callable[[], bool]) -> None:
        """`root` is that of the workspace; once `ends` says so, an order is not waited for."""
        self._command = [sys.executable, "-m", "mainstay.intake.working", str(root)]
        self._ends = ends
        self._process: subprocess.Popen[bytes] | None = None
        self._read = b""

    def follow(self, order: Order, silence_seconds: float, drafts: Path | None = None) -> Ran | None:
        """Have an order followed, and say what came of it; None where nothing did.

        Raises Ended when the process ended over it, or neither said anything nor wrote anything in the folder
        `drafts` for `silence_seconds`; then it has been killed. Raises OSError when no process can be begun.
        """
        process = self._process or self._begin()
        assert process.stdin is not None
        try:
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._dead(process) from None
        alive = monotonic()
        while not self._ends():
            said = self._hear(process)
            if said is not None and said.ended:
                return said.ran
            if said is not None or (drafts and time() - _last_written(drafts) < silence_seconds):
                alive = monotonic()
            if monotonic() - alive > silence_seconds:
                process.kill()
                self._forget(process)
                raise Ended("source_stuck", f"it gave no sign of life for {silence_seconds:g} s, and was ended")
        self.end()
        return None

    def end(self) -> None:
        """End the process, if there is one: it stops between two steps, or is killed."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        self._forget(process)

    def _begin(self) -> subprocess.Popen[bytes]:
        self._read = b""
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._process

    def _hear(self, process: subprocess.Popen[bytes]) -> Said | None:
        """The next thing it says, or None after a moment. Raises Ended when it will say nothing more."""
        assert process.stdout is not None
        if b"\n" not in self._read:
            if not select.select([process.stdout], [], [], _POLL_SECONDS)[0]:
                return None
            more = os.read(process.stdout.fileno(), _READ_BYTES)
            if not more:
                raise self._dead(process)
            self._read += more
            if len(self._read) > _MAX_LINE_BYTES:
                process.kill()
                raise self._dead(process)
            if b"\n" not in self._read:
                return None
        line, _, self._read = self._read.partition(b"\n")
        try:
            return msgspec.json.decode(line, type=Said)
        except NOT_READ:
            process.kill()
            raise self._dead(process) from None

    def _dead(self, process: subprocess.Popen[bytes]) -> Ended:
        try:
            status = process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        self._forget(process)
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return Ended("failed", f"the process that ran it ended: {how}; the log says more")

    def _forget(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:  # what it was still to be told
                    continue
        self._process = None


def _last_written(folder: Path) -> float:
    """When something was last written in a folder, in seconds since 1970; 0 where that cannot be known."""
    newest = 0.0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                newest = max(newest, entry.stat().st_mtime)
    except OSError:  # it goes, or its files do
        return newest
    return newest
