"""A model that does everything wrong: what callers get, and that it never spreads."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import chaos
import tiny
from mainstay.cli.versions import record_promotion, record_registration
from mainstay.ledger.find import find_entry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.acceptance, pytest.mark.alone]

CONSTANT = {"probability": 0.25, "yes": False}
GOOD = {"a": 0.5, "b": 0.25}
DEADLINE_SECONDS = 1.0
LATE_SECONDS = 0.5  # of the test's own client on a busy machine

CODES = {
    "segfault": "model_crashed",
    "exit": "model_crashed",
    "hang": "deadline_exceeded",
    "raise": "model_error",
    "out-of-range": "output_invalid",
    "text": "model_error",
    "wrong-type": "output_invalid",
}


def post(up: tiny.Up, **body: Any) -> httpx.Response:
    return httpx.post(up.decisions_url, json=body, headers=up.headers, timeout=20)


def wait_until_answered(up: tiny.Up, seconds: float = 15) -> float:
    """How long it takes until the model itself answers again."""
    begun = time.monotonic()
    while post(up, input=GOOD).json()["outcome"] != "answered":  # also after one that came while it was starting
        assert time.monotonic() - begun < seconds, "the model did not come back"
        time.sleep(0.05)
    return time.monotonic() - begun


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tiny.Up]:
    directory = tmp_path_factory.mktemp("chaos") / "w"
    breaker = {"open_seconds": 0.2}
    workspace, token = chaos.make_served(
        directory, fallback=[{"constant": CONSTANT}], breaker=breaker, when={"overloaded": "fallback"}
    )
    with tiny.up(workspace, token) as up:
        yield up


@pytest.mark.parametrize(("trouble", "code"), CODES.items())
def test_whatever_the_model_does_the_fallback_answers_in_time_and_the_model_comes_back(
    served: tiny.Up, trouble: str, code: str
) -> None:
    wait_until_answered(served)
    begun = time.monotonic()
    answer = post(served, input={**GOOD, "note": trouble}).json()
    assert time.monotonic() - begun < DEADLINE_SECONDS + LATE_SECONDS
    assert (answer["outcome"], answer["output"]) == ("fallback", CONSTANT)
    assert answer["reasons"][0]["code"] == code
    assert find_entry(served.workspace.ledger, answer["decision_id"]) is not None
    wait_until_answered(served)


@pytest.mark.parametrize("trouble", ["not-a-number", "missing", "extra", "huge", "too-few", "blow-up"])
def test_garbage_is_never_answered(served: tiny.Up, trouble: str) -> None:
    wait_until_answered(served)
    answer = post(served, input={**GOOD, "note": trouble}).json()
    assert (answer["outcome"], answer["output"]) == ("fallback", CONSTANT)


def test_a_model_that_talks_does_not_disturb_its_answers(served: tiny.Up) -> None:
    wait_until_answered(served)
    answer = post(served, input={**GOOD, "note": "talk"}).json()
    assert answer["outcome"] == "answered"
    assert answer["output"]["probability"] == pytest.approx(0.679, abs=0.001)


def test_a_capability_in_trouble_does_not_slow_another(served: tiny.Up) -> None:
    workspace = served.workspace
    folder = workspace.capabilities / "calm"
    tiny.write_folder(folder, name="calm")
    version = record_registration(workspace, folder, None).version
    record_promotion(workspace, "calm", version, "beside the other")
    url = served.decisions_url.replace(tiny.NAME, "calm")

    def calm() -> float:
        begun = time.monotonic()
        answer = httpx.post(url, json={"input": GOOD}, headers=served.headers, timeout=20)
        assert answer.json()["outcome"] == "answered"
        return time.monotonic() - begun

    deadline = time.monotonic() + 5
    while httpx.post(url, json={"input": GOOD}, headers=served.headers).status_code == 404:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with ThreadPoolExecutor(8) as pool:
        troubled = [pool.submit(post, served, input={**GOOD, "note": "hang"}) for _ in range(6)]
        took = sorted(calm() for _ in range(40))
        assert {each.result().json()["outcome"] for each in troubled} == {"fallback"}
    assert took[len(took) // 2] < 0.1


def test_an_open_breaker_answers_at_once_and_closes_when_the_model_is_well(tmp_path: Path) -> None:
    workspace, token = chaos.make_served(
        tmp_path / "w", fallback=[{"constant": CONSTANT}], breaker={"of": 4, "open_seconds": 1.0}
    )
    with tiny.up(workspace, token) as up:
        wait_until_answered(up)
        for _ in range(4):
            post(up, input={**GOOD, "note": "raise"})
        begun = time.monotonic()
        answer = post(up, input=GOOD).json()
        assert time.monotonic() - begun < LATE_SECONDS
        assert answer["reasons"][0]["code"] == "model_unavailable"
        assert 0.2 < wait_until_answered(up) < 5


def test_each_behaviour_is_what_is_declared(tmp_path: Path) -> None:
    when = {"contract_violation": "review", "model_error": "review", "output_invalid": "refuse"}
    workspace, token = chaos.make_served(tmp_path / "w", fallback=[{"constant": CONSTANT}], when=when)
    with tiny.up(workspace, token) as up:
        broken = post(up, input={"a": 1_000})
        assert (broken.status_code, broken.json()["outcome"], broken.json()["output"]) == (200, "review", None)
        assert broken.json()["violations"][0]["field"] == "a"
        assert post(up, input={**GOOD, "note": "raise"}).json()["outcome"] == "review"
        refused = post(up, input={**GOOD, "note": "out-of-range"})
        assert (refused.status_code, refused.json()["outcome"]) == (502, "refused")


def test_every_rung_of_the_ladder_answers_in_its_turn(tmp_path: Path) -> None:
    rule = [{"when": [{"field": "b", "above": 10}], "then": {"probability": 0.9, "yes": True}}]
    ladder = [{"last_good": {"max_age_seconds": 3600}}, {"rule": rule}, {"person": True}]
    workspace, token = chaos.make_served(tmp_path / "w", fallback=ladder, breaker={"of": 10_000})
    with tiny.up(workspace, token, workers=2) as up:
        good = post(up, input=GOOD, key="case-1").json()
        remembered = post(up, input={**GOOD, "note": "raise"}, key="case-1").json()
        assert (remembered["outcome"], remembered["output"]) == ("fallback", good["output"])
        ruled = post(up, input={"a": 1, "b": 11, "note": "raise"}, key="case-2").json()
        assert (ruled["outcome"], ruled["output"]) == ("fallback", {"probability": 0.9, "yes": True})
        asked = post(up, input={"a": 1, "b": 1, "note": "raise"}, key="case-3").json()
        assert (asked["outcome"], asked["output"]) == ("review", None)


def test_another_version_decides_when_this_one_cannot(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    chaos.release(workspace, fallback=[{"version": "previous"}, {"constant": CONSTANT}])
    with tiny.up(workspace, token) as up:
        answer = post(up, input={**GOOD, "note": "hang"}).json()
        assert (answer["outcome"], answer["reasons"][0]["code"]) == ("fallback", "deadline_exceeded")
        assert answer["output"]["probability"] == pytest.approx(0.679, abs=0.001)


def test_a_ladder_without_an_answer_refuses_and_says_so(tmp_path: Path) -> None:
    rule = [{"when": [{"field": "b", "above": 10}], "then": CONSTANT}]
    workspace, token = chaos.make_served(tmp_path / "w", fallback=[{"rule": rule}])
    with tiny.up(workspace, token) as up:
        answer = post(up, input={**GOOD, "note": "raise"})
        assert (answer.status_code, answer.json()["outcome"]) == (502, "refused")
        assert [reason["code"] for reason in answer.json()["reasons"]] == ["model_error", "no_fallback"]


def test_more_than_the_model_can_take_in_time_is_turned_away_and_what_is_accepted_is_answered(tmp_path: Path) -> None:
    limits = {"queue_ms": 100, "batch": 1}
    workspace, token = chaos.make_served(tmp_path / "w", limits=limits)
    with tiny.up(workspace, token) as up, ThreadPoolExecutor(16) as pool:
        slow = {**GOOD, "note": "sleep"}
        post(up, input=slow)

        answers = list(pool.map(lambda _: post(up, input=slow), range(120)))
        accepted = [answer for answer in answers if answer.status_code == 200]
        turned_away = {(answer.status_code, answer.headers.get("retry-after")) for answer in answers} - {(200, None)}
        assert turned_away == {(429, "1")}
        assert len(accepted) < len(answers) / 2, "sixteen callers, and two may wait"
        assert {answer.json()["outcome"] for answer in accepted} == {"answered"}
