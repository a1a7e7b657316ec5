from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.capability.sources import Secret
from mainstay.errors import Misuse
from mainstay.intake.fetching import Unavailable
from mainstay.intake.secrets import HIDDEN, MAX_SECRET_BYTES, read_secret, redact

if TYPE_CHECKING:
    from pathlib import Path


def stored(path: Path, content: bytes, mode: int = 0o600) -> Secret:
    path.write_bytes(content)
    path.chmod(mode)
    return Secret(file=str(path))


def test_a_secret_is_read_from_a_variable_without_the_end_of_its_line() -> None:
    for value in ("token", "token\n", "token\r\n"):
        assert read_secret(Secret(variable="TOKEN"), {"TOKEN": value}) == "token"


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_secret_is_read_from_a_file_that_others_cannot_read(tmp_path: Path, mode: int) -> None:
    assert read_secret(stored(tmp_path / "token", b"tok en\n", mode)) == "tok en"


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o666, 0o602])
def test_a_file_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(Unavailable, match="chmod 600") as caught:
        read_secret(stored(tmp_path / "token", b"hidden", mode))
    assert caught.value.code == "secret_missing"
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"two\nlines", b"nul\x00", b"\xff\xfe", b"x" * (MAX_SECRET_BYTES + 1), b"bell\x07"]
)
def test_what_is_no_line_of_text_is_no_secret(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Unavailable) as caught:
        read_secret(stored(tmp_path / "token", content))
    assert caught.value.code == "secret_missing"
    assert str(tmp_path / "token") in str(caught.value)
    assert "lines" not in str(caught.value)


def test_what_is_absent_or_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("absent", "pipe", "."):
        with pytest.raises(Unavailable, match="secret_missing"):
            read_secret(Secret(file=str(tmp_path / name)))
    with pytest.raises(Unavailable, match="the variable TOKEN is not set"):
        read_secret(Secret(variable="TOKEN"), {})


@pytest.mark.parametrize("secret", [Secret(), Secret(variable="TOKEN", file="/token")])
def test_a_secret_stands_in_one_place(secret: Secret) -> None:
    with pytest.raises(Misuse, match="exactly one"):
        read_secret(secret, {"TOKEN": "x"})


@given(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=4, max_size=40))
def test_no_form_of_a_secret_stays_in_a_text(value: str) -> None:
    forms = [value, quote(value), quote(value, safe=""), quote_plus(value), json.dumps(value)]
    forms.append(base64.b64encode(value.encode()).decode())
    shown = redact("\x00".join(forms), [value])
    assert shown.split("\x00") == [HIDDEN] * 4 + [f'"{HIDDEN}"', HIDDEN]


def test_a_secret_within_another_does_not_leave_its_rest() -> None:
    assert redact("abcd-efgh", ["abcd", "abcd-efgh"]) == HIDDEN
    assert redact("an abc", ["abc"]) == "an abc"
