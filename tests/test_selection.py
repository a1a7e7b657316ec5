from __future__ import annotations

from pathlib import Path

import pytest

from selection import leaves_nothing

NONE = "def test_a() -> None: ...\n"
ONE = "@pytest.mark.slow\ndef test_a() -> None: ...\n\n\ndef test_b() -> None: ...\n"
ALL = "pytestmark = pytest.mark.slow\n\n\ndef test_a() -> None: ...\n"
ALL_TWICE = "pytestmark = [pytest.mark.slow, pytest.mark.alone]\n\n\ndef test_a() -> None: ...\n"


@pytest.mark.parametrize(
    ("expression", "left"),
    [
        ("", [NONE, ONE, ALL, ALL_TWICE]),
        ("slow", [ONE, ALL, ALL_TWICE]),
        ("not slow", [NONE, ONE]),
        ("slow and alone", [ALL_TWICE]),
        ("slow and not alone", [ONE, ALL]),
        ("not alone and not slow", [NONE, ONE]),
        ("slow or alone", [NONE, ONE, ALL, ALL_TWICE]),
        ("not (slow and alone)", [NONE, ONE, ALL, ALL_TWICE]),
        ("slow(hours=1)", [NONE, ONE, ALL, ALL_TWICE]),
    ],
)
def test_a_file_of_which_a_mark_selects_nothing_is_not_read(expression: str, left: list[str]) -> None:
    assert [text for text in (NONE, ONE, ALL, ALL_TWICE) if not leaves_nothing(expression, text)] == left


def test_a_file_goes_into_one_of_two_runs_at_least() -> None:
    for path in Path(__file__).parent.rglob("*.py"):
        text = path.read_text("utf-8")
        assert not (leaves_nothing("acceptance", text) and leaves_nothing("not acceptance", text))
