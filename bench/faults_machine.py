"""How long the event loops of the workers were ready to run and had no core to run on (proc(5), schedstat).

A machine that others use, too, may keep a worker from running at all; what is late because of that is late all the
same, but it says something else about the service.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from faults_world import World

EVERY_SECONDS = 0.02


class Waits:
    """Looks at the main threads of a world's workers on a thread of its own, until it is stopped."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._at: list[float] = []
        self._seen: list[dict[int, int]] = []  # by worker, ns that its loop has waited for a core in all its life
        self._stop = Event()
        self._thread = Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def longest_seconds(self, begun: float, ended: float) -> float:
        """The longest that the loop of one worker waited for a core between two instants (Unix seconds)."""
        first = max(0, bisect_left(self._at, begun) - 1)
        last = min(len(self._at) - 1, bisect_right(self._at, ended))
        if last <= first:
            return 0.0
        before, after = self._seen[first], self._seen[last]
        return max((ns - before.get(worker, ns) for worker, ns in after.items()), default=0) / 1e9

    def _look(self) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            self._at.append(time.time())
            self._seen.append(dict(_run_delays(self._world.workers.values())))


def _run_delays(workers: Iterable[int]) -> Iterator[tuple[int, int]]:
    for worker in workers:
        try:
            yield worker, int(Path(f"/proc/{worker}/task/{worker}/schedstat").read_text().split()[1])
        except OSError:  # it has ended meanwhile
            continue
