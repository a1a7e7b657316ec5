"""What is taken for granted of formats when two are compared, held against the rules that are compiled from them."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainstay.contract.difference_samples import examples
from mainstay.contract.difference_values import ENFORCED_FORMATS, LENGTHS, WITHIN, Values
from mainstay.contract.formats import DATE, STRING_FORMATS, time_pattern, timestamp_pattern
from mainstay.contract.types import Options, Property

PATTERNS = {
    **STRING_FORMATS,
    "date": DATE,
    "timestamp": f"{timestamp_pattern(None)}|{timestamp_pattern(timezone=False).removeprefix('(?a)')}",
    "time": time_pattern(None),
}


TEXTS = {name: st.from_regex(re.compile(pattern), fullmatch=True) for name, pattern in PATTERNS.items()} | {
    "email": st.emails().filter(lambda text: re.search(STRING_FORMATS["email"], text) is not None),
}


def text_of(name: str) -> Values:
    return Values(Property(name="it", logical_type="string", logical_type_options=Options(format=name)), required=True)


def test_every_format_has_its_lengths() -> None:
    assert LENGTHS.keys() == PATTERNS.keys() | {"ipv6"}
    assert STRING_FORMATS.keys() | {"ipv6"} == ENFORCED_FORMATS


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_a_text_of_a_format_has_its_length(name: str) -> None:
    least, most = LENGTHS[name]

    # A pattern that looks ahead is met by few of the texts that are tried.
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    )
    @given(TEXTS[name])
    def holds(text: str) -> None:
        assert least <= len(text)
        assert most is None or len(text) <= most

    holds()


@settings(max_examples=200, deadline=None)
@given(st.ip_addresses(v=6).map(str))
def test_an_ipv6_address_has_its_length(text: str) -> None:
    least, most = LENGTHS["ipv6"]
    assert least <= len(text) <= (most or 0)
    assert text_of("ipv6").accepts(text)


def test_the_longest_and_the_shortest_ipv6_address_are_counted() -> None:
    longest = "0000:0000:0000:0000:0000:ffff:255.255.255.255"
    assert all(text_of("ipv6").accepts(text) for text in ("::", longest))
    assert LENGTHS["ipv6"] == (len("::"), len(longest))


@pytest.mark.parametrize(("inner", "outer"), sorted(WITHIN))
def test_a_format_within_another_has_only_texts_of_it(inner: str, outer: str) -> None:
    @settings(max_examples=100, deadline=None)
    @given(st.from_regex(re.compile(STRING_FORMATS[inner]), fullmatch=True))
    def holds(text: str) -> None:
        assert not text_of(inner).accepts(text) or text_of(outer).accepts(text)

    holds()


@pytest.mark.parametrize("name", sorted(ENFORCED_FORMATS))
def test_an_example_is_made_for_every_format(name: str) -> None:
    assert examples(text_of(name))
