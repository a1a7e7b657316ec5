"""How fast a model answers what waits for it, to say how long one more decision would wait."""

from __future__ import annotations

_WEIGHT = 0.1  # of the newest batch in the moving average
_LONGEST_SECONDS = 60.0  # one batch counts for at most this much
_TELLING = 8  # rows a batch must have to say what one row costs among many; a lone one says too much


class Pace:
    """A moving average of the time each answer took while many were awaited; seconds of one monotonic clock."""

    __slots__ = ("_busy_since", "_telling", "queued", "seconds_each")

    def __init__(self, batch: int) -> None:
        """`batch` is how many rows one run of the model takes at most."""
        self.queued = 0  # given to the model and not answered
        self.seconds_each = 0.0  # 0: not known yet
        self._busy_since = 0.0
        self._telling = min(batch, _TELLING)

    def began(self, now: float) -> None:
        if not self.queued:
            self._busy_since = now
        self.queued += 1

    def ended(self, count: int, now: float) -> None:
        """So many of those queued were answered, in one run."""
        if count >= self._telling:
            took = min(now - self._busy_since, _LONGEST_SECONDS) / count
            self.seconds_each += (took - self.seconds_each) * (_WEIGHT if self.seconds_each else 1.0)
        self.queued -= count
        self._busy_since = now

    def gave_up(self, count: int, now: float) -> None:
        """So many of those queued will not be answered; that says nothing of how fast the model is when it is well."""
        self.queued -= count
        self._busy_since = now

    @property
    def wait_seconds(self) -> float:
        """How long a decision that came now would wait."""
        return self.queued * self.seconds_each
