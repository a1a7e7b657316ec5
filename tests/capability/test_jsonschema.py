"""The published JSON Schema is the one of the types, and never refuses what a folder may declare."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import tiny
from capability.folders import CAPABILITY, CONTRACT, write
from mainstay.capability import jsonschema as ours
from mainstay.capability.load import load_capability
from mainstay.capability.types import Capability
from mainstay.cli.schemas import capability as print_schema
from mainstay.errors import InvalidDocument

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "reference" / "capability.md"
FILE = REPOSITORY / "src" / "mainstay" / "capability" / ours.PUBLISHED


def meanings() -> dict[str, str]:
    """What the reference says of every key, without its links."""
    found = re.findall(r"^\| `([^`]+)` \| [^|]+ \| [^|]+ \| ([^|]+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    return {key: re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", meaning) for key, meaning in found}


@cache
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(FILE.read_bytes()))


def told(declared: object) -> list[str]:
    """What the schema says of a declaration."""
    return [f"{each.json_path}: {each.message}" for each in validator().iter_errors(declared)]


def loads(folder: Path) -> bool:
    try:
        load_capability(folder)
    except InvalidDocument:
        return False
    return True


def test_the_published_schema_is_that_of_the_types_and_of_the_reference() -> None:
    assert ours.encode_schema(ours.make_schema(meanings())) == FILE.read_bytes(), (
        "write it again: PYTHONPATH=tests python tests/capability/test_jsonschema.py"
    )
    jsonschema.Draft202012Validator.check_schema(validator().schema)


def test_the_schema_does_not_hang_on_what_the_process_did_before() -> None:
    given = "from typing import Annotated; from msgspec import Meta; "
    given += "kept = [Annotated[float, Meta(**{low: 0.0}, le=1.0)] for low in ('ge', 'gt')]; "
    given += "import capability.test_jsonschema as test; "
    given += "test.test_the_published_schema_is_that_of_the_types_and_of_the_reference()"
    paths = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", given], check=True, env=environment, capture_output=True)


def test_every_key_is_described(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    print_schema()
    schema = json.loads(capsysbinary.readouterr().out)
    parts = [schema, *schema["$defs"].values()]
    assert all(len(key["description"]) > 10 for part in parts for key in part["properties"].values())
    assert {part["title"] for part in parts} > {"capability.yaml", "Rung"}
    with pytest.raises(KeyError):
        ours.make_schema({})


def test_the_declarations_of_other_tests_are_accepted() -> None:
    assert told(tiny.DECLARATION) == []


def declared_folders() -> list[Path]:
    found = [path.parent for top in ("examples", "bench") for path in (REPOSITORY / top).glob("**/capability.yaml")]
    return [path for path in found if ".mainstay" not in path.parts]


@pytest.mark.parametrize("folder", declared_folders(), ids=lambda path: path.name)
def test_every_example_is_accepted(folder: Path) -> None:
    assert told(yaml.safe_load((folder / "capability.yaml").read_text("utf-8"))) == []


def test_the_examples_of_the_reference_are_accepted() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    whole, *more = map(yaml.safe_load, blocks)
    assert told(whole) == []
    assert [told(whole | each) for each in more] == [[], [], []]


# Declarations of each kind that a folder loads with, to be changed in one place.

PLAIN: dict[str, Any] = yaml.safe_load(CAPABILITY)
RICH: dict[str, Any] = PLAIN | {
    "replaces": "a desk",
    "min_confidence": 0.6,
    "when": {"low_confidence": "fallback"},
    "fallback": [
        {"version": "previous"},
        {"last_good": {"max_age_seconds": 60}},
        {
            "rule": [
                {
                    "when": [{"field": "delay", "above": 15}, {"field": "carrier", "one_of": ["EV"]}],
                    "then": {"probability": 0.7, "late": True},
                },
                {"when": [{"field": "carrier", "missing": True}], "then": {"probability": 0.5, "late": False}},
            ]
        },
        {"person": True},
    ],
    "breaker": {"failures": 0.25},
    "limits": {"run_ms": 10},
    "reference": {"file": "samples.jsonl", "label": "late"},
}
CALLED = {key: value for key, value in PLAIN.items() if key != "output"} | {
    "model": {"kind": "python", "call": "predict.py:predict", "confidence": "probability"},
    "min_confidence": 0.5,
}
AWAY = PLAIN | {
    "model": {"kind": "remote", "remote": {"url": "http://models:8000", "model": "m"}, "features": ["delay"]},
    "output": {"probability": {"take": "tensor", "column": 1}, "late": {"take": "tensor", "tensor": "late"}},
}
PICKLED = PLAIN | {
    "model": {"kind": "sklearn", "file": "model/model.onnx", "features": ["delay"], "trusted_types": ["a.B"]}
}
LIVE = PLAIN | {
    "sources": [
        {
            "name": "orders",
            "rest": {
                "url": "https://api.example.com/orders",
                "records": "data.items",
                "parameters": {"state": "open"},
                "auth": {"bearer": {"variable": "ORDERS_TOKEN"}},
                "pages": {"style": "next_url", "path": "next", "size": 100},
                "cursor_parameter": "since",
            },
            "cursor": "at",
            "key": ["carrier", "at"],
            "repeated": "correct",
            "event_time": "at",
            "allowed_lateness_seconds": 60,
            "late": "correct",
        },
        {
            "name": "old-orders",
            "sql": {"url": {"file": "/run/secrets/database"}, "table": "orders"},
            "key": ["delay"],
            "every_seconds": 60,
            "expected_within_seconds": 600,
        },
        {"name": "months", "files": {"folder": "in", "pattern": "*.csv", "delimiter": ";"}},
        {"name": "events", "push": {}, "object": "arrival", "owner": {"team": "a", "contact": "b@example.com"}},
        {
            "name": "more",
            "rest": {
                "url": "https://api.example.com/more",
                "auth": {
                    "oauth2": {
                        "token_url": "https://api.example.com/token",
                        "client_id": {"variable": "ID"},
                        "client_secret": {"file": "/run/secrets/more"},
                    }
                },
                "pages": {"style": "number", "first": 0, "parameter": "p"},
            },
            "key": ["carrier"],
        },
    ],
    "batches": [{"name": "nightly", "source": "months", "key": "carrier"}],
}
KEPT = LIVE | {
    "monitoring": {
        "time": "at",
        "window_hours": 6,
        "step_hours": 0.5,
        "segments": ["carrier", "delay"],
        "ignore": ["at"],
        "labels": {"kind": "binary", "truth": "late", "prediction": "late", "score": "probability", "positive": True},
        "metrics": [{"name": "roc_auc", "at_least": 0.9}, {"name": "precision", "at_least": 0.5, "at_most": 1}],
        "business": [{"name": "missed", "expression": "if(outcome.late and not output.late, 1, 0)", "at_most": 0.1}],
    },
    "service_levels": {"latency_ms": 50, "latency_share": 0.95, "cost_per_decision": 0.1},
    "cost": {"per_second": 0.2},
    "rollout": {
        "canary": {"steps": [10, 50], "min_labels": 100, "guards": {"quality": 0.02, "cost": 0.01}},
        "required": ["shadow"],
        "four_eyes": ["production", "canary"],
    },
    "retraining": {
        "train": "predict.py:train",
        "table": "intake/late-arrival/months",
        "time": "at",
        "metric": "roc_auc",
        "files": ["notes.txt"],
    },
}
CLASSED = PLAIN | {
    "monitoring": {
        "labels": {"kind": "classes", "truth": "late", "prediction": "late"},
        "metrics": [{"name": "accuracy", "at_least": 0.9}],
    },
}
DECLARATIONS: tuple[dict[str, Any], ...] = (PLAIN, RICH, CALLED, AWAY, PICKLED, LIVE, KEPT, CLASSED)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, 1.0, 10**9, "", "x", "delay", "late", "python", "onnx", "remote", "isolated"),
    *("binary", "classes", "ranking", "accuracy", "ndcg", "mae", "bias", {"name": "ndcg", "top": 5}, ["shadow"], -0.5),
    *("tensor", "label", "previous", "a/../b", "/x", "predict.py:predict", [], {}, ["delay"], ["delay", "delay"], [{}]),
    *({"take": "tensor"}, {"x": 1}, {"url": "http://x", "model": "m"}, {"person": True}, [{"person": True}]),
    *(
        "cursor",
        "correct",
        "re-decide",
        "quarantine",
        "link",
        "at",
        "csv",
        "parquet",
        {"variable": "A"},
        {"file": "/a"},
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = write(tmp_path_factory.mktemp("declared"), CAPABILITY, CONTRACT)
    (made / "predict.py").write_text("def predict(rows): ...\n")
    return made


def loads_as(folder: Path, declared: object) -> bool:
    (folder / "capability.yaml").write_text(json.dumps(declared))
    return loads(folder)


@pytest.mark.parametrize(
    "declared", DECLARATIONS, ids=["plain", "rich", "python", "remote", "sklearn", "live", "kept", "classes"]
)
def test_what_is_to_be_changed_loads_and_is_accepted_unchanged(declared: dict[str, Any], folder: Path) -> None:
    assert loads_as(folder, declared)
    assert told(declared) == []


def spots(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    below = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in below:
        yield from spots(value, (*path, key))


KEYS = (
    *Capability.__struct_fields__,
    *("kind", "file", "call", "remote", "features", "trusted_types", "confidence", "run", "take", "tensor", "column"),
    *("at", "of_class", "missing", "equals", "one_of", "above", "person", "constant", "rule", "version", "positive"),
    *("label", "outcome", "extra", "", "then", "field", "rest", "sql", "files", "push", "cursor", "key", "late"),
    *("cursor_parameter", "pages", "auth", "path", "parameter", "first", "style", "delimiter", "format", "bearer"),
    *("api_key", "variable", "event_time", "repeated", "allowed_lateness_seconds", "object", "labels", "metrics"),
    *("score", "prediction", "top", "at_least", "at_most", "quality", "guards", "latency_share", "latency_ms", "table"),
    *("time", "per_decision", "min_labels", "cost_per_decision", "segments", "name"),
)


def change(tree: Any, data: st.DataObject) -> None:
    """Take away, replace, or add one value somewhere."""
    path = data.draw(st.sampled_from([*spots(tree)][1:]))
    owner = tree
    for part in path[:-1]:
        owner = owner[part]
    value = copy.deepcopy(data.draw(st.sampled_from(VALUES)))
    match data.draw(st.sampled_from(("take", "replace", "add", "twice"))):
        case "take":
            del owner[path[-1]]
        case "replace":
            owner[path[-1]] = value
        case "add" if isinstance(owner[path[-1]], dict):
            owner[path[-1]][data.draw(st.sampled_from(KEYS))] = value
        case _ if isinstance(owner[path[-1]], list) and owner[path[-1]]:
            owner[path[-1]].append(copy.deepcopy(owner[path[-1]][0]))


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_what_the_schema_refuses_does_not_load(folder: Path, data: st.DataObject) -> None:
    declared = copy.deepcopy(data.draw(st.sampled_from(DECLARATIONS)))
    for _ in range(data.draw(st.integers(1, 2))):
        change(declared, data)
    found = told(declared)
    event("refused" if found else "accepted")
    if found:
        assert not loads_as(folder, declared), found


def broken(declared: dict[str, Any], where: str, value: Any) -> dict[str, Any]:
    """The declaration with another value at `where`, a path with points."""
    made = copy.deepcopy(declared)
    *above, last = where.split(".")
    owner: Any = made
    for part in above:
        owner = owner[int(part)] if part.isdigit() else owner[part]
    owner[int(last) if last.isdigit() else last] = value
    return made


@pytest.mark.parametrize(
    ("declared", "where", "value"),
    [
        (PLAIN, "model.kind", "python"),
        (PLAIN, "model.kind", "remote"),
        (PLAIN, "model.file", None),
        (PLAIN, "model.call", "predict.py:predict"),
        (PLAIN, "model.trusted_types", ["a.B"]),
        (PLAIN, "model.run", "isolated"),
        (PLAIN, "model.confidence", "probability"),
        (PLAIN, "model.features", ["delay", "delay"]),
        (PLAIN, "output", {}),
        (PLAIN, "output.late", {"take": "tensor"}),
        (PLAIN, "output.late", {"take": "threshold", "column": 1}),
        (PLAIN, "objects.outcome", None),
        (PLAIN, "fallback", [{}]),
        (PLAIN, "fallback", [{"person": True, "version": "previous"}]),
        (PLAIN, "fallback", [{"person": False}]),
        (PLAIN, "samples", "../samples.jsonl"),
        (PLAIN, "ownr", {}),
        (RICH, "fallback.2.rule.0.when.0", {"field": "delay"}),
        (RICH, "fallback.2.rule.0.when.0", {"field": "delay", "missing": True, "above": 1}),
        (CALLED, "model.confidence", None),
        (CALLED, "model.features", ["delay"]),
        (CALLED, "output", {"late": {"take": "threshold"}}),
        (AWAY, "output.late", {"take": "threshold"}),
        (AWAY, "model.remote", None),
        (LIVE, "sources.0.rest", None),
        (LIVE, "sources.0.push", {}),
        (LIVE, "sources.0.cursor", None),
        (LIVE, "sources.0.rest.cursor_parameter", None),
        (LIVE, "sources.0.key", []),
        (LIVE, "sources.0.key", ["at", "at"]),
        (LIVE, "sources.0.event_time", None),
        (LIVE, "sources.0.rest.auth", {}),
        (LIVE, "sources.0.rest.auth.bearer", {}),
        (LIVE, "sources.0.rest.auth.bearer.file", "/a"),
        (LIVE, "sources.0.rest.auth.api_key", {"key": {"variable": "A"}}),
        (LIVE, "sources.0.rest.pages.path", None),
        (LIVE, "sources.0.rest.pages.style", "link"),
        (LIVE, "sources.0.rest.pages.parameter", "page"),
        (LIVE, "sources.1.key", []),
        (LIVE, "sources.1.repeated", "gone"),
        (LIVE, "sources.2.cursor", "at"),
        (LIVE, "sources.2.repeated", "quarantine"),
        (LIVE, "sources.2.late", "ignore"),
        (LIVE, "sources.2.files.format", "parquet"),
        (LIVE, "sources.3.allowed_lateness_seconds", 1),
        (LIVE, "sources.4.rest.pages.style", "offset"),
        (LIVE, "sources.4.rest.url", "ftp://example.com"),
        (LIVE, "batches.0.source", None),
        (KEPT, "objects.outcome", None),
        (KEPT, "monitoring.labels", None),
        (KEPT, "monitoring.labels.score", None),
        (KEPT, "monitoring.labels.kind", "number"),
        (KEPT, "monitoring.labels.prediction", None),
        (KEPT, "monitoring.metrics.0.name", "mae"),
        (KEPT, "monitoring.metrics.0.at_least", 92),
        (KEPT, "monitoring.metrics.0.top", 5),
        (KEPT, "monitoring.segments", ["carrier", "carrier"]),
        (KEPT, "monitoring.segments", ["carrier"] * 17),
        (KEPT, "service_levels.latency_ms", None),
        (KEPT, "cost", {"currency": "EUR"}),
        (KEPT, "rollout.canary.steps", [10, 10]),
        (KEPT, "rollout.canary.steps", []),
        (KEPT, "rollout.required", ["shadow", "shadow"]),
        (KEPT, "retraining.time", None),
        (KEPT, "retraining.table", None),
        (KEPT, "retraining.files", ["notes.txt", "notes.txt"]),
        (CLASSED, "monitoring.labels.prediction", None),
        (CLASSED, "monitoring.labels.score", "probability"),
        (CLASSED, "monitoring.labels.positive", True),
        (CLASSED, "monitoring.metrics.0.name", "roc_auc"),
        (CLASSED, "monitoring.labels", None),
        (PLAIN, "rollout", {"canary": {"min_labels": 1}}),
        (PLAIN, "rollout", {"canary": {"guards": {"quality": 0.01}}}),
        (PLAIN, "rollout", {"canary": {"guards": {"cost": 0.01}}}),
        (PLAIN, "service_levels", {"cost_per_decision": 1}),
        (PLAIN, "retraining", {"train": "predict.py:train"}),
        (AWAY, "retraining", {"train": "predict.py:train"}),
    ],
)
def test_what_editors_should_mark_is_refused_by_the_schema_and_when_it_is_read(
    declared: dict[str, Any], where: str, value: object, folder: Path
) -> None:
    changed = broken(declared, where, value)
    assert told(changed)
    assert not loads_as(folder, changed)


if __name__ == "__main__":
    FILE.write_bytes(ours.encode_schema(ours.make_schema(meanings())))
    sys.stdout.write(f"{FILE.relative_to(REPOSITORY)} is written\n")
