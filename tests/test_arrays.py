from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay import arrays
from mainstay.arrays import MAX_ITEMS, TooMany, one_line, split_array, split_lines
from mainstay.errors import NOT_READ

if TYPE_CHECKING:
    from collections.abc import Iterator

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=4), below, max_size=3),
    max_leaves=6,
)
spaces = st.text(" \t\n\r", max_size=2).map(str.encode)


@pytest.fixture(params=[-1, 1 << 20], ids=["large", "small"], autouse=True, scope="module")
def small(request: pytest.FixtureRequest) -> Iterator[None]:
    """Arrays of any size are read as large ones are, and then as small ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "SMALL_BYTES", request.param)
        yield


@given(st.lists(values, max_size=6), spaces, spaces)
def test_an_array_is_its_items(items: list[Any], before: bytes, after: bytes) -> None:
    inner = (before + b"," + after).join(json.dumps(item).encode() for item in items)
    array = before + b"[" + after + inner + before + b"]" + after
    assert [json.loads(bytes(item)) for item in split_array(array, 6)] == items
    if items:
        with pytest.raises(TooMany):
            split_array(array, len(items) - 1)


def decoded(content: bytes) -> list[Any]:
    return [msgspec.json.decode(item) for item in split_array(content, 100)]


@given(st.binary(max_size=30) | st.text('[]{},:"\\ 1e-tn', max_size=30).map(str.encode))
def test_anything_is_an_array_exactly_where_the_decoder_says_so(content: bytes) -> None:
    try:
        expected = msgspec.json.decode(content, type=list[Any])
    except NOT_READ:
        with pytest.raises(NOT_READ):
            decoded(content)
    else:
        assert decoded(content) == expected


def test_nesting_without_end_is_refused() -> None:
    for content in (b"[" * 100_000, b"[[" + b'{"a":' * 100_000):
        with pytest.raises(NOT_READ):
            split_array(content, 5)


def peak_of(split: Any, content: bytes) -> int:
    """The most memory that splitting takes until it finds that there are too many items."""
    with pytest.raises(TooMany):  # it makes now what it keeps
        split_array(b"[" + b"1," * MAX_ITEMS + b"1]", MAX_ITEMS)
    tracemalloc.start()
    try:
        with pytest.raises(TooMany):
            split(content, MAX_ITEMS)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("item", [b"1", b"{}", b'""', b"[[]]"])
def test_millions_of_items_are_not_made(item: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "SMALL_BYTES", 1 << 20)
        content = b"[" + (item + b",") * ((64 << 20) // (len(item) + 1)) + item + b"]"
        assert peak_of(split_array, content) < 8 << 20


def test_millions_of_lines_are_not_made() -> None:
    assert peak_of(split_lines, b"\n" * (64 << 20)) < 1 << 20


def test_as_many_as_are_wanted_are_given() -> None:
    assert len(split_array(b"[" + b"1," * (MAX_ITEMS - 1) + b"1]", MAX_ITEMS)) == MAX_ITEMS


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b"", []),
        (b"\n", [b""]),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\nb", [b"a", b"b"]),
        (b"a\r\nb\r\n", [b"a\r", b"b\r"]),
        (b"a\n\nb\n", [b"a", b"", b"b"]),
        (b"a\rb", [b"a\rb"]),
    ],
)
def test_a_line_ends_at_its_newline(body: bytes, lines: list[bytes]) -> None:
    assert split_lines(body, 3) == lines
    if lines:
        with pytest.raises(TooMany):
            split_lines(body, len(lines) - 1)


@given(values)
def test_json_is_one_line_whatever_stands_in_it(value: Any) -> None:
    line = one_line(json.dumps(value, indent=2).replace("\n", "\r\n").encode())
    assert b"\n" not in line
    assert b"\r" not in line
    assert json.loads(line) == value
