from __future__ import annotations

from base64 import b64encode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.samples import KEY, ORIGIN
from mainstay.errors import Damaged
from mainstay.ledger.note import (
    Checkpoint,
    format_checkpoint,
    parse_checkpoint,
    sign_checkpoint,
    sign_note,
    split_note,
    verify_checkpoint,
    verify_note,
)
from mainstay.signing import parse_vkey
from shared_data import shared_data

CHECKPOINT = Checkpoint(ORIGIN, 70_000, bytes(range(32)))
EXAMPLE = (
    b"This is an example message.\n\n"
    b"\xe2\x80\x94 example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72"
    b"IneyaQM=\n"
)


def test_the_example_of_the_specification_verifies() -> None:
    example = msgspec.json.decode(shared_data("tlog", "c2sp_signed_note_example.json").read_bytes())
    assert example["note"].encode() == EXAMPLE
    assert verify_note(EXAMPLE, parse_vkey(example["vkey"])) == "This is an example message.\n"


lines = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)


@given(st.lists(lines, min_size=1, max_size=6))
def test_a_note_that_was_signed_verifies_whatever_its_text(text_lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in text_lines)
    assert verify_note(sign_note(text, KEY), KEY.verifier) == text


def test_any_changed_bit_of_a_note_is_seen() -> None:
    note = sign_checkpoint(CHECKPOINT, KEY)
    for at in range(len(note) * 8):
        changed = bytearray(note)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(Damaged):
            verify_checkpoint(bytes(changed), KEY.verifier, ORIGIN)


def test_any_shortened_note_is_refused() -> None:
    note = sign_checkpoint(CHECKPOINT, KEY)
    for length in range(len(note)):
        with pytest.raises(Damaged):
            verify_note(note[:length], KEY.verifier)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_note_are_damaged_and_nothing_else(content: bytes) -> None:
    for attempt in (content, b"text\n\n\xe2\x80\x94 " + content + b"\n"):
        with pytest.raises(Damaged):
            verify_note(attempt, KEY.verifier)


@given(st.text(max_size=200))
def test_text_that_is_no_checkpoint_is_damaged_and_nothing_else(text: str) -> None:
    for attempt in (text, f"origin\n12\n{text}", f"origin\n{text}\n{b64encode(bytes(32)).decode()}\n"):
        try:
            assert format_checkpoint(parse_checkpoint(attempt)) == attempt
        except Damaged:
            continue


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
    st.integers(0, 10**18),
    st.binary(min_size=32, max_size=32),
    st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), max_size=3),
)
def test_a_checkpoint_is_read_as_it_was_written_with_its_extension_lines(
    origin: str, size: int, root: bytes, extensions: list[str]
) -> None:
    checkpoint = Checkpoint(origin, size, root, tuple(extensions))
    assert parse_checkpoint(format_checkpoint(checkpoint)) == checkpoint
    assert verify_checkpoint(sign_checkpoint(checkpoint, KEY), KEY.verifier, origin) == checkpoint


@pytest.mark.parametrize("size", ["", "-1", "01", "1e3", "+1", " 1", "٣", "9" * 20])
def test_a_size_has_one_way_to_be_written(size: str) -> None:
    with pytest.raises(Damaged):
        parse_checkpoint(f"origin\n{size}\n{b64encode(bytes(32)).decode()}\n")


def test_signatures_of_others_are_ignored_and_a_wrong_one_of_ours_is_not() -> None:
    note = sign_note("text\n", KEY)
    other = EXAMPLE.rpartition(b"\n\n")[2]
    assert verify_note(note + other, KEY.verifier) == "text\n"
    ours = sign_note("another text\n", KEY).rpartition(b"\n\n")[2]
    with pytest.raises(Damaged, match="not over this text"):
        verify_note(note + ours, KEY.verifier)
    with pytest.raises(Damaged, match=r"expected a signature by log\.example\.com"):
        verify_note(EXAMPLE, KEY.verifier)


def test_sixteen_signatures_are_accepted_and_a_thousand_are_not() -> None:
    note = sign_note("text\n", KEY)
    other = EXAMPLE.rpartition(b"\n\n")[2]
    assert len(split_note(note + other * 15)[1]) == 16
    with pytest.raises(Damaged, match="at most"):
        split_note(note + other * 999)


def test_the_checkpoint_of_another_log_is_refused() -> None:
    note = sign_checkpoint(Checkpoint("log.example.com/other", 1, bytes(32)), KEY)
    with pytest.raises(Damaged, match="expected the log"):
        verify_checkpoint(note, KEY.verifier, ORIGIN)


@pytest.mark.parametrize("text", ["no newline", "tab\there\n", "return\r\n"])
def test_a_text_that_cannot_be_a_note_is_not_signed(text: str) -> None:
    with pytest.raises(ValueError, match="newline"):
        sign_note(text, KEY)
