from __future__ import annotations

import re
from pathlib import Path

from mainstay.monitoring.findings import CODES, KINDS, NEXT, SEVERITIES

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
