"""The small language of business metrics: an expression over one decision, compiled to a Polars expression.

    expression  := either
    either      := both ("or" both)*
    both        := negation ("and" negation)*
    negation    := "not" negation | comparison
    comparison  := sum (("<" | "<=" | ">" | ">=" | "==" | "!=") sum)?
    sum         := product (("+" | "-") product)*
    product     := signed (("*" | "/") signed)*
    signed      := "-" signed | atom
    atom        := number | text | "true" | "false" | place | "if" "(" either "," either "," either ")" | "(" either ")"
    place       := ("input" | "output" | "outcome") ("." word | "[" text "]")

Numbers, texts and yes-or-no are told apart where the expression is written; whether a field of a decision is what it
is used as shows row by row, and a row where it is not has no value. Neither has one that divides by zero. Nothing is
executed but comparisons and arithmetic: the expression is a tree of at most 1,000 nodes, at most 50 deep.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import polars as pl

from mainstay.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_CHARACTERS: Final = 10_000
MOST_NODES: Final = 1_000
MOST_DEPTH: Final = 50

Type: TypeAlias = Literal["number", "text", "truth"]
SIDES: Final = ("input", "output", "outcome")
_TOKEN: Final = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
      | (?P<text>"(?:[^"\\\x00-\x1f]|\\["\\])*"|'(?:[^'\\\x00-\x1f]|\\['\\])*')
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<sign><=|>=|==|!=|[-+*/<>(),.\[\]])""",
    re.VERBOSE,
)
_COMPARISONS: Final[dict[str, Callable[[pl.Expr, pl.Expr], pl.Expr]]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


class Field(NamedTuple):
    """A field that an expression looks at."""

    side: str  # input, output or outcome
    name: str


@dataclass(frozen=True, slots=True)
class Compiled:
    """An expression: its value is a Float64, null where it has none, and yes counts 1.

    It reads, for each field, the columns `column(field, type)` of the type it is used as.
    """

    value: pl.Expr
    reads: frozenset[tuple[Field, Type]]


def column(field: Field, kind: Type) -> str:
    """The name of the column that holds a field as a value of one kind."""
    return f"{kind}:{field.side}.{field.name}"


def compile_expression(text: str) -> Compiled:
    """Raises Misuse, with the position, for what is no expression, or adds a text to a number."""
    return _Parser(text).whole()


class _Token(NamedTuple):
    kind: str
    text: str
    at: int  # characters from the beginning


@dataclass(frozen=True, slots=True)
class _Node:
    kind: Type | None  # None: a field, which is what it is used as
    value: pl.Expr | None  # None: a field
    at: int
    field: Field | None = None


class _Parser:
    def __init__(self, text: str) -> None:
        if len(text) > MOST_CHARACTERS:
            raise Misuse(f"expected an expression of at most {MOST_CHARACTERS} characters, found {len(text)}")
        self._text = text
        self._tokens = list(self._split())
        self._next = 0
        self._depth = 0
        self._nodes = 0
        self._reads: set[tuple[Field, Type]] = set()

    def whole(self) -> Compiled:
        node = self._either()
        if self._peek().kind != "end":
            raise self._wrong("an operator or the end", self._peek())
        kind: Type = "truth" if node.kind == "truth" else "number"
        value = self._as(node, kind)
        value = value.cast(pl.Float64)
        return Compiled(pl.when(value.is_finite()).then(value), frozenset(self._reads))

    def _split(self) -> list[_Token]:
        found, at = [], 0
        while at < len(self._text):
            match = _TOKEN.match(self._text, at)
            if match is None:
                raise self._wrong("a number, a name or an operator", _Token("other", self._text[at], at))
            if match.lastgroup != "space":
                found.append(_Token(str(match.lastgroup), match.group(), at))
            at = match.end()
        return [*found, _Token("end", "", len(self._text))]

    # --- the grammar, one method a rule ---

    def _either(self) -> _Node:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise Misuse(f"expected an expression at most {MOST_DEPTH} deep, at character {self._peek().at + 1}")
        node = self._both()
        while token := self._take_word("or"):
            other = self._both()
            node = self._node("truth", self._as(node, "truth") | self._as(other, "truth"), token.at)
        self._depth -= 1
        return node

    def _both(self) -> _Node:
        node = self._negation()
        while token := self._take_word("and"):
            other = self._negation()
            node = self._node("truth", self._as(node, "truth") & self._as(other, "truth"), token.at)
        return node

    def _negation(self) -> _Node:
        nots = 0
        first = self._peek()
        while self._take_word("not"):
            nots += 1
        node = self._comparison()
        return node if not nots else self._node("truth", self._negated(self._as(node, "truth"), nots), first.at)

    def _comparison(self) -> _Node:
        left = self._sum()
        token = self._take_sign(*_COMPARISONS)
        if token is None:
            return left
        right = self._sum()
        after = self._peek()
        if after.kind == "sign" and after.text in _COMPARISONS:
            raise self._wrong("`and` or `or` between two comparisons", after)
        kind = self._common_kind(left, right, token)
        value = _COMPARISONS[token.text](self._as(left, kind), self._as(right, kind))
        return self._node("truth", value, token.at)

    def _sum(self) -> _Node:
        node = self._product()
        while token := self._take_sign("+", "-"):
            a, b = self._as(node, "number"), self._as(self._product(), "number")
            node = self._node("number", a + b if token.text == "+" else a - b, token.at)
        return node

    def _product(self) -> _Node:
        node = self._signed()
        while token := self._take_sign("*", "/"):
            a, b = self._as(node, "number"), self._as(self._signed(), "number")
            node = self._node("number", a * b if token.text == "*" else pl.when(b != 0).then(a / b), token.at)
        return node

    def _signed(self) -> _Node:
        minuses = 0
        first = self._peek()
        while self._take_sign("-"):
            minuses += 1
        node = self._atom()
        if not minuses:
            return node
        value = self._as(node, "number")
        return self._node("number", -value if minuses % 2 else value, first.at)

    def _atom(self) -> _Node:
        token = self._take()
        match token.kind, token.text:
            case "number", number:
                return self._node("number", pl.lit(float(number)), token.at)
            case "text", text:
                return self._node("text", pl.lit(_unquoted(text)), token.at)
            case "word", ("true" | "false") as word:
                return self._node("truth", pl.lit(word == "true"), token.at)
            case "word", "if":
                return self._choice(token)
            case "word", word if word in SIDES:
                return self._place(token)
            case "sign", "(":
                node = self._either()
                self._expect(")")
                return node
        raise self._wrong("a number, a text, `if(`, `(` or a field such as `input.amount`", token)

    def _choice(self, token: _Token) -> _Node:
        self._expect("(")
        condition = self._as(self._either(), "truth")
        self._expect(",")
        then = self._either()
        self._expect(",")
        otherwise = self._either()
        self._expect(")")
        kind = self._common_kind(then, otherwise, token)
        a, b = self._as(then, kind), self._as(otherwise, kind)
        # Neither branch for a row whose condition has no value.
        return self._node(kind, pl.when(condition).then(a).when(~condition).then(b), token.at)

    def _place(self, side: _Token) -> _Node:
        if self._take_sign("["):
            name = self._take()
            if name.kind != "text":
                raise self._wrong('the name of a field as text, such as `input["net amount"]`', name)
            self._expect("]")
            return self._node(None, None, side.at, Field(side.text, _unquoted(name.text)))
        self._expect(".")
        name = self._take()
        if name.kind != "word":
            raise self._wrong("the name of a field", name)
        return self._node(None, None, side.at, Field(side.text, name.text))

    # --- what the rules are made of ---

    def _node(self, kind: Type | None, value: pl.Expr | None, at: int, field: Field | None = None) -> _Node:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise Misuse(f"expected an expression of at most {MOST_NODES} parts, at character {at + 1}")
        return _Node(kind, value, at, field)

    def _negated(self, value: pl.Expr, times: int) -> pl.Expr:
        return ~value if times % 2 else value

    def _common_kind(self, left: _Node, right: _Node, token: _Token) -> Type:
        """What both sides of a comparison, or both branches of a choice, are; fields are what the other one is."""
        known = {node.kind for node in (left, right) if node.kind is not None}
        if len(known) > 1:
            raise Misuse(
                f"expected two values of one kind at character {token.at + 1}, found {left.kind} and {right.kind}"
            )
        if token.text in {"<", "<=", ">", ">="} and known - {"number"}:
            raise Misuse(f"expected numbers around `{token.text}` at character {token.at + 1}, found {known.pop()}")
        return known.pop() if known else "number"

    def _as(self, node: _Node, kind: Type) -> pl.Expr:
        if node.field is not None:
            self._reads.add((node.field, kind))
            return pl.col(column(node.field, kind))
        if node.kind != kind or node.value is None:
            raise Misuse(f"expected a {kind} at character {node.at + 1}, found a {node.kind}")
        return node.value

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _take_word(self, word: str) -> _Token | None:
        return self._take() if self._peek()[:2] == ("word", word) else None

    def _take_sign(self, *signs: str) -> _Token | None:
        token = self._peek()
        return self._take() if token.kind == "sign" and token.text in signs else None

    def _expect(self, sign: str) -> None:
        token = self._take()
        if token[:2] != ("sign", sign):
            raise self._wrong(f"`{sign}`", token)

    def _wrong(self, expected: str, token: _Token) -> Misuse:
        found = f"`{token.text}`" if token.kind != "end" else "the end"
        return Misuse(f"expected {expected} at character {token.at + 1}, found {found}")


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])
