"""What can be said of a pattern without running it: all the texts it takes, where they are few, and some, where not.

Understood are characters, classes, groups, alternatives, counts and anchors; of any other pattern nothing is said.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_TEXTS: Final = 256
MAX_REPEATS: Final = 64
_MAX_DEPTH: Final = 20
_CLASSES: Final = {"d": string.digits, "w": string.ascii_letters + string.digits + "_", "s": " \t\n\r\f\v"}
_CONTROLS: Final = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}
_COUNT: Final = re.compile(r"\{(\d{1,4})(?:(,)(\d{0,4}))?\}")
_ANY: Final = "aA0 -_.,:/é"  # to choose from where nearly every character will do


@dataclass(frozen=True)
class _Chars:
    """One character of these; of others too unless `whole`."""

    chars: tuple[str, ...]
    whole: bool = True


@dataclass(frozen=True)
class _Anchor:
    char: str  # ^ or $


@dataclass(frozen=True)
class _Group:
    branches: tuple[tuple[_Piece, ...], ...]


@dataclass(frozen=True)
class _Piece:
    atom: _Chars | _Anchor | _Group
    least: int = 1
    most: int | None = 1


_Branch: TypeAlias = tuple[_Piece, ...]


class _NotUnderstood(Exception):
    """The pattern has something in it that is not looked into."""


@lru_cache(maxsize=1_024)
def literals(pattern: str) -> tuple[str, ...] | None:
    """Every text that an anchored pattern takes, at most MAX_TEXTS; None where there are more, or nobody knows."""
    tree = _parsed(pattern)
    if tree is None:
        return None
    found: dict[str, None] = {}
    for branch in _anchored(tree):
        texts = None if branch is None else _all_of_branch(branch)
        if texts is None:
            return None
        found.update(dict.fromkeys(texts))
    return tuple(found) if len(found) <= MAX_TEXTS else None


@lru_cache(maxsize=1_024)
def samples(pattern: str) -> tuple[str, ...]:
    """Some texts that a pattern probably takes, of different lengths; none where it is not understood."""
    tree = _parsed(pattern)
    return () if tree is None else tuple(dict.fromkeys(islice(_some_of_group(tree), MAX_TEXTS)))


def _parsed(pattern: str) -> _Group | None:
    parser = _Parser(pattern)
    try:
        tree = parser.group(0)
    except _NotUnderstood:
        return None
    return tree if parser.at == len(pattern) else None


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self) -> str:
        char = self.peek()
        if not char:
            raise _NotUnderstood
        self.at += 1
        return char

    def group(self, depth: int) -> _Group:
        """Branches, up to a closing bracket or the end."""
        if depth > _MAX_DEPTH:
            raise _NotUnderstood
        branches: list[_Branch] = []
        pieces: list[_Piece] = []
        while self.peek() not in {"", ")"}:
            if self.peek() == "|":
                self.take()
                branches.append(tuple(pieces))
                pieces = []
            else:
                pieces.append(self.counted(self.atom(depth)))
        return _Group((*branches, tuple(pieces)))

    def atom(self, depth: int) -> _Chars | _Anchor | _Group:
        char = self.take()
        match char:
            case "(":
                return self.bracket(depth)
            case "[":
                return self.chars()
            case "\\":
                return _Chars(tuple(self.escape()))
            case "^" | "$":
                return _Anchor(char)
            case ".":
                return _Chars(tuple(_ANY), whole=False)
            case "*" | "+" | "?" | "{":
                raise _NotUnderstood
            case _:
                return _Chars((char,))

    def bracket(self, depth: int) -> _Group:
        named = re.compile(r"\?(?::|<[A-Za-z_]\w*>)").match(self.text, self.at)
        if named:
            self.at = named.end()
        elif self.peek() == "?":
            raise _NotUnderstood
        inside = self.group(depth + 1)
        if self.take() != ")":
            raise _NotUnderstood
        return inside

    def escape(self) -> str:
        char = self.take()
        if char in _CLASSES:
            return _CLASSES[char]
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char.isalnum() or not char.isascii():
            raise _NotUnderstood
        return char

    def chars(self) -> _Chars:
        is_negated = self.peek() == "^"
        self.at += is_negated
        if self.peek() in {"]", ""}:
            raise _NotUnderstood
        members: list[str] = []
        while (char := self.take()) != "]":
            given = self.escape() if char == "\\" else char
            is_range = len(given) == 1 and self.peek() == "-" and self.text[self.at + 1 : self.at + 2] not in {"]", ""}
            members += self.span(given) if is_range else given
        if is_negated:
            return _Chars(tuple(char for char in _ANY + string.punctuation if char not in members), whole=False)
        return _Chars(tuple(dict.fromkeys(members)))

    def span(self, first: str) -> list[str]:
        self.take()
        last = self.take()
        if last == "\\":
            last = self.escape()
        if len(last) != 1 or not 0 <= ord(last) - ord(first) < MAX_TEXTS:
            raise _NotUnderstood
        return [chr(code) for code in range(ord(first), ord(last) + 1)]

    def counted(self, atom: _Chars | _Anchor | _Group) -> _Piece:
        found = _COUNT.match(self.text, self.at)
        piece = _Piece(atom)
        if self.peek() in {"*", "+", "?"}:
            char = self.take()
            piece = _Piece(atom, int(char == "+"), 1 if char == "?" else None)
        elif found:
            self.at = found.end()
            least = int(found[1])
            most = least if found[2] is None else int(found[3]) if found[3] else None
            piece = _Piece(atom, least, most)
        elif self.peek() == "{":
            raise _NotUnderstood
        if piece != _Piece(atom) and isinstance(atom, _Anchor):
            raise _NotUnderstood
        if piece != _Piece(atom) and self.peek() == "?":  # lazy: the same texts
            self.take()
        if self.peek() in {"*", "+", "?"}:
            raise _NotUnderstood
        return piece


def _anchored(tree: _Group) -> Iterator[_Branch | None]:
    """What stands between the anchors of each branch; None for a branch that is not anchored."""
    first, last = _Piece(_Anchor("^")), _Piece(_Anchor("$"))
    for branch in tree.branches:
        yield branch[1:-1] if len(branch) >= 2 and branch[0] == first and branch[-1] == last else None


def _all_of_branch(branch: _Branch) -> list[str] | None:
    texts = [""]
    for piece in branch:
        once = _all_of_atom(piece.atom)
        if once is None or piece.most is None or piece.most > MAX_REPEATS:
            return None
        longer = _repeated(once, piece.least, piece.most)
        if longer is None or len(longer) * len(texts) > MAX_TEXTS:
            return None
        texts = [text + more for text in texts for more in longer]
    return texts


def _repeated(once: list[str], least: int, most: int) -> list[str] | None:
    found: list[str] = []
    texts = [""]
    for count in range(most + 1):
        if count >= least:
            found += texts
        texts = [text + more for text in texts for more in once] if count < most else texts
        if len(found) > MAX_TEXTS or len(texts) > MAX_TEXTS:
            return None
    return found


def _all_of_atom(atom: _Chars | _Anchor | _Group) -> list[str] | None:
    match atom:
        case _Chars():
            return list(atom.chars) if atom.whole else None
        case _Anchor():
            return None
        case _Group():
            found: list[str] = []
            for branch in atom.branches:
                texts = _all_of_branch(branch)
                if texts is None:
                    return None
                found += texts
            return found


def _some_of_group(group: _Group) -> Iterator[str]:
    for branch in group.branches:
        yield from _some_of_branch(branch)


def _some_of_branch(branch: _Branch) -> Iterator[str]:
    """The shortest, then with one piece at a time as it may be besides."""
    choices = [list(islice(_some_of_piece(piece), 8)) for piece in branch]
    if all(choices):
        yield "".join(each[0] for each in choices)
        for i, each in enumerate(choices):
            before, after = "".join(c[0] for c in choices[:i]), "".join(c[0] for c in choices[i + 1 :])
            yield from (before + choice + after for choice in each[1:])
        yield "".join(each[-1] for each in choices)


def _some_of_piece(piece: _Piece) -> Iterator[str]:
    once = list(islice(_some_of_atom(piece.atom), 6))
    if not once:
        return
    most = piece.least + 3 if piece.most is None else piece.most
    for count in _counts(piece.least, most):
        yield from (text * count for text in (once if count else [""]))


def _counts(least: int, most: int) -> Iterable[int]:
    return dict.fromkeys(min(count, 1_000) for count in (least, least + 1, most) if least <= count <= most)


def _some_of_atom(atom: _Chars | _Anchor | _Group) -> Iterator[str]:
    match atom:
        case _Chars():
            yield from dict.fromkeys((*atom.chars[:2], *atom.chars[-2:]))
        case _Anchor():
            yield ""
        case _Group():
            yield from _some_of_group(atom)
