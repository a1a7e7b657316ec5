"""What a version answers to many records: its model alone, without fallback, guards or records."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mainstay.capability.load import load_capability
from mainstay.catalog.versions import open_version
from mainstay.decision.trying import run_rows
from mainstay.runtime.types import Prediction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.capability.load import Declared
    from mainstay.catalog.types import Digest
    from mainstay.runtime.types import Row
    from mainstay.workspace import Workspace

ISOLATED_SECONDS: Final = 3_600.0  # for all the rows of an isolated model


def answer(workspace: Workspace, version: Digest, records: Sequence[bytes]) -> dict[str, list[Any]]:
    """The fields of the output, each with a value for every record (JSON); None where the model gave none.

    A record that breaks the contract of the version, and a row that the model fails on, has no values. Raises Damaged
    or Failed when the version is not whole or its model does not start, Misuse when it runs elsewhere.
    """
    opened = open_version(workspace.versions, version)
    declared = load_capability(opened.folder)
    rows = [_row(declared, record) for record in records]
    sound = [row for row in rows if row is not None]
    results = run_rows(opened, declared, sound, seconds=ISOLATED_SECONDS)
    answers = iter([_finite(each.values) if isinstance(each, Prediction) else None for each in results])
    nothing = (None,) * len(declared.output.fields)
    found = [nothing if row is None else (next(answers) or nothing) for row in rows]
    columns = zip(*found, strict=True) if found else ([] for _ in nothing)
    return {name: list(column) for name, column in zip(declared.output.fields, columns, strict=True)}


def _row(declared: Declared, record: bytes) -> Row | None:
    try:
        return declared.input.values(declared.input.decode(record))
    except msgspec.DecodeError:
        return None


def _finite(values: tuple[Any, ...]) -> tuple[Any, ...] | None:
    return None if any(isinstance(each, float) and not math.isfinite(each) for each in values) else values
