"""How a version that runs isolated is handed to its process: the same whether it is being registered or decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainstay.catalog.samples import features_of, mapping_of
from mainstay.catalog.versions import FOLDER
from mainstay.runtime.frames import IsolatedModel

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.capability.load import Declared
    from mainstay.catalog.versions import StoredVersion


def isolated_graph(version: StoredVersion, declared: Declared) -> IsolatedModel:
    """The graph of a version, to be run in a process of its own although it could run in the worker."""
    manifest, model = version.manifest, declared.capability.model
    assert manifest.artifact is not None, "a version that runs in process has a graph"
    return IsolatedModel(
        folder=str(version.path.absolute()),
        kind="onnx",
        file=manifest.artifact.path,
        fields=tuple(declared.input.fields),
        features=features_of(declared),
        output=mapping_of(declared),
        output_fields=tuple(declared.output.fields),
        memory_bytes=model.memory_mb << 20,
        start_seconds=model.start_seconds,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        classes=manifest.classes,
    )


def isolated_model(version: Path, declared: Declared) -> IsolatedModel:
    """The model in a version's directory, or in one that is laid out as a version will be."""
    model = declared.capability.model
    assert model.kind != "onnx", "a graph runs in the worker"
    assert model.kind != "remote", "a remote model runs elsewhere"
    return IsolatedModel(
        folder=str((version / FOLDER).absolute()),
        kind=model.kind,
        file=model.file,
        call=model.call,
        fields=tuple(declared.input.fields),
        features=features_of(declared),
        output=mapping_of(declared),
        output_fields=tuple(declared.output.fields),
        trusted_types=model.trusted_types,
        confidence=model.confidence,
        memory_bytes=model.memory_mb << 20,
        start_seconds=model.start_seconds,
    )
