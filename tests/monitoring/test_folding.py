from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl
import pytest

import tiny
from mainstay.capability.keeping import Labels, Metric
from mainstay.catalog.declared import load_declared
from mainstay.catalog.versions import version_path
from mainstay.monitoring.estimation_counts import added_scores
from mainstay.monitoring.evidence import Evidence, parse
from mainstay.monitoring.folding import WRITER, Folder
from mainstay.monitoring.histograms import count
from mainstay.monitoring.label_counts import business_value, delays, measured, positives
from mainstay.monitoring.metrics import measure
from mainstay.monitoring.reference_rows import known_of, read_rows, run_version
from mainstay.monitoring.windows import BUSINESS, COLUMN, DELAYS, LABELS, SCORES, SERVICE, Counted, read_windows
from monitoring.worlds import BEGIN, World

if TYPE_CHECKING:
    from pathlib import Path

LABELS_OF_TINY = Labels(kind="binary", truth="yes", score="probability", prediction="yes")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "w")


def folder(world: World) -> Folder:
    return Folder(world.workspace, world.lake, tiny.NAME)


def counted(world: World) -> pl.DataFrame:
    table = folder(world).table()
    assert table is not None
    return read_windows(table, BEGIN - timedelta(days=1), BEGIN + timedelta(days=60)).frame


def rows_of(frame: pl.DataFrame, kind: str, name: str | None = None, segment: str | None = None) -> pl.DataFrame:
    own = frame.filter(pl.col("kind") == kind)
    own = own.filter(pl.col("segment").is_null() if segment is None else pl.col("segment") == segment)
    return own if name is None else own.filter(pl.col("name") == name)


def test_windows_hold_what_the_decisions_hold(world: World) -> None:
    decided = world.decide(1_000)
    done = folder(world).fold()
    assert (done.decisions, done.position) == (1_000, 1_000)
    frame = counted(world)
    layout = folder(world).layout(world.version)
    assert layout is not None
    inputs = parse(decided["input"], pl.Schema({"a": pl.Float64(), "b": pl.Float64(), "region": pl.String()}))
    expected = count(inputs.rename(lambda name: f"input.{name}"), [layout.column(f"input.{c}") for c in ("a", "b")])
    for name, histogram in expected.items():
        own = rows_of(frame, COLUMN, name)
        assert np.sum(own["counts"].to_list(), axis=0).tolist() == list(histogram.counts)
        within = rows_of(frame, COLUMN, name, "region")
        assert np.sum(within["counts"].to_list(), axis=0).tolist() == list(histogram.counts)
    assert rows_of(frame, SERVICE)["rows"].sum() == 1_000
    assert rows_of(frame, SERVICE).height == 24
    sure = business_value(rows_of(frame, BUSINESS, "sure"))
    assert (sure.n, sure.left_out) == (1_000, 0)
    assert sure.estimate is not None
    assert sure.estimate.value == pytest.approx(float((decided["p"] > 0.9).mean()))  # type: ignore[arg-type]  # a share


def test_a_step_that_is_made_again_counts_nothing_twice(world: World) -> None:
    world.decide(600)
    assert folder(world).fold().commits == 1
    assert folder(world).fold().commits == 0
    before = counted(world)
    table = folder(world).table()
    assert table is not None
    assert table.position(WRITER) == 600
    world.decide(50, BEGIN + timedelta(hours=3), 1)
    assert folder(world).fold().decisions == 50
    after = counted(world)
    assert rows_of(after, SERVICE)["rows"].sum() == rows_of(before, SERVICE)["rows"].sum() + 50


def test_decisions_wait_until_there_are_enough_to_make_bins_of_and_then_all_are_counted(world: World) -> None:
    world.decide(300)
    folder(world).fold()
    assert folder(world).layout(world.version) is None
    assert rows_of(counted(world), COLUMN).height == 0
    assert rows_of(counted(world), SERVICE)["rows"].sum() == 300
    world.decide(300, BEGIN + timedelta(days=1))
    folder(world).fold()
    layout = folder(world).layout(world.version)
    assert layout is not None
    assert layout.inputs.of == "first 400 decisions"  # four times `min_rows`: its first window had fewer
    assert rows_of(counted(world), COLUMN, "input.a")["rows"].sum() == 600
    world.decide(100, BEGIN + timedelta(days=2))
    folder(world).fold()
    assert rows_of(counted(world), COLUMN, "input.a")["rows"].sum() == 700


