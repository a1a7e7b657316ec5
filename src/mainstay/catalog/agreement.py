"""Whether an ONNX graph answers as the model it was converted from, on every sample row."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mainstay.catalog.types import Conversion
from mainstay.errors import Failed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mainstay.catalog.conversion import Answered, Reply

    Tensors = Mapping[str, np.ndarray[Any, Any]]


class Difference(NamedTuple):
    """The largest difference of any output, and the sample row it is seen on, counted from 1."""

    size: float
    row: int
    output: str


def check_agreement(reply: Reply, tensors: Tensors, rows: int, tolerance: float) -> Conversion:
    """How the graph's outputs (`tensors`, by name) compare with the original's.

    Raises Failed when any output of any row differs by more than `tolerance`, or is not a finite number; labels that
    differ count as 1.
    """
    worst = _difference(reply, reply.original, tensors, rows)
    if worst.size <= tolerance:
        return Conversion(tolerance=tolerance, max_difference=min(round_up(worst.size), tolerance), rows=rows)
    rounded = _difference(reply, reply.original_rounded, tensors, rows)
    raise Failed(
        f"the converted model does not agree with the original: {worst.output} of sample row {worst.row} differ by "
        f"{round_up(worst.size):g}, expected at most {tolerance:g} (model.tolerance)",
        hint=_hint(rounded.size <= tolerance),
    )


def round_up(size: float) -> float:
    """To one significant digit, upwards: the last bits differ between processors, and a manifest must not.

    >>> round_up(2.4e-07)
    3e-07
    """
    if size == 0:
        return 0.0
    exponent = math.floor(math.log10(size))
    return float(f"{math.ceil(size / 10.0**exponent)}e{exponent}")


def _hint(only_rounding: bool) -> str:
    if only_rounding:
        return (
            "The graph agrees with the original on inputs rounded to float32, which is how it is given numbers: the "
            "model is that sensitive to its inputs. Fit it on float32 inputs, or scale them."
        )
    return (
        "Common causes: text that is missing (the graph is given an empty text, pandas NaN or None), or a part of the "
        "pipeline that has no exact ONNX form. Fill gaps in text before fitting, or bring the model as ONNX."
    )


def _difference(reply: Reply, original: Answered, tensors: Tensors, rows: int) -> Difference:
    """The worst of all outputs."""
    found = []
    for output in reply.outputs:
        tensor = tensors[output.name]
        if output.role == "label":
            found.append(_label_difference(original.labels or [], tensor, rows))
        elif output.role == "probabilities":
            found.append(_number_difference("probabilities", original.probabilities or [], tensor, rows))
        else:
            found.append(_number_difference("values", original.values or [], tensor, rows))
    return max(found, key=lambda each: each.size)


def _label_difference(original: list[str | int | bool], tensor: np.ndarray[Any, Any], rows: int) -> Difference:
    labels = tensor.reshape(-1).tolist()
    if len(original) != rows or len(labels) != rows:
        raise Failed(f"expected {rows} labels, found {len(original)} of the original and {len(labels)} of the graph")
    different = (row for row, (ours, theirs) in enumerate(zip(labels, original, strict=True), 1) if ours != theirs)
    row = next(different, None)
    return Difference(0.0, 1, "labels") if row is None else Difference(1.0, row, "labels")


def _number_difference(what: str, original: list[Any], tensor: np.ndarray[Any, Any], rows: int) -> Difference:
    theirs = np.array(original, dtype=np.float64).reshape(len(original), -1)
    ours = tensor.astype(np.float64).reshape(len(tensor), -1)
    if theirs.shape != ours.shape or len(theirs) != rows:
        raise Failed(
            f"expected {what} for {rows} rows, found {theirs.shape} of the original and {ours.shape} of the graph"
        )
    for name, numbers in (("original", theirs), ("converted model", ours)):
        finite = np.isfinite(numbers).all(axis=1)
        if not finite.all():
            raise Failed(f"{what} of sample row {int(finite.argmin()) + 1}: the {name} gives no finite number")
    by_row = np.abs(ours - theirs).max(axis=1)
    row = int(by_row.argmax())
    return Difference(float(by_row[row]), row + 1, what)
