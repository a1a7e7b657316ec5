r"""The patterns of contracts in the dialect of the columns' engine, where they mean exactly the same.

A contract's pattern has become one of Python's (`formats.to_python`). The engine has another dialect (Rust's `regex`):
it has no lookaround and no backreferences, its `\d` and `\w` know all of Unicode, and it has its own ideas of `$`, of
case and of counts. So a pattern is not handed over but written anew, every character and class spelt out, from the few
constructs that both have; for any other there is no translation, and Python's own matcher decides.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import polars as pl

from mainstay.contract.formats import DATE, STRING_FORMATS, timestamp_pattern

if TYPE_CHECKING:
    from collections.abc import Callable

_PREFIX: Final = "(?a)"  # of every pattern of `to_python` without further flags
_CLASSES: Final = {"d": "0-9", "w": "0-9A-Z_a-z", "s": r"\x{09}-\x{0d}\x{20}"}
_CONTROLS: Final = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_ASSERTIONS: Final = {"A": r"\A", "Z": r"\z", "b": r"(?-u:\b)"}
_HEX_DIGITS: Final = {"x": 2, "u": 4, "U": 8}
_COUNT: Final = re.compile(r"\{(\d*)(?:(,)(\d*))?\}", re.ASCII)
_NAME: Final = re.compile(r"\(\?P<\w+>")
_ANY: Final = r"[^\x{0a}]"  # what Python's dot takes

_DAY: Final = (
    "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
)
_CLOCK: Final = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"
_OFFSET: Final = "(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"


def text_test(pattern: str) -> Callable[[pl.Expr], pl.Expr] | None:
    """The expression that is true of the texts in which Python finds `pattern`; None when there is none that is."""
    if pattern in _FORMS:
        return _FORMS[pattern]
    made = to_engine(pattern)
    return None if made is None else lambda text: text.str.contains(made)


@lru_cache(maxsize=1_024)
def to_engine(pattern: str) -> str | None:
    """The engine's pattern of the same meaning, or None."""
    if not pattern.startswith(_PREFIX):
        return None
    try:
        made = _Translation(pattern[len(_PREFIX) :]).made()
        pl.Series([""]).str.contains(made)
    except (_NoSuchThing, pl.exceptions.ComputeError):  # the engine has limits on the size of a pattern
        return None
    return made


def _from_year_one(pattern: str) -> Callable[[pl.Expr], pl.Expr]:
    """Dates by a pattern that lets the year 0000 pass, which Python's excludes by looking ahead."""
    return lambda text: text.str.contains(pattern) & ~text.str.starts_with("0000")


def _is_email(text: pl.Expr) -> pl.Expr:
    shape = text.str.contains(_EMAIL)  # ASCII, if it holds: bytes are characters
    at = text.str.find("@", literal=True).fill_null(0)
    return shape & text.str.len_bytes().is_between(3, 254) & (at <= 64)


def _is_hostname(text: pl.Expr) -> pl.Expr:
    return text.str.contains(_HOSTNAME) & (text.str.len_bytes() <= 253)


class _NoSuchThing(Exception):
    """The pattern holds what the engine lacks, or takes otherwise."""