def test_metrics_of_counts_are_those_of_the_rows(world: World) -> None:
    decided = world.decide(3_000)
    told = world.report(decided, timedelta(hours=30))
    folder(world).fold()
    frame = counted(world)
    rows = pl.DataFrame(
        {
            "truth": told["outcome"].str.contains("true"),
            "prediction": decided["p"] >= 0.5,
            "score": decided["p"],
        }
    )
    labels = rows_of(frame, LABELS)
    for name in ("accuracy", "f1", "roc_auc", "average_precision", "brier", "log_loss"):
        metric = msgspec.convert({"name": name}, Metric)
        mine, theirs = measured(metric, LABELS_OF_TINY, labels), measure(metric, "binary", rows)
        assert mine.n == theirs.n == 3_000
        assert mine.estimate is not None
        assert theirs.estimate is not None
        for ours, other in zip(
            (mine.estimate.value, mine.estimate.low, mine.estimate.high),
            (theirs.estimate.value, theirs.estimate.low, theirs.estimate.high),
            strict=True,
        ):
            assert ours == pytest.approx(other, abs=1.5e-3)
    assert positives(LABELS_OF_TINY, labels)["true"] == rows["truth"].sum()
    assert sum(delays(rows_of(frame, DELAYS)).values()) == 3_000
    assert rows_of(frame, LABELS, segment="region")["rows"].sum() == 3_000


def test_a_label_that_is_corrected_takes_its_old_counts_back(world: World) -> None:
    decided = world.decide(500)
    world.report(decided, timedelta(hours=1), np.ones(500, np.bool_))
    folder(world).fold()
    assert positives(LABELS_OF_TINY, rows_of(counted(world), LABELS)) == {"true": 500}
    world.report(decided.head(120), timedelta(hours=5), np.zeros(120, np.bool_))
    world.report(decided.tail(10), timedelta(hours=5), np.ones(10, np.bool_))  # the same again
    folder(world).fold()
    labels = rows_of(counted(world), LABELS)
    assert positives(LABELS_OF_TINY, labels) == {"true": 380, "false": 120}
    assert labels["rows"].sum() == 500
    right = business_value(rows_of(counted(world), BUSINESS, "right"))
    assert right[1] == 500


