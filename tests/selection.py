"""Which files of tests a run need not even import: importing all of them takes each of its processes 20 s of CPU."""

from __future__ import annotations

import re
from typing import Final

_MARK: Final = re.compile(r"\bmark\.(\w+)")
_OF_THE_FILE: Final = re.compile(r"^pytestmark = (.+)$", re.MULTILINE)
_UNKNOWN: Final = re.compile(r"\bor\b|[^\w\s]")


def leaves_nothing(expression: str, text: str) -> bool:
    """Whether `pytest -m expression` selects no test of a file with this text.

    Understood are expressions such as `a and not b`, of any length; with any other every file is left to pytest.
    Marks are taken to be written as `mark.a` in the file itself.
    """
    terms = expression.split(" and ")
    if not expression or _UNKNOWN.search(expression):
        return False
    somewhere = set(_MARK.findall(text))
    everywhere = {name for marks in _OF_THE_FILE.findall(text) for name in _MARK.findall(marks)}
    return any(
        term.removeprefix("not ") in everywhere if term.startswith("not ") else term not in somewhere for term in terms
    )
