"""How the model of a version is run: in this process, in one of its own, or elsewhere."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from mainstay.catalog.isolation import isolated_graph, isolated_model
from mainstay.catalog.samples import features_of, mapping_of
from mainstay.runtime.isolated import IsolatedLane
from mainstay.runtime.lane import INLINE_SECONDS, GraphLane, seconds_per_batch
from mainstay.runtime.model import OnnxModel
from mainstay.runtime.remote import RemoteLane, read_secret

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mainstay.capability.load import Declared
    from mainstay.catalog.versions import StoredVersion
    from mainstay.privacy.protection import Protector
    from mainstay.runtime.frames import IsolatedModel
    from mainstay.runtime.types import Lane, Result, Row

SAMPLE_ROWS = 64  # how many sample rows a model is timed on


Deliver: TypeAlias = "Callable[[Sequence[Any], Sequence[Result]], None]"
Runner: TypeAlias = "Callable[[asyncio.AbstractEventLoop, Callable[[], bool], Deliver], Lane[Any]]"
"""Opens a lane on a loop. `may_start` says whether a batch may begin now; each batch that ran is delivered."""


def compile_runner(version: StoredVersion, declared: Declared, protector: Protector | None) -> Runner:
    """Prepare what a lane to the model of `version` needs. Raises what the runtime raises when it cannot run here."""
    if version.manifest.runtime == "onnx":
        return _in_process(version, declared)
    if version.manifest.runtime == "isolated":
        return _isolated(version, declared)
    return _remote(declared, protector)


def compile_background_runner(version: StoredVersion, declared: Declared, protector: Protector | None) -> Runner:
    """The same for a model that decides nothing: whatever runs on this machine does so in a process behind all others.

    There it can neither take the worker's memory nor hold its loop, and it can be stopped.
    """
    if version.manifest.runtime == "remote":
        return _remote(declared, protector)
    isolate = version.manifest.runtime == "isolated"
    model = isolated_model(version.path, declared) if isolate else isolated_graph(version, declared)
    return _lane_of(msgspec.structs.replace(model, background=True), declared)


def load_graph(version: StoredVersion, declared: Declared) -> OnnxModel:
    """The graph of a version that runs in process. Raises what ONNX Runtime raises when it cannot load it."""
    assert version.artifact is not None, "a version that runs in process has a graph"
    return OnnxModel(version.artifact.read_bytes(), version.manifest, declared.input.fields, mapping_of(declared))


def _in_process(version: StoredVersion, declared: Declared) -> Runner:
    model = load_graph(version, declared)
    rows = _sample_rows(declared, version.folder / declared.capability.samples)
    batch = declared.capability.limits.batch
    inline = seconds_per_batch(model, rows, batch) < INLINE_SECONDS

    def open_lane(loop: asyncio.AbstractEventLoop, may_start: Callable[[], bool], deliver: Deliver) -> Lane[Any]:
        return GraphLane(model, loop, batch=batch, inline=inline, may_start=may_start, deliver=deliver)

    return open_lane


def _isolated(version: StoredVersion, declared: Declared) -> Runner:
    return _lane_of(isolated_model(version.path, declared), declared)


def _lane_of(model: IsolatedModel, declared: Declared) -> Runner:
    batch = declared.capability.limits.batch

    def open_lane(loop: asyncio.AbstractEventLoop, _may_start: Callable[[], bool], deliver: Deliver) -> Lane[Any]:
        return IsolatedLane(model, loop, batch=batch, deliver=deliver)

    return open_lane


def _remote(declared: Declared, protector: Protector | None) -> Runner:
    capability = declared.capability
    remote = capability.model.remote
    assert remote is not None
    open_lane = partial(
        RemoteLane[Any],
        remote,
        fields=declared.input.fields,
        features=features_of(declared),
        output=mapping_of(declared),
        confidence=capability.model.confidence,
        batch=capability.limits.batch,
        secret=read_secret(remote),
        leaving=None if protector is None else protector.for_remote,
    )
    return lambda loop, _may_start, deliver: open_lane(loop=loop, deliver=deliver)


def _sample_rows(declared: Declared, samples: Path) -> Sequence[Row]:
    """The first sample records of the version, as rows. They were checked when the version was registered."""
    lines = (line for line in samples.read_bytes().split(b"\n") if line.strip())
    return [
        declared.input.values(declared.input.decode(line)) for line, _ in zip(lines, range(SAMPLE_ROWS), strict=False)
    ]
