"""Passes over simulated weeks: what is found, once, why, and when it is over."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

import tiny
from mainstay.monitoring.passes import Monitor
from mainstay.monitoring.report import gather
from mainstay.monitoring.report_lines import lines_of, summary
from mainstay.monitoring.report_page import page_of
from mainstay.monitoring.store import read_findings, read_memory
from mainstay.state.database import open_database
from monitoring.worlds import BEGIN, CONTRACT, MONITORING, REGIONS, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.monitoring.findings import Standing
    from mainstay.state.database import Database

pytestmark = pytest.mark.acceptance

DAY = timedelta(days=1)
DAILY = {"step_hours": 12}


class Watched:
    """A world, and its monitor."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.database: Database = open_database(world.workspace)
        self.monitor = Monitor(world.workspace, world.lake, self.database, tiny.NAME)

    def live(self, first: int, last: int, rows: int = 700, **how: Any) -> list[Standing]:
        """Decisions of some days with labels six hours later, then one pass; what it told."""
        for day in range(first, last):
            decided = self.world.decide(rows, BEGIN + day * DAY, **how)
            self.world.report(decided, timedelta(hours=6))
        return list(self.monitor.go(BEGIN + last * DAY).opened)

    def open(self) -> list[Standing]:
        return read_findings(self.database, tiny.NAME, open_only=True)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world in which nothing has happened."""
    metrics = [{"name": "accuracy", "at_least": 0.6}]
    world = World(tmp_path_factory.mktemp("new") / "w", monitoring={**DAILY, "metrics": metrics})
    open_database(world.workspace).close()
    return world


@pytest.fixture(scope="module")
def calm(new: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world of five days in which nothing changed, and nothing was found."""
    watched = Watched(new.copied(tmp_path_factory.mktemp("calm") / "w"))
    assert watched.live(0, 5) == []
    watched.database.close()
    return watched.world


@pytest.fixture
def watched(calm: World, tmp_path: Path) -> Iterator[Watched]:
    made = Watched(calm.copied(tmp_path / "w"))
    yield made
    made.database.close()


def kinds(found: list[Standing]) -> set[str]:
    return {each.finding.cause.kind for each in found if each.finding.cause.kind != "service"}


def test_where_nothing_changes_nothing_is_found_and_no_window_is_judged_twice(watched: Watched) -> None:
    assert watched.live(5, 8) == []
    memory = read_memory(watched.database, tiny.NAME)
    assert memory is not None
    assert memory.judged_until == BEGIN + 8 * DAY
    assert memory.windows >= 7
    assert watched.monitor.go(BEGIN + 8 * DAY).windows == 0


def test_a_shift_is_found_once_explained_and_over_when_it_is(watched: Watched) -> None:
    told = watched.live(5, 7, shift=1.2)
    assert {"input.a", "output.probability"} <= {each.finding.column for each in told}
    assert kinds(told) == {"world_changed"}
    assert watched.live(7, 8, shift=1.2) == []
    assert all(each.passes > 1 for each in watched.open() if each.finding.segment is None)
    watched.live(8, 10)
    assert not [each for each in watched.open() if each.finding.column == "input.a"]
    page = gather(watched.world.workspace, watched.world.lake, watched.database, tiny.NAME)
    assert any(each.resolved is not None for each in page.findings)
    assert "over since" in "\n".join(lines_of(page))


def test_another_mix_of_segments_is_told_as_that(watched: Watched) -> None:
    told = watched.live(5, 6, rows=3_000, regions=(0.1, 0.2, 0.7))
    assert "input.region" in {each.finding.column for each in told}
    assert kinds(told) == {"traffic_mix"}


def test_values_that_are_missing_are_broken_data(watched: Watched) -> None:
    told = watched.live(5, 6, missing=0.6)
    assert ("values_missing", "input.b") in {(each.finding.code, each.finding.column) for each in told}
    assert kinds(told) == {"data_broken"}


def test_another_unit_is_broken_data(watched: Watched) -> None:
    watched.live(5, 6, rows=2_000, scale=10.0)
    found = {each.finding.column: each for each in watched.open()}
    assert found["input.a"].finding.code == "unit_changed"
    assert kinds(watched.open()) == {"data_broken"}


def test_calls_that_break_the_contract_are_broken_data(watched: Watched) -> None:
    refused: dict[str, Any] = {"outcome": "refused", "reasons": [["contract_violation"]] * 200}
    watched.world.decide(200, BEGIN + 5 * DAY, **refused)
    watched.world.decide(600, BEGIN + 5 * DAY)
    told = watched.monitor.go(BEGIN + 6 * DAY).opened
    assert "contract_violations" in {each.finding.code for each in told}


