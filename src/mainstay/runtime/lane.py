"""A lane runs one model over whatever is waiting for it, in batches, adding no delay of its own.

A fast model (a full batch under `INLINE_SECONDS`, measured when it is loaded) runs on the event loop: handing the
batch to a thread would cost more than running it. Any other runs on a thread of its own, so that the loop goes on
accepting, and deadlines are kept, while it works. A fast model that turns slow is moved to a thread for good.
"""

from __future__ import annotations

import logging
from itertools import islice
from queue import SimpleQueue
from threading import Thread
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Generic

from mainstay.runtime.types import Prediction, W

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from mainstay.runtime.model import OnnxModel
    from mainstay.runtime.outputs import Predictions
    from mainstay.runtime.types import Result, Row

logger = logging.getLogger("mainstay.runtime")

INLINE_SECONDS = 0.002  # a full batch; the loop is not held longer than a request takes on a slow network
DEMOTE_SECONDS = 0.020  # of CPU; one inline batch that took this long moves the model off the loop
GATHER_TURNS = 6  # turns of the loop in which requests that have already arrived are read before a batch is closed


class GraphLane(Generic[W]):
    """Batches rows for one model. Its methods belong to the event loop's thread."""

    def __init__(
        self,
        model: OnnxModel,
        loop: asyncio.AbstractEventLoop,
        *,
        batch: int,
        inline: bool,
        may_start: Callable[[], bool],
        deliver: Callable[[Sequence[W], Sequence[Result]], None],
    ) -> None:
        """`may_start` says whether a batch may be begun now; when it said no, `start` must be called later."""
        self.ready = True
        self._model = model
        self._loop = loop
        self._batch = batch
        self._may_start = may_start
        self._deliver = deliver
        self._waiting: dict[W, None] = {}  # in order of arrival
        self._gathering = False
        self._busy = False
        self._queue: SimpleQueue[list[W] | None] = SimpleQueue()
        self._thread: Thread | None = None
        if not inline:
            self._leave_the_loop()

    @property
    def inline(self) -> bool:
        return self._thread is None

    def submit(self, item: W) -> None:
        self._waiting[item] = None
        if not self._gathering and not self._busy:
            self._gathering = True
            self._loop.call_soon(self._gather, GATHER_TURNS)

    def start(self) -> None:
        """Begin a batch if one waits, none is running and it may."""
        if not self._waiting or self._busy or self._gathering or not self._may_start():
            return
        items = self._take()
        if self._thread is not None:
            self._busy = True
            self._queue.put(items)
            return
        begun = thread_time()  # of this thread alone: a busy machine does not make a model slow
        results = run_rows(self._model, [item.row for item in items])
        took = thread_time() - begun
        if took > DEMOTE_SECONDS:
            logger.warning("model too slow for the event loop, moved to a thread: seconds=%.3f", took)
            self._leave_the_loop()
        self._deliver(items, results)

    def withdraw(self, item: W) -> bool:
        """Nobody waits for this item any more; it may have left already.

        False where it waited, and the model had nothing to do: no batch might start.
        """
        if item not in self._waiting:
            return True
        del self._waiting[item]
        return self._busy

    async def wait_ready(self, _seconds: float) -> None:
        """It is, since the graph was loaded."""

    def close(self) -> None:
        """Let the thread end once it has run what it was given."""
        self._queue.put(None)

    def _take(self) -> list[W]:
        """The items of the next batch, which wait no longer."""
        if len(self._waiting) <= self._batch:
            items = list(self._waiting)
            self._waiting = {}
            return items
        items = list(islice(self._waiting, self._batch))
        for item in items:
            del self._waiting[item]
        return items

    def _gather(self, turns: int) -> None:
        if turns:
            self._loop.call_soon(self._gather, turns - 1)
            return
        self._gathering = False
        self.start()

    def _leave_the_loop(self) -> None:
        self._thread = Thread(target=self._work, name="lane", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (items := self._queue.get()) is not None:
            results = run_rows(self._model, [item.row for item in items])
            try:
                self._loop.call_soon_threadsafe(self._ran, items, results)
            except RuntimeError:  # the loop was closed while the model ran: nobody waits any more
                return

    def _ran(self, items: list[W], results: Sequence[Result]) -> None:
        self._busy = False
        self._deliver(items, results)
        self.start()


def run_rows(model: OnnxModel, rows: Sequence[Row]) -> Sequence[Result]:
    """A result per row. A row that the model fails on fails alone: its batch is run again one by one."""
    try:
        return _predictions(model.run(rows))
    except Exception as error:  # noqa: BLE001 - whatever a graph raises is an answer about these rows, not about us
        if len(rows) == 1:
            return [error]
    return [result for row in rows for result in run_rows(model, [row])]


def _predictions(given: Predictions) -> list[Result]:
    columns = zip(*given.columns, strict=True)
    if given.confidence is None:
        return [Prediction(values, None) for values in columns]
    return list(map(Prediction, columns, given.confidence))


def seconds_per_batch(model: OnnxModel, rows: Sequence[Row], batch: int) -> float:
    """The time of a full batch made of `rows` repeated: the second of two runs, the first being warm-up."""
    repeated = [rows[place % len(rows)] for place in range(batch)]
    run_rows(model, repeated)
    begun = perf_counter()
    run_rows(model, repeated)
    return perf_counter() - begun
