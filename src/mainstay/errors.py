"""Every error Mainstay raises on purpose.

MainstayError            something a person can act on; `str` is the whole message
├── Misuse               the command or call was wrong; nothing was done (exit code 2)
├── Failed               the work was tried and did not succeed (exit code 1)
│   └── Damaged          stored evidence or an artifact is not what was written
└── InvalidDocument      a declared file has problems, all of them listed
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.problems import Problem

NOT_READ: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what was expected; the last for JSON nested too deep."""


class MainstayError(Exception):
    """Something a person can act on: what happened, and what to do next."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class Misuse(MainstayError):
    """The command or call was wrong; nothing was done."""

    exit_code = 2


class Failed(MainstayError):
    """The work was tried and did not succeed."""


class Damaged(Failed):
    """Stored evidence or an artifact is not what was written."""


class InvalidDocument(MainstayError):
    """A declared file has problems; `problems` holds every one, in file and line order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        noun = "problem" if len(self.problems) == 1 else "problems"
        lines = "\n".join(str(problem) for problem in self.problems)
        super().__init__(f"{len(self.problems)} {noun}\n{lines}")
