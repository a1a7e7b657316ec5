from __future__ import annotations

from hashlib import md5
from typing import TYPE_CHECKING

import pytest

from mainstay.intake import call_keys
from mainstay.intake.call_keys import CallKeys

if TYPE_CHECKING:
    from pathlib import Path


def keys(*names: object) -> list[bytes]:
    return [md5(str(name).encode(), usedforsecurity=False).digest() for name in names]


def landed(known: CallKeys, adoption: int, *names: object) -> None:
    known.append(adoption, keys(*names))
    known.settle()


def knows(known: CallKeys, *names: object) -> list[bool]:
    return [key in known for key in keys(*names)]


def test_keys_of_items_that_landed_are_known_to_the_next_process(tmp_path: Path) -> None:
    first = CallKeys(tmp_path / "keys")
    first.load(0)
    landed(first, 1, "a", "b")
    landed(first, 2, "c")
    second = CallKeys(tmp_path / "keys")
    second.load(2)
    assert knows(second, "a", "b", "c", "d") == [True, True, True, False]


def test_keys_of_an_item_that_did_not_land_are_not(tmp_path: Path) -> None:
    first = CallKeys(tmp_path / "keys")
    first.load(0)
    landed(first, 1, "a")
    first.append(2, keys("b"))
    assert knows(first, "a", "b") == [True, False]
    second = CallKeys(tmp_path / "keys")
    second.load(1)
    assert knows(second, "a", "b") == [True, False]
    second.append(2, keys("c"))  # what lands in its place
    second.settle()
    third = CallKeys(tmp_path / "keys")
    third.load(2)
    assert knows(third, "a", "b", "c") == [True, False, True]


def test_of_two_attempts_at_an_item_the_later_counts(tmp_path: Path) -> None:
    first = CallKeys(tmp_path / "keys")
    first.load(0)
    first.append(1, keys("a"))
    landed(first, 1, "b")
    second = CallKeys(tmp_path / "keys")
    second.load(1)
    assert knows(second, "a", "b") == [False, True]


@pytest.mark.parametrize(
    "torn", [b'{"adoption":2,"at":1e18,"ke', b"\x00\xff", b'{"adoption":2,"at":1e18,"keys":"00"}\n']
)
def test_a_torn_end_is_left_out_and_written_over(tmp_path: Path, torn: bytes) -> None:
    first = CallKeys(tmp_path / "keys")
    first.load(0)
    landed(first, 1, "a")
    with (tmp_path / "keys").open("ab") as file:
        file.write(torn)
    second = CallKeys(tmp_path / "keys")
    second.load(2)
    assert knows(second, "a") == [True]
    landed(second, 2, "b")
    third = CallKeys(tmp_path / "keys")
    third.load(2)
    assert knows(third, "a", "b") == [True, True]


def test_keys_are_forgotten_after_their_time_and_beyond_their_number(tmp_path: Path) -> None:
    now = [0.0]
    known = CallKeys(tmp_path / "keys", held_seconds=100, most=3, clock=lambda: now[0])
    known.load(0)
    landed(known, 1, "a", "b")
    now[0] = 60
    landed(known, 2, "c", "d")
    assert knows(known, "a", "b", "c", "d") == [False, True, True, True]
    now[0] = 101
    landed(known, 3, "e")
    assert knows(known, "b", "c", "d", "e") == [False, True, True, True]
    again = CallKeys(tmp_path / "keys", held_seconds=100, most=3, clock=lambda: 200.0)
    again.load(3)
    assert knows(again, "c", "d", "e") == [False, False, True]


def test_a_file_of_forgotten_keys_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_keys, "_REWRITE_BYTES", 1_000)
    known = CallKeys(tmp_path / "keys", most=10)
    known.load(0)
    for adoption in range(1, 200):
        landed(known, adoption, adoption)
    assert (tmp_path / "keys").stat().st_size < 3_000
    again = CallKeys(tmp_path / "keys", most=10)
    again.load(199)
    assert knows(again, *range(190, 200)) == [True] * 10
    assert len(again) == 10
