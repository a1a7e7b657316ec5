"""The list of findings is closed: what is found is in it, and the guide says what to do about each."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from mainstay.intake.findings import CODES, Severity, severity_of

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
INTAKE = REPOSITORY / "src" / "mainstay" / "intake"
PAGE = REPOSITORY / "docs" / "guides" / "intake.md"
MAKERS = frozenset({"Finding", "Hold", "Noticed", "Unavailable", "Ended"})


def codes_in(tree: ast.Module) -> Iterator[str]:
    """Every code that a module writes out when it makes a finding, or names by a constant of its own."""
    constants: dict[str, object] = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            constants[node.target.id] = getattr(node.value, "value", None)
    for called in ast.walk(tree):
        if isinstance(called, ast.Call) and isinstance(called.func, ast.Name) and called.func.id in MAKERS:
            for given in [*called.args[:1], *(each.value for each in called.keywords if each.arg == "code")]:
                value = constants.get(given.id) if isinstance(given, ast.Name) else getattr(given, "value", None)
                if isinstance(value, str):
                    yield value


def test_every_code_that_is_found_is_in_the_list() -> None:
    used = {code for path in INTAKE.glob("*.py") for code in codes_in(ast.parse(path.read_text("utf-8")))}
    assert {"source_down", "late_feed", "bad_share", "failed"} <= used
    assert used - CODES.keys() == set()


def test_every_code_says_how_bad_it_is_in_a_sentence() -> None:
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in CODES)
    assert {each.severity for each in CODES.values()} == set(get_args(Severity))
    assert all(each.text.endswith(".") for each in CODES.values())
    assert severity_of("column_new") == "note"
    assert severity_of("never_heard_of") == "error"


def test_the_guide_lists_every_code_with_what_to_do() -> None:
    rows = re.findall(
        r"^\| `([a-z_]+)` \| (note|warning|error) \| ([^|]+) \| ([^|]+) \|$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    assert [row[:3] for row in rows] == [(code, each.severity, each.text) for code, each in CODES.items()]
    assert all(len(row[3]) > 5 for row in rows)
