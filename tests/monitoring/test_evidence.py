from __future__ import annotations

import json
from datetime import timedelta

import polars as pl
import pytest

import tiny
from mainstay.lake.conditions import Within
from mainstay.lake.decision_rows import DECISIONS
from mainstay.monitoring.evidence import Evidence, parse
from monitoring.worlds import BEGIN, World

SCHEMA = pl.Schema({"a": pl.Float64(), "b": pl.String(), "c": pl.Boolean(), "l": pl.List(pl.String())})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world") / "w")


def test_every_row_is_read_once_whatever_the_batches(world: World) -> None:
    decided = world.decide(90)
    reported = world.report(decided.head(30), timedelta(hours=2))
    world.decide(20, BEGIN + timedelta(days=1))
    evidence = Evidence(world.lake, tiny.NAME)
    for positions in (7, 64, 1_000):
        batches = list(evidence.batches(0, positions))
        assert [each.last - each.first <= positions for each in batches] == [True] * len(batches)
        read = pl.concat([each.decisions for each in batches])["sequence"].to_list()
        assert read == [*range(90), *range(120, 140)]
        assert pl.concat([each.outcomes for each in batches])["id"].to_list() == reported["id"].to_list()
    assert [each.first for each in evidence.batches(135, 3)] == [135, 138]
    assert list(evidence.batches(140)) == []


def test_what_the_exporter_has_not_finished_is_not_read(world: World) -> None:
    evidence = Evidence(world.lake, tiny.NAME)
    evidence.until = 50
    assert max(each.decisions["sequence"].max() for each in evidence.batches(0)) == 49  # type: ignore[type-var]


def test_rows_that_are_erased_while_a_pass_reads_are_passed_over(world: World) -> None:
    begin = world.decide(40, BEGIN + timedelta(days=5))["sequence"].to_list()[0]
    evidence = Evidence(world.lake, tiny.NAME)
    table = world.lake.find(DECISIONS + tiny.NAME)
    assert table is not None
    table.erase(Within("sequence", begin + 10, begin + 20))  # the files that were there are gone
    (batch,) = evidence.batches(begin)
    assert batch.decisions["sequence"].to_list() == [*range(begin, begin + 10), *range(begin + 20, begin + 40)]


def test_the_decisions_of_outcomes_are_found_by_id_and_by_key(world: World) -> None:
    keyed = world.decide(6, BEGIN + timedelta(days=2), key=pl.Series(["k1", "k2", "k1", "k3", "k1", "k2"]))
    evidence = Evidence(world.lake, tiny.NAME)
    schema = pl.Schema(
        {"decision_id": pl.String(), "key": pl.String(), "observed_at": keyed["at"].dtype, "at": keyed["at"].dtype}
    )
    at = BEGIN + timedelta(days=3)
    by_id = pl.DataFrame([(keyed["id"][3], None, at, at), ("no id at all", None, at, at)], schema=schema, orient="row")
    assert evidence.decisions_of(by_id, 1_000)["id"].to_list() == [keyed["id"][3]]
    by_key = pl.DataFrame([(None, "k1", at, at)], schema=schema, orient="row")
    assert evidence.decisions_of(by_key, 1_000)["id"].to_list() == [keyed["id"][place] for place in (0, 2, 4)]
    assert evidence.decisions_of(by_key, keyed["sequence"][2])["id"].to_list() == [keyed["id"][0]]


def test_texts_are_read_into_columns_and_what_does_not_fit_is_null() -> None:
    texts = [
        '{"a":1,"b":"x","c":true,"l":["p"]}',
        '{"a":"no number","c":"no","z":1}',
        '{"a": 2.5,\n "b": null}',
        None,
    ]
    found = parse(pl.Series(texts), SCHEMA)
    assert found.rows() == [
        (1.0, "x", True, ["p"]),
        (None, None, None, None),
        (2.5, None, None, None),
        (None, None, None, None),
    ]


@pytest.mark.parametrize("hostile", ["{", '{"a":1e999}', "[]", '"text"', "{}{}", '{"a":[[[[1]]]]}', '{"b":"\\ud800"}'])
def test_a_text_that_nobody_can_read_does_not_hide_the_others(hostile: str) -> None:
    texts = pl.Series([json.dumps({"a": 1.0}), hostile, json.dumps({"a": 3.0})])
    found = parse(texts, SCHEMA)
    assert found.height == 3
    assert (found["a"][0], found["a"][2]) == (1.0, 3.0)


def test_nothing_is_read_into_nothing() -> None:
    assert parse(pl.Series([], dtype=pl.String), SCHEMA).height == 0
