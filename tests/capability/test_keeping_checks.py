"""What a declaration says of being kept in production fits together and fits the contract, or it is said where not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml

from capability.folders import CAPABILITY, CONTRACT, problems_of, write
from mainstay.capability.keeping import METRICS, OF_A_CLASS_SAID, RANGES, Metric

if TYPE_CHECKING:
    from pathlib import Path

LABELS: dict[str, Any] = {"kind": "binary", "truth": "late", "prediction": "late", "score": "probability"}
SCORED: dict[str, Any] = {"kind": "binary", "truth": "late", "score": "probability"}
TRAIN: dict[str, Any] = {"train": "train.py:train"}
SOURCES: list[dict[str, Any]] = [{"name": "months", "files": {"folder": "in"}}]
CLASSIFIED = CONTRACT.replace(
    "{name: carrier, logicalType: string, required: true}",
    "{name: carrier, logicalType: string, required: true, classification: confidential}",
).replace("- {name: delay, logicalType: integer}", "- {name: delay, logicalType: integer, classification: secret}")


def problems(folder: Path, contract: str = CONTRACT, **keys: Any) -> list[str]:
    """The problems of a declaration with these keys, without file and line."""
    (folder / "train.py").write_text("def train(rows, folder, seed): ...\n")
    declared = yaml.safe_load(CAPABILITY) | keys
    return [each.partition(" ")[2] for each in problems_of(write(folder, yaml.safe_dump(declared), contract))]


@pytest.mark.parametrize(
    "keys",
    [
        {"monitoring": {"segments": ["carrier", "delay"], "ignore": ["at", "probability"], "time": "at"}},
        {"monitoring": {"window_hours": 0.3, "step_hours": 0.1}},
        {"monitoring": {"labels": LABELS, "metrics": [{"name": name} for name in METRICS["binary"]]}},
        {"monitoring": {"labels": SCORED, "metrics": [{"name": "brier", "at_most": 0.2}]}},
        {"monitoring": {"labels": {"kind": "classes", "truth": "late", "prediction": "late", "expected_days": 3}}},
        {
            "monitoring": {
                "labels": {"kind": "number", "truth": "delay", "prediction": "probability"},
                "metrics": [{"name": "bias", "at_least": -5, "at_most": 5}, {"name": "r2", "at_least": -1}],
            }
        },
        {"monitoring": {"business": [{"name": "cost", "expression": "if(output.late, 5, 0) * (input.delay > 3)"}]}},
        {"monitoring": {"business": [{"name": "same", "expression": "input.carrier == ':)' and outcome.late"}]}},
        {"monitoring": {"business": [{"name": "same", "expression": "input['carrier'] == 'output.x'"}]}},
        {"service_levels": {"latency_ms": 20, "latency_share": 0.9, "availability": 0.999}},
        {"service_levels": {"cost_per_decision": 1}, "cost": {"per_review": 4}},
        {"rollout": {"canary": {"steps": [1, 5, 50], "guards": {"quality": None, "output": None}}}},
        {"rollout": {"required": ["shadow", "canary"], "four_eyes": ["production"]}},
        {"retraining": TRAIN, "monitoring": {"labels": LABELS}},
        {
            "retraining": TRAIN | {"table": "intake/late-arrival/months", "time": "at", "metric": "accuracy"},
            "monitoring": {"labels": LABELS},
            "sources": SOURCES,
        },
        {"retraining": TRAIN | {"table": "intake/other/rows", "time": "when"}, "monitoring": {"labels": LABELS}},
    ],
)
def test_what_fits_is_no_problem(tmp_path: Path, keys: dict[str, Any]) -> None:
    assert problems(tmp_path, **keys) == []


def watched(**keys: Any) -> dict[str, Any]:
    return {"monitoring": keys}


def measured(name: str, **keys: Any) -> dict[str, Any]:
    return watched(labels=LABELS, metrics=[{"name": name, **keys}])


def counted(expression: str) -> dict[str, Any]:
    return watched(business=[{"name": "cost", "expression": expression}])


def retrained(**keys: Any) -> dict[str, Any]:
    return {"retraining": TRAIN | keys, "monitoring": {"labels": LABELS}, "sources": SOURCES}


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (
            watched(window_hours=5, step_hours=2),
            "monitoring.window_hours: a whole number of steps of step_hours, which is 2 | 5",
        ),
        (
            watched(window_hours=0.5),
            "monitoring.window_hours: a whole number of steps of step_hours, which is 1 | 0.5",
        ),
        (
            watched(segments=["carier"]),
            'monitoring.segments[0]: a property of the input departure (did you mean "carrier"?) | "carier"',
        ),
        (
            watched(segments=["at"]),
            "monitoring.segments[0]: a property of logicalType string or integer or boolean | at, of timestamp",
        ),
        (watched(segments=["carrier", "carrier"]), 'monitoring.segments[1]: each property once | "carrier"'),
        (
            watched(ignore=["x"]),
            (
                "monitoring.ignore[0]: a property of the input departure or the output prediction: "
                "carrier, delay, at, probability, late | x"
            ),
        ),
        (
            watched(time="delay"),
            "monitoring.time: a property of logicalType date or timestamp | delay, of integer",
        ),
        (
            watched(metrics=[{"name": "roc_auc"}]),
            "monitoring.metrics: labels beside them, which say what they are measured on | nothing",
        ),
        (
            measured("mae"),
            (
                "monitoring.metrics[0].name: a metric of labels of kind binary: roc_auc, average_precision, brier,"
                " log_loss, calibration_error, accuracy, balanced_accuracy, precision, recall, f1 | mae"
            ),
        ),
        (
            watched(labels=SCORED, metrics=[{"name": "recall"}]),
            (
                "monitoring.metrics[0].name: monitoring.labels.prediction beside it, the class said that it is of"
                " | recall"
            ),
        ),
        (
            measured("roc_auc", top=3),
            "monitoring.metrics[0].top: no such key with roc_auc; it belongs to ndcg, hit_rate, reciprocal_rank | 3",
        ),
        (
            measured("roc_auc", at_least=92),
            "monitoring.metrics[0].at_least: a number from 0 to 1, as roc_auc is | 92",
        ),
        (
            measured("log_loss", at_most=-1),
            "monitoring.metrics[0].at_most: at least 0, as log_loss is | -1",
        ),
        (
            measured("brier", at_least=0.3, at_most=0.2),
            "monitoring.metrics[0].at_most: at least at_least, which is 0.3 | 0.2",
        ),
        (
            watched(labels=LABELS, metrics=[{"name": "f1"}, {"name": "f1"}]),
            'monitoring.metrics[1].name: a name that no other number has | "f1"',
        ),
        (
            watched(labels={"kind": "binary", "truth": "late", "prediction": "late"}),
            "monitoring.labels.score: this key, which kind binary needs | nothing",
        ),
        (
            watched(labels={"kind": "classes", "truth": "late", "prediction": "late", "score": "probability"}),
            'monitoring.labels.score: no such key with kind classes; it belongs to binary | "probability"',
        ),
        (
            watched(labels={"kind": "classes", "truth": "late", "prediction": "late", "positive": True}),
            "monitoring.labels.positive: no such key with kind classes; it belongs to binary | true",
        ),
        (
            watched(labels=LABELS | {"score": "late"}),
            "monitoring.labels.score: a property of logicalType number | late, of boolean",
        ),
        (
            watched(labels=LABELS | {"truth": "lat"}),
            'monitoring.labels.truth: a property of the outcome arrival (did you mean "late"?) | "lat"',
        ),
        (
            watched(labels=LABELS | {"truth": "delay", "positive": 1}),
            "monitoring.labels.prediction: a property of logicalType integer, as the truth delay | late, of boolean",
        ),
        (
            watched(labels=LABELS | {"positive": "yes"}),
            'monitoring.labels.positive: a value of the truth late, which is of logicalType boolean | "yes"',
        ),
        (
            counted("(1 + outcome.late"),
            "monitoring.business[0].expression: parentheses that are opened and closed | (1 + outcome.late",
        ),
        (
            counted(")outcome.late("),
            "monitoring.business[0].expression: parentheses that are opened and closed | )outcome.late(",
        ),
        (
            counted("1 + 1"),
            (
                "monitoring.business[0].expression: a property of a decision in it, such as output.amount or"
                " outcome.paid | 1 + 1"
            ),
        ),
        (
            counted("outcome.dela + 1"),
            (
                "monitoring.business[0].expression: a property of the outcome arrival"
                ' (did you mean "delay"?) | outcome.dela'
            ),
        ),
        (
            counted('input["net amount"] + 1'),
            (
                "monitoring.business[0].expression: a property of the input departure: carrier, delay, at"
                " | input.net amount"
            ),
        ),
        (
            {"service_levels": {"latency_share": 0.9}},
            "service_levels.latency_share: latency_ms beside it, which it is the share of | nothing",
        ),
        (
            {"service_levels": {"cost_per_decision": 0.5}, "cost": {"currency": "USD"}},
            "service_levels.cost_per_decision: cost beside it, which says what a decision costs | 0.5",
        ),
        (
            {"rollout": {"canary": {"guards": {"cost": 0.01}}}},
            "rollout.canary.guards.cost: cost beside it, which says what a decision costs | 0.01",
        ),
        (
            {"rollout": {"canary": {"steps": [5, 50, 25]}}},
            "rollout.canary.steps[2]: more than the step before it, 50 | 25",
        ),
        (
            {"rollout": {"canary": {"min_labels": 3}}},
            "rollout.canary.min_labels: monitoring.labels beside it, which say what a label is | 3",
        ),
        (
            {"rollout": {"canary": {"guards": {"quality": 0.02}}}},
            "rollout.canary.guards.quality: monitoring.labels beside it, by which quality is measured | 0.02",
        ),
        ({"rollout": {"required": ["canary", "canary"]}}, 'rollout.required[1]: each stage once | "canary"'),
        (
            {"retraining": TRAIN},
            "retraining: monitoring.labels beside it, by which challenger and champion are compared | nothing",
        ),
        (
            retrained(train="gone.py:train"),
            'retraining.train: a file inside the folder | "gone.py", which is none',
        ),
        (
            retrained(train=".hidden/train.py:train"),
            (
                "retraining.train: a file that is kept in a version; those in hidden directories are not"
                " | .hidden/train.py"
            ),
        ),
        (
            retrained(files=["contract.odcs.yaml"]),
            ('retraining.files[0]: a file that training may write; the contract is not one | "contract.odcs.yaml"'),
        ),
        (retrained(table="intake/other/rows"), "retraining.table: time beside it | nothing"),
        (
            retrained(table="intake/late-arrival/month", time="at"),
            (
                'retraining.table: a table of a source of this declaration (did you mean "intake/late-arrival/months"?)'
                ' | "intake/late-arrival/month"'
            ),
        ),
        (
            retrained(table="intake/late-arrival/months", time="delay"),
            "retraining.time: a property of logicalType date or timestamp | delay, of integer",
        ),
        (
            retrained(metric="mae"),
            (
                "retraining.metric: a metric of labels of kind binary: roc_auc, average_precision, brier, log_loss,"
                " calibration_error, accuracy, balanced_accuracy, precision, recall, f1 | mae"
            ),
        ),
    ],
)
def test_what_does_not_fit_is_said_where_it_stands(tmp_path: Path, keys: dict[str, Any], problem: str) -> None:
    assert problems(tmp_path, **keys) == [problem]


def test_ranking_labels_are_lists_and_versions_are_chosen_by_their_own_metrics(tmp_path: Path) -> None:
    ranked = {"kind": "ranking", "truth": "late", "prediction": "late"}
    lists = [
        "monitoring.labels.prediction: a property of logicalType array | late, of boolean",
        "monitoring.labels.truth: a property of logicalType array | late, of boolean",
    ]
    for metric in METRICS["ranking"]:
        assert problems(tmp_path, monitoring={"labels": ranked}, retraining={**TRAIN, "metric": metric}) == lists
    assert problems(tmp_path, monitoring={"labels": ranked}, retraining={**TRAIN, "metric": "f1"}) == [
        *lists,
        "retraining.metric: a metric of labels of kind ranking: ndcg, hit_rate, reciprocal_rank | f1",
    ]


def test_without_an_outcome_there_is_no_truth(tmp_path: Path) -> None:
    declared: dict[str, Any] = {
        "objects": {"input": "departure", "output": "prediction"},
        "promise": {},
        "monitoring": {"labels": LABELS, "business": [{"name": "late", "expression": "outcome.late"}]},
    }
    assert sorted(problems(tmp_path, **declared)) == [
        "monitoring.business[0].expression: objects.outcome beside it, whose property it names | outcome.late",
        'monitoring.labels.truth: objects.outcome beside it, whose property it names | "late"',
    ]


def test_classified_values_are_neither_shown_as_segments_nor_compared(tmp_path: Path) -> None:
    labels = {"kind": "number", "truth": "delay", "prediction": "probability"}
    assert problems(tmp_path, CLASSIFIED, monitoring={"segments": ["carrier"], "labels": labels}) == [
        (
            "monitoring.labels.truth: a property whose values are recorded, to be compared as kind number"
            " | delay, which is secret, so pseudonym protects it"
        ),
        (
            "monitoring.segments[0]: a property that is not classified, as reports show its values"
            " | carrier, which is confidential"
        ),
    ]


def test_every_metric_belongs_to_a_kind_of_label() -> None:
    declared = {name for names in METRICS.values() for name in names}
    literal = msgspec.inspect.type_info(Metric)
    assert isinstance(literal, msgspec.inspect.StructType)
    named = next(field.type for field in literal.fields if field.name == "name")
    assert isinstance(named, msgspec.inspect.LiteralType)
    assert declared == set(named.values)
    assert declared >= RANGES.keys()
    assert set(OF_A_CLASS_SAID) <= set(METRICS["binary"])
