"""A text of policies, cut into its statements: where each stands, and whether it is shallow enough to be parsed.

Cedar's parser recurses on the machine's stack without a bound of its own, and a policy that is nested too deeply ends
the process. What is let through here needs less than 1 MiB of stack.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import cedarpy

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BRACKETS: Final = 32  # open at once
MAX_OPERATORS: Final = 200  # of && || + - * in a policy
MAX_CONDITIONALS: Final = 32  # `if` in a policy
MAX_CHAIN: Final = 70  # accesses one behind the other; a contract is at most 64 levels deep

_TOKEN = re.compile(
    r'(?P<blank>\s+|//[^\n\r]*)|"(?:[^"\\]|\\.)*(?:"|\Z)|\w+|::|&&|\|\||==|!=|<=|>=|.', re.DOTALL | re.ASCII
)
_OPERATORS = frozenset({"&&", "||", "+", "-", "*"})
_CHAIN_ENDS = frozenset(
    {*_OPERATORS, ",", ";", "{", "}", "<", ">", "<=", ">=", "==", "!=", "!", "if", "then", "else", "in", "is", "like"}
)
_UNFINISHED = "unexpected end of input"
_AT_A_TOKEN = re.compile(r"unexpected token|invalid token")


@dataclass(frozen=True, slots=True)
class Token:
    """A token and where its text ends."""

    text: str
    line: int  # from 1
    end: int  # in the whole text


@dataclass(frozen=True, slots=True)
class Statement:
    """One policy as it is written, from its first token to its semicolon."""

    text: str
    tokens: tuple[Token, ...]

    @property
    def line(self) -> int:
        return self.tokens[0].line


def statements(text: str) -> Iterator[Statement]:
    """The statements of a text, in order. What follows the last semicolon is one too, unless it is blank."""
    tokens: list[Token] = []
    line = 1
    for match in _TOKEN.finditer(text):
        if match["blank"] is None:
            tokens.append(Token(match[0], line, match.end()))
        line += match[0].count("\n")
        if match[0] == ";":
            yield _statement(text, tokens)
            tokens = []
    if tokens:
        yield _statement(text, tokens)


def too_deep(statement: Statement) -> str | None:
    """What of a statement is nested too deeply to be parsed, in words; None when nothing is."""
    brackets = deepest = chain = longest = 0
    for token in statement.tokens:
        text = token.text
        if text in {"(", "[", "{"}:
            brackets += 1
            deepest = max(deepest, brackets)
        elif text in {")", "]", "}"}:
            brackets -= 1
        if text in {".", "["}:
            chain += 1
            longest = max(longest, chain)
        elif text in _CHAIN_ENDS:
            chain = 0
    words = [token.text for token in statement.tokens]
    counts = (
        ("brackets in brackets", deepest, MAX_BRACKETS),
        ("of && || + - *", sum(word in _OPERATORS for word in words), MAX_OPERATORS),
        ("conditionals", words.count("if"), MAX_CONDITIONALS),
        ("accesses in a row", longest, MAX_CHAIN),
    )
    return next((f"{count} {what}, expected at most {most}" for what, count, most in counts if count > most), None)


def broken_line(statement: Statement, message: str) -> int:
    """The line that the parser means when it refuses the statement with this message.

    It names no place, but it reads from left to right: up to the token before the bad one it only asks for more.
    """
    tokens = statement.tokens
    if message == _UNFINISHED:
        return tokens[-1].line
    if not _AT_A_TOKEN.match(message):
        return tokens[0].line
    start = tokens[-1].end - len(statement.text)
    good, bad = 0, len(tokens)
    while bad - good > 1:
        middle = (good + bad) // 2
        if _asks_for_more(statement.text[: tokens[middle - 1].end - start]):
            good = middle
        else:
            bad = middle
    return tokens[bad - 1].line


def _asks_for_more(text: str) -> bool:
    try:
        cedarpy.policies_to_json_str(text)
    except ValueError as error:
        return str(error) == _UNFINISHED
    return False


def _statement(text: str, tokens: list[Token]) -> Statement:
    start = tokens[0].end - len(tokens[0].text)
    return Statement(text[start : tokens[-1].end], tuple(tokens))