def test_a_segment_is_held_against_its_own_past_too(new: World, tmp_path: Path) -> None:
    watched = Watched(new.copied(tmp_path / "w"))
    watched.live(0, 1, rows=400, regions=(0.6, 0.38, 0.02))  # the reference, which has hardly a row of the west
    mix = (0.6, 0.3, 0.1)
    watched.live(1, 12, rows=2_000, regions=mix)
    told = watched.live(12, 13, rows=2_000, regions=mix, within=("west", -1.2))
    found = {(each.finding.column, each.finding.segment): each.finding.against for each in told}
    assert found["input.a", "region=west"] == "the same hours of earlier days"
    assert ("input.a", None) not in found, "a tenth of the rows is too little to change the whole"


def test_a_version_that_leaves_takes_its_findings_with_it(watched: Watched) -> None:
    watched.live(5, 7, shift=1.2)
    before = watched.open()
    assert before
    tiny.release(watched.world.workspace, title="Another", contract=CONTRACT, monitoring={**MONITORING, **DAILY})
    passed = watched.monitor.go(BEGIN + 7 * DAY)
    assert passed.windows == 0
    assert {each.id for each in passed.resolved} == {each.id for each in before}
    assert {each.closed for each in passed.resolved} == {f"version {watched.world.version[:19]} decides no more"}
    assert watched.open() == []
    page = gather(watched.world.workspace, watched.world.lake, watched.database, tiny.NAME)
    assert "closed, since version" in "\n".join(lines_of(page))
    assert "closed, since version" in page_of(page)


def test_what_is_broken_in_the_data_outlives_the_version_until_another_has_looked(watched: Watched) -> None:
    watched.live(5, 6, rows=2_000, scale=10.0)
    another = tiny.release(
        watched.world.workspace, title="Another", contract=CONTRACT, monitoring={**MONITORING, **DAILY}
    )
    watched.monitor.go(BEGIN + 6 * DAY)
    still = watched.open()
    assert {each.finding.column for each in still if each.finding.segment is None} == {"input.a"}
    assert {each.finding.code for each in still} == {"unit_changed"}
    watched.live(6, 9, version=another)
    assert watched.open() == [], "the version in force is asked about rows like those it began with"


def test_a_release_is_near_what_changed_in_the_time_of_the_data(tmp_path: Path) -> None:
    contract = copy.deepcopy(CONTRACT)
    contract["schema"][0]["properties"].append({"name": "when", "logicalType": "timestamp"})
    declared = {**MONITORING, **DAILY, "time": "when", "metrics": [], "business": []}
    world = World(tmp_path / "w", contract=contract, monitoring=declared)
    watched = Watched(world)
    other = tiny.release(world.workspace, title="Another", contract=contract, monitoring=declared)
    for day in range(12):
        year_before = (BEGIN - 365 * DAY + day * DAY).isoformat()
        a, b = world.random.normal(0, 1, (2, 700))
        frame = pl.DataFrame({"a": a, "b": b, "region": "north", "when": year_before})
        inputs = frame.select(pl.struct(pl.all()).struct.json_encode()).to_series()
        wrong = pl.Series(['{"probability":0.9,"yes":true}'] * 700) if day >= 7 else None
        columns: dict[str, Any] = {"input": inputs, **({} if wrong is None else {"output": wrong})}
        world.decide(700, BEGIN, 0.1, version=other if day >= 6 else world.version, **columns)
    watched.monitor.go(BEGIN + DAY)
    found = gather(world.workspace, world.lake, watched.database, tiny.NAME)
    times = {each.subject: each.at for each in found.changes if each.what == "release"}
    assert times == {"release 1": BEGIN - 365 * DAY, "release 2": BEGIN - 359 * DAY}
    moved = [each for each in watched.open() if each.finding.column == "output.probability"]
    assert moved
    assert "release 2" in {each.subject for one in moved for each in one.finding.cause.changes}
    assert {each.finding.cause.kind for each in moved} == {"model_wrong"}
    watched.database.close()


def test_quality_that_falls_while_inputs_stay_is_the_models_fault(watched: Watched) -> None:
    watched.live(5, 6)
    for day in range(6, 11):
        decided = watched.world.decide(700, BEGIN + day * DAY)
        wrong = watched.world.random.random(700) < 0.55
        truth = (decided["p"].to_numpy() >= 0.5) ^ wrong
        watched.world.report(decided, timedelta(hours=6), truth)
    told = list(watched.monitor.go(BEGIN + 11 * DAY).opened)
    below = [each for each in told if each.finding.code == "quality_below"]
    assert len(below) == 1
    assert below[0].finding.cause.kind in {"model_wrong", "world_changed"}
    assert abs(below[0].since - (BEGIN + 6 * DAY)) <= DAY
    assert not [each for each in told if each.finding.code == "input_drift"]


