"""Calls that the demo has another process make, as that process tells of them: `examples/flights/callers.py`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from math import ceil
from threading import Thread
from typing import TYPE_CHECKING, Self

import msgspec

from mainstay.cli.common import API_KEY_VARIABLE
from mainstay.errors import Failed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from mainstay.cli.demo_story import Scene

TURNED_AWAY = 429
STOP_SECONDS = 20.0


class Called(msgspec.Struct, frozen=True):
    """One call and what became of it; None is what the answer did not have."""

    at: float  # when it was sent, in seconds of the machine's monotonic clock
    ms: float  # until it was answered
    status: int  # of HTTP; 0: no answer came
    retry_after: str | None
    error: str | None  # why no answer came
    decision_id: str | None
    release: int | None
    outcome: str | None
    reason: str | None  # the code of the first

    @property
    def ended(self) -> float:
        return self.at + self.ms / 1000

    @property
    def by_model(self) -> bool:
        return self.outcome == "answered"


class Traffic:
    """A process that calls, from `with` until its end; then every call that it made has been told of."""

    def __init__(self, scene: Scene, inputs: Path, *words: str) -> None:
        command = [
            sys.executable,
            str(scene.example / "callers.py"),
            "--url",
            scene.url,
            "--inputs",
            str(inputs),
            *words,
        ]
        self._complaints = inputs.with_suffix(".stderr")
        with self._complaints.open("ab") as complaints:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env={**os.environ, API_KEY_VARIABLE: scene.token},
            )
        self.calls: list[Called] = []
        self._reader = Thread(target=self._read, name="traffic", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.calls.append(msgspec.json.decode(line, type=Called))

    def since(self, at: float) -> list[Called]:
        """The calls sent from then on that have ended."""
        return [call for call in list(self.calls) if call.at >= at]

    def has_begun(self) -> bool:
        """Whether any call has ended."""
        return bool(self.calls)

    def check(self) -> None:
        """Raises Failed when the process has ended by itself."""
        code = self._process.poll()
        if code:
            raise Failed(f"callers.py ended with code {code}:\n{self._complaints.read_text()[-2000:]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.wait()
        except Failed:
            if kind is None:
                raise

    def wait(self) -> None:
        """Have it send no more, and wait for what it has sent. Raises Failed when it does not end well."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()
        self.check()


def counted(calls: Iterable[Called]) -> list[tuple[str, str, int]]:
    """How often each outcome came for each reason, the model's own answers first."""
    found = Counter((_outcome(call), call.reason or (call.error or "").partition(":")[0]) for call in calls)
    ordered = sorted(found.items(), key=lambda item: (item[0][0] != "answered", -item[1]))
    return [(outcome, reason, count) for (outcome, reason), count in ordered]


def _outcome(call: Called) -> str:
    if call.outcome is not None:
        return call.outcome
    return {0: "lost", TURNED_AWAY: "turned away"}.get(call.status, f"status {call.status}")


def lost(calls: Iterable[Called]) -> list[Called]:
    """Those without a decision that were not turned away either."""
    return [call for call in calls if call.outcome is None and call.status != TURNED_AWAY]


def decision_ms(calls: Iterable[Called]) -> list[float]:
    """How long each call with a decision took, ascending."""
    return sorted(call.ms for call in calls if call.outcome is not None)


def share_ms(ascending: Sequence[float], share: float) -> float:
    """What this share of them, at least, did not exceed; 0 where there are none."""
    return ascending[max(0, ceil(share * len(ascending)) - 1)] if ascending else 0.0


def well_since(calls: Sequence[Called], begun: float, quiet_seconds: float) -> float | None:
    """When the model had answered again after trouble that began at `begun`, and has answered every call since.

    None until it has for `quiet_seconds`, on the clock of the calls.
    """
    last_bad = max((call.at for call in calls if not call.by_model), default=begun)
    good = [call.ended for call in calls if call.at > last_bad]
    if not good or time.monotonic() - last_bad < quiet_seconds or max(good) - min(good) < quiet_seconds:
        return None
    return min(good)
