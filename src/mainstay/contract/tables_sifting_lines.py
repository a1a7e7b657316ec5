"""JSON lines for `tables_sifting`: each line is a record, and judged by the record validator."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl

from mainstay.contract.tables_sifted import Sifted, encode
from mainstay.contract.tables_text import MAX_LINE_BYTES, LineReader, value_frame
from mainstay.contract.types import Violation
from mainstay.contract.validator import compile_object
from mainstay.contract.violations import RECORD
from mainstay.errors import NOT_READ, Failed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mainstay.contract.columns import ColumnValidator
    from mainstay.contract.columns_keys import Part
    from mainstay.contract.tables_sifted import Record

MOST_UNKNOWN: Final = 10_000  # names that are looked at, of fields that the contract does not know

_TYPES: Final = {bool: "boolean", str: "string", int: "integer", float: "number", dict: "object", list: "array"}

_decode: Final = msgspec.json.Decoder().decode
_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def sift_lines(path: Path, validator: ColumnValidator, begin: int, end: int | None) -> Iterator[Sifted]:
    """The lines of a file behind `begin`, up to `end` or the file's end, judged. Empty lines are no rows.

    Raises Failed where the file begins with lines of which none is JSON: it is something else.
    """
    sieve = _Sieve(validator)
    at = 0
    for lines in LineReader(path):
        first, at = at, at + len(lines)
        if at <= begin:
            continue
        if end is not None and first >= end:
            return
        if not first and not any(map(_is_json, lines)) and any(line.strip() for line in lines):
            raise Failed("expected JSON in each line, found none in the first lines")
        low = max(0, begin - first)
        high = len(lines) if end is None else min(len(lines), end - first)
        yield sieve.sifted(lines[low:high], first + low)


class _Sieve:
    def __init__(self, validator: ColumnValidator) -> None:
        self._nodes = validator.nodes
        self._known = frozenset(name for name, _ in validator.nodes)
        self._validator = compile_object(validator.declared)
        self._incomplete = [
            (key, part)
            for key in validator.keys
            for part in key.parts
            if key.rule == "primary-key" and not part.node.required
        ]

    def sifted(self, lines: Sequence[bytes], begin: int) -> Sifted:
        """Consecutive lines, judged."""
        rows: list[tuple[Any, ...]] = []
        good: list[int] = []
        extra: dict[int, str] = {}
        bad: list[int] = []
        for at, line in enumerate(lines):
            values = self._values(line)
            if values is None and not line.strip():
                continue
            if values is None:
                values, extra_text = self._without_extra(line)
                if extra_text is not None:
                    extra[at] = extra_text
            if values is None:
                bad.append(at)
            else:
                good.append(at)
                rows.append(values)
        clean = value_frame(self._nodes, rows)
        records = [self._record(lines[at]) for at in bad]
        unknown = dict.fromkeys(islice((name for text in extra.values() for name in _decode(text)), MOST_UNKNOWN))
        return Sifted(
            begin=begin,
            end=begin + len(lines),
            clean=clean,
            numbers=_numbers(good, begin),
            extra=pl.Series([extra.get(at) for at in good], dtype=pl.String),
            bad=_numbers(bad, begin),
            bad_extra=[extra.get(at) for at in bad],
            records=lambda: records,
            explain=lambda indices: [self._reasons(lines[bad[i]]) for i in indices],
            raw_bad=lambda indices: [lines[bad[i]] for i in indices],
            raw_clean=lambda indices: [lines[good[i]] for i in indices],
            columns={**self._columns(clean, records), **dict.fromkeys(unknown, "unknown")},
            unknown=tuple(unknown),
        )

    def _values(self, line: bytes) -> tuple[Any, ...] | None:
        """The values of a record that keeps every rule; None of any other."""
        if len(line) > MAX_LINE_BYTES:
            return None
        try:
            record = self._validator.decode(line)
        except msgspec.DecodeError:
            return None
        if self._incomplete and any(_value(_decode(line), part) is None for _, part in self._incomplete):
            return None
        return self._validator.values(record)

    def _without_extra(self, line: bytes) -> tuple[tuple[Any, ...] | None, str | None]:
        """The same of what the contract knows of a record, and the JSON of the rest, where there is any."""
        members = _members(line)
        if members is None or members.keys() <= self._known:
            return None, None
        extra = {name: value for name, value in members.items() if name not in self._known}
        return self._values(encode(_kept(members, self._known))), encode(extra).decode()

    def _record(self, line: bytes) -> Record | None:
        members = _members(line)
        if members is None:
            return None
        try:
            record: Record = _decode(encode(_kept(members, self._known)))
        except NOT_READ:
            return None
        return {name: value for name, value in record.items() if value is not None}

    def _reasons(self, line: bytes) -> tuple[Violation, ...]:
        if len(line) > MAX_LINE_BYTES:
            return (Violation(RECORD, "malformed", f"a line of at most {MAX_LINE_BYTES} bytes", "more"),)
        members = _members(line)
        if members is not None and not members.keys() <= self._known:
            line = encode(_kept(members, self._known))
        found = self._validator.violations(line)
        record = None if members is None else _decode(line)
        missing = (key.incomplete(part) for key, part in self._incomplete if _value(record, part) is None)
        return (*found, *missing) if isinstance(record, dict) else found

    def _columns(self, clean: pl.DataFrame, records: Sequence[Record | None]) -> dict[str, str]:
        """The fields that some record has, and the types of their values."""
        found: dict[str, set[str]] = {}
        for name, node in self._nodes:
            if clean[name].null_count() < clean.height:
                found[name] = {node.kind}
        for record in records:
            for name, value in (record or {}).items():
                found.setdefault(name, set()).add(_TYPES[type(value)])
        return {name: "|".join(sorted(types)) for name, types in found.items()}


def _is_json(line: bytes) -> bool:
    try:
        _decode(line)
    except NOT_READ:
        return len(line) > MAX_LINE_BYTES  # only its beginning was read
    return True


def _kept(members: Mapping[str, msgspec.Raw], known: frozenset[str]) -> dict[str, msgspec.Raw]:
    return {name: value for name, value in members.items() if name in known}


def _members(line: bytes) -> dict[str, msgspec.Raw] | None:
    """The members of an object as they are written, or None where a line holds none."""
    if len(line) > MAX_LINE_BYTES:
        return None  # only its beginning was read
    try:
        members: dict[str, msgspec.Raw] = _decode_members(line)
    except NOT_READ:
        return None
    return members


def _value(record: Any, part: Part) -> Any:
    for name in part.path:
        record = record.get(name) if isinstance(record, dict) else None
    return record


def _numbers(places: Sequence[int], begin: int) -> pl.Series:
    return pl.Series(places, dtype=pl.Int64) + (begin + 1)
