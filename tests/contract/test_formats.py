from __future__ import annotations

import ipaddress
import re
import uuid
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.contract.formats import (
    DATE,
    STRING_FORMATS,
    is_ipv6,
    moment_reader,
    time_pattern,
    timestamp_pattern,
    to_python,
)


def matches(pattern: str, text: str) -> bool:
    return re.search(pattern, text) is not None


def is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


@given(st.dates().map(str) | st.from_regex(r"\A[0-9]{4}-[01][0-9]-[0-3][0-9]\Z"))
def test_a_date_is_one_of_the_calendar(text: str) -> None:
    assert matches(DATE, text) == is_date(text)


@given(st.datetimes(), st.sampled_from(("Z", "z", "+05:30", "-00:00", "")))
def test_a_timestamp_has_its_offset_unless_the_contract_says_there_is_none(at: datetime, offset: str) -> None:
    text = at.isoformat() + offset
    assert matches(timestamp_pattern(None), text) == bool(offset)
    assert matches(timestamp_pattern(timezone=True), text) == bool(offset)
    assert matches(timestamp_pattern(timezone=False), text) == (not offset)
    assert matches(time_pattern(None), text[11:])
    assert matches(time_pattern(timezone=True), text[11:]) == bool(offset)


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-01 00:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:60:00Z",
        "2024-01-01T00:00:60Z",
        "2024-01-01T00:00:00+24:00",
        "2024-01-01T00:00Z",
        "2024-01-01T00:00:00.Z",
        "2024-01-01T00:00:00Z\n",
        " 2024-01-01T00:00:00Z",
        "٢٠٢٤-01-01T00:00:00Z",
    ],
)
def test_what_rfc_3339_does_not_have_is_no_timestamp(text: str) -> None:
    assert not matches(timestamp_pattern(None), text)


@given(st.datetimes(timezones=st.timezones()), st.datetimes(timezones=st.timezones()))
def test_moments_compare_as_the_instants_they_are(one: datetime, other: datetime) -> None:
    read = moment_reader("timestamp")
    texts = [at.isoformat(timespec="microseconds") for at in (one, other)]
    moments = [read(text) for text in texts]
    if any(len(text) != len("2000-01-01T00:00:00.000000+00:00") for text in texts):
        return  # zones of long ago have offsets with seconds, which RFC 3339 has not
    assert moments[0] is not None
    assert moments[1] is not None
    instants = [datetime.fromisoformat(text).astimezone(UTC) for text in texts if "0001" < text < "9999"]
    if len(instants) == 2:
        assert (moments[0] < moments[1]) == (instants[0] < instants[1])
        assert (moments[0] == moments[1]) == (instants[0] == instants[1])


def test_moments_compare_fractions_of_any_length() -> None:
    read = moment_reader("time")
    ordered = [
        "11:59:59.9",
        "12:00:00",
        "12:00:00.000000001",
        "12:00:00.09",
        "12:00:00.1",
        "12:00:00.10001",
        "12:00:01",
    ]
    moments = [read(text) for text in ordered]
    assert moments == sorted(moment for moment in moments if moment is not None)
    assert read("12:00:00.100") == read("12:00:00.1")
    assert read("13:30:00+01:30") == read("12:00:00Z") == read("12:00:00")
    assert read("noon") is None


@given(st.uuids().map(str) | st.text("0123456789abcdefABCDEF-", min_size=34, max_size=37))
def test_a_uuid_is_written_with_its_dashes(text: str) -> None:
    try:
        expected = str(uuid.UUID(text)) == text.lower()
    except ValueError:
        expected = False
    assert matches(STRING_FORMATS["uuid"], text) == expected


@given(st.ip_addresses(v=4).map(str) | st.text("0123456789.", max_size=16))
def test_an_ipv4_address_is_what_python_says(text: str) -> None:
    try:
        expected = str(ipaddress.IPv4Address(text)) == text
    except ValueError:
        expected = False
    assert matches(STRING_FORMATS["ipv4"], text) == expected


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("email", ["a@b.example", "a.b+c@x-y.example.com"], ["a@b", "@b.example", "a@@b.example", "a b@c.d", "a.@b.c"]),
        ("hostname", ["a", "a-b.example.com", "1.2"], ["-a", "a-", "a..b", "a_b", "x" * 64, "a." * 127, ""]),
        ("uri", ["http://a/b?c=d#e", "urn:isbn:1", "mailto:a@b", "a:%20"], ["//a", "a", "http://a b", "a:%2", "1a:b"]),
    ],
)
def test_string_formats_take_the_usual_and_refuse_the_near(name: str, good: list[str], bad: list[str]) -> None:
    assert [text for text in good if not matches(STRING_FORMATS[name], text)] == []
    assert [text for text in bad if matches(STRING_FORMATS[name], text)] == []


def test_an_ipv6_address_has_no_zone() -> None:
    assert is_ipv6("::1")
    assert is_ipv6("2001:db8::8:800:200c:417a")
    assert not is_ipv6("fe80::1%eth0")
    assert not is_ipv6("1::2::3")


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("^a$", ["a"], ["a\n", "ba"]),
        ("a\\$", ["xa$x"], ["a"]),
        ("[$]", ["$"], ["a"]),
        ("^\\d+$", ["12"], ["١٢", ""]),
        ("^\\w$", ["a", "_"], ["é"]),
        ("^[[a]$", ["[", "a"], ["]"]),
        ("^[a&&b]$", ["&"], ["&&"]),
        ("^(?<year>\\d{4})-\\k$|x", [], []),
        ("^(?<x>a)(?=b)(?<!c)", ["ab"], ["ac"]),
        ("(?i)^AB$", ["ab"], ["abc"]),
        ("(?m)^b$", ["a\nb\nc"], ["ab"]),
        ("^[^]$", ["\n"], ["", "ab"]),
        ("[]", [], ["", "]"]),
        ("[\\]]", ["]"], ["\\"]),
        ("^[+--]$", ["+", ",", "-"], ["."]),
        ("^[--a]$", ["-", "A", "a"], ["+", "b"]),
        ("^[a-c--z]$", ["b", "-", "Z"], ["+"]),
        ("^[^-a]$", ["b"], ["-", "a"]),
        ("^[a-]$", ["a", "-"], ["b"]),
    ],
)
def test_patterns_mean_what_they_mean_in_ecmascript(pattern: str, good: list[str], bad: list[str]) -> None:
    if not good and not bad:
        with pytest.raises(ValueError, match="bad escape"):
            to_python(pattern)
        return
    made = to_python(pattern)
    assert [text for text in good if not matches(made, text)] == []
    assert [text for text in bad if matches(made, text)] == []


@given(st.text("ab()[]{}|*+?^$\\.,-<=!:0123imsx[&~", max_size=16))
def test_any_text_is_a_pattern_or_is_said_to_be_none(pattern: str) -> None:
    try:
        made = to_python(pattern)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - either end is right
    else:
        re.compile(made)
