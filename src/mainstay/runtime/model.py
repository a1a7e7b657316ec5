"""One ONNX graph in this process: rows in, predictions out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from mainstay.runtime.outputs import Predictions, build_mapper
from mainstay.runtime.tensors import build_column_feeder, build_feeder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mainstay.capability.types import OutputField
    from mainstay.runtime.tensors import Columns, Feed
    from mainstay.runtime.types import Row, Signature


class OnnxModel:
    """A version's graph, loaded on one CPU thread. `run` may be called from any one thread at a time."""

    def __init__(
        self, artifact: bytes, signature: Signature, fields: Sequence[str], mapping: Mapping[str, OutputField]
    ) -> None:
        """Load the graph.

        `fields` are the names of the values in a row; `mapping` says how output fields come from the model.
        Raises ValueError when they do not fit the graph, and what ONNX Runtime raises when it cannot load it.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a worker process owns one core; threads would only contend
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4  # fatal: what fails is raised, and its text may hold values of the input
        self._session: Any = onnxruntime.InferenceSession(
            artifact, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )  # falling back is to load the same again, and to print so
        self._feed = build_feeder(signature.inputs, fields)
        self._feed_columns = build_column_feeder(signature.inputs)
        self._map = build_mapper(signature.outputs, signature.classes, mapping)
        self._names = _needed_outputs(signature, mapping)

    def run(self, rows: Sequence[Row]) -> Predictions:
        """Predictions for `rows`, in order. Raises what the graph raises when a row does not fit it."""
        with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite, as in the converted sample
            feed = self._feed(rows)
        return self._run(feed)

    def run_columns(self, columns: Columns) -> Predictions:
        """The same for rows that are given as columns. Raises also where the graph takes no such columns."""
        with np.errstate(over="ignore"):
            feed = self._feed_columns(columns)
        return self._run(feed)

    def _run(self, feed: Feed) -> Predictions:
        return self._map(dict(zip(self._names, self._session.run(self._names, feed), strict=True)))


def _needed_outputs(signature: Signature, mapping: Mapping[str, OutputField]) -> list[str]:
    """The graph outputs that decisions read: a label is not computed where probabilities give it."""
    by_role = {output.role: output.name for output in signature.outputs}
    if "probabilities" not in by_role:
        return list(by_role.values())
    needed = [by_role["probabilities"]]
    if "value" in by_role and any(field.take == "value" for field in mapping.values()):
        needed.append(by_role["value"])
    return needed
