"""The sample rows of a capability: they keep the input contract, and what the model makes of them the output's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import msgspec
import numpy as np

from mainstay.catalog.conversion import Feature, Kind
from mainstay.errors import Failed, InvalidDocument, Misuse
from mainstay.problems import Problem
from mainstay.runtime.outputs import build_mapper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mainstay.capability.load import Declared
    from mainstay.contract.validator import ObjectValidator
    from mainstay.runtime.tensors import Row
    from mainstay.runtime.types import ModelOutput

MAX_SAMPLE_BYTES = 64 << 20
MAX_SAMPLE_ROWS = 100_000
MAX_SHOWN_PROBLEMS = 20

_KINDS: dict[str | None, Kind] = {kind: kind for kind in get_args(Kind)}  # the types that a declaration may list


def read_samples(content: bytes, file: str, contract: ObjectValidator) -> list[Row]:
    """The values of every row, in the order of the contract's fields. Blank lines are passed over.

    Raises InvalidDocument when a row breaks the contract, with the first 20 problems, each with its line; Misuse when
    there is no row, or more than 100,000.
    """
    rows: list[Row] = []
    problems: list[Problem] = []
    for line, raw in enumerate(content.split(b"\n"), 1):
        if not raw.strip():
            continue
        if len(rows) == MAX_SAMPLE_ROWS:
            raise Misuse(f"{file}: expected at most {MAX_SAMPLE_ROWS:,} rows, found more")
        try:
            rows.append(contract.values(contract.decode(raw)))
        except msgspec.DecodeError:
            problems += (
                Problem(file, line, each.field, f"{each.expected} ({each.rule})", each.found)
                for each in contract.violations(raw)
            )
            if len(problems) >= MAX_SHOWN_PROBLEMS:
                break
    if problems:
        raise InvalidDocument(problems[:MAX_SHOWN_PROBLEMS])
    if not rows:
        raise Misuse(
            f"{file}: expected at least one row, found none", hint="A row is one input record, JSON on one line."
        )
    return rows


def features_of(declared: Declared) -> tuple[Feature, ...]:
    """The input fields that the model may take, in the declared order; all of the contract's when none are listed."""
    by_name = {each.name: each for each in declared.input.properties}
    names = declared.capability.model.features or tuple(by_name)
    return tuple(
        Feature(name, _KINDS[by_name[name].logical_type], nullable=not by_name[name].required) for name in names
    )


def check_outputs(
    declared: Declared,
    outputs: Sequence[ModelOutput],
    classes: Sequence[str | int | bool],
    tensors: Mapping[str, np.ndarray[Any, Any]],
    rows: int,
) -> None:
    """Every output of every row is finite, and what the declaration makes of it keeps the output contract.

    Raises Misuse when the declaration asks for what the model does not give, Failed naming the first row that does not
    hold, counted from 1.
    """
    for output in outputs:
        tensor = tensors[output.name]
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            row = int(np.isfinite(tensor.reshape(rows, -1)).all(axis=1).argmin()) + 1
            raise Failed(f"output {output.name!r} of sample row {row} is no finite number")
    mapping = declared.capability.output
    try:
        predictions = build_mapper(outputs, classes, mapping)(tensors)
    except ValueError as error:
        raise Misuse(str(error)) from None
    for row, values in enumerate(zip(*predictions.columns, strict=True), 1):
        record = msgspec.json.encode(dict(zip(mapping, values, strict=True)))
        violations = declared.output.violations(record)
        if violations:
            broken = "; ".join(
                f"{each.field}: expected {each.expected} ({each.rule}), found {each.found}" for each in violations
            )
            raise Failed(f"the output of sample row {row} breaks the output contract: {broken}")
