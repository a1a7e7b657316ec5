from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from typing import Any

pytestmark = [pytest.mark.acceptance, pytest.mark.year]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The facts of one year, and what it told people."""
    directory = tmp_path_factory.mktemp("demo") / "demo"
    command = [sys.executable, "-m", "mainstay.cli.main", "demo", "--directory", str(directory), "--part", "year"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    assert facts["ok"]
    return facts["year"], done.stderr


def stages(trial: dict[str, Any]) -> list[tuple[str, float]]:
    return [(to, percent) for _, to, percent, _ in trial["moves"]]


def test_a_version_goes_through_shadow_and_canary_into_production(told: tuple[dict[str, Any], str]) -> None:
    year = told[0]
    assert stages(year["weather"]) == [("shadow", 0.0), ("canary", 10.0), ("canary", 50.0), ("production", 0.0)]
    assert year["shadow"]["compared"] >= 1_000
    assert 0 < year["shadow"]["differ"] < 0.2 * year["shadow"]["compared"]
    differences = [abs(case["given"] - case["shadow"]) for case in year["shadow"]["cases"]]
    assert differences == sorted(differences, reverse=True)


def test_summer_is_another_world_and_not_broken_data(told: tuple[dict[str, Any], str]) -> None:
    found = told[0]["summer"]
    drifted = {each["column"] for each in found if each["code"] == "input_drift"}
    assert "input.dewp" in drifted
    assert {each["kind"] for each in found if each["column"] in drifted} == {"world_changed"}


def test_a_run_that_helps_goes_its_way_and_one_that_does_not_is_refused(told: tuple[dict[str, Any], str]) -> None:
    year = told[0]
    helped, refused = year["retraining"]
    assert (helped["cause"], helped["ending"]) == ("performance", "better")
    assert helped["challenge"]["better"]["low"] > 0
    assert stages(year["retrained"])[-1] == ("production", 0.0)
    assert (refused["cause"], refused["ending"]) == ("by_hand", "not_better")
    assert refused["rollout"] is None


def test_a_version_with_a_mistake_is_rolled_back(told: tuple[dict[str, Any], str]) -> None:
    mistake = told[0]["mistake"]
    assert mistake["stage"] == "rolled_back"
    assert 0 < mistake["decisions"] < 1_000
    assert "production" not in {to for to, _ in stages(mistake)}


def test_a_broken_feed_is_named_and_nothing_retrains(told: tuple[dict[str, Any], str]) -> None:
    year = told[0]
    assert "input.distance" in {each["column"] for each in year["feed"]}
    assert {each["kind"] for each in year["feed"]} == {"data_broken"}
    assert {each["status"] for each in year["feed_requests"]} <= {"barred"}


def test_the_year_was_better_with_than_without(told: tuple[dict[str, Any], str]) -> None:
    ending = told[0]["ending"]
    assert ending["auc"][0] > ending["auc_without"][0]
    assert ending["usd"] < ending["usd_without"]
    assert len(ending["weeks"]) == len(ending["weeks_without"]) >= 39


def test_the_page_needs_nothing_from_elsewhere(told: tuple[dict[str, Any], str]) -> None:
    page = Path(told[0]["page"]).read_text("utf-8")
    assert not re.search(r"https?://|<script|<link|<img|url\(|@import", page)
    assert page.count("<svg") == 3
    assert "in quarters: rolled back" in page


def test_people_are_told_which_commands_were_given(told: tuple[dict[str, Any], str]) -> None:
    story = told[1]
    for words in (
        "$ mainstay promote late-arrival",
        "$ mainstay monitor late-arrival",
        "$ mainstay retraining request",
    ):
        assert words in story
    assert "NOT OK" not in story
    assert "\x1b" not in story
