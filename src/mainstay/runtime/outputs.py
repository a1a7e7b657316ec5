"""From the tensors an ONNX graph gives to the fields of the output object. Compiled once per version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mainstay.capability.types import OutputField
    from mainstay.runtime.types import ModelOutput


class Predictions(NamedTuple):
    """What one run gave: a list per output field, in the order of the mapping, and the confidence per row.

    Confidence is the largest class probability of the row; None where the model gives no probabilities. It is as the
    model states it, not calibrated.
    """

    columns: list[list[Any]]
    confidence: list[float] | None


def build_mapper(
    outputs: Sequence[ModelOutput], classes: Sequence[str | int | bool], mapping: Mapping[str, OutputField]
) -> Callable[[Mapping[str, np.ndarray[Any, Any]]], Predictions]:
    """A function from the graph's outputs by name to predictions in the order of `mapping`.

    Raises ValueError when a field asks for what the model does not give.
    """
    by_role: dict[str, str] = {output.role: output.name for output in outputs}
    columns = [_column(name, field, by_role, classes) for name, field in mapping.items()]
    probabilities = by_role.get("probabilities")

    def predictions(tensors: Mapping[str, np.ndarray[Any, Any]]) -> Predictions:
        confidence = None if probabilities is None else tensors[probabilities].max(axis=1).tolist()
        return Predictions([column(tensors) for column in columns], confidence)

    return predictions


def _column(
    name: str, field: OutputField, by_role: Mapping[str, str], classes: Sequence[str | int | bool]
) -> Callable[[Mapping[str, np.ndarray[Any, Any]]], list[Any]]:
    """The function that reads one output field for every row."""
    if field.take == "value":
        value = _need(name, field, by_role, "value")
        return lambda tensors: tensors[value].reshape(-1).tolist()
    probabilities = by_role.get("probabilities")
    if field.take == "label":
        if probabilities is None:
            label = _need(name, field, by_role, "label")
            return lambda tensors: tensors[label].reshape(-1).tolist()
        names = list(classes)
        return lambda tensors: [names[place] for place in tensors[probabilities].argmax(axis=1)]
    probability = _need(name, field, by_role, "probabilities")
    place = _class_place(name, field, classes)
    if field.take == "threshold":
        at = field.at
        return lambda tensors: (tensors[probability][:, place] >= at).tolist()
    return lambda tensors: tensors[probability][:, place].astype(np.float64).tolist()


def _need(name: str, field: OutputField, by_role: Mapping[str, str], role: str) -> str:
    if role not in by_role:
        given = ", ".join(sorted(by_role)) or "nothing"
        raise ValueError(f"output.{name} takes {field.take}: expected a model that gives {role}, found {given}")
    return by_role[role]


def _class_place(name: str, field: OutputField, classes: Sequence[str | int | bool]) -> int:
    if field.of_class is None:
        return len(classes) - 1
    for place, label in enumerate(classes):
        if label == field.of_class and isinstance(label, bool) == isinstance(field.of_class, bool):
            return place
    known = ", ".join(repr(label) for label in classes)
    raise ValueError(f"output.{name} is of class {field.of_class!r}, expected one of the model's classes: {known}")
