from __future__ import annotations

import json
import math
from contextlib import suppress
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.runtime.frames import (
    BrokenProtocol,
    ChildInfo,
    Fault,
    Gave,
    Inbox,
    Refused,
    RowFailed,
    find_no_json,
    frame,
    read_opening,
    read_reply,
)
from mainstay.runtime.types import Prediction

encode = msgspec.msgpack.encode

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
ANSWERS = st.lists(
    st.builds(Gave, st.lists(JSON, min_size=2, max_size=2), st.none() | st.floats() | st.text())
    | st.builds(Fault, st.text()),
    max_size=5,
)


@given(st.binary(max_size=200) | st.tuples(st.integers(0, 2), ANSWERS).map(encode) | JSON.map(encode))
def test_any_bytes_are_a_result_per_row_or_a_broken_protocol(payload: bytes) -> None:
    try:
        results = read_reply(payload, 1, 2, ("p", "q"))
    except BrokenProtocol:
        return
    assert len(results) == 2
    for result in results:
        if isinstance(result, Prediction):
            assert len(result.values) == 2
            json.dumps(result.values, allow_nan=False)
            assert result.confidence is None or 0 <= result.confidence <= 1
        else:
            assert isinstance(result, RowFailed)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_opening_or_a_broken_protocol(payload: bytes) -> None:
    with suppress(BrokenProtocol):
        assert isinstance(read_opening(payload), ChildInfo | Refused)


@given(ANSWERS)
def test_what_was_sent_is_what_is_read(answers: list[Gave | Fault]) -> None:
    for answer, result in zip(answers, read_reply(encode((3, answers)), 3, len(answers), ("p", "q")), strict=True):
        if isinstance(result, Prediction):
            assert isinstance(answer, Gave)
            assert result == (tuple(answer.values), answer.confidence)


@given(st.binary(max_size=100), st.lists(st.integers(0, 104), max_size=5))
def test_a_frame_comes_through_however_it_is_cut(payload: bytes, cuts: list[int]) -> None:
    sent = frame(payload)
    places = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    inbox = Inbox(100)
    for _ in range(2):
        got = [inbox.feed(sent[start:end]) for start, end in pairwise(places)]
        assert got[-1] == payload
        assert set(got[:-1]) <= {None}


def test_what_is_too_large_or_too_much_breaks_the_protocol() -> None:
    with pytest.raises(BrokenProtocol, match="expected at most 100 bytes"):
        Inbox(100).feed(frame(bytes(101))[:4])
    with pytest.raises(BrokenProtocol, match="more after it"):
        Inbox().feed(frame(b"a") + b"b")


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        (1.5, ""),
        ([{"a": [None, True, "x", 2**60]}], ""),
        (math.inf, "not finite"),
        ({"a": {"b": math.nan}}, "not finite"),
        ([[b""]], "type bytes"),
        ([0] * 10_001, "more than 10000 values"),
        ([[0] * 6_000] * 2, "more than 10000 values"),
        ({1: 2}, "no text"),
        (msgspec.msgpack.Ext(1, b""), "type Ext"),
    ],
)
def test_what_is_no_json_is_named(value: Any, wrong: str) -> None:
    found = find_no_json(value)
    assert (wrong in found) if wrong else not found
