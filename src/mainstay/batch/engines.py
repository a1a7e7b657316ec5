"""Who decides the pieces of a batch: this process, processes beside it, or those of a Ray cluster.

Whoever it is gives back decisions that nothing has been recorded of: recording is for one process alone, in the order
of the rows. A piece whose process died is decided again by another; nothing came of it before.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib import import_module
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from mainstay.batch.deciding import Decider
from mainstay.errors import Failed, Misuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Future

    from mainstay.batch.deciding import Task
    from mainstay.batch.types import Decided, Piece
    from mainstay.decision.types import Hold

    Held = Callable[[], Hold | None]

AHEAD: Final = 2  # pieces for each process that are decided or wait to be, so that memory stays bounded
MAX_DEATHS: Final = 8  # processes that may die over the same rows before the run is given up

_ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
_RAY_QUIET: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class Engine(Protocol):
    """Decides pieces."""

    def decide(self, pieces: Iterator[Piece], held: Held) -> Iterator[Decided]:
        """The decisions about each piece, in order; few pieces are taken ahead. `held` says why no model is asked."""
        ...

    def close(self) -> None:
        """Let go of all that was begun."""
        ...


class Here:
    """Decides in the process that asks."""

    def __init__(self, task: Task) -> None:
        self._decider = Decider(task)

    def decide(self, pieces: Iterator[Piece], held: Held) -> Iterator[Decided]:
        for piece in pieces:
            yield self._decider.decide(piece, held())

    def close(self) -> None:
        self._decider.close()


class _Given(NamedTuple):
    """A piece that was given to a process, and what it will come back as."""

    piece: Piece
    held: Hold | None
    future: Future[Decided]


class Processes:
    """Processes beside this one."""

    def __init__(self, task: Task, workers: int) -> None:
        self._task = task
        self._workers = workers
        self._pool = self._new_pool()

    def decide(self, pieces: Iterator[Piece], held: Held) -> Iterator[Decided]:
        given: deque[_Given] = deque()
        for piece in pieces:
            given.append(self._give(piece, held()))
            if len(given) >= AHEAD * self._workers:
                yield self._first(given)
        while given:
            yield self._first(given)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _first(self, given: deque[_Given]) -> Decided:
        """What became of the first piece. When a process dies, all have to be begun again: the pool dies with it."""
        for _ in range(MAX_DEATHS):
            try:
                decided = given[0].future.result()
            except BrokenProcessPool:
                self._pool.shutdown()
                self._pool = self._new_pool()
                begun = [self._give(each.piece, each.held) for each in given]
                given.clear()
                given.extend(begun)
                continue
            given.popleft()
            return decided
        raise _too_many_deaths(given[0].piece)

    def _give(self, piece: Piece, held: Hold | None) -> _Given:
        with _environment(_ONE_THREAD):  # the pool begins its processes with the first piece
            try:
                future = self._pool.submit(decide_remotely, self._task, piece, held)
            except BrokenProcessPool:
                self._pool.shutdown()
                self._pool = self._new_pool()
                future = self._pool.submit(decide_remotely, self._task, piece, held)
        return _Given(piece, held, future)

    def _new_pool(self) -> ProcessPoolExecutor:
        # Ctrl-C reaches them, too; it is for this process to say what becomes of it.
        deaf = (signal.SIGINT, signal.SIG_IGN)
        return ProcessPoolExecutor(
            self._workers, mp_context=get_context("spawn"), initializer=signal.signal, initargs=deaf
        )


class Cluster:
    """Processes of Ray: of the cluster that RAY_ADDRESS names, else of this machine.

    Each machine needs the workspace at the same path: its versions, releases and keys are read there, and nothing is
    written.
    """

    def __init__(self, task: Task, workers: int) -> None:
        """Raises Misuse when Ray is not installed."""
        with _environment(_RAY_QUIET):
            try:
                self._ray: Any = import_module("ray")
            except ImportError:
                raise Misuse(
                    "expected Ray, found that it is not installed", hint="Install mainstay[ray], or leave --engine out."
                ) from None
            self._ending = ExitStack()
            self._ending.enter_context(redirect_stdout(sys.stderr))  # what Ray has to say is no output of ours
            if not self._ray.is_initialized():
                self._ending.callback(self._ray.shutdown)
                self._begin(workers)
        self._workers = workers
        self._task = self._ray.put(task)
        options = {"num_cpus": 1, "max_retries": MAX_DEATHS, "runtime_env": {"env_vars": _ONE_THREAD}}
        self._decide = self._ray.remote(**options)(decide_remotely)

    def _begin(self, workers: int) -> None:
        local: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers}
        self._ray.init(include_dashboard=False, log_to_driver=False, logging_level="error", **local)

    def decide(self, pieces: Iterator[Piece], held: Held) -> Iterator[Decided]:
        given: deque[tuple[Piece, Any]] = deque()
        for piece in pieces:
            given.append((piece, self._decide.remote(self._task, piece, held())))
            if len(given) >= AHEAD * self._workers:
                yield self._result(*given.popleft())
        while given:
            yield self._result(*given.popleft())

    def close(self) -> None:
        self._ending.close()

    def _result(self, piece: Piece, reference: Any) -> Decided:
        try:
            decided: Decided = self._ray.get(reference)
        except self._ray.exceptions.WorkerCrashedError:
            raise _too_many_deaths(piece) from None
        except self._ray.exceptions.RayTaskError as error:
            raise Failed(f"{_described(piece)}: could not be decided: {error.cause or error}") from None
        return decided


def open_engine(name: str, task: Task, workers: int) -> Engine:
    """`local` or `ray`, with so many processes; a single local one is this process itself."""
    if name == "ray":
        return Cluster(task, workers)
    return Here(task) if workers == 1 else Processes(task, workers)


_deciders: dict[Task, Decider] = {}  # of a process that decides for another


def decide_remotely(task: Task, piece: Piece, held: Hold | None) -> Decided:
    """Decide a piece in a process that is there for that alone. What it needs is opened once."""
    if task not in _deciders:
        for other in _deciders.values():
            other.close()
        _deciders.clear()
        _deciders[task] = Decider(task)
    return _deciders[task].decide(piece, held)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables for the processes that are begun meanwhile; what the caller has set stays."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _too_many_deaths(piece: Piece) -> Failed:
    return Failed(
        f"{_described(piece)}: {MAX_DEATHS} processes died one after another while they decided these rows",
        hint="It may be memory, or the model. All before it is recorded; the same command goes on from there.",
    )


def _described(piece: Piece) -> str:
    first = piece.rows[0] if piece.rows else piece.broken[0][0]
    return f"{piece.origin}, {piece.height:,} rows from {first:,} on"