class _Translation:
    """One reading of a pattern's body, from left to right."""

    def __init__(self, body: str) -> None:
        self._body = body
        self._at = 0
        self._parts: list[str] = []
        self._repeatable = False  # whether a count may follow

    def made(self) -> str:
        while self._at < len(self._body):
            self._token(self._body[self._at])
        return "".join(self._parts)

    def _token(self, char: str) -> None:
        match char:
            case "\\":
                self._escape()
            case "[":
                self._add(self._class(), 0)
            case "(":
                self._group()
            case ")":
                self._add(")", 1)
            case "|":
                self._add("|", 1, repeatable=False)
            case "^":
                self._add(r"\A", 1, repeatable=False)
            case ".":
                self._add(_ANY, 1)
            case "*" | "+" | "?":
                self._count(char, 1)
            case "{":
                self._braces()
            case "$":
                raise _NoSuchThing
            case _:
                self._add(_literal(ord(char)), 1)

    def _add(self, part: str, taken: int, *, repeatable: bool = True) -> None:
        self._parts.append(part)
        self._at += taken
        self._repeatable = repeatable

    def _peek(self, ahead: int) -> str:
        return self._body[self._at + ahead : self._at + ahead + 1]

    def _escape(self) -> None:
        letter = self._peek(1)
        if letter in _ASSERTIONS:
            self._add(_ASSERTIONS[letter], 2, repeatable=False)
        elif letter.lower() in _CLASSES:
            self._add(f"[{'^' if letter.isupper() else ''}{_CLASSES[letter.lower()]}]", 2)
        else:
            self._add(_literal(self._character()), 0)

    def _character(self) -> int:
        """The code point of an escaped character, which is passed over."""
        letter = self._peek(1)
        if letter in _HEX_DIGITS:
            digits = self._body[self._at + 2 : self._at + 2 + _HEX_DIGITS[letter]]
            self._at += 2 + len(digits)
            return int(digits, 16)
        self._at += 2
        if letter in _CONTROLS:
            return _CONTROLS[letter]
        if not letter or (letter.isascii() and letter.isalnum()):  # a reference, an octal number, a name
            raise _NoSuchThing
        return ord(letter)

    def _group(self) -> None:
        named = _NAME.match(self._body, self._at)
        if named:
            self._add("(?:", named.end() - self._at, repeatable=False)
        elif self._body.startswith("(?:", self._at):
            self._add("(?:", 3, repeatable=False)
        elif self._peek(1) == "?":
            raise _NoSuchThing
        else:
            self._add("(?:", 1, repeatable=False)

    def _braces(self) -> None:
        found = _COUNT.match(self._body, self._at)
        if found is None or found[0] == "{}":
            raise _NoSuchThing
        least, comma, most = found[1] or "0", found[2] or "", found[3] or ""
        self._count(f"{{{least}{comma}{most}}}", len(found[0]))

    def _count(self, made: str, taken: int) -> None:
        if not self._repeatable:
            raise _NoSuchThing
        self._add(made, taken, repeatable=False)
        if self._peek(0) == "?":  # as few as possible: the same texts
            self._at += 1
        elif self._peek(0) == "+":
            raise _NoSuchThing

    def _class(self) -> str:
        """A class in brackets, which is passed over."""
        self._at += 1
        parts = ["["]
        if self._peek(0) == "^":
            parts.append("^")
            self._at += 1
        if self._peek(0) == "]":
            raise _NoSuchThing
        while self._peek(0) != "]":
            parts.append(self._member())
        self._at += 1
        return "".join([*parts, "]"])

    def _member(self) -> str:
        letter = self._peek(1) if self._peek(0) == "\\" else ""
        if letter and letter.lower() in _CLASSES:
            self._at += 2
            ranges = _CLASSES[letter.lower()]
            return f"[^{ranges}]" if letter.isupper() else ranges
        first = self._class_character()
        if self._peek(0) != "-" or self._peek(1) in {"]", ""}:
            return _literal(first)
        self._at += 1
        return f"{_literal(first)}-{_literal(self._class_character())}"

    def _class_character(self) -> int:
        char = self._peek(0)
        if not char:
            raise _NoSuchThing
        if char != "\\":
            self._at += 1
            return ord(char)
        if self._peek(1) == "b":
            self._at += 2
            return 8
        return self._character()


def _literal(code: int) -> str:
    if 0xD800 <= code <= 0xDFFF:
        raise _NoSuchThing
    char = chr(code)
    return char if char.isascii() and char.isalnum() else f"\\x{{{code:02x}}}"


def _without_lookahead(pattern: str) -> str:
    """The engine's form of a format's pattern, but for what it looks ahead for right at the beginning."""
    body = re.sub(r"\(\?=(?:[^()\[\]]|\[[^]]*\])*\)", "", pattern)
    return _Translation(body[len(_PREFIX) :]).made()


_EMAIL: Final = _without_lookahead(STRING_FORMATS["email"])
_HOSTNAME: Final = _without_lookahead(STRING_FORMATS["hostname"])
# What looks ahead in Python's form, put otherwise.
_FORMS: Final[dict[str, Callable[[pl.Expr], pl.Expr]]] = {
    DATE: _from_year_one(rf"\A{_DAY}\z"),
    timestamp_pattern(timezone=False): _from_year_one(rf"\A{_DAY}[Tt]{_CLOCK}\z"),
    timestamp_pattern(timezone=True): _from_year_one(rf"\A{_DAY}[Tt]{_CLOCK}{_OFFSET}\z"),
    STRING_FORMATS["email"]: _is_email,
    STRING_FORMATS["hostname"]: _is_hostname,
}
