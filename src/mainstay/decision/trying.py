"""Running the model of a stored version over rows, without a service around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mainstay.catalog.isolation import isolated_model
from mainstay.decision.runner import load_graph
from mainstay.errors import Failed, Misuse
from mainstay.runtime.isolated import run_isolated
from mainstay.runtime.types import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mainstay.capability.load import Declared
    from mainstay.catalog.versions import StoredVersion
    from mainstay.runtime.model import OnnxModel
    from mainstay.runtime.types import Result, Row

ROWS: Final = 2_048  # that run together


def run_rows(version: StoredVersion, declared: Declared, rows: Sequence[Row], *, seconds: float) -> list[Result]:
    """A result for every row. An isolated model has so many seconds for all of them, beside its start.

    Raises Misuse when the model runs elsewhere, Failed when it does not start or a row breaks it.
    """
    if version.manifest.runtime == "isolated":
        return run_isolated(isolated_model(version.path, declared), rows, seconds=seconds)[0]
    if version.manifest.runtime != "onnx":
        raise Misuse(f"version {version.digest} runs elsewhere: expected one whose model is here")
    try:
        model = load_graph(version, declared)
        return [each for start in range(0, len(rows), ROWS) for each in _batch(model, rows[start : start + ROWS])]
    except Exception as error:  # noqa: BLE001 - ONNX Runtime has its own for everything, without a base in common
        said = str(error).splitlines()
        raise Failed(f"the model does not run: {said[0] if said else type(error).__name__}") from None


def _batch(model: OnnxModel, rows: Sequence[Row]) -> Iterator[Prediction]:
    columns, confidence = model.run(rows)
    for place, values in enumerate(zip(*columns, strict=True)):
        yield Prediction(values, None if confidence is None else confidence[place])
