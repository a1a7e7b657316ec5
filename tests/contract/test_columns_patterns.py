"""A pattern says the same in the engine of the columns as in Python, or is not handed to it."""

from __future__ import annotations

import re

import polars as pl
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from contract.contracts import MOMENTS, STRINGS
from mainstay.contract.columns_patterns import text_test, to_engine
from mainstay.contract.formats import DATE, STRING_FORMATS, time_pattern, timestamp_pattern, to_python

LETTERS = "aAbkK\u212a\u017fsS\u0131\u01300٣_-é日\U0001d7ce{}[]()^$.|*+?\\/,:<=>!&~# \t\n\r\v\f\x1c\x85\u2028\x00\x7f"
DATED = (DATE, *(make(zone) for make in (timestamp_pattern, time_pattern) for zone in (True, False, None)))
ATOMS = (
    *"aAbksS0_-é日,:<=>!&~# /", ".", r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", r"\.", r"\\", r"\-", r"\$", r"\x41",
    r"\u00e9", r"\t", r"\n", "[a-z]", "[^a-z]", r"[\d_]", r"[^\w-]", r"[\D]", "[a&&b]", "[a~~b]", "[[:alpha:]]",
    r"[\]a]", "[]", "[^]", "[a-]", "[-a]", r"[\s\S]", "[$^.]", r"[^\W\d]", r"[\b]", r"[A\-Z]", r"[\x41-\x43]", "{",
    "}", "]",
)  # fmt: skip  # one a line would fill a page
ANCHORS = ("^", "^", "$", "$", r"\b", r"\b", r"\B", "(?=a)", "(?<!a)")
COUNTS = (
    "",
    "",
    "",
    "*",
    "+",
    "?",
    "{2}",
    "{1,2}",
    "{0}",
    "{,2}",
    "{1,}",
    "*?",
    "+?",
    "??",
    "{1,2}?",
    "*+",
    "{}",
    "{,}",
)
texts = st.text(st.one_of(st.sampled_from(LETTERS), st.characters(exclude_categories=["Cs"])), max_size=6)


def _counted(atoms: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(atoms, st.sampled_from(COUNTS)).map("".join)


def _sequences(pieces: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(pieces, max_size=4).map("".join)


def _groups(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    opened = st.sampled_from(("(", "(?:", "(", "(?:", "(?<n>", "(?>"))
    group = st.tuples(opened, st.lists(inner, min_size=1, max_size=2).map("|".join), st.just(")")).map("".join)
    return _sequences(st.one_of(_counted(group), _counted(st.sampled_from(ATOMS)), st.sampled_from(ANCHORS)))


patterns = st.tuples(
    st.sampled_from((*[""] * 12, "(?i)", "(?s)", "(?m)", "(?x)")),
    st.recursive(
        _sequences(st.one_of(_counted(st.sampled_from(ATOMS)), st.sampled_from(ANCHORS))), _groups, max_leaves=6
    ),
).map("".join)


def assert_same(pattern: str, tried: list[str]) -> None:
    made = text_test(pattern)
    if made is None:
        return
    found = pl.DataFrame({"text": pl.Series(tried, dtype=pl.String)}).select(made(pl.col("text"))).to_series()
    search = re.compile(pattern).search
    assert found.to_list() == [search(text) is not None for text in tried], pattern


@settings(max_examples=1500, deadline=None)
@given(patterns, st.lists(texts, min_size=1, max_size=12))
def test_a_translated_pattern_is_found_in_the_same_texts(pattern: str, tried: list[str]) -> None:
    try:
        made = to_python(pattern)
    except ValueError:
        event("no pattern")
        return
    event("left to Python" if text_test(made) is None else "translated")
    assert_same(made, [*tried, *LETTERS, *STRINGS])


@settings(max_examples=400, deadline=None)
@given(st.sampled_from((*STRING_FORMATS.values(), *DATED)), st.data())
def test_a_format_is_found_in_the_same_texts(pattern: str, data: st.DataObject) -> None:
    almost = st.from_regex(re.compile(pattern.replace("(?!0000)", ""), re.ASCII), alphabet=st.characters(codec="utf-8"))
    tried = [text for texts in MOMENTS.values() for text in texts]
    if pattern not in {STRING_FORMATS["email"], STRING_FORMATS["hostname"]}:  # hypothesis does not look ahead
        tried += data.draw(st.lists(almost, max_size=5))
    tried += [text[:at] + data.draw(texts) + text[at + 1 :] for text in tried[-4:] for at in (0, 4, len(text))]
    assert_same(pattern, [*tried, *STRINGS, *data.draw(st.lists(texts, max_size=5))])


@pytest.mark.parametrize("length", [1, 62, 63, 64, 65, 188, 189, 190, 251, 252, 253, 254, 255, 256, 300])
def test_what_the_engine_cannot_look_ahead_for_is_measured(length: int) -> None:
    labels = ".".join("h" * min(63, length - start) for start in range(0, length, 64))
    tried = [
        labels,
        "h" * length,
        f"{'l' * length}@example.com",
        f"l@{labels}.com",
        f"{'l' * 64}@{labels}.com",
        f"@{labels}",
    ]
    tried += [f"{'é' * length}@example.com", f"l@l@{labels}.com", f"{labels}\n"]
    assert_same(STRING_FORMATS["email"], tried)
    assert_same(STRING_FORMATS["hostname"], tried)


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?i)a",
        r"(a)\1",
        r"(?=a)b",
        r"(?<!a)b",
        r"\Ba",
        "(?m)^a$",
        "(?s).",
        "a++",
        "(?>a)",
        "x{",
        r"(?:[a-z]{900}){900}",
    ],
)
def test_what_the_engine_would_take_otherwise_is_left_to_python(pattern: str) -> None:
    assert to_engine(to_python(pattern)) is None


@pytest.mark.parametrize("year", ["0000", "0001", "0004", "0100", "0400", "1900", "2000", "2023", "2024", "9999"])
def test_every_day_of_a_year_is_a_date_in_both_or_in_neither(year: str) -> None:
    days = [f"{year}-{month:02}-{day:02}" for month in range(14) for day in range(33)]
    assert_same(DATE, days)
    assert_same(timestamp_pattern(timezone=False), [f"{day}T00:00:00" for day in days])
