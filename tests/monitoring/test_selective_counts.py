"""Decisions that ended otherwise than in an answer, and what became of them, counted and corrected."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

import tiny
from mainstay.monitoring.folding import Folder
from mainstay.monitoring.report import Corrected
from mainstay.monitoring.report_lines import corrected_in_words
from mainstay.monitoring.selective import Cell, correct_counts
from mainstay.monitoring.selective_counts import corrected, with_proposals
from mainstay.monitoring.windows import read_windows
from monitoring.worlds import BEGIN, World

if TYPE_CHECKING:
    from pathlib import Path


def ended(world: World, rows: int) -> pl.DataFrame:
    """Decisions of which those that the model is unsure of wait for a person, and every tenth is refused."""
    p = world.random.random(rows)
    outcome = np.where(np.abs(p - 0.5) < 0.2, "review", "answered")
    outcome[::10] = "refused"
    said = [json.dumps({"probability": each, "yes": bool(each >= 0.5)}) for each in p.tolist()]
    kinds = outcome.tolist()
    decided = world.decide(
        rows,
        outcome=outcome,
        output=[text if kind == "answered" else None for text, kind in zip(said, kinds, strict=True)],
        details=[f'{{"a":1,"proposed":{t}}}' if k == "review" else None for t, k in zip(said, kinds, strict=True)],
    )
    return decided.with_columns(pl.Series("p", p))


def counted(world: World) -> pl.DataFrame:
    folder = Folder(world.workspace, world.lake, tiny.NAME)
    folder.fold()
    table = folder.table()
    assert table is not None
    return read_windows(table, BEGIN - timedelta(days=1), BEGIN + timedelta(days=60)).frame


def test_what_reviewed_cases_say_is_counted_and_what_has_no_label_at_all_leaves_bounds(tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    decided = ended(world, 3_000)
    truth = world.random.random(3_000) < decided["p"].to_numpy()
    known = world.random.random(3_000) < np.where(decided["outcome"] == "review", 0.9, 0.2)
    known &= decided["outcome"].to_numpy() != "refused"
    world.report(decided.filter(pl.Series(known)), timedelta(hours=5), truth[known])
    rows = counted(world)
    accuracy, positives = corrected(rows, "accuracy"), corrected(rows, "positives")
    assert accuracy is not None
    assert positives is not None
    said = decided["outcome"].to_numpy() != "refused"
    right = (decided["p"].to_numpy() >= 0.5) == truth
    assert (accuracy.decisions, accuracy.labels) == (said.sum(), known.sum())
    assert accuracy.identified
    assert accuracy.low <= right[said].mean() <= accuracy.high
    assert accuracy.naive is not None
    assert accuracy.naive.value == pytest.approx(right[known].mean())
    assert accuracy.naive.high < right[said].mean()  # reviewed cases are the hard ones
    assert (positives.decisions, positives.identified) == (3_000, False)
    assert positives.unknown_share == pytest.approx(0.1)
    assert positives.low <= truth.mean() <= positives.high


def test_a_corrected_label_takes_its_old_count_back(tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    decided = ended(world, 400)
    for wrong in (True, False):
        truth = (decided["p"].to_numpy() >= 0.5) != wrong
        world.report(decided, timedelta(hours=5 + (not wrong)), truth)
        found = corrected(counted(world), "accuracy")
        assert found is not None
        assert found.labels == found.decisions == 360
        assert found.value == float(not wrong)


def test_without_labels_nothing_is_said(tmp_path: Path) -> None:
    world = World(tmp_path / "w")
    ended(world, 300)
    assert corrected(counted(world), "accuracy") is None


def test_only_what_waits_for_a_person_gets_its_proposal_as_output() -> None:
    frame = pl.DataFrame(
        {
            "outcome": ["review", "review", "refused", "answered", None],
            "output": [None, None, None, '{"p":1}', None],
            "details": ['{"proposed":{"p":0.5}}', None, '{"proposed":{"p":0.5}}', '{"proposed":{"p":0.5}}', None],
        }
    )
    assert with_proposals(frame)["output"].to_list() == ['{"p":0.5}', None, None, '{"p":1}', None]


def test_a_share_that_is_not_known_is_told_as_an_interval_beside_the_naive_value() -> None:
    cells = [Cell("answered", 0.7, 300, 200, 150), Cell("refused", None, 100, 0, 0)]
    known, unknown = (
        corrected_in_words(Corrected(version="v", name="positives", begin=BEGIN, share=correct_counts(own)))
        for own in (cells[:1], cells)
    )
    assert known.startswith("positives 0.750 [")
    assert unknown.startswith("positives from 0.562 to 0.812 [")
    assert "25% of decisions ended in a way of which none has a label" in unknown
    assert "over all 400 decisions of 2026-03-02 00:00 UTC, 200 labelled; labelled alone 0.750" in unknown
