"""Saying what a run reads and writes, while it runs (OpenLineage).

    emitter = Emitter(workspace)
    with emitter.run("intake.orders.feed", outputs=[table_dataset(lake.location.root, "intake/orders/feed")]) as run:
        run.read(url_dataset("https://api.example.com/orders"), rows=100, size=20_480)
        run.wrote(table_dataset(lake.location.root, "intake/orders/feed"), rows=98)

A START event when it begins, COMPLETE when it ends, FAIL when it raises and ABORT when it is interrupted; a run that is
killed has none of these. Nothing here fails a run or holds it up: what cannot be kept is counted.
"""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from time import time_ns
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from mainstay.errors import Failed, MainstayError
from mainstay.lineage.endpoint import Sender
from mainstay.lineage.events import (
    Assertion,
    ColumnMetrics,
    EngineFacet,
    ErrorFacet,
    EventType,
    Input,
    InputFacets,
    InputStatisticsFacet,
    Job,
    Named,
    Output,
    OutputFacets,
    OutputStatisticsFacet,
    ParentFacet,
    QualityAssertionsFacet,
    QualityMetricsFacet,
    RunEvent,
    RunFacets,
    RunId,
)
from mainstay.lineage.events import Run as RunIdentity
from mainstay.lineage.sinks import Account, EventFile, Queue, Sink

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mainstay.lineage.naming import Dataset
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.lineage")

FOLDER: Final = "lineage"  # in the data directory
FILE: Final = "events.jsonl"
CLOSE_SECONDS: Final = 2.0
MAX_MESSAGE: Final = 2_000  # characters of what a run failed with

_ENGINE: Final = EngineFacet(version=version("mainstay-ai"))


class Standing(NamedTuple):
    """How it goes with the events of a workspace."""

    place: str  # the file, or the endpoint
    waiting: int  # events that the endpoint has not taken yet
    lost: int  # events that nobody will ever have
    problem: str  # what keeps them; empty: nothing


class Emitter:
    """Emits the events of a workspace's runs. An object is for one thread at a time."""

    def __init__(self, workspace: Workspace, environment: Mapping[str, str] = os.environ) -> None:
        """Raises Misuse when the setting `lineage` is no place for events."""
        folder = workspace.data / FOLDER
        place = workspace.settings.lineage
        self.namespace = workspace.settings.log
        self._account = Account(folder)
        self._sender: Sender | None = None
        self._sink: Sink
        if _is_url(place):
            self._sender = Sender(place, folder, environment)
            self._sink = self._sender.queue
            self._sender.begin()
        else:
            self._sink = EventFile(_file(workspace))

    @contextmanager
    def run(
        self,
        job: str,
        *,
        inputs: Sequence[Dataset] = (),
        outputs: Sequence[Dataset] = (),
        parent: Run | None = None,
        only_if_moved: bool = False,
    ) -> Iterator[Run]:
        """A run of a job: `inputs` and `outputs` are what is known of them when it begins.

        With `only_if_moved`, nothing is said of a run that neither read nor wrote anything and did not fail; whoever
        looks every few seconds whether there is something to do says so. Whatever is raised inside goes on.
        """
        begun = Run(self, Job(namespace=self.namespace, name=job), inputs, outputs, parent)
        if not only_if_moved:
            begun.tell("START")
        try:
            yield begun
        except Exception as error:  # of any kind: it is said, and goes on
            begun.tell("FAIL", _said(error))
            raise
        except BaseException:  # whatever interrupts it goes on too
            begun.tell("ABORT")
            raise
        if begun.told or begun.moved:
            begun.tell("COMPLETE")

    def emit(self, event: RunEvent) -> None:
        """Keep an event, or count it as lost."""
        try:
            self._sink.take(msgspec.json.encode(event))
        except (OSError, Failed) as error:
            logger.warning("an event of %s was lost: %s", event.job.name, error)
            self._count(str(error))
        else:
            if self._sender is not None:
                self._sender.wake()

    def close(self, wait_seconds: float = CLOSE_SECONDS) -> None:
        """Send what waits, for as long as that. What still waits then is sent by whoever emits next."""
        if self._sender is not None:
            self._sender.close(wait_seconds)

    def _count(self, problem: str) -> None:
        try:
            self._account.add(lost=1, problem=problem)
        except (OSError, Failed) as error:
            logger.warning("a lost event was not counted: %s", error)


