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

pytestmark = [pytest.mark.acceptance, pytest.mark.alone]

FLIGHTS = 2_000


def run_demo(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mainstay.cli.main", "demo", "--directory", str(directory), "--port", "0", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, Path]:
    """The facts of one demo, the whole of it, what it told people, and where; an earlier one had been there."""
    directory = tmp_path_factory.mktemp("demo") / "demo"
    directory.mkdir()
    for name in (".mainstay-demo", "left-over.txt"):
        (directory / name).touch()
    done = run_demo(directory, "--flights", str(FLIGHTS), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr, directory


def test_april_is_replayed_and_every_decision_is_in_the_ledger(told: tuple[dict[str, Any], str, Path]) -> None:
    facts = told[0]
    assert facts["ok"]
    assert facts["failed"] == []
    assert facts["conversion"]["max_difference"] <= facts["conversion"]["tolerance"]
    assert facts["calibration"]["rows"] == facts["profile"]["rows"] == 8_000
    assert facts["calibration"]["error_after"] <= facts["calibration"]["error_before"]
    replay = facts["replay"]
    assert replay["decisions"] == FLIGHTS
    outcomes = {(outcome, reason): count for outcome, reason, count in replay["by_outcome"]}
    assert outcomes["answered", ""] > 0.9 * FLIGHTS
    assert outcomes["refused", "contract_violation"] > 0
    assert outcomes["fallback", "out_of_distribution"] > 0
    assert sum(outcomes.values()) == FLIGHTS
    assert facts["acknowledged"]["decisions"] > FLIGHTS  # those of the trouble, too
    assert facts["acknowledged"]["missing"] == facts["acknowledged"]["doubled"] == 0
    assert {verdict["name"] for verdict in facts["promise"]["verdicts"]} == {"roc_auc", "calibration_error"}
    assert facts["ledger"]["ok"]
    assert facts["ledger"]["tampering_found"]
    assert facts["explained"]["outcomes"]


def test_a_release_is_taken_under_traffic_without_dropping_a_call(told: tuple[dict[str, Any], str, Path]) -> None:
    facts = told[0]
    isolated, rollback = facts["isolated"], facts["rollback"]
    assert (isolated["runtime"], isolated["release"]) == ("isolated", 2)
    assert isolated["version"] != facts["version"]
    assert (rollback["version"], rollback["release"]) == (facts["version"], 3)
    for switch in (isolated["switch"], rollback["switch"]):
        assert switch["calls"] > 0
        assert switch["dropped"] == 0
    assert rollback["switch"]["seconds"] < 5


def test_whatever_befalls_the_model_the_callers_are_answered_in_time_and_it_comes_back(
    told: tuple[dict[str, Any], str, Path],
) -> None:
    trouble = {each["name"]: each for each in told[0]["trouble"]}
    assert set(trouble) == {"segfault", "hang", "flood"}
    for each in trouble.values():
        assert each["lost"] == 0
        assert sum(count for *_, count in each["by_outcome"]) == each["calls"]
        assert each["p99_ms"] <= each["deadline_ms"]
    for name, number in (("segfault", "SIGSEGV"), ("hang", "SIGSTOP")):
        assert trouble[name]["signal"] == number
        assert len(trouble[name]["processes"]) == 2
        assert trouble[name]["slowest_ms"] <= trouble[name]["deadline_ms"] + 50
        assert 0 < trouble[name]["model_back_ms"] < 20_000
    assert reasons(trouble["segfault"], "fallback") <= {"model_crashed", "model_unavailable"}
    assert "deadline_exceeded" in reasons(trouble["hang"], "fallback")
    turned_away = sum(count for outcome, _, count in trouble["flood"]["by_outcome"] if outcome == "turned away")
    assert 0 < turned_away < trouble["flood"]["calls"]
    assert told[0]["worker_deaths"] == 1  # that of the one which the demo kills itself


def reasons(trouble: dict[str, Any], wanted: str) -> set[str]:
    return {reason for outcome, reason, _ in trouble["by_outcome"] if outcome == wanted}


def test_strange_flights_are_caught_and_the_reason_names_what_is_strange(
    told: tuple[dict[str, Any], str, Path],
) -> None:
    by_change = {tuple(each["changed"].items()): each for each in told[0]["strange"]}
    assert by_change[()]["outcome"] == "answered"
    unseen = by_change[("carrier", "ZZ"),]
    assert (unseen["outcome"], unseen["reasons"][0]["code"]) == ("fallback", "out_of_distribution")
    assert "carrier" in unseen["reasons"][0]["detail"]
    assert unseen["output"] == {"probability": 0.08, "late": False}
    impossible = by_change[("distance", 40_000),]
    assert (impossible["outcome"], impossible["reasons"][0]["code"]) == ("refused", "contract_violation")
    assert by_change[("distance", 2_475),]["outcome"] == "fallback"
    assert by_change[("dep_delay", 300),]["outcome"] == "review"


def test_two_months_come_through_the_door_whole_and_true(told: tuple[dict[str, Any], str, Path]) -> None:
    feed = told[0]["feed"]
    assert feed["first"]["late"] == 965
    assert feed["first"]["repeated"] == 765
    assert feed["first"]["quarantined"] == 55
    assert [each["code"] for each in feed["held"]] == ["schema_breaking", "unit_changed"]
    assert "distance_mi" in feed["held"][0]["reason"]
    assert "miles to kilometres" in feed["held"][1]["reason"]
    assert feed["discarded"] == 967 + 978
    assert feed["replayed"] == {"rows": 55, "accepted": 55}
    assert feed["rows"] == feed["truth"]["flights"] == 53_785
    assert feed["same"]
    assert feed["open"] == 0


def stages(trial: dict[str, Any]) -> list[tuple[str, float]]:
    return [(to, percent) for _, to, percent, _ in trial["moves"]]


def test_a_version_goes_through_shadow_and_canary_into_production(told: tuple[dict[str, Any], str, Path]) -> None:
    year = told[0]["year"]
    assert stages(year["weather"]) == [("shadow", 0.0), ("canary", 10.0), ("canary", 50.0), ("production", 0.0)]
    assert year["shadow"]["compared"] >= 1_000
    assert 0 < year["shadow"]["differ"] < 0.2 * year["shadow"]["compared"]
    differences = [abs(case["given"] - case["shadow"]) for case in year["shadow"]["cases"]]
    assert differences == sorted(differences, reverse=True)


def test_summer_is_another_world_and_not_broken_data(told: tuple[dict[str, Any], str, Path]) -> None:
    found = told[0]["year"]["summer"]
    drifted = {each["column"] for each in found if each["code"] == "input_drift"}
    assert drifted & {"input.temp", "input.dewp"}
    assert {each["kind"] for each in found if each["column"] in drifted} == {"world_changed"}


def test_a_run_that_helps_goes_its_way_and_one_that_does_not_is_refused(told: tuple[dict[str, Any], str, Path]) -> None:
    year = told[0]["year"]
    helped, refused = year["retraining"]
    assert (helped["cause"], helped["ending"]) == ("performance", "better")
    assert helped["challenge"]["better"]["low"] > 0
    assert stages(year["retrained"])[-1] == ("production", 0.0)
    assert (refused["cause"], refused["ending"]) == ("by_hand", "not_better")
    assert refused["rollout"] is None


def test_a_version_with_a_mistake_is_rolled_back(told: tuple[dict[str, Any], str, Path]) -> None:
    mistake = told[0]["year"]["mistake"]
    assert mistake["stage"] == "rolled_back"
    assert 0 < mistake["decisions"] < 1_000
    assert "production" not in {to for to, _ in stages(mistake)}


def test_a_broken_feed_is_named_and_nothing_retrains(told: tuple[dict[str, Any], str, Path]) -> None:
    year = told[0]["year"]
    assert "input.distance" in {each["column"] for each in year["feed"]}
    assert {each["kind"] for each in year["feed"]} == {"data_broken"}
    assert {each["status"] for each in year["feed_requests"]} <= {"barred"}


def test_the_year_was_better_with_than_without(told: tuple[dict[str, Any], str, Path]) -> None:
    ending = told[0]["year"]["ending"]
    assert ending["auc"][0] > ending["auc_without"][0]
    assert ending["usd"] < ending["usd_without"]
    assert len(ending["weeks"]) == len(ending["weeks_without"]) >= 39


def test_the_page_needs_nothing_from_elsewhere(told: tuple[dict[str, Any], str, Path]) -> None:
    page = Path(told[0]["year"]["page"]).read_text("utf-8")
    assert not re.search(r"https?://|<script|<link|<img|url\(|@import", page)
    assert page.count("<svg") == 3
    assert "in quarters: rolled back" in page


def test_people_are_told_which_commands_were_given_in_the_year(told: tuple[dict[str, Any], str, Path]) -> None:
    story = told[1]
    for words in (
        "$ mainstay promote late-arrival",
        "$ mainstay monitor late-arrival",
        "$ mainstay retraining request",
    ):
        assert words in story
    assert "NOT OK" not in story
    assert "\x1b" not in story


def test_people_are_told_what_programs_are(told: tuple[dict[str, Any], str, Path]) -> None:
    facts, story, _ = told
    for words in ("0.934", "SIGKILL", "SIGSEGV", "SIGSTOP", "turned away", "feed_stopped", "One decision, explained"):
        assert words in story
    for each in facts["strange"]:
        assert each["what"] in story
    assert "\x1b" not in story  # no colour, and no bar, where nobody looks at a terminal
    assert "\r" not in story
    assert "NOT OK" not in story


def test_what_an_earlier_demo_left_is_replaced(told: tuple[dict[str, Any], str, Path]) -> None:
    directory = told[2]
    assert (directory / ".mainstay-demo").exists()
    assert not (directory / "left-over.txt").exists()


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    done = run_demo(tmp_path)
    assert done.returncode == 2
    assert "was not made by this demo" in done.stderr
    assert precious.read_text() == "mine"
