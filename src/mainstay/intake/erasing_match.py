"""Which records are about a person: those in which every field that was named has the value that was named.

A value is text, as a person writes it. It is meant whether a record has it as text or as a number: `77` is "77", 77 and
77.0, and blanks around it do not count. A record that cannot be read is about the person when the text stands in it
by itself.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import polars as pl

from mainstay.errors import NOT_READ
from mainstay.intake.door_columns import assigned
from mainstay.intake.quarantine_masks import read_record
from mainstay.intake.types import EXTRA, HEADER, ITEM, KIND, RAW, ROW

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mainstay.lake.tables import Table

_MANY: Final = 20_000  # rows of a table that are looked into one by one at a time
_TEXTS: Final = (pl.String, pl.Categorical, pl.Enum)
_PLACE: Final = [ITEM, ROW]


class Sought(NamedTuple):
    """Whose records are meant."""

    fields: tuple[tuple[str, str], ...]  # the path of a field, with dots between, and its value

    def is_in(self, record: Mapping[str, Any]) -> bool:
        """Whether a decoded record is about the person."""
        return all(_is(value, looked_up(record, path)) for path, value in self.fields)

    def is_named_in(self, raw: bytes) -> bool:
        """Whether every value stands in bytes by itself."""
        return all(_pattern(value).search(raw) for _, value in self.fields)

    def may_be_in(self, raw: bytes) -> bool:
        """Whether the bytes can be a record about the person; True also where only reading them can tell."""
        return b"\\" in raw or all(any(each in raw for each in _written(value)) for _, value in self.fields)

    def elsewhere(self, record: Mapping[str, Any]) -> Iterator[str]:
        """The fields of a record that is not about the person, and has one of the values in another field."""
        for name, value in record.items():
            if any(_is(text, value) and name != path for path, text in self.fields):
                yield name


def looked_up(record: Any, path: str) -> Any:
    """The value at a path; None where there is none. A name with dots in it counts before a way with dots."""
    if not isinstance(record, dict):
        return None
    if path in record:
        return record[path]
    name, _, rest = path.partition(".")
    return looked_up(record.get(name), rest) if rest else None


def _is(text: str, value: Any) -> bool:
    if isinstance(value, bool):
        return text.strip().lower() == ("true" if value else "false")
    if isinstance(value, int | float):
        number = _number(text)
        return number is not None and number == value
    return isinstance(value, str) and value.strip() == text.strip()


def _number(text: str) -> int | float | None:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return None


def _written(text: str) -> set[bytes]:
    """How a value begins, wherever it is written without escapes."""
    number = _number(text)
    stripped = text.strip().encode()
    if number is None or abs(number) >= 2**53:
        return {stripped}
    return {stripped, str(int(number)).encode()}


def _pattern(text: str) -> re.Pattern[bytes]:
    return re.compile(rb"(?<![0-9A-Za-z_])" + re.escape(text.strip().encode()) + rb"(?![0-9A-Za-z_])")


# In tables.


def accepted_rows(table: Table, sought: Sought, given: Mapping[str, str]) -> pl.DataFrame:
    """The item and row of every accepted row about the person, in a table of them or a snapshot of that.

    A field is looked for in its column, which `given` says, in those it had before, and among what the contract did not
    know.
    """
    schema = table.schema
    tests: list[pl.Expr] = []
    read: list[tuple[str, str]] = []  # what only reading the JSON of a column can tell
    for path, value in sought.fields:
        columns = _columns_of(path.partition(".")[0], given, schema)
        known = [each for each in (_column_test(table, name, path, value) for name in columns) if each is not None]
        if known:
            tests.append(pl.any_horizontal(known))
        else:
            read.append((path, value))
    frame = table.frame()
    for test in tests:
        frame = frame.filter(test)
    if not read:
        return frame.select(_PLACE).collect(engine="streaming")
    return _read_rows(frame, Sought(tuple(read)), given, schema)


def _columns_of(field: str, given: Mapping[str, str], schema: pl.Schema) -> list[str]:
    """The columns in which a field stands or once stood: its own, and those of like names that are of no other."""
    own = given.get(field)
    plain = assigned([field], {})[field]
    others = {column for name, column in given.items() if name != field}
    like = re.compile(re.escape(plain) + r"(?:_[0-9]+)?")
    return [name for name in schema if name == own or (like.fullmatch(name) and name not in others)]


def _column_test(table: Table, column: str, path: str, value: str) -> pl.Expr | None:
    """What is true of rows with the value in a column, or at the path below it; None where the column cannot tell."""
    kind: Any = table.schema[column]
    expr = pl.col(column)
    rest = path.partition(".")[2]
    while rest:
        name, _, rest = rest.partition(".")
        fields = {each.name: each.dtype for each in kind.fields} if isinstance(kind, pl.Struct) else {}
        if name not in fields:
            return None
        expr, kind = expr.struct.field(name), fields[name]
    return value_test(expr, kind, value)


def value_test(expr: pl.Expr, kind: Any, value: str) -> pl.Expr | None:
    """What is true where an expression of this type has the value, as `_is` has it; None for what is no one value."""
    if kind in _TEXTS:
        return (expr.cast(pl.String).str.strip_chars() == value.strip()).fill_null(value=False)
    if kind.is_numeric():
        number = _number(value)
        if number is None or number != number:  # noqa: PLR0124 - not a number is not equal to itself
            return pl.lit(value=False)
        exact = isinstance(number, int) and kind.is_integer() and abs(number) < 2**63
        same = expr.cast(pl.Int128) == number if exact else expr.cast(pl.Float64) == float(number)
        return same.fill_null(value=False)
    if kind == pl.Boolean:
        return (expr.cast(pl.String) == value.strip().lower()).fill_null(value=False)
    if kind.is_temporal():
        return (expr.cast(pl.String) == value.strip()).fill_null(value=False)
    return None


def _read_rows(frame: pl.LazyFrame, sought: Sought, given: Mapping[str, str], schema: pl.Schema) -> pl.DataFrame:
    """Of rows, those whose JSON says what is sought: in columns that are left open, and in EXTRA."""
    tops = {path.partition(".")[0] for path, _ in sought.fields}
    named = {top: [name for name in _columns_of(top, given, schema) if schema[name] == pl.String] for top in tops}
    columns = sorted({column for found in named.values() for column in found})
    extra = [EXTRA] if EXTRA in schema else []
    there = [pl.col(column).is_not_null() for column in [*columns, *extra]]
    found = []
    batches = frame.filter(pl.any_horizontal(pl.lit(value=False), *there)).select(*_PLACE, *columns, *extra)
    for rows in batches.collect_batches(chunk_size=_MANY, maintain_order=False):
        for row in rows.iter_rows(named=True):
            record = _object(row[EXTRA]) if extra else {}
            for top, names in named.items():
                for name in names:
                    if row[name] is not None:
                        record[top] = _object(row[name])
            if sought.is_in(record):
                found.append((row[ITEM], row[ROW]))
    return pl.DataFrame(found, schema={ITEM: pl.Int64, ROW: pl.Int64}, orient="row")


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text or "{}")
    except NOT_READ:
        return {}
    return value if isinstance(value, dict) else {}


class HeldMatches(NamedTuple):
    """What was found among held rows."""

    rows: pl.DataFrame  # the item and row of those about the person
    elsewhere: Counter[str]  # others that have one of the values in another field, by that field


def held_rows(table: Table, sought: Sought) -> HeldMatches:
    """The item and row of every held row about the person, open or not."""
    found: list[tuple[int, int]] = []
    elsewhere: Counter[str] = Counter()
    candidate = pl.col(RAW).bin.contains(b"\\")
    named = [
        pl.any_horizontal([pl.col(RAW).bin.contains(each) for each in sorted(_written(value))])
        for _, value in sought.fields
    ]
    batches = table.frame().filter(candidate | pl.any_horizontal(named)).select(*_PLACE, KIND, HEADER, RAW)
    for rows in batches.collect_batches(chunk_size=_MANY, maintain_order=False):
        for item, row, kind, header, raw in rows.iter_rows():
            record = read_record(kind, header, raw)
            if record is None:
                if sought.is_named_in(raw):
                    found.append((item, row))
            elif sought.is_in(record):
                found.append((item, row))
            else:
                elsewhere.update(sought.elsewhere(record))
    return HeldMatches(pl.DataFrame(found, schema={ITEM: pl.Int64, ROW: pl.Int64}, orient="row"), elsewhere)
