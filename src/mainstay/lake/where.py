"""Conditions as people write them on a command line: `day>=2026-03-01`, `airline=AA,UA`.

A condition is COLUMN, one of `=`, `!=`, `>=` and `<`, and a value; with `=` and `!=` several, with commas between them.
Values are of the column's type: whole numbers, text, dates, instants (RFC 3339; UTC where they say no offset).
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final

import polars as pl

from mainstay.documents import nearest
from mainstay.errors import Misuse
from mainstay.lake.conditions import MAX_PARTS, AllOf, NoneOf, OneOf, Within

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mainstay.lake.conditions import Condition, Literal

_FORM: Final = re.compile(r"([^\s=<>!]+)\s*(!=|>=|=|<)\s*(.*)", re.DOTALL)


def parse_where(texts: Sequence[str], schema: pl.Schema) -> Condition | None:
    """What all of the conditions together mean; None when there are none.

    Raises Misuse when one is no condition, or its column or value does not fit the table.
    """
    if not texts:
        return None
    if len(texts) > MAX_PARTS:
        raise Misuse(f"expected at most {MAX_PARTS} conditions, found {len(texts)}")
    parts = tuple(_parse(text, schema) for text in texts)
    return parts[0] if len(parts) == 1 else AllOf(parts)


def _parse(text: str, schema: pl.Schema) -> Condition:
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise Misuse(f"{text[:200]!r}: expected a condition such as day>=2026-03-01 or airline=AA,UA")
    column, sign, value = found.groups()
    if column not in schema:
        near = nearest(column, schema)
        hint = f"Columns: {', '.join(schema)}." if near is None else f"Did you mean {near}?"
        raise Misuse(f"{text[:200]!r}: the table has no column {column}", hint=hint)
    read = _reader(column, schema[column])
    match sign:
        case "=":
            return OneOf(column, tuple(map(read, value.split(","))))
        case "!=":
            return NoneOf(column, tuple(map(read, value.split(","))))
        case ">=":
            return Within(column, read(value), None)
    return Within(column, None, read(value))


def _reader(column: str, kind: pl.DataType) -> Callable[[str], Literal]:
    if isinstance(kind, pl.String):
        return str
    parse: Callable[[str], Literal]
    if kind.is_integer():
        expected, parse = "a whole number", int
    elif isinstance(kind, pl.Date):
        expected, parse = "a date such as 2026-03-01", date.fromisoformat
    elif isinstance(kind, pl.Datetime):
        expected, parse = "an instant such as 2026-03-01T12:00:00Z", _instant
    else:
        raise Misuse(f"{column} is {kind}: expected a column of whole numbers, text, dates or instants")

    def read(text: str) -> Literal:
        try:
            return parse(text.strip())
        except ValueError:
            raise Misuse(f"{column}: expected {expected}, found {text[:80]!r}") from None

    return read


def _instant(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found
