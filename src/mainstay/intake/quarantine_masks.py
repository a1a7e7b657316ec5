"""What of a held row may be shown: not the values that the contract in force classifies.

A row was held because it is not what the contract says, so that more than the classified fields may hold what they
hold: where anything is classified, a field the contract does not know and a record that cannot be read are hidden too.
Where the source is declared no longer, nobody says what may be shown, and nothing is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mainstay.contract.rules import compile_fields
from mainstay.contract.tables_csv import split_row
from mainstay.contract.violations import MASKED, RECORD
from mainstay.errors import NOT_READ
from mainstay.intake.quarantine_items import read_csv_header, record_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mainstay.contract.rules import Node
    from mainstay.contract.types import SchemaObject

_OPEN: Final = frozenset({"any", "object", "array"})
_PARTS: Final = re.compile(r"[^.\[\]]+|\[[0-9]*\]")


class Masks:
    """Hides what may not be shown of the rows of one source."""

    def __init__(self, described: SchemaObject | None, *, unmasked: bool = False) -> None:
        """`described` is the object that rows are held against; None where the source is not declared any more."""
        self._fields: dict[str, Node] | None = None
        if described is not None:
            self._fields = dict(compile_fields(described.properties, (), 1))
        hidden = self._fields is None or any(map(_hides, self._fields.values()))
        self.hides = hidden and not unmasked

    def raw(self, kind: str, header: str | None, raw: bytes) -> str:
        """The bytes of a row as text; where something is hidden, its fields as JSON without that."""
        if not self.hides:
            return raw.decode("utf-8", "backslashreplace").removesuffix("\n").removesuffix("\r")
        record = read_record(kind, header, raw)
        if record is None or self._fields is None:
            return MASKED
        return msgspec.json.encode(_masked(record, self._fields)).decode()

    def found(self, field: str, found: str) -> str:
        """What was found at a field, as a violation has it."""
        return MASKED if self.hides and self._is_hidden(field) else found

    def _is_hidden(self, field: str) -> bool:
        if self._fields is None:
            return True
        if field == RECORD:
            return False  # told by the readers of JSON and CSV, which show no values
        fields: Mapping[str, Node] = self._fields
        for part in _PARTS.findall(field):
            if part.startswith("["):
                continue
            node = fields.get(part)
            if node is None or node.masked:
                return True
            while node.items is not None:
                node = node.items
                if node.masked:
                    return True
            fields = dict(node.fields or ())
        return False


def read_record(kind: str, header: str | None, raw: bytes) -> dict[str, Any] | None:
    """The record in the bytes of a held row: of CSV its cells as texts. None where there is none to be read."""
    if kind != "csv":
        try:
            value = msgspec.json.decode(raw)
        except NOT_READ:
            return None
        return value if isinstance(value, dict) else None
    content = record_of(kind, header, raw)
    if header is None or content is None:
        return None
    delimiter, *names = read_csv_header(header)
    try:
        cells = split_row(content.decode(), delimiter)
    except UnicodeDecodeError:
        return None
    return dict(zip(names, cells, strict=True)) if len(cells) == len(names) else None


def _hides(node: Node) -> bool:
    """Whether anything of a value is not to be shown."""
    below = [child for _, child in node.fields or ()] + ([node.items] if node.items is not None else [])
    return node.masked or any(map(_hides, below))


def _masked(value: dict[str, Any], fields: Mapping[str, Node]) -> dict[str, Any]:
    return {name: _value(each, fields.get(name)) for name, each in value.items()}


def _value(value: Any, node: Node | None) -> Any:
    if value is None:
        return None
    if node is None or node.masked:
        return MASKED
    if isinstance(value, dict) and node.fields is not None:
        return _masked(value, dict(node.fields))
    if isinstance(value, list) and node.items is not None:
        return [_value(each, node.items) for each in value]
    declares_nothing_below = node.kind in _OPEN and node.fields is None and node.items is None
    if isinstance(value, dict | list) and not declares_nothing_below:
        return MASKED  # not of the shape that says what in it is classified
    return value
