"""What Prometheus' own tool says of the rules: whether it takes them, and whether they fire on the series they should.

Nothing that Python can install brings `promtool`, so these tests run where it is on the PATH (on Debian it comes with
the package `prometheus`). What the rules are is tested without it in tests/monitoring/test_prometheus_rules.py.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import pytest

from mainstay.monitoring.prometheus_rules import rule_file, rule_groups
from monitoring.levels import subject

if TYPE_CHECKING:
    from pathlib import Path

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: package `prometheus`")
pytestmark = pytest.mark.acceptance


class Story(NamedTuple):
    """What is there step by step, after how many minutes is looked, and which alerts fire then."""

    series: list[dict[str, str]]
    minutes: int
    expected: set[str]
    step_minutes: int = 1


DECIDED = 'mainstay_decisions_total{capability="desk",stage="production",outcome="%s",reason="%s"}'
UP = {"series": "mainstay_ledger_records_total", "values": "0+100x20000"}


def answered(values: str) -> dict[str, str]:
    return {"series": DECIDED % ("answered", ""), "values": values}


def refused(values: str, reason: str = "model_error") -> dict[str, str]:
    return {"series": DECIDED % ("refused", reason), "values": values}


def histogram(*buckets: tuple[str, str]) -> list[dict[str, str]]:
    name = 'mainstay_decision_seconds_%s{capability="desk",stage="production"%s}'
    found = [{"series": name % ("bucket", f',le="{bound}"'), "values": values} for bound, values in buckets]
    return [*found, {"series": name % ("count", ""), "values": buckets[-1][1]}]


STORIES: dict[str, Story] = {
    "all is well": Story([UP, answered("0+60x3000"), refused("0+0.01x3000")], 2_880, set()),
    "three errors in a quiet night": Story(
        [UP, answered("0+60x1500 90000x600"), refused("0x1999 1 2 3x99")],
        2_010,
        set(),
    ),
    "one call in fifty fails": Story(
        [UP, answered("0+60x1440 86460+58x600"), refused("0x1439 2+2x600")],
        1_500,
        {"MainstayErrorBudgetBurning availability fast"},
    ),
    "an outage that is over wakes nobody and leaves work": Story(
        [UP, answered("0+60x1440 86460+30x50 87960+60x600"), refused("0x1439 30+30x50 1530x600")],
        1_575,
        {"MainstayErrorBudgetBurning availability lasting", "MainstayErrorBudgetSpent availability"},
    ),
    "callers send nonsense": Story(
        [UP, answered("0+60x3000"), refused("0+60x3000", "contract_violation")], 2_880, set()
    ),
    "every call is slow": Story(
        [UP, answered("0+60x3000"), *histogram(("0.1", "0x3000"), ("0.25", "0x3000"), ("+Inf", "0+60x3000"))],
        2_880,
        {
            "MainstayErrorBudgetBurning latency fast",
            "MainstayErrorBudgetBurning latency slow",
            "MainstayErrorBudgetBurning latency lasting",
            "MainstayErrorBudgetSpent latency",
        },
    ),
    "the model is gone": Story(
        [
            UP,
            answered("0+60x1440 86400x120"),
            {"series": DECIDED % ("fallback", "model_crashed"), "values": "0x1440 60+60x120"},
        ],
        1_470,
        {"MainstayModelSilent", "MainstayErrorBudgetBurning model_answers fast"},
    ),
    "people have too much to do": Story(
        [UP, answered("0+50x3000"), {"series": DECIDED % ("review", "low_confidence"), "values": "0+10x3000"}],
        2_880,
        {
            "MainstayErrorBudgetBurning model_answers lasting",
            "MainstayErrorBudgetBurning model_answers slow",
            "MainstayErrorBudgetSpent model_answers",
            "MainstayErrorBudgetBurning review_share lasting",
            "MainstayErrorBudgetSpent review_share",
        },
    ),
    "nobody calls": Story([UP, answered("0+300x2200 660000x60")], 11_175, {"MainstayNoTraffic"}, step_minutes=5),
    "the service is gone": Story([answered("0+1x10 _x100")], 60, {"MainstayNotScraped"}),
    "the disk is full": Story(
        [UP, {"series": "mainstay_ledger_write_failures_total", "values": "0+4x60"}],
        30,
        {"MainstayNotRecorded"},
    ),
    "calls are shed": Story(
        [UP, answered("0+60x60"), {"series": 'mainstay_refused_calls_total{status="429"}', "values": "0+30x60"}],
        45,
        {"MainstayCallsTurnedAway"},
    ),
    "the tables stand still": Story(
        [
            UP,
            {"series": "mainstay_lake_lag_seconds", "values": "0+60x60"},
            {"series": "mainstay_lake_failing", "values": "1x60"},
        ],
        45,
        {"MainstayLakeBehind", "MainstayExportFailing"},
    ),
    "a source is held and late": Story(
        [
            UP,
            {"series": 'mainstay_source_held{capability="desk",source="orders"}', "values": "1x60"},
            {"series": 'mainstay_source_failures{capability="desk",source="orders"}', "values": "3x60"},
            {"series": 'mainstay_source_lag_seconds{capability="desk",source="orders"}', "values": "7000+60x60"},
        ],
        45,
        {"MainstaySourceHeld", "MainstaySourceFailing", "MainstaySourceStale"},
    ),
    "bad rows come": Story(
        [
            UP,
            {
                "series": 'mainstay_source_rows_total{capability="desk",source="orders",verdict="accepted"}',
                "values": "0+93x100",
            },
            {
                "series": 'mainstay_source_rows_total{capability="desk",source="orders",verdict="quarantined"}',
                "values": "0+7x100",
            },
        ],
        90,
        {"MainstayRowsQuarantined"},
    ),
    "a shadow cannot follow": Story(
        [
            UP,
            {
                "series": 'mainstay_shadow_decisions_total{capability="desk",stage="shadow",fate="dropped"}',
                "values": "0+6x100",
            },
            {
                "series": 'mainstay_shadow_decisions_total{capability="desk",stage="shadow",fate="compared"}',
                "values": "0+60x100",
            },
        ],
        90,
        {"MainstayShadowDrops"},
    ),
    "decisions are dear": Story(
        [
            UP,
            answered("0+60x600"),
            *histogram(("0.25", "0+60x600"), ("+Inf", "0+60x600")),
            {
                "series": 'mainstay_decision_seconds_sum{capability="desk",stage="production"}',
                "values": "0+600x600",
            },
        ],
        585,
        {"MainstayDecisionsTooDear"},
    ),
}


@needs_promtool
def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    file = tmp_path / "desk.yml"
    file.write_bytes(rule_file(subject(), "here"))
    done = promtool("check", "rules", str(file))
    assert "SUCCESS" in done.stdout, done.stderr


@needs_promtool
@pytest.mark.parametrize("story", STORIES)
def test_promtool_says_that_rules_fire_when_they_should_and_only_then(story: str, tmp_path: Path) -> None:
    series, minutes, expected, step_minutes = STORIES[story]
    file = tmp_path / "desk.yml"
    file.write_bytes(rule_file(subject(), "here"))
    test = {
        "interval": f"{step_minutes}m",
        "input_series": series,
        "promql_expr_test": [
            {
                "expr": 'count by (alertname, objective, speed) (ALERTS{alertstate="firing"})',
                "eval_time": f"{minutes}m",
                "exp_samples": [{"labels": _labels(alert), "value": 1} for alert in sorted(expected)],
            }
        ],
    }
    document = {"rule_files": [file.name], "evaluation_interval": f"{15 * step_minutes}m", "tests": [test]}
    (tmp_path / "test.yml").write_text(msgspec.json.encode(document).decode())
    done = promtool("test", "rules", str(tmp_path / "test.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def _labels(alert: str) -> str:
    name, objective, speed = (*alert.split(" "), "", "")[:3]
    told = {"alertname": name, "objective": objective, "speed": speed}
    return "{" + ",".join(f'{key}="{value}"' for key, value in told.items() if value) + "}"


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL is not None
    return subprocess.run([PROMTOOL, *words], capture_output=True, text=True, timeout=60, check=False)


def test_the_stories_tell_of_every_alert() -> None:
    told = {alert.split(" ")[0] for story in STORIES.values() for alert in story.expected}
    assert told == {rule.alert for rules in rule_groups(subject()).values() for rule in rules if rule.alert}