def test_a_report_says_the_same_to_a_person_a_page_and_a_program(watched: Watched, new: World) -> None:
    with open_database(new.workspace) as database:
        page = gather(new.workspace, new.lake, database, tiny.NAME)
    assert "nothing was judged yet" in "\n".join(lines_of(page))
    assert "Nothing was judged yet" in page_of(page)
    calm = gather(watched.world.workspace, watched.world.lake, watched.database, tiny.NAME)
    assert "OK  nothing is found" in "\n".join(lines_of(calm))
    assert summary(calm.open) == "nothing is found"
    watched.live(5, 6, shift=1.5)
    report = gather(watched.world.workspace, watched.world.lake, watched.database, tiny.NAME)
    lines = lines_of(report)
    assert any(line.startswith("CRITICAL") for line in lines)
    for word in ("likely", "next", "quality", "input.a"):
        assert any(word in line for line in lines), word
    html = page_of(report)
    assert html.count("<svg") >= 5
    assert "<script" not in html
    assert "http" not in html.replace("http://www.w3.org", "")
    assert "the world seems to have changed" in summary(report.open)
    assert np.isfinite([point.value for each in report.drift for point in each.points]).all()


def test_a_version_is_held_against_its_reference_rows_from_its_first_day(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = np.stack([random.normal(0, 1, 3_000) + 0.8 * (np.arange(3_000) % 3), random.normal(0, 1, 3_000)], 1)
    even = (1 / 3, 1 / 3, 1 / 3)
    monitoring = {**DAILY, "metrics": [{"name": "accuracy", "at_least": 0.6}]}
    ordinary = Watched(World(tmp_path / "w", rows=rows.tolist(), reference={"file": "r.jsonl"}, monitoring=monitoring))
    strange = Watched(ordinary.world.copied(tmp_path / "s"))
    assert ordinary.live(0, 6, regions=even) == []
    # Answers and how sure they are lie elsewhere, and one input in eight is like nothing among the reference rows.
    p_values = pl.Series(np.where(random.random(700) < 0.125, 0.0004, random.random(700)))
    strange.live(0, 1, shift=2.0, novelty=p_values, regions=even)
    found = {each.finding.column: each.finding for each in strange.open() if each.finding.segment is None}
    against = {name: found[name].against for name in ("input.a", "output.probability", "confidence", "novelty")}
    assert against == {**dict.fromkeys(against, "reference rows"), "novelty": "calibration"}
    assert {found[name].code for name in against} == {"input_drift", "output_drift", "confidence_drift", "novelty_rate"}
    share = float((p_values < 0.01).mean())  # type: ignore[arg-type]  # a share
    told = f"{share:.1%} of inputs are stranger than 99% of the reference rows, before 1.0%"
    assert found["novelty"].text.startswith(told)


def test_quality_is_estimated_before_labels_are_there_and_held_against_them_when_they_are(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(2.5, 1, 2_000), random.normal(0, 1, 2_000)
    truth = random.random(2_000) < 1 / (1 + np.exp(-(a + b)))
    known = list(zip(a.tolist(), b.tolist(), truth.tolist(), strict=True))
    world = World(
        tmp_path / "w",
        rows=known,
        reference={"file": "r.jsonl", "label": "yes"},
        monitoring={**DAILY, "metrics": [{"name": "accuracy", "at_least": 0.83}]},
    )
    watched = Watched(world)
    for day in range(10):
        world.report(world.decide(700, BEGIN + day * DAY, shift=2), timedelta(hours=30))
    assert not {each.finding.code for each in watched.monitor.go(BEGIN + 12 * DAY).opened} & {"estimate_below"}
    decided = world.decide(700, BEGIN + 12 * DAY, shift=-0.5)
    told = watched.monitor.go(BEGIN + 13 * DAY).opened
    mine = [each.finding for each in told if each.finding.code == "estimate_below"]
    assert [each.column for each in mine] == ["accuracy"]
    assert mine[0].observed is not None
    report = gather(world.workspace, world.lake, watched.database, tiny.NAME)
    estimated = report.labels.estimated[0]
    assert estimated.is_estimate
    assert estimated.track is not None
    assert estimated.track.windows >= 8
    assert estimated.track.holds is True
    said, page = "\n".join(lines_of(report)), page_of(report)
    assert "accuracy probably" in said
    assert "no measurement" in said
    assert "they hold" in said
    assert "no concept shift" in page
    assert "estimated" in page
    within = report.labels.segments[0]
    assert (within.metric, sum(each.n for each in within.segments)) == ("accuracy", within.whole.n)
    assert {each.segment for each in within.segments} == {("region", region) for region in REGIONS}
    assert {each.compared for each in within.segments} == {3}
    apart = [each.segment for each in within.segments if within.stands_out(each)]
    assert ("region", "west") in apart  # whose inputs are farthest from where the model is unsure
    numbers = {each.name: each for each in report.business}
    assert [(each.of_outcomes, each.points[-1].rows) for each in numbers.values()] == [(False, 700), (True, 700)]
    for word in ("region=west 0.", "unlike the whole", "right 0.", "sure 0.", "of decisions have a label after"):
        assert word in said
    for word in ("Accuracy by segment", "What the business cares for"):
        assert word in page
    world.report(decided, timedelta(hours=6))
    for day in range(13, 15):
        world.decide(700, BEGIN + day * DAY, shift=2)
    watched.monitor.go(BEGIN + 15 * DAY)
    assert "estimate_below" not in {each.finding.code for each in watched.open()}
    watched.database.close()
