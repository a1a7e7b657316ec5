"""The reference rows of a capability: what ordinary input looks like, and what became true of it where that is known.

From them come the novelty profile, and the calibration of the confidence that the model states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from msgspec import Raw, Struct

from mainstay.catalog.samples import Broken, broken, read_lines
from mainstay.documents import shorten
from mainstay.errors import NOT_READ

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mainstay.capability.load import Declared
    from mainstay.contract.types import Violation
    from mainstay.runtime.types import Row

MAX_REFERENCE_ROWS: Final = 200_000

_UNKNOWN: Final = Raw(b"null")


class ReferenceRows(NamedTuple):
    """Inputs, and the true label of each; None where it is not known."""

    inputs: list[Row]
    labels: list[Any]


class _Line(Struct, frozen=True, forbid_unknown_fields=True):
    input: Raw
    outcome: Raw = _UNKNOWN


_decode_line = msgspec.json.Decoder(_Line).decode


def read_reference(content: bytes, file: str, declared: Declared) -> ReferenceRows:
    """Every line of `{"input": {...}, "outcome": {...}}`; the outcome may be null or left out. Blank lines are passed
    over.

    Raises InvalidDocument when an input or outcome breaks its contract, with the first 20 problems, each with its line;
    Misuse when there is no row, or more than 200,000.
    """
    read_label = _label_reader(declared)

    def read(raw: bytes) -> tuple[Row, Any] | Iterator[Broken]:
        try:
            line = _decode_line(raw)
        except NOT_READ as error:
            return iter([Broken("$", 'JSON such as {"input": {...}, "outcome": {...}}', shorten(str(error)))])
        try:
            return declared.input.values(declared.input.decode(line.input)), read_label(line.outcome)
        except msgspec.DecodeError:
            return _find_broken(line, declared)

    pairs = read_lines(content, file, MAX_REFERENCE_ROWS, read)
    return ReferenceRows([row for row, _ in pairs], [label for _, label in pairs])


def _label_reader(declared: Declared) -> Callable[[Raw], Any]:
    """From an outcome to the true label. What it gives raises DecodeError for an outcome that breaks its contract."""
    outcome, reference = declared.outcome, declared.capability.reference
    place = None
    if outcome is not None and reference is not None and reference.label is not None:
        place = outcome.fields.index(reference.label)

    def read(raw: Raw) -> Any:
        if raw == _UNKNOWN:
            return None
        if outcome is None:
            raise msgspec.DecodeError
        values = outcome.values(outcome.decode(raw))
        return None if place is None else values[place]

    return read


def _find_broken(line: _Line, declared: Declared) -> Iterator[Broken]:
    """What is wrong with either part of a line, under the name of the part."""
    yield from _name("input", declared.input.violations(line.input))
    if line.outcome == _UNKNOWN:
        return
    if declared.outcome is None:
        yield Broken("outcome", "objects.outcome in capability.yaml, which says what an outcome is", "none")
    else:
        yield from _name("outcome", declared.outcome.violations(line.outcome))


def _name(part: str, violations: Iterable[Violation]) -> Iterator[Broken]:
    for each in broken(violations):
        yield each._replace(where=f"{part}.{each.where}")
