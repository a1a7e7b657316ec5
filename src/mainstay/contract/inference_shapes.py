"""The few shapes that the texts of a column have: `empty` or digits and a percent sign, and nothing else.

A shape is what is left of a text when each run of digits and each word is put down as such. It is declared with what
never varies in it: the word `patients` in `17 patients`, the number of digits where it is always the same. Words that
do vary are no shape of anything, so a shape must have digits, or be one word alone. As many rows may have few texts,
many different texts must have each shape.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from mainstay.contract.inference_evidence import LEAST_CONFIDENCE, is_enough, weigh

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl

MOST_SHAPES: Final = 6
ROWS_PER_SHAPE: Final = 10
TEXTS_PER_SHAPE: Final = 20  # different ones, but for single words
MOST_TOKENS: Final = 12  # of a shape
LONGEST: Final = 100  # characters

_TOKENS = re.compile(r"[0-9]+|[a-z]+|[A-Z][a-z]+|[A-Z]+|[^0-9A-Za-z]")
_CLASSES: Final = {"a": "[a-z]+", "A": "[A-Z]+", "Aa": "[A-Z][a-z]+"}
_SPECIAL = re.compile(r"([\\.^$*+?()\[\]{}|/])")


class Shapes(NamedTuple):
    """The few shapes of a column."""

    pattern: str
    shapes: int
    unseen_share: float  # of rows that have another, at most


def shapes_of(values: pl.Series) -> Shapes | None:
    """The shapes that all texts of a column have; None where they are no few, or the rows do not show that there are
    no others.
    """
    counts = values.drop_nulls().value_counts(name="rows")
    different = counts[values.name]
    if different.is_empty() or int(different.str.len_chars().max() or 0) > LONGEST:  # type: ignore[arg-type]  # an integer
        return None
    if not different.str.contains(r"^[\x20-\x7e]+$").all():
        return None
    shapes = _shapes(values)
    evidence = weigh(shapes)
    if not 1 < evidence.distinct <= MOST_SHAPES or evidence.unseen_share > 1 - LEAST_CONFIDENCE:
        return None
    if min(evidence.draws, evidence.runs) < ROWS_PER_SHAPE * evidence.distinct:
        return None
    by_shape = counts.with_columns(_shapes(different).alias("shape")).partition_by("shape", maintain_order=True)
    patterns = [_pattern(each[values.name].to_list(), each["rows"].to_list()) for each in by_shape]
    of_digits = [each for each in by_shape if each.height > 1]
    if not all(patterns) or sum(each.height for each in of_digits) < TEXTS_PER_SHAPE * len(of_digits):
        return None
    pattern = f"^(?:{'|'.join(sorted(filter(None, patterns)))})$"
    return Shapes(pattern, len(patterns), evidence.unseen_share)


def _shapes(texts: pl.Series) -> pl.Series:
    # Marks that no text has here, for none holds control characters.
    marked = texts.str.replace_all(r"[A-Z][a-z]+", "\x03").str.replace_all(r"[a-z]+", "\x01")
    return marked.str.replace_all(r"[A-Z]+", "\x02").str.replace_all(r"[0-9]+", "\x04").alias("shape")


def _pattern(texts: Sequence[str], rows: Sequence[int]) -> str | None:
    """The pattern of texts that have one shape."""
    if len(texts) == 1 and texts[0].isalpha():
        return texts[0]
    columns = list(zip(*(_TOKENS.findall(each) for each in texts), strict=True))
    if len(columns) > MOST_TOKENS or not any(each[0].isdigit() for each in columns):
        return None
    return "".join(_token(each, rows) for each in columns)


def _token(tokens: Sequence[str], rows: Sequence[int]) -> str:
    """What the tokens at one place of a shape have in common."""
    if len(set(tokens)) == 1 and (is_enough(sum(rows)) or not tokens[0].isalnum()):
        return _literal(tokens[0])
    if not tokens[0].isdigit():
        return _CLASSES["".join(_case(tokens[0]))]
    lengths = {len(each) for each in tokens}
    if len(lengths) > 1:
        return "[0-9]+"
    return "[0-9]" if lengths == {1} else f"[0-9]{{{lengths.pop()}}}"


def _case(word: str) -> Iterator[str]:
    if word[0].isupper():
        yield "A"
    if word[-1].islower():
        yield "a"


def _literal(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)
