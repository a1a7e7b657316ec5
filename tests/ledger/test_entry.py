from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.samples import make_entry
from mainstay.ledger.entry import EntryId, commitment, format_id, leaf_hash, parse_id, read_id, read_leaf

segments = st.text("0123456789abcdef", min_size=10, max_size=10)
counters = st.integers(0, (1 << 32) - 1)
milliseconds = st.integers(0, (1 << 48) - 1)


@given(segments, counters, milliseconds)
def test_an_id_says_where_and_when_its_entry_was_written(segment: str, counter: int, time: int) -> None:
    text = format_id(segment, counter, time)
    assert parse_id(text) == EntryId(segment, counter, time) == parse_id(text.upper())


@given(segments, counters, milliseconds, st.sampled_from(["decision", "outcome", "change"]))
def test_an_id_is_read_from_a_leaf_with_and_without_parsing_it(
    segment: str, counter: int, time: int, kind: str
) -> None:
    leaf = make_entry(format_id(segment, counter, time), kind).leaf
    assert read_id(leaf) == read_id(b" " + leaf) == EntryId(segment, counter, time)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0192a3b4-c5d6-7012-8345-67890000000",
        "0192a3b4-c5d6-4012-8345-678900000007",  # version 4
        "0192a3b4-c5d6-7012-9345-678900000007",
        "0192a3b4c5d670128345678900000007----",
        "0192a3b4-c5d6-7012-8345-6789 000 007",
        "0192a3b4-c5d6-7012-8345-67890000000g",
        "\u0660192a3b4-c5d6-7012-8345-678900000007",
    ],
)
def test_what_is_no_id_of_ours_is_none(text: str) -> None:
    assert parse_id(text) is None


@given(st.text())
def test_any_text_is_an_id_or_none(text: str) -> None:
    assert parse_id(text) is None or len(text) == 36


@given(st.binary())
def test_any_bytes_are_a_leaf_or_none(content: bytes) -> None:
    assert (read_leaf(content) is None) or (read_id(content) is not None)


def test_a_leaf_is_hashed_as_rfc_6962_says_and_commits_to_salt_and_body() -> None:
    entry = make_entry(format_id("0123456789", 0, 1))
    assert entry.leaf_hash == leaf_hash(entry.leaf) == sha256(b"\x00" + entry.leaf).digest()
    decoded = read_leaf(entry.leaf)
    assert decoded is not None
    assert decoded.body == commitment(entry.salt, entry.body) == sha256(entry.salt + entry.body).hexdigest()
