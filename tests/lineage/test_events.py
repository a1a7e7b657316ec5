from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lineage.emitted import emitted, make_workspace
from lineage.others import FACETS, read_by_their_client, schema_problems
from mainstay.errors import Failed
from mainstay.lineage.emitting import Emitter
from mainstay.lineage.events import Assertion, ColumnMetrics, DataSourceFacet
from mainstay.lineage.naming import Dataset, described, table_dataset, url_dataset

if TYPE_CHECKING:
    from pathlib import Path

LAKE = "s3://bucket/lake"


@pytest.fixture
def events(tmp_path: Path) -> list[dict[str, Any]]:
    """Events in which every facet occurs that is ever written."""
    workspace = make_workspace(tmp_path)
    emitter = Emitter(workspace, {})
    source = url_dataset("https://api.example.com/orders")
    table = described(table_dataset(LAKE, "intake/orders/feed"), [("id", "Int64"), ("total", "Float64")], version=41)
    copy = Dataset("s3://bucket", "lake/snapshots/march", table.columns, copied_from=(table.namespace, table.name))
    place = DataSourceFacet(name="orders", uri="https://api.example.com")
    with emitter.run("intake.orders.feed", inputs=[source], outputs=[table]) as run:
        run.read(Dataset(source.namespace, source.name, source=place), rows=3, size=100, files=1)
        with emitter.run("intake.orders.feed.door", parent=run) as door:
            metrics = {"total": ColumnMetrics(null_count=1, min=0.5, max=9.0, sum=12.5, count=2.0, distinct_count=2)}
            rules = [Assertion(assertion="not_null", success=False, column="total", expected="0", actual="1")]
            door.read(source, rows=3, assertions=rules, metrics=metrics)
            door.wrote(table, rows=2, size=50, files=1)
            door.running()
        run.wrote(copy, rows=2)
    with pytest.raises(Failed), emitter.run("intake.orders.feed"):
        raise Failed("the disk is full")
    return emitted(workspace)


def test_the_standards_own_client_reads_every_event_and_writes_the_same(events: list[dict[str, Any]]) -> None:
    assert {event["eventType"] for event in events} == {"START", "RUNNING", "COMPLETE", "FAIL"}
    for event in events:
        assert _without_empty(read_by_their_client(event)) == _without_empty(event)


def test_every_facet_that_is_written_was_among_those_that_were_read(events: list[dict[str, Any]]) -> None:
    written = {name for event in events for name in _facet_names(event)}
    assert written == set(FACETS)


def test_the_standards_schema_finds_nothing_wrong(events: list[dict[str, Any]]) -> None:
    for event in events:
        assert list(schema_problems(event)) == []
    broken = {**events[0], "eventTime": "yesterday", "run": {**events[0]["run"], "runId": "1"}}
    assert len(list(schema_problems(broken))) >= 1  # it does look


def _without_empty(value: Any) -> Any:
    """What is left where an empty mapping or list means the same as none."""
    if isinstance(value, dict):
        kept = {name: _without_empty(each) for name, each in value.items()}
        return {name: each for name, each in kept.items() if each not in ({}, [])}
    return [_without_empty(each) for each in value] if isinstance(value, list) else value


def _facet_names(event: dict[str, Any]) -> set[str]:
    found = {*event["run"]["facets"], *event["job"]["facets"]}
    for each in (*event["inputs"], *event["outputs"]):
        found |= {name for place in each if place.lower().endswith("facets") for name in each[place]}
    return found
