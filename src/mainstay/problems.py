"""A problem in a declared file: where it stands, what was expected, what was found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One problem. `line` counts from 1; `where` is a path such as `schema[0].properties[2].logicalType`."""

    file: str
    line: int
    where: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.where}: expected {self.expected}, found {self.found}"
