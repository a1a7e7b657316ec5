from __future__ import annotations

from datetime import UTC, datetime, timedelta

from mainstay.monitoring.findings import Cause
from mainstay.monitoring.judged_labels import Judged, late_findings
from mainstay.monitoring.maturity import Cohort, CohortVerdict

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
CAUSE = Cause(kind="data_broken", why="reports do not come")


def judged(*states: str) -> Judged:
    """Cohorts of a day each, that are `mature`, `missing` labels or too `young` to say."""
    cohorts = []
    for place, state in enumerate(states):
        labels = 1_000 if state == "mature" else 900 if state == "missing" else 100
        cohort = Cohort(start=START + place * DAY, decisions=1_000, labels=labels, expected_share=0.99)
        mature, missing = state == "mature", state == "missing"
        cohorts.append(CohortVerdict(cohort=cohort, mature=mature, missing=missing, p=0.001, expected=990.0, why=""))
    return Judged({}, (), frozenset(), tuple(cohorts), None, "")


def test_labels_that_are_missing_are_told_of_until_a_later_window_has_its_own() -> None:
    def told(*states: str) -> list[str]:
        return [each.text for each in late_findings("tiny", "v", judged(*states), DAY, CAUSE)]

    (text,) = told("mature", "missing", "missing", "young")
    assert text == "900 labels of 2026-01-03 00:00 are there, and 990 should be; 1 more window lacks labels"
    assert told("mature", "missing", "mature", "young") == []
    assert told("missing", "mature", "missing") == ["900 labels of 2026-01-03 00:00 are there, and 990 should be"]
    assert told("mature", "young") == []
