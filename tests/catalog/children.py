"""Asking what a converting child does, in this process; that it is a child is tested in test_conversion."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.models import ABC, make_request, pickled
from mainstay.catalog.agreement import check_agreement
from mainstay.catalog.conversion import ARTIFACT, NoForm, Refusal, Reply
from mainstay.catalog.convert import Library, convert_model
from mainstay.catalog.graph import Graph

if TYPE_CHECKING:
    from mainstay.catalog.types import Conversion
    from mainstay.runtime.types import Feature


class Child:
    """The child of one library."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def convert(
        self, model: Any, features: tuple[Feature, ...] = ABC, rows: Any = None, **changes: Any
    ) -> tuple[Reply, bytes]:
        """What it makes of a model: an object to pickle, or the bytes of a file."""
        reply, artifact = self._ask(model, features, rows, changes)
        assert isinstance(reply, Reply), reply
        return reply, artifact

    def compare(
        self, model: Any, features: tuple[Feature, ...], rows: Any, tolerance: float = 1e-5, **changes: Any
    ) -> Conversion:
        """How the graph it makes agrees with the model."""
        return compare(*self.convert(model, features, rows, **changes), features, rows, tolerance)

    def refuse(self, model: Any, features: tuple[Feature, ...] = ABC, rows: Any = None, **changes: Any) -> Refusal:
        reply, _ = self._ask(model, features, rows, changes)
        assert isinstance(reply, Refusal), reply
        return reply

    def find_no_form(self, model: Any, features: tuple[Feature, ...] = ABC, rows: Any = None, **changes: Any) -> str:
        """Why it finds no graph for a model."""
        reply, _ = self._ask(model, features, rows, changes)
        assert isinstance(reply, NoForm), reply
        return reply.reason

    def _ask(self, model: Any, features: tuple[Feature, ...], rows: Any, changes: dict[str, Any]) -> tuple[Any, bytes]:
        request = make_request(features, rows, **changes)
        with tempfile.TemporaryDirectory() as directory:
            Path(directory, request.source).write_bytes(model if isinstance(model, bytes) else pickled(model))
            reply = convert_model(self._library, request, Path(directory))
            artifact = Path(directory, ARTIFACT)
            return reply, artifact.read_bytes() if artifact.exists() else b""


def compare(reply: Reply, artifact: bytes, features: tuple[Feature, ...], rows: Any, tolerance: float) -> Conversion:
    """Raises Failed where the graph answers otherwise than the model did."""
    names = [each.name for each in reply.outputs]
    tensors = Graph(artifact).run(reply.inputs, [each.name for each in features], names, rows)
    return check_agreement(reply, tensors, len(rows), tolerance)
