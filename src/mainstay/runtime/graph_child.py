"""The isolated process of an ONNX graph: `python -m mainstay.runtime.graph_child FD`.

Only `mainstay.runtime.process` starts it, for graphs that must not run in a worker: those of shadows.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mainstay.runtime.child import Loaded, RefusedModel, serve
from mainstay.runtime.frames import Gave
from mainstay.runtime.model import OnnxModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.runtime.frames import IsolatedModel
    from mainstay.runtime.types import Row


def load_graph(model: IsolatedModel) -> Loaded:
    """The graph in `model.file`. Raises RefusedModel, and whatever ONNX Runtime raises when it cannot load it."""
    if model.file is None:
        raise RefusedModel("expected the file of a graph, found none")
    mapping = {name: model.output[name] for name in model.output_fields}
    graph = OnnxModel(Path(model.folder, model.file).read_bytes(), model, model.fields, mapping)

    def run(rows: Sequence[Row]) -> list[Gave]:
        given = graph.run(rows)
        stated = [None] * len(rows) if given.confidence is None else given.confidence
        return [Gave(list(values), sure) for values, sure in zip(zip(*given.columns, strict=True), stated, strict=True)]

    return Loaded(run, model.classes)


if __name__ == "__main__":
    serve(int(sys.argv[1]), load_graph)
