"""What all values of a text column have in common: a format, a shape such as AA-9999, at least a length."""

from __future__ import annotations

import math
import re
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl

from mainstay.contract.formats import FORMAT_WORDS, STRING_FORMATS, is_ipv6
from mainstay.contract.inference_evidence import confidence_of, is_enough
from mainstay.contract.inference_ranges import upper_bound
from mainstay.contract.inference_shapes import shapes_of
from mainstay.contract.inference_types import Finding
from mainstay.contract.types import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mainstay.contract.inference_evidence import Evidence

MOST_LISTED: Final = 120  # values of an enumeration
LONGEST_LISTED: Final = 100  # characters of each
MOST_LOOKED_AT: Final = 20_000  # different values that a format is tried on
LONGEST_CODE: Final = 40  # characters of a fixed shape
ROOM: Final = 2  # times the longest text seen, at least
FEWEST_DIFFERENT: Final = 5  # values that a format or a shape is read from

_CLASSES: Final = (("9", "[0-9]"), ("A", "[A-Z]"), ("a", "[a-z]"))
_ALPHABETS: Final = ("[0-9]", "[A-Z]", "[a-z]", "[0-9a-f]", "[0-9A-F]", "[0-9A-Z]", "[0-9a-z]", "[0-9A-Za-z]")
_RUNS = re.compile(r"([9Aa])\1+")
_SPECIAL = re.compile(r"([\\.^$*+?()\[\]{}|/])")


class TextRules(NamedTuple):
    """What is declared of text."""

    options: Options | None
    findings: tuple[Finding, ...]


def infer_text(values: pl.Series, evidence: Evidence, *, share: float) -> TextRules:
    """The options of a text column that is no enumeration; a `share` of new rows may be longer than it allows."""
    if not is_enough(evidence.draws):
        return TextRules(None, ())
    different = values.drop_nulls().unique(maintain_order=True)
    sure = confidence_of(evidence.draws)
    if len(different) >= FEWEST_DIFFERENT:
        found = _format_of(different)
        if found is not None:
            return TextRules(Options(format=found), (Finding("format", sure, f"each is {FORMAT_WORDS[found]}"),))
        pattern = shape_of(different)
        if pattern is not None:
            return TextRules(Options(pattern=pattern), (Finding("pattern", sure, "all of one shape"),))
        several = shapes_of(values)
        if several is not None:
            words = f"{several.shapes} shapes, and a share of at most {several.unseen_share:.2%} has others"
            confidence = round(1 - several.unseen_share, 4)
            return TextRules(Options(pattern=several.pattern), (Finding("pattern", confidence, words),))
    return _lengths(values, different, sure, share)


def _format_of(different: pl.Series) -> str | None:
    if len(different) > MOST_LOOKED_AT:
        different = different.sample(MOST_LOOKED_AT, seed=0)
    texts = different.to_list()
    for name, pattern in STRING_FORMATS.items():
        if name in {"hostname", "uri"}:
            continue  # a word is a host name, and `a:b` a URI
        if _all_hold(re.compile(pattern).search, texts):
            return name
    if _all_hold(is_ipv6, texts):
        return "ipv6"
    is_uri = re.compile(STRING_FORMATS["uri"]).search
    return "uri" if all("://" in each for each in texts) and _all_hold(is_uri, texts) else None


def _all_hold(test: Callable[[str], object], texts: Sequence[str]) -> bool:
    return all(test(each) for each in texts)


def shape_of(different: pl.Series) -> str | None:
    """The pattern of the one shape that all texts have, or None where they have none worth declaring."""
    shapes = (
        different.str.replace_all(r"[0-9]", "9").str.replace_all(r"[A-Z]", "A").str.replace_all(r"[a-z]", "a").unique()
    )
    lengths = different.str.len_chars().unique()
    longest = int(lengths.max() or 0)  # type: ignore[arg-type]  # an integer
    if not 1 <= longest <= LONGEST_CODE or not different.str.contains(r"^[\x21-\x7e]+$").all():
        return None
    if len(shapes) == 1 and len(lengths) == 1:
        return f"^{_fixed(shapes[0])}$"
    runs = {_RUNS.sub(r"\1", shape) for shape in shapes.to_list()}
    if len(runs) == 1:
        return _variable(runs.pop())
    if len(lengths) == 1:
        for alphabet in _ALPHABETS:
            if different.str.contains(rf"^{alphabet}+$").all():
                return f"^{alphabet}{{{longest}}}$"
    return None


def _fixed(shape: str) -> str:
    classes = dict(_CLASSES)
    parts = []
    for key, run in groupby(shape):
        count = len(list(run))
        times = f"{{{count}}}" if count > 1 else ""
        parts.append((classes[key] if key in classes else _SPECIAL.sub(r"\\\1", key)) + times)
    return "".join(parts)


def _variable(run: str) -> str | None:
    """The pattern of runs of letters and digits of any length; only for what looks like a code: digits and something
    else.
    """
    kinds = set(run)
    if "9" not in kinds or len(kinds) < 2:
        return None
    classes = dict(_CLASSES)
    return "^" + "".join(f"{classes[key]}+" if key in classes else _SPECIAL.sub(r"\\\1", key) for key in run) + "$"


def _lengths(values: pl.Series, different: pl.Series, sure: float, share: float) -> TextRules:
    lengths = values.drop_nulls().str.len_chars()
    longest = int(lengths.max() or 0)  # type: ignore[arg-type]  # an integer
    beyond = upper_bound(lengths.cast(pl.Float64).to_numpy(), share)
    most = _round_up(max(ROOM * longest, 0 if beyond is None else math.ceil(beyond)))
    findings = [Finding("maxLength", sure, f"at most {longest} characters seen, room left beyond")]
    least = None
    if not (different == "").any():
        least = 1
        findings.append(Finding("minLength", sure, ""))
    return TextRules(Options(min_length=least, max_length=most), tuple(findings))


def _round_up(length: int) -> int:
    """To the next of 10, 20, 50, 100, 200 and so on."""
    step = 10
    while True:
        for times in (1, 2, 5):
            if length <= times * step:
                return times * step
        step *= 10