def test_reference_rows_of_a_version_are_what_its_inputs_are_compared_with(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    world = World(tmp_path / "w", reference={"file": "r.jsonl"}, rows=random.normal(0, 1, (400, 2)).tolist())
    world.decide(500, shift=1.0)
    folder(world).fold()
    layout = folder(world).layout(world.version)
    assert layout is not None
    assert (layout.inputs.of, layout.inputs.rows) == ("reference rows", 400)
    assert (layout.outputs.of, layout.outputs.rows) == ("reference rows", 400), "what its model answers to them"
    assert layout.novelty is not None
    assert (layout.novelty.of, layout.novelty.rows) == ("calibration", 401)
    for name in ("output.probability", "confidence", "novelty"):
        assert sum(block.rows for block in layout.reference_of(name).blocks[name]) == (
            401 if name == "novelty" else 400
        )
    north = layout.outputs.segments["region"]["north"]["output.probability"]
    assert sum(block.rows for block in north) == 134, "every third row"
    of_segment = layout.novelty.segments["region"]["north"]["novelty"]
    assert 200 < sum(block.rows for block in of_segment) < 300, (
        "half of the first decisions: no part is calibrated alone"
    )


def test_answers_to_reference_rows_are_those_that_would_be_answered(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = random.normal(0, 1, (400, 2))
    sure: dict[str, Any] = {
        "min_confidence": 0.8,
        "fallback": [{"constant": {"probability": 0.5, "yes": False}}],
        "when": {"low_confidence": "fallback", "out_of_distribution": "answer"},
    }
    world = World(tmp_path / "w", reference={"file": "r.jsonl"}, rows=rows.tolist(), **sure)
    world.decide(500)
    folder(world).fold()
    layout = folder(world).layout(world.version)
    assert layout is not None
    p = 1 / (1 + np.exp(-rows.sum(1)))
    expected = int((np.maximum(p, 1 - p) >= 0.8).sum())
    assert 0 < expected < 400
    assert (layout.outputs.of, layout.outputs.rows) == ("reference rows", expected)


def test_where_the_model_does_not_run_outputs_are_compared_with_the_first_decisions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    random = np.random.default_rng(0)
    world = World(tmp_path / "w", reference={"file": "r.jsonl"}, rows=random.normal(0, 1, (400, 2)).tolist())
    graph = next(version_path(world.workspace.versions, world.version).rglob("*.onnx"))
    graph.chmod(0o600)
    graph.write_bytes(b"no graph")
    world.decide(500)
    folder(world).fold()
    layout = folder(world).layout(world.version)
    assert layout is not None
    assert (layout.inputs.of, layout.outputs.of) == ("reference rows", "first 500 decisions")
    assert "not compiled" in caplog.text


def test_what_novelty_is_calibrated_to_is_known_where_the_model_does_not_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path / "w", reference={"file": "r.jsonl"}, rows=np.zeros((400, 2)).tolist())
    declared = load_declared(world.workspace, world.version)
    rows = read_rows(world.workspace, world.version, declared)
    assert rows is not None
    broken = rows._replace(inputs=[*rows.inputs, ("no number", "at all", None)], labels=[*rows.labels, None])
    ran = run_version(world.workspace, world.version, declared, broken)
    assert ran.results is None
    assert "not run over its reference rows" in caplog.text
    known = known_of(declared, rows, ran)
    assert (known.answered, known.calibrating) == (None, 400)


def test_novelty_is_counted_of_every_input_that_it_was_found_for(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    world = World(tmp_path / "w", reference={"file": "r.jsonl"}, rows=random.normal(0, 1, (400, 2)).tolist())
    strange = [0.0001 if place % 10 == 0 else None if place % 10 == 1 else 0.5 for place in range(1_000)]
    outcomes = ["answered" if each == 0.5 else "fallback" for each in strange]
    world.decide(1_000, novelty=pl.Series(strange), outcome=pl.Series(outcomes))
    folder(world).fold()
    columns = Counted(counted(world)).columns(world.version, ("production",))
    novelty = columns.steps("novelty")
    assert novelty.counts.sum(0)[[0, -1]].tolist() == [100, 0], "those that fell back for it; where there is none, none"
    assert novelty.counts.sum() == 900
    assert columns.steps("output.probability").counts.sum() == 800


def test_a_version_that_cannot_be_read_is_passed_over_and_stops_no_other(world: World) -> None:
    world.decide(50, version="sha256:" + "0" * 64)
    world.decide(500, BEGIN + timedelta(hours=1), 23)
    assert folder(world).fold().decisions == 550
    assert rows_of(counted(world), SERVICE)["rows"].sum() == 500


def test_classified_fields_leave_no_value_and_protected_ones_are_left_out(tmp_path: Path) -> None:
    world = World(tmp_path / "w", protect={"confidential": "mask"})
    world.decide(500)
    folder(world).fold()
    layout = folder(world).layout(world.version)
    assert layout is not None
    assert "input.note" not in [column.name for column in layout.columns]


def test_two_at_work_at_once_count_every_row_once(world: World) -> None:
    world.decide(600)
    one, other = folder(world), folder(world)
    first = Evidence(world.lake, tiny.NAME)
    assert len(list(first.batches(0, 100))) == 6
    one.fold()
    world.decide(40, BEGIN + timedelta(days=1))
    other.fold()
    one.fold()
    assert rows_of(counted(world), SERVICE)["rows"].sum() == 640


def referenced(root: Path, rows: int, **changes: Any) -> World:
    """A world whose version brought so many reference rows, of which it is known what became true."""
    random = np.random.default_rng(0)
    a, b = random.normal(1, 1, rows), random.normal(0, 1, rows)
    truth = random.random(rows) < 1 / (1 + np.exp(-(a + b)))
    known = list(zip(a.tolist(), b.tolist(), truth.tolist(), strict=True))
    return World(root, rows=known, reference={"file": "r.jsonl", "label": "yes"}, **changes)


def test_scores_are_counted_where_labelled_reference_rows_allow_to_estimate(tmp_path: Path) -> None:
    world = referenced(tmp_path / "w", 1_200)
    world.decide(600)
    folder(world).fold()
    world.decide(300, BEGIN + timedelta(days=1))
    folder(world).fold()
    layout = folder(world).layout(world.version)
    assert layout is not None
    assert layout.estimator is not None
    assert layout.estimator.rows == 1_200
    assert layout.inputs.of == "reference rows"
    scores = rows_of(counted(world), SCORES)
    assert scores["rows"].sum() == 900
    assert added_scores(scores, layout.estimator).counts.sum() == 900


@pytest.mark.parametrize(
    ("rows", "changes"),
    [
        (400, {}),  # too few
        (1_200, {"monitoring": {"metrics": [{"name": "calibration_error"}]}}),  # nothing that can be estimated
    ],
)
def test_without_what_it_needs_nothing_is_estimated(tmp_path: Path, rows: int, changes: dict[str, Any]) -> None:
    world = referenced(tmp_path / "w", rows, **changes)
    world.decide(600)
    folder(world).fold()
    layout = folder(world).layout(world.version)
    assert layout is not None
    assert layout.estimator is None
    assert rows_of(counted(world), SCORES).is_empty()