class Run:
    """A run that goes on. An object is for one thread at a time."""

    def __init__(
        self, emitter: Emitter, job: Job, inputs: Sequence[Dataset], outputs: Sequence[Dataset], parent: Run | None
    ) -> None:
        self.id = str(uuid7())
        self.job = job
        self.moved = False  # whether anything was read or written
        self.told = False  # whether its start was
        self._emitter = emitter
        self._began_at = _now()
        self._parent = parent
        self._inputs = {_place(each): _Read(each) for each in inputs}
        self._outputs = {_place(each): _Wrote(each) for each in outputs}

    def read(
        self,
        dataset: Dataset,
        *,
        rows: int | None = None,
        size: int | None = None,
        files: int | None = None,
        assertions: Iterable[Assertion] = (),
        metrics: Mapping[str, ColumnMetrics] | None = None,
    ) -> None:
        """Say that something was read, with how many rows, bytes and files. Counts of one dataset add up."""
        self.moved = True
        read = self._inputs.setdefault(_place(dataset), _Read(dataset))
        read.dataset = _merged(read.dataset, dataset)
        read.counts.add(rows, size, files)
        read.assertions.update(dict.fromkeys(assertions))
        read.metrics.update(metrics or {})

    def wrote(
        self, dataset: Dataset, *, rows: int | None = None, size: int | None = None, files: int | None = None
    ) -> None:
        """Say that something was written, with how many rows, bytes and files. Counts of one dataset add up."""
        self.moved = True
        wrote = self._outputs.setdefault(_place(dataset), _Wrote(dataset))
        wrote.dataset = _merged(wrote.dataset, dataset)
        wrote.counts.add(rows, size, files)

    def running(self) -> None:
        """Say how far it has come: worth it for runs of many minutes."""
        self.tell("RUNNING")

    def tell(self, event_type: EventType, error: str = "", at: str = "") -> None:
        """Emit an event with all that is known by now; a start that was not told comes first."""
        if event_type != "START" and not self.told:
            self.tell("START", at=self._began_at)
        self.told = True
        facets = RunFacets(
            processing_engine=_ENGINE,
            parent=UNSET if self._parent is None else self._parent.as_parent,
            error_message=ErrorFacet(message=error) if error else UNSET,
        )
        event = RunEvent(
            event_type=event_type,
            event_time=at or _now(),
            run=RunIdentity(run_id=self.id, facets=facets),
            job=self.job,
            inputs=tuple(each.shown() for each in self._inputs.values()),
            outputs=tuple(each.shown() for each in self._outputs.values()),
        )
        self._emitter.emit(event)

    @property
    def as_parent(self) -> ParentFacet:
        """What a run that this one started says of it."""
        return ParentFacet(run=RunId(run_id=self.id), job=Named(namespace=self.job.namespace, name=self.job.name))


class _Counts:
    """Rows, bytes and files; UNSET where nobody said any."""

    def __init__(self) -> None:
        self.rows: int | UnsetType = UNSET
        self.size: int | UnsetType = UNSET
        self.files: int | UnsetType = UNSET

    def add(self, rows: int | None, size: int | None, files: int | None) -> None:
        self.rows, self.size, self.files = _sum(self.rows, rows), _sum(self.size, size), _sum(self.files, files)

    @property
    def known(self) -> bool:
        return any(each is not UNSET for each in (self.rows, self.size, self.files))


class _Read:
    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.counts = _Counts()
        self.assertions: dict[Assertion, None] = {}  # each once, however many items it is said of
        self.metrics: dict[str, ColumnMetrics] = {}

    def shown(self) -> Input:
        counts, assertions, metrics = self.counts, tuple(self.assertions), dict(self.metrics)
        statistics = InputStatisticsFacet(row_count=counts.rows, size=counts.size, file_count=counts.files)
        facets = InputFacets(
            input_statistics=statistics if counts.known else UNSET,
            data_quality_metrics=QualityMetricsFacet(column_metrics=metrics, row_count=counts.rows)
            if metrics
            else UNSET,
            data_quality_assertions=QualityAssertionsFacet(assertions=assertions) if assertions else UNSET,
        )
        dataset = self.dataset
        return Input(namespace=dataset.namespace, name=dataset.name, facets=dataset.facets, input_facets=facets)


class _Wrote:
    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.counts = _Counts()

    def shown(self) -> Output:
        counts = self.counts
        statistics = OutputStatisticsFacet(row_count=counts.rows, size=counts.size, file_count=counts.files)
        facets = OutputFacets(output_statistics=statistics if counts.known else UNSET)
        dataset = self.dataset
        return Output(namespace=dataset.namespace, name=dataset.name, facets=dataset.facets, output_facets=facets)


def standing(workspace: Workspace) -> Standing:
    """How it goes with the events of a workspace. Reads a few small files."""
    folder = workspace.data / FOLDER
    state = Account(folder).read()
    place = workspace.settings.lineage if _is_url(workspace.settings.lineage) else str(_file(workspace))
    return Standing(place, Queue(folder / "waiting").length, state.lost, state.problem)


def uuid7() -> UUID:
    """A UUIDv7 (RFC 9562): Unix milliseconds and 74 random bits."""
    number = (time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return UUID(int=number & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)


def _is_url(place: str) -> bool:
    return "://" in place


def _file(workspace: Workspace) -> Path:
    place = workspace.settings.lineage
    return workspace.root / place if place else workspace.data / FOLDER / FILE


def _place(dataset: Dataset) -> tuple[str, str]:
    return dataset.namespace, dataset.name


def _merged(known: Dataset, new: Dataset) -> Dataset:
    """What both say of a dataset, the newer where they differ."""
    return msgspec.structs.replace(
        new,
        columns=new.columns or known.columns,
        version=known.version if new.version is None else new.version,
        source=known.source if new.source is None else new.source,
        copied_from=known.copied_from if new.copied_from is None else new.copied_from,
    )


def _sum(known: int | UnsetType, more: int | None) -> int | UnsetType:
    if more is None:
        return known
    return more if known is UNSET else known + more


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _said(error: Exception) -> str:
    """What a run failed with. Of errors that are not ours only the kind is known to hold no secret."""
    return error.message[:MAX_MESSAGE] if isinstance(error, MainstayError) else type(error).__name__
