from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.intake.rest_records import NoValue, digest, order, rank, split_records, value_reader

if TYPE_CHECKING:
    from mainstay.intake.rest_records import Value

texts = st.text(st.sampled_from('ab"\\{}[],: \n\t\u00e9\U0001f600'), max_size=12)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(
    items=st.lists(documents, max_size=6),
    indent=st.sampled_from([None, 0, 3]),
    ascii_only=st.booleans(),
    block_bytes=st.integers(1, 40),
    around=st.sampled_from(["", " ", "\r\n\t "]),
)
def test_an_array_is_cut_where_its_items_end(
    items: list[Any], indent: int | None, ascii_only: bool, block_bytes: int, around: str
) -> None:
    written = json.dumps(items, indent=indent, ensure_ascii=ascii_only)
    array = memoryview((around + written + around).encode())
    cut = list(split_records(array, block_bytes=block_bytes))
    assert [json.loads(each) for each in cut] == items
    assert all(each.strip(b" \t\r\n") == each for each in cut)
    if indent is None:
        assert b", ".join(cut) == written.encode()[1:-1]


def test_a_large_array_of_next_to_nothing_is_cut_item_by_item() -> None:
    items = split_records(memoryview(b"[" + b"1," * 2_000_000 + b"1]"))
    assert sum(1 for _ in items) == 2_000_001


@pytest.mark.parametrize(
    ("record", "found"), [(b'{"at": "x", "at": 3}', 3), (b'{"at": 1.5, "a": [1]}', 1.5), (b'{"a\\u0074": ""}', "")]
)
def test_one_field_of_a_record_is_read(record: bytes, found: Value) -> None:
    assert value_reader("at")(record) == found


@pytest.mark.parametrize(
    ("record", "absent"),
    [(b"{}", True), (b'{"at": null}', True), (b'{"at": true}', False), (b'{"at": {}}', False), (b"[1]", False)],
)
def test_a_field_without_a_value_is_told_from_one_with_another(record: bytes, absent: bool) -> None:
    with pytest.raises(NoValue) as caught:
        value_reader("at")(record)
    assert caught.value.absent == absent


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (1, 2.5, -1),
        (12345678901234567890, 12345678901234567891, -1),
        ("9", "10", -1),
        ("0012", "12", 0),
        ("a10", "a9", -1),
        ("2026-01-01T10:00:00Z", "2026-01-01T12:00:00+02:00", 0),
        ("2026-01-01T10:00:00.5Z", "2026-01-01T10:00:00Z", 1),
        ("2026-01-02", "2026-01-10", -1),
        ("2026-01-01T10:00:00", "2026-01-01T09:00:00", 1),
        (1, "1", None),
    ],
)
def test_values_compare_as_what_they_are(left: Value, right: Value, expected: int | None) -> None:
    assert order(rank(left), rank(right)) == expected
    assert order(rank(right), rank(left)) == (None if expected is None else -expected)


def test_a_digest_tells_records_apart() -> None:
    assert digest(b"a") == digest(memoryview(b"a")) != digest(b"b")
    assert len(digest(b"")) == 16
