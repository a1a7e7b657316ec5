from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.errors import Damaged
from mainstay.ledger.state import STATE_FORMAT, Progress, State, decode_state, encode_state, load_state, save_state

if TYPE_CHECKING:
    from pathlib import Path

STATE = State(STATE_FORMAT, 5, "ab" * 32, 0, "2026-01-01T00:00:00.000000Z", {"0123456789": Progress(16, 5)})


def test_a_state_is_read_as_it_was_saved(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None
    save_state(tmp_path, STATE)
    assert load_state(tmp_path) == STATE


def test_any_changed_bit_of_a_state_is_seen() -> None:
    content = encode_state(STATE)
    for at in range(len(content) * 8):
        changed = bytearray(content)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(Damaged):
            decode_state(bytes(changed))


@given(st.binary())
def test_bytes_that_are_no_state_are_damaged_and_nothing_else(content: bytes) -> None:
    for attempt in (content, encode_state(STATE) + content[:1] + b"x"):
        with pytest.raises(Damaged):
            decode_state(attempt)
