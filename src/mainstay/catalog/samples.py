"""The sample rows of a capability: they keep the input contract, and what the model makes of them the output's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeVar, get_args

import msgspec

from mainstay.capability.types import OutputField
from mainstay.errors import Failed, InvalidDocument, Misuse
from mainstay.problems import Problem
from mainstay.runtime.types import Feature, Kind, Prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mainstay.capability.load import Declared
    from mainstay.contract.types import Violation
    from mainstay.contract.validator import ObjectValidator
    from mainstay.runtime.types import Result, Row

T = TypeVar("T")

MAX_SAMPLE_ROWS = 100_000
MAX_SHOWN_PROBLEMS = 20

_KINDS: dict[str | None, Kind] = {kind: kind for kind in get_args(Kind)}  # the types that a declaration may list


class Broken(NamedTuple):
    """A rule that a line breaks, or a value in it: where in the line, what was expected, what was found."""

    where: str
    expected: str
    found: str


def read_samples(content: bytes, file: str, contract: ObjectValidator) -> list[Row]:
    """The values of every row, in the order of the contract's fields. Blank lines are passed over.

    Raises InvalidDocument when a row breaks the contract, with the first 20 problems, each with its line; Misuse when
    there is no row, or more than 100,000.
    """

    def read(raw: bytes) -> Row | Iterator[Broken]:
        try:
            return contract.values(contract.decode(raw))
        except msgspec.DecodeError:
            return broken(contract.violations(raw))

    return read_lines(content, file, MAX_SAMPLE_ROWS, read)


def read_lines(content: bytes, file: str, most: int, read: Callable[[bytes], T | Iterator[Broken]]) -> list[T]:
    """What `read` makes of every line that is not blank, which may be what is wrong with it.

    Raises InvalidDocument with the first 20 problems, each with its line; Misuse when there is no line, or more than
    `most`.
    """
    rows: list[T] = []
    problems: list[Problem] = []
    for line, raw in enumerate(content.split(b"\n"), 1):
        if not raw.strip():
            continue
        if len(rows) == most:
            raise Misuse(f"{file}: expected at most {most:,} rows, found more")
        found = read(raw)
        if isinstance(found, Iterator):
            problems += (Problem(file, line, each.where, each.expected, each.found) for each in found)
        else:
            rows.append(found)
        if len(problems) >= MAX_SHOWN_PROBLEMS:
            break
    if problems:
        raise InvalidDocument(problems[:MAX_SHOWN_PROBLEMS])
    if not rows:
        raise Misuse(f"{file}: expected at least one row, found none", hint="A row is JSON on one line.")
    return rows


def broken(violations: Iterable[Violation]) -> Iterator[Broken]:
    """The rules of a contract that a line breaks."""
    return (Broken(each.field, f"{each.expected} ({each.rule})", each.found) for each in violations)


def features_of(declared: Declared) -> tuple[Feature, ...]:
    """The input fields that the model may take, in the declared order; all of the contract's when none are listed.

    Fields of types that are no features (dates, objects, lists) are left out; only kind python may take such.
    """
    by_name = {each.name: each for each in declared.input.properties}
    names = declared.capability.model.features or tuple(by_name)
    return tuple(
        Feature(name, _KINDS[by_name[name].logical_type], nullable=not by_name[name].required)
        for name in names
        if by_name[name].logical_type in _KINDS
    )


def mapping_of(declared: Declared) -> dict[str, OutputField]:
    """How each field of the output object comes from the model, in the contract's order; empty for kind python.

    A remote model that says nothing of it gives tensors named as the fields.
    """
    model, output = declared.capability.model, declared.capability.output
    if model.kind == "remote" and not output:
        return {name: OutputField(take="tensor") for name in declared.output.fields}
    return {name: output[name] for name in declared.output.fields if name in output}


def check_outputs(declared: Declared, results: Sequence[Result]) -> None:
    """Raises Failed naming the first sample row, counted from 1, that the model fails on or whose output breaks the
    contract.
    """
    for row, result in enumerate(results, 1):
        if not isinstance(result, Prediction):
            raise Failed(f"the model fails on sample row {row}: {type(result).__name__}: {result}")
        violations = output_violations(declared, result)
        if violations:
            listed = "; ".join(
                f"{each.where}: expected {each.expected}, found {each.found}" for each in broken(violations)
            )
            raise Failed(f"the output of sample row {row} breaks the output contract: {listed}")


def output_violations(declared: Declared, prediction: Prediction) -> tuple[Violation, ...]:
    """Every rule that an output breaks. A number that is not finite counts as missing."""
    return declared.output.violations(_encoded(declared, prediction))


def is_sound(declared: Declared, prediction: Prediction) -> bool:
    """Whether an output breaks no rule, without saying which."""
    try:
        declared.output.decode(_encoded(declared, prediction))
    except msgspec.DecodeError:
        return False
    return True


def _encoded(declared: Declared, prediction: Prediction) -> bytes:
    return msgspec.json.encode(dict(zip(declared.output.fields, prediction.values, strict=True)))
