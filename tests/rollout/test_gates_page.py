"""`docs/reference/checks.md` has the list of checks, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from mainstay.rollout.gates_types import CHECKS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "checks.md"


def test_the_page_lists_every_check_with_its_question_its_stages_and_where_it_is_needed() -> None:
    found = re.findall(r"^\| `([a-z-]+)` \| (.+?) \| (.+?) \| (.+?) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert found == [(name, each.text, ", ".join(each.stages), each.needed) for name, each in CHECKS.items()]
