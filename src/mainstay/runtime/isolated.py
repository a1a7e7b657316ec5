"""The lane of a model that runs in a process of its own. Nothing the process does reaches the worker.

What waits while the process is busy is its next batch. A batch whose last wanted item is past its time is ended by
killing the process and everything it started. A process that ended is started again at once, then after 0.1 s, 0.2 s
and so on up to 30 s, until a batch has succeeded. After one has ended with a batch of several rows, the next 16 rows
go one at a time, so that a poisonous row takes only itself along.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from dataclasses import dataclass, field
from itertools import islice
from threading import Thread
from typing import TYPE_CHECKING, Final, Generic, Literal

import msgspec

from mainstay.errors import Failed, Misuse
from mainstay.runtime.frames import (
    MAX_FRAME_BYTES,
    BrokenProtocol,
    ChildInfo,
    Refused,
    RowFailed,
    Start,
    read_opening,
    read_reply,
)
from mainstay.runtime.link import Link
from mainstay.runtime.process import ChildProcess, remove_abandoned
from mainstay.runtime.types import Crashed, Unavailable, W

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mainstay.errors import MainstayError
    from mainstay.runtime.frames import IsolatedModel, Label
    from mainstay.runtime.types import Result, Row

logger = logging.getLogger("mainstay.runtime")

FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 30.0
SINGLE_ROWS: Final = 16  # that go one at a time after a batch of several has ended its process
MAX_ROWS_BYTES: Final = MAX_FRAME_BYTES  # of one batch, encoded
REGISTRATION_BATCH: Final = 256

_encode = msgspec.msgpack.Encoder().encode


@dataclass
class _Taken(Generic[W]):
    """Items that wait no longer: those of a batch with their rows encoded, and those that are not run, with why."""

    items: list[W] = field(default_factory=list)
    rows: list[msgspec.Raw] = field(default_factory=list)
    passed: list[W] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)


class IsolatedLane(Generic[W]):
    """Runs one model in one process. May be made on any thread; all else belongs to the event loop's thread."""

    def __init__(
        self,
        model: IsolatedModel,
        loop: asyncio.AbstractEventLoop,
        *,
        batch: int,
        deliver: Callable[[Sequence[W], Sequence[Result]], None],
    ) -> None:
        """The process is started at the loop's next turn, and `ready` becomes true by itself."""
        self._model = model
        self._loop = loop
        self._batch = batch
        self._deliver = deliver
        self._state: Literal["down", "starting", "idle", "running", "closed"] = "down"
        self._link: Link | None = None
        self._waiting: dict[W, None] = {}  # in order of arrival
        self._running: list[W] = []
        self._wanted: set[W] = set()  # those running that were not withdrawn
        self._aiming = False  # the time of those is about to be looked at again
        self._timer: asyncio.TimerHandle | None = None  # for what the state may last
        self._starts = 0
        self._batches = 0  # the number of the last one
        self._failures = 0  # since a batch has succeeded
        self._single_rows = 0  # still to go one at a time
        self._started_at = 0.0
        self._start_seconds = 0.0  # what the last start took
        self._info: ChildInfo | None = None
        self._refused: Refused | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._reaper: Thread | None = None
        loop.call_soon_threadsafe(self._first_start)

    # What there is to know of it.

    @property
    def ready(self) -> bool:
        return self._state in {"idle", "running"} and self._link is not None and not self._link.ending

    @property
    def pid(self) -> int | None:
        return None if self._link is None else self._link.pid

    @property
    def restarts(self) -> int:
        return max(0, self._starts - 1)

    @property
    def classes(self) -> tuple[Label, ...]:
        """In the order of the probabilities; empty where there are none, and before the first start."""
        return () if self._info is None else self._info.classes

    def describe(self) -> ChildInfo | None:
        """What the process said of itself when it was last started; None before it has."""
        return self._info

    async def wait_ready(self, seconds: float) -> None:
        """Return once the model can be run.

        Raises Misuse when it cannot be run as it is declared, Failed when its process did not start or takes longer.
        The lane goes on trying.
        """
        if self.ready:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            raise Failed(f"the model was not ready within {seconds:g} s") from None

    # What the lane is asked to do.

    def submit(self, item: W) -> None:
        self._waiting[item] = None
        if self._state == "idle" and len(self._waiting) == 1:
            self._loop.call_soon(self.start)  # with what else arrives in this turn of the loop

    def withdraw(self, item: W) -> bool:
        self._waiting.pop(item, None)
        # While nobody is left to want it, a batch keeps the time of the last who did: it may be done soon.
        if item in self._wanted and len(self._wanted) > 1:
            self._wanted.discard(item)
            if not self._aiming:
                self._aiming = True
                self._loop.call_soon(self._on_deadline)
        return True

    def start(self) -> None:
        if self._state != "idle" or not self._waiting or self._link is None or self._link.ending:
            return
        taken = self._take()
        if taken.items:
            self._state = "running"
            self._running, self._wanted = taken.items, set(taken.items)
            self._batches += 1
            self._link.send(_encode((self._batches, taken.rows)))
            self._on_deadline()
        elif self._waiting:
            self._loop.call_soon(self.start)
        if taken.passed:
            self._deliver(taken.passed, taken.results)

    def close(self) -> None:
        """End the process. What still waits is not delivered; `closed` says when everything is cleared away."""
        self._state = "closed"
        self._set_timer(None)
        self._waiting, self._running, self._wanted = {}, [], set()
        self._tell_waiters(Failed("the lane was closed"))
        if self._link is not None:
            self._reaper, self._link = self._link.abandon(), None

    async def closed(self) -> None:
        """Return once nothing is left of the process."""
        if self._reaper is not None:
            await asyncio.to_thread(self._reaper.join)

    # A batch.

    def _take(self) -> _Taken[W]:
        now = self._loop.time()
        taken: _Taken[W] = _Taken()
        size = 0
        for item in list(islice(self._waiting, 1 if self._single_rows else self._batch)):
            row: msgspec.Raw | Result = Unavailable("its time was up before the model was free")
            if item.run_until > now:
                row = _encode_row(item.row)
            if isinstance(row, msgspec.Raw):
                size += len(row)
                if taken.items and size > MAX_ROWS_BYTES:
                    break
                taken.items.append(item)
                taken.rows.append(row)
            else:
                taken.passed.append(item)
                taken.results.append(row)
            del self._waiting[item]
        return taken

    def _on_reply(self, payload: bytes) -> None:
        items = self._running
        results = read_reply(payload, self._batches, len(items), self._model.output_fields)
        self._set_timer(None)
        self._state = "idle"
        self._running, self._wanted = [], set()
        self._failures = 0
        self._single_rows = max(0, self._single_rows - len(items))
        self._deliver(items, results)
        self.start()

    def _on_deadline(self) -> None:
        """Wait for the time of the last item wanted; when that is over, end the process."""
        self._aiming = False
        if not self._wanted:
            return
        latest = max(item.run_until for item in self._wanted)
        if latest > self._loop.time():
            self._set_timer(latest, self._on_deadline)
        elif self._link is not None:
            self._link.stop("was stopped at the deadline")
            self._fail_running("was stopped at the deadline")

    def _fail_running(self, why: str) -> None:
        items, self._running, self._wanted = self._running, [], set()
        if items:
            self._single_rows = SINGLE_ROWS if len(items) > 1 else self._single_rows
            logger.warning("isolated model ended: folder=%s rows=%d: %s", self._model.folder, len(items), why)
            self._deliver(items, [Crashed(f"the model's process {why}")] * len(items))

    # The process.

    def _first_start(self) -> None:
        if self._state != "closed":
            Thread(target=remove_abandoned, name="remove-abandoned", daemon=True).start()
            self._start_process()

    def _start_process(self) -> None:
        self._state = "starting"
        self._starts += 1
        self._refused = None
        self._started_at = self._loop.time()
        try:
            child = ChildProcess(self._model)
        except OSError as error:
            self._on_end(f"could not be started: {error}", "")
            return
        self._link = Link(self._loop, child, on_frame=self._on_frame, on_end=self._on_end)
        self._link.send(_encode(Start(self._model, os.getpid())))
        self._set_timer(self._started_at + self._model.start_seconds, self._on_slow_start)

    def _on_slow_start(self) -> None:
        if self._link is not None:
            self._link.stop(f"was not ready within {self._model.start_seconds:g} s, and was stopped")

    def _on_frame(self, payload: bytes) -> None:
        if self._state == "running":
            self._on_reply(payload)
        elif self._state == "starting":
            self._on_opening(read_opening(payload))
        else:
            raise BrokenProtocol("expected nothing, found a frame")

    def _on_opening(self, opening: ChildInfo | Refused) -> None:
        if isinstance(opening, Refused):
            self._refused = opening
            return  # it ends by itself, and `start_seconds` holds on
        self._set_timer(None)
        self._state = "idle"
        self._info = opening
        self._start_seconds = self._loop.time() - self._started_at
        self._tell_waiters(None)
        self.start()

    def _on_end(self, why: str, printed: str) -> None:
        """The process has ended, and is cleared away."""
        was_starting = self._state == "starting"
        self._state, self._link = "down", None
        self._failures += 1
        pause = _pause_seconds(self._failures)
        self._set_timer(self._loop.time() + pause, self._start_process)
        if was_starting:
            error = _start_error(self._refused, why, printed)
            logger.error(
                "isolated model does not start: folder=%s next_try_seconds=%g: %s", self._model.folder, pause, error
            )
            self._tell_waiters(error)
        self._fail_running(why)
        self._give_up_late(self._loop.time() + pause + self._start_seconds)

    def _give_up_late(self, back_at: float) -> None:
        """Deliver what waits and would be too late when the process is back."""
        late = [item for item in self._waiting if item.run_until <= back_at]
        for item in late:
            del self._waiting[item]
        if late:
            self._deliver(late, [Unavailable("the model's process is being started again")] * len(late))

    def _set_timer(self, at: float | None, then: Callable[[], None] | None = None) -> None:
        """Call `then` at `at`, and forget what the timer was set to before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None or then is None else self._loop.call_at(at, then)

    def _tell_waiters(self, error: MainstayError | None) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)


def _encode_row(row: Row) -> msgspec.Raw | RowFailed:
    try:
        encoded = _encode(row)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return RowFailed(f"the row cannot be sent to the model's process: {error}")
    if len(encoded) > MAX_ROWS_BYTES:
        return RowFailed(f"expected a row of at most {MAX_ROWS_BYTES} bytes, found {len(encoded)}")
    return msgspec.Raw(encoded)


def _pause_seconds(failures: int) -> float:
    """Before the next start, when the process has ended so often since a batch has succeeded."""
    if failures <= 1:
        return 0.0
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 2, 16))


def _start_error(refused: Refused | None, why: str, printed: str) -> MainstayError:
    shown = f"It printed:\n{printed}" if printed else ""
    if refused is None:
        return Failed(f"the model's process {why} before it was ready", hint=shown)
    if refused.raised:
        return Failed(refused.message, hint=refused.hint)
    return Misuse(refused.message, hint=refused.hint)


# Without a worker, for registration.


@dataclass(eq=False)
class _Asked:
    """A row of `run_isolated`."""

    row: Row
    run_until: float
    result: Result = field(default_factory=lambda: Unavailable("there was no time left to run it"))


def run_isolated(model: IsolatedModel, rows: Sequence[Row], *, seconds: float) -> tuple[list[Result], ChildInfo]:
    """A result per row, from a process started for them and ended after them.

    Takes at most `seconds` beside the start, which takes at most `model.start_seconds`; the batch that runs then has
    Crashed, and what was not run Unavailable as result. Raises as `IsolatedLane.wait_ready` does. Not to be called
    where an event loop runs.
    """
    return asyncio.run(_run_isolated(model, rows, seconds))


async def _run_isolated(model: IsolatedModel, rows: Sequence[Row], seconds: float) -> tuple[list[Result], ChildInfo]:
    loop = asyncio.get_running_loop()
    left = len(rows)
    done = asyncio.Event()

    def deliver(items: Sequence[_Asked], results: Sequence[Result]) -> None:
        nonlocal left
        for item, result in zip(items, results, strict=True):
            item.result = result
        left -= len(items)
        if not left:
            done.set()

    lane: IsolatedLane[_Asked] = IsolatedLane(model, loop, batch=REGISTRATION_BATCH, deliver=deliver)
    try:
        await lane.wait_ready(model.start_seconds + 5)  # the lane itself keeps that time, and says more
        info = lane.describe()
        assert info is not None
        asked = [_Asked(row, loop.time() + seconds) for row in rows]
        for each in asked:
            lane.submit(each)
        if asked:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds + 1):  # what runs is stopped, and delivered, before
                    await done.wait()
    finally:
        lane.close()
        await lane.closed()
    return [each.result for each in asked], info
