from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.capability.keeping import Labels
from mainstay.lake.decision_rows import DECISIONS, OUTCOMES, SCHEMAS
from mainstay.monitoring.labelled import Joined, join, pick, read_labelled

START = datetime(2026, 3, 1, tzinfo=UTC)
BINARY = Labels(kind="binary", truth="late", score="probability")


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def frame(kind: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    given = [{"sequence": i, "capability": "x", "day": START.date(), **row} for i, row in enumerate(rows)]
    return pl.DataFrame([{**dict.fromkeys(SCHEMAS[kind]), **row} for row in given], schema=SCHEMAS[kind])


def decision(name: str, hours: float = 0, key: str | None = None, **parts: Any) -> dict[str, Any]:
    texts = {part: json.dumps(value) for part, value in parts.items() if part in ("input", "output")}
    return {
        "id": name,
        "at": at(hours),
        "key": key,
        "version": "v1",
        "stage": "production",
        "outcome": "answered",
        **texts,
    }


def outcome(
    what: Any, hours: float, *, decision_id: str | None = None, key: str | None = None, recorded: float | None = None
) -> dict[str, Any]:
    return {
        "decision_id": decision_id,
        "key": key,
        "outcome": json.dumps(what),
        "observed_at": at(hours),
        "at": at(hours if recorded is None else recorded),
    }


def read(labels: Labels, decisions: list[dict[str, Any]], outcomes: list[dict[str, Any]], **options: Any) -> Joined:
    return read_labelled(labels, frame(DECISIONS, decisions), frame(OUTCOMES, outcomes), **options)


def test_an_outcome_joins_by_decision_id_with_its_delay() -> None:
    found = read(
        BINARY,
        [decision("a", 0, output={"probability": 0.7}), decision("b", 1, output={"probability": 0.2})],
        [outcome({"late": True}, 5, decision_id="a", recorded=6)],
    )
    assert found.frame.select("id", "truth", "prediction", "score", "delay_seconds").rows() == [
        ("a", True, True, 0.7, 6 * 3600.0),
        ("b", None, False, 0.2, None),
    ]
    assert (found.reports, found.unmatched, found.corrected, found.unreadable) == (1, 0, 0, 0)


def test_the_report_observed_last_holds_and_corrections_are_counted() -> None:
    reports = [
        outcome({"late": False}, 5, decision_id="a", recorded=9),
        outcome({"late": True}, 3, decision_id="a", recorded=4),
        outcome({"late": False}, 6, decision_id="a", recorded=10),  # says the same again
    ]
    found = read(BINARY, [decision("a")], reports)
    assert found.frame.select("truth", "corrections", "delay_seconds", "observed_at").row(0) == (
        *(False, 1, 4 * 3600.0),
        at(6),
    )
    assert found.corrected == 1


def test_an_outcome_by_key_joins_the_newest_decision_before_it_was_observed() -> None:
    decisions = [decision("a", 0, key="k"), decision("b", 10, key="k"), decision("c", 20, key="k"), decision("d", 0)]
    reports = [
        outcome({"late": True}, 15, key="k", recorded=30),
        outcome({"late": False}, 10, key="k"),
        outcome({"late": True}, -1, key="k"),
        outcome({"late": True}, 15, key="other"),
        outcome({"late": True}, 15, decision_id="nobody"),
    ]
    found = read(BINARY, decisions, reports)
    assert found.frame.select("id", "truth", "corrections").rows() == [
        *(("a", None, None), ("b", True, 1), ("c", None, None), ("d", None, None)),
    ]
    assert found.unmatched == 3


@given(st.data())
def test_the_join_is_that_of_its_definition(data: st.DataObject) -> None:
    hours = st.integers(0, 20)
    keys = st.sampled_from([None, "k", "l"])
    decisions = [decision(f"d{i}", data.draw(hours), data.draw(keys)) for i in range(data.draw(st.integers(0, 6)))]
    reports = []
    for _ in range(data.draw(st.integers(0, 8))):
        named = data.draw(st.sampled_from(["d0", "d1", "d2", None]))
        key = None if named else data.draw(st.sampled_from(["k", "l"]))
        reports.append(outcome({"late": data.draw(st.booleans())}, data.draw(hours), decision_id=named, key=key))
    expected: dict[str, dict[str, Any]] = {}
    unmatched = 0
    ordered = sorted(enumerate(decisions), key=lambda pair: (pair[1]["at"], pair[0]))
    for _, report in sorted(enumerate(reports), key=lambda pair: (pair[1]["observed_at"], pair[0])):
        if report["decision_id"]:
            owners = [one["id"] for one in decisions if one["id"] == report["decision_id"]]
        else:
            before = [one for _, one in ordered if one["key"] == report["key"] and one["at"] <= report["observed_at"]]
            owners = [before[-1]["id"]] if before else []
        unmatched += not owners
        for owner in owners:
            expected[owner] = report
    joined, found_unmatched = join(frame(DECISIONS, decisions), frame(OUTCOMES, reports))
    assert found_unmatched == unmatched
    assert joined["id"].to_list() == [one["id"] for one in decisions]
    for row in joined.select("id", "outcome_json").iter_rows():
        assert row[1] == (expected[row[0]]["outcome"] if row[0] in expected else None)


@pytest.mark.parametrize(
    ("labels", "output", "truth", "expected"),
    [
        (Labels(kind="binary", truth="t", prediction="p", positive="bad"), "good", "bad", (True, False)),
        (Labels(kind="binary", truth="t", prediction="p", positive=1), 1, 0, (False, True)),
        (Labels(kind="classes", truth="t", prediction="p"), 3, "b", ("b", "3")),
        (Labels(kind="classes", truth="t", prediction="p"), True, 3.0, ("3", "true")),
        (Labels(kind="number", truth="t", prediction="p"), 3, 4.5, (4.5, 3.0)),
        (Labels(kind="ranking", truth="t", prediction="p"), ["a", 1], [2], (["2"], ["a", "1"])),
        # A truth that is no truth of the kind is none.
        (Labels(kind="binary", truth="t", prediction="p"), 1, "true", (None, None)),
        (Labels(kind="number", truth="t", prediction="p"), "3", True, (None, None)),
        (Labels(kind="ranking", truth="t", prediction="p"), "a", {"a": 1}, (None, None)),
        (Labels(kind="number", truth="t", prediction="p"), 10**400, 1, (1.0, None)),
    ],
)
def test_truth_and_prediction_are_of_the_declared_kind(labels: Labels, output: Any, truth: Any, expected: Any) -> None:
    found = read(labels, [decision("a", output={"p": output})], [outcome({"t": truth}, 1, decision_id="a")])
    (row,) = found.frame.select("truth", "prediction").rows()
    assert row == expected
    assert found.unreadable == (expected[0] is None)


def test_a_score_that_is_no_probability_is_null() -> None:
    scores = [0.5, 1.2, "0.5", None, True]
    found = read(BINARY, [decision(str(i), output={"probability": score}) for i, score in enumerate(scores)], [])
    assert found.frame["score"].to_list() == [0.5, None, None, None, None]
    assert found.frame["prediction"].to_list() == [True, None, None, None, None]


def test_segments_are_values_of_the_input_as_text() -> None:
    inputs = [{"dest": "LAX", "hour": 7}, {"hour": True}, {"dest": None, "hour": 7.5}, {"dest": [1]}]
    found = read(BINARY, [decision(str(i), input=one) for i, one in enumerate(inputs)], [], segments=["dest", "hour"])
    assert found.frame["segment.dest"].to_list() == ["LAX", None, None, None]
    assert found.frame["segment.hour"].to_list() == ["7", "true", "7.5", None]


def test_texts_that_are_no_objects_have_no_fields() -> None:
    texts = pl.Series(["[1]", "{", None, '{"a": 1}', "3", '{"b": {"a": 2}}'])
    assert pick(texts, ["a", "b"]) == [[None, None, None, 1, None, None], [None, None, None, None, None, {"a": 2}]]


def test_nothing_joined_with_nothing_has_every_column() -> None:
    found = read(BINARY, [], [], segments=["dest"])
    assert found.frame.columns[-4:] == ["truth", "prediction", "score", "segment.dest"]
    assert found.frame.is_empty()
