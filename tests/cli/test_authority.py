from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import cedarpy
import pytest

from authority import folders
from mainstay.authority.policy import compile_authority
from mainstay.capability.load import load_capability
from mainstay.cli.authority import check, schema
from mainstay.errors import InvalidDocument

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folders.write_folder(tmp_path / "loan-risk")


def test_the_schema_is_printed_for_people_and_for_programs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema(folder)
    text = capsys.readouterr().out
    assert "amount: decimal" in text
    assert '@doc("ISO 3166 code of residence.")\n        country?: String' in text
    schema(folder, json=True)
    document = capsys.readouterr().out
    assert str(cedarpy.Schema.from_json_str(document)) == str(cedarpy.Schema.from_str(text)) == text


def test_a_printed_schema_validates_what_check_accepts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema(folder)
    assert cedarpy.validate_policies((folder / "authority.cedar").read_text(), capsys.readouterr().out)
    assert check(folder) == 0
    assert capsys.readouterr().out == "loan-risk: 3 policies, no problems; answers are judged compiled\n"


def test_check_says_what_the_policies_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(folder, json=True) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", facts.pop("digest"))
    assert facts == {
        "valid": True,
        "capability": "loan-risk",
        "policies": ["keys", "people", "small-loans"],
        "answers_judged": "compiled",
        "problems": [],
    }


def test_check_lists_every_problem_and_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "authority.cedar").write_text("permit (principal, action, resource);\npermit oops;")
    assert check(folder) == 1
    first, second, count = capsys.readouterr().out.splitlines()
    assert "authority.cedar:1: policy 1: expected @id" in first
    assert "authority.cedar:2: policy 2: expected a policy in Cedar's syntax" in second
    assert count == "2 problems"
    assert check(folder, json=True) == 1
    assert [each["line"] for each in json.loads(capsys.readouterr().out)["problems"]] == [1, 2]


def test_a_schema_needs_no_policies(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "authority.cedar").write_text('@id("none") forbid (principal, action, resource);')
    schema(folder)
    assert capsys.readouterr().out
    with pytest.raises(InvalidDocument):
        compile_authority(load_capability(folder))
