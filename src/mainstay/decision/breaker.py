"""A circuit breaker: a model that fails too often is not tried for a while, so that callers get the fallback at once.

Closed until the share of failures among the last calls reaches the declared one; then open; after `open_seconds` one
call is let through as a probe. A probe that succeeds closes it, one that fails opens it for twice as long, at most 32
times as long (Nygard, Release It!, 2007).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mainstay.capability.types import Breaker as Declared

LONGEST = 32  # times `open_seconds`
FEWEST = 5  # calls that are looked at before it opens, where `of` is not smaller


class Breaker:
    """Decides, call by call, whether the model is tried. Times are seconds of one monotonic clock."""

    __slots__ = ("_declared", "_failed", "_last", "_open_seconds", "_open_until", "_probe_until", "closed", "opened")

    def __init__(self, declared: Declared) -> None:
        self._declared = declared
        self._last: deque[bool] = deque(maxlen=declared.of)  # whether each of the last calls failed
        self._failed = 0  # of those
        self._open_seconds = declared.open_seconds
        self._open_until: float | None = None  # None: closed
        self._probe_until = 0.0  # when a probe that never reported is given up
        self.closed = True  # every call may try the model
        self.opened = 0  # how often

    def state(self, now: float) -> Literal["closed", "open", "half-open"]:
        if self._open_until is None:
            return "closed"
        return "open" if now < self._open_until else "half-open"

    def allows(self, now: float, run_until: float) -> bool:
        """Whether a call that ends at `run_until` at the latest may try the model. Half-open, it is the probe."""
        if self._open_until is None:
            return True
        if now < self._open_until or now < self._probe_until:
            return False
        self._probe_until = run_until
        return True

    def succeeded(self, calls: int) -> None:
        """The model answered this many calls."""
        if self._open_until is not None:
            self._close()
        elif self._failed or len(self._last) < self._declared.of:  # else all of the last calls succeeded already
            for _ in range(min(calls, self._declared.of)):
                self._remember(failed=False)

    def failed(self, now: float) -> None:
        """The model did not answer a call, or with something that could not be used."""
        if self._open_until is not None:
            if now >= self._open_until:  # the probe, or a call that was under way when it opened
                self._open_seconds = min(self._open_seconds * 2, self._declared.open_seconds * LONGEST)
                self._open(now)
            return
        self._remember(failed=True)
        enough = max(self._declared.failures * len(self._last), 1)
        if len(self._last) >= min(FEWEST, self._declared.of) and self._failed >= enough:
            self._open(now)

    def _remember(self, *, failed: bool) -> None:
        if len(self._last) == self._declared.of:
            self._failed -= self._last[0]
        self._last.append(failed)
        self._failed += failed

    def _open(self, now: float) -> None:
        self.opened += 1
        self.closed = False
        self._open_until = now + self._open_seconds
        self._probe_until = 0.0

    def _close(self) -> None:
        self.closed = True
        self._open_until = None
        self._open_seconds = self._declared.open_seconds
        self._last.clear()
        self._failed = 0
