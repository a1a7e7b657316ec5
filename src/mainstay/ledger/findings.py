"""The bad places that verifying a ledger found."""

from __future__ import annotations

from dataclasses import dataclass

MAX_FINDINGS = 20  # then verifying stops


@dataclass(frozen=True, slots=True)
class Finding:
    """One bad place. `file` is relative to the ledger's directory; `offset` counts bytes from its beginning."""

    file: str
    what: str  # what was expected, and what was found
    sequence: int | None = None  # the entry concerned, where one is
    offset: int | None = None  # where in the file, where that can be known

    def __str__(self) -> str:
        place = self.file
        if self.sequence is not None:
            place += f", entry {self.sequence}"
        if self.offset is not None:
            place += f", byte {self.offset}"
        return f"{place}: {self.what}"


@dataclass(frozen=True, slots=True)
class TornTail:
    """Where the last group of a writer that died is not whole. Nobody was told of what it held: no evidence is lost."""

    file: str
    offset: int


class Enough(Exception):
    """There are as many findings as are reported."""


class Findings:
    """Findings in the order they were made."""

    def __init__(self) -> None:
        self.all: list[Finding] = []

    def add(self, file: str, what: str, *, sequence: int | None = None, offset: int | None = None) -> None:
        """Keep one. Raises Enough when it was the last that is kept."""
        self.all.append(Finding(file, what, sequence, offset))
        if len(self.all) >= MAX_FINDINGS:
            raise Enough
