from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.contract.difference_patterns import literals, samples
from mainstay.contract.formats import to_python

atoms = st.one_of(
    st.sampled_from(("a", "B", "0", "\\.", "\\d", "\\w", "[A-C]", "[^a]", "[a\\-z_]", ".", "-", "é")),
    st.sampled_from(("(a|bc)", "(?:x|\\d)?", "(?<n>ab)", "(a?)", "(?=a)", "\\b", "(^a)", "a$")),
)
pieces = st.tuples(atoms, st.sampled_from(("", "", "", "?", "{2}", "{1,3}", "+", "*", "{0,2}?", "{,2}"))).map("".join)
bodies = st.lists(pieces, max_size=4).map("".join)
patterns = st.one_of(
    bodies.map(lambda body: f"^{body}$"),
    st.lists(bodies, min_size=1, max_size=3).map(lambda each: "^(" + "|".join(each) + ")$"),
    st.lists(bodies, min_size=1, max_size=3).map(lambda each: "|".join(f"^{one}$" for one in each)),
    st.lists(bodies, min_size=1, max_size=2).map("|".join),
)
ALPHABET = "aBbcCA0179.-_xz é\n"


def compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(to_python(pattern))
    except ValueError:
        return None


@settings(max_examples=400, deadline=None)
@given(patterns, st.data())
def test_a_text_that_is_not_listed_does_not_match(pattern: str, data: st.DataObject) -> None:
    known, search = literals(pattern), compiled(pattern)
    if known is None or search is None:
        return
    assert all(search.search(text) for text in known)
    texts = data.draw(st.lists(st.one_of(st.text(ALPHABET, max_size=5), st.from_regex(search)), min_size=5, max_size=5))
    for text in texts:
        assert (search.search(text) is not None) == (text in known)


@settings(max_examples=300, deadline=None)
@given(patterns)
def test_samples_of_an_anchored_pattern_match_it(pattern: str) -> None:
    search = compiled(pattern)
    if search is not None and not re.search(r"\(\^|a\$", pattern) and "(?=" not in pattern:
        assert all(search.search(text) for text in samples(pattern))


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        ("^(EWR|JFK|LGA)$", {"EWR", "JFK", "LGA"}),
        ("^[A-C]\\d?$", {*"ABC"} | {f"{a}{d}" for a in "ABC" for d in range(10)}),
        ("^a{2,3}$", {"aa", "aaa"}),
        ("^a$|^b$", {"a", "b"}),
        ("^$", {""}),
        ("^a|b$", None),
        ("a", None),
        ("^a*$", None),
        ("^[^a]$", None),
        ("^.$", None),
        ("^(?i)a$", None),
        ("^\\w{2}$", None),
        ("(?i)^a$", None),
        ("^a(?!b)$", None),
        ("^" + "(" * 50 + "a" + ")" * 50 + "$", None),
        ("^a{0,9999}$", None),
        ("^[b-a]$", None),
        ("^(a$", None),
        ("^a)$", None),
        ("^[a$", None),
        ("^a\\$", None),
    ],
)
def test_all_texts_of_a_pattern_are_known_only_where_they_are_few(pattern: str, texts: set[str] | None) -> None:
    found = literals(pattern)
    assert (None if found is None else set(found)) == texts


def test_samples_have_every_branch_and_several_lengths() -> None:
    assert {"AA", "AAA", "b"} <= set(samples("^(A{2,3}|b)$"))
    assert samples("(?i)a") == ()
    assert samples("^[^\\]$") == ()
