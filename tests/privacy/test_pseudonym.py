from __future__ import annotations

import hmac
from pathlib import Path  # noqa: TC003 - hypothesis reads the annotations of what it decorates

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.errors import Misuse
from mainstay.privacy.pseudonym import KEY_BYTES, PREFIX, Pseudonyms, create_pseudonym_key, load_pseudonym_key

KEY = bytes(range(KEY_BYTES))

values = st.recursive(
    st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES), st.text(), values)
def test_a_pseudonym_is_the_first_half_of_the_hmac_of_path_and_value(key: bytes, path: str, value: object) -> None:
    message = path.encode() + b"\x00" + msgspec.json.encode(value, order="deterministic")
    expected = PREFIX + hmac.digest(key, message, "sha256")[:16].hex()
    make = Pseudonyms(key).of_field(path)
    assert make(value) == expected
    assert make(value) == expected, "making one leaves nothing behind"


def test_the_order_of_names_does_not_matter() -> None:
    make = Pseudonyms(KEY).of_field(".address")
    assert make({"a": 1, "b": 2}) == make({"b": 2, "a": 1})


def test_null_has_no_pseudonym() -> None:
    assert Pseudonyms(KEY).of_field(".name")(None) is None


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes, found 31"):
        Pseudonyms(KEY[1:])


def test_a_key_is_made_once_and_read_only_when_nobody_else_can(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="expected the workspace's pseudonym key"):
        load_pseudonym_key(tmp_path)
    create_pseudonym_key(tmp_path)
    assert len(load_pseudonym_key(tmp_path)) == 32
    with pytest.raises(Misuse, match="exists"):
        create_pseudonym_key(tmp_path)
    (tmp_path / "pseudonym.key").chmod(0o644)
    with pytest.raises(Misuse, match="chmod 600"):
        load_pseudonym_key(tmp_path)
