"""What would be answered, as Cedar sees it: the part of the context that policies look at, and nothing else.

A number is rounded to four digits, half to even, as Cedar's decimal has no more. What Cedar cannot hold, and what the
contract requires and is not there, makes the whole case unfit to be judged: leaving it out would let a policy that
forbids look away.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from mainstay.contract.formats import moment_reader

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from mainstay.authority.expressions import Mention, Path
    from mainstay.authority.schema import Attribute, Kind

LONG: Final = (-(2**63), 2**63 - 1)
MAX_DECIMAL: Final = 922337203685477.5  # the largest double that rounds into Cedar's decimal, and its negative does too

_decode = msgspec.json.Decoder().decode
_read_day = moment_reader("date")
_read_instant = moment_reader("timestamp")
_SECONDS_PER_DAY = 86_400


class AnswerCase(NamedTuple):
    """One answer that the capability would give, in the order of the attributes of the context.

    Values are as the contract's validators give them: `input` a row in the order of the input object.
    """

    input: tuple[Any, ...]
    output: bytes  # JSON
    confidence: float | None
    novelty: float | None
    version: str
    canary: bool


class AnswerColumns(NamedTuple):
    """Many answers, a column for each part of a case, in its order."""

    input: Callable[[], Sequence[Sequence[Any]]]  # a column for each field
    output: Mapping[str, Sequence[Any]]  # by field; what JSON says of a value is the value
    confidence: Sequence[float | None]
    novelty: Sequence[float | None]
    version: Sequence[str]
    canary: Sequence[bool]


class Unfit(Exception):
    """A case holds a value that policies look at and that Cedar cannot hold; the argument is its path."""


def prune(context: Attribute, looked_at: Collection[Mention]) -> Attribute:
    """The part of the context that is looked at."""
    return _prune(context, (), {each.path for each in looked_at if not each.presence_only}, looked_at)


def encode_case(context: Attribute, case: AnswerCase) -> bytes:
    """The context of a case in Cedar's JSON, of a pruned context. Raises Unfit."""
    reads_output = any(each.name == "output" and each.fields for each in context.fields)
    values = (case.input, _decode(case.output) if reads_output else {}, *case[2:])
    return msgspec.json.encode(_record(context, values, ()))


def decimal_text(value: float) -> str:
    """A number within MAX_DECIMAL as Cedar's decimal is written."""
    return f"{float(value):.4f}"


def _prune(attribute: Attribute, path: Path, whole: set[Path], looked_at: Collection[Mention]) -> Attribute:
    if path in whole:
        return attribute
    below = len(path)
    names = {each.path[below] for each in looked_at if len(each.path) > below and each.path[:below] == path}
    fields = tuple(
        _prune(each, (*path, each.name), whole, looked_at) for each in attribute.fields if each.name in names
    )
    return replace(attribute, fields=fields)


def _record(record: Attribute, values: Any, path: Path) -> dict[str, Any]:
    made = {}
    for each in record.fields:
        value = _child(values, each)
        if value is not None:
            made[each.name] = _value(each, value, (*path, each.name))
        elif each.required:
            raise Unfit(".".join((*path, each.name)))
    return made


def _child(values: Any, attribute: Attribute) -> Any:
    """A value of a record, which may be a row, a struct of the contract, or a mapping; None when it is absent."""
    if isinstance(values, tuple):
        return values[attribute.position]
    if isinstance(values, dict):
        return values.get(attribute.name)
    return getattr(values, f"f{attribute.position}")


def _value(attribute: Attribute, value: Any, path: Path) -> Any:
    if attribute.kind == "record":
        if isinstance(value, tuple | dict | msgspec.Struct):
            return _record(attribute, value, path)
    elif attribute.kind == "set":
        kind = attribute.element
        present = [each for each in value if each is not None] if isinstance(value, list) else [None]
        if kind is not None and all(map(FITS[kind], present)):
            return [_WRITTEN[kind](each) for each in present]
    elif FITS[attribute.kind](value):
        return _WRITTEN[attribute.kind](value)
    raise Unfit(".".join(path))


def _extension(function: str, text: str | None) -> dict[str, Any]:
    return {"__extn": {"fn": function, "arg": text}}


def _same(value: Any) -> Any:
    return value


_WRITTEN: Final[dict[Kind, Callable[[Any], Any]]] = {
    "string": _same,
    "boolean": _same,
    "long": _same,
    "decimal": lambda value: _extension("decimal", decimal_text(value)),
    "datetime": lambda value: _extension("datetime", _utc(value)),
}


def _utc(text: str) -> str | None:
    """A date or timestamp of the contract as a Cedar datetime in UTC, cut to milliseconds; None when it is neither."""
    moment = _read_day(text) or _read_instant(text)
    if moment is None:
        return None
    seconds, fraction = moment
    days, seconds = divmod(seconds, _SECONDS_PER_DAY)
    try:
        instant = datetime.fromordinal(days) + timedelta(seconds=seconds)
    except ValueError:  # an offset moved it out of the years 1 to 9999
        return None
    return f"{instant.isoformat()}.{fraction[:3]:0<3}Z"


_NUMBERS: Final = (float, int)

# Whether a value of JSON is one of a scalar kind, and Cedar can hold it.
FITS: Final[dict[Kind, Callable[[Any], bool]]] = {
    "string": lambda value: type(value) is str,
    "boolean": lambda value: type(value) is bool,
    "long": lambda value: type(value) is int and LONG[0] <= value <= LONG[1],
    "decimal": lambda value: type(value) in _NUMBERS and -MAX_DECIMAL <= value <= MAX_DECIMAL,
    "datetime": lambda value: type(value) is str and _utc(value) is not None,
}
