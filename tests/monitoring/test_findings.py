from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mainstay.monitoring.findings import CODES, KINDS, NEXT, SEVERITIES, Cause, Finding, Kind, concerns

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "findings.md"
SOURCE = Path(__file__).resolve().parents[2] / "src" / "mainstay"


def test_the_page_lists_every_code_with_its_severity_and_its_meaning() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+?) \|$", REFERENCE.read_text(), re.MULTILINE)
    assert {code: (severity, text) for code, severity, text in rows} == {
        code: (meaning.severity, meaning.text) for code, meaning in CODES.items()
    }


def test_the_page_lists_every_kind_of_cause() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", REFERENCE.read_text(), re.MULTILINE)
    assert set(KINDS) == set(NEXT)
    assert set(KINDS) <= set(rows)


def test_no_code_is_found_that_is_not_in_the_list() -> None:
    written = set()
    for path in [*(SOURCE / "monitoring").glob("*.py")]:
        written |= set(re.findall(r'code\s*=\s*"(\w+)"', path.read_text()))
    assert written
    assert written <= set(CODES)
    assert all(meaning.severity in SEVERITIES for meaning in CODES.values())


@pytest.mark.parametrize(
    ("code", "column", "kind", "survives"),
    [
        ("unit_changed", "input.x", "data_broken", True),
        ("values_missing", "input.x", "data_broken", True),
        ("values_unknown", "input.x", "world_changed", True),
        ("input_drift", "input.x", "data_broken", True),
        ("input_drift", "input.x", "world_changed", False),  # of the reference of that version
        ("values_missing", "output.y", "data_broken", False),
        ("output_drift", "output.y", "data_broken", False),
        ("novelty_rate", "novelty", "data_broken", False),
        ("quality_below", "accuracy", "data_broken", False),
        ("labels_late", None, "data_broken", False),
    ],
)
def test_what_is_true_of_the_data_survives_the_version_that_it_was_found_with(
    code: str, column: str | None, kind: Kind, survives: bool
) -> None:
    now = datetime(2026, 5, 1, tzinfo=UTC)
    cause = Cause(kind=kind, why="for a test")
    about = Finding(
        code=code,
        severity="warning",
        capability="c",
        version="v",
        column=column,
        text="",
        window_from=now,
        window_to=now,
        rows=1,
        cause=cause,
    )
    assert concerns(about, {"v"})
    assert concerns(about, {"w"}) is survives
