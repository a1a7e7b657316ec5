"""A run of retraining, step by step, over a real lake."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from mainstay.catalog.versions import load_manifest
from mainstay.errors import Failed, Misuse
from mainstay.lake.lake import open_lake
from mainstay.retraining.runs import (
    clear_away,
    compare_versions,
    freeze_rows,
    make_challenger,
)
from mainstay.retraining.types import Request
from retraining.worlds import DAYS, NOW, add_decisions, copy_to_table, make_workspace
from tiny import NAME

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.workspace import Workspace

pytestmark = pytest.mark.acceptance

REQUEST = Request(
    id="8c2f6e1a-run", capability=NAME, cause="by_hand", reason="to see", asked_by="os:tests", asked_at=NOW
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str]:
    workspace, champion = make_workspace(tmp_path_factory.mktemp("w") / "w")
    add_decisions(workspace, champion)
    return workspace, champion


def test_a_challenger_that_has_learned_is_better_and_the_same_rows_make_it_again(world: tuple[Workspace, str]) -> None:
    workspace, champion = world
    frozen = freeze_rows(workspace, REQUEST, champion)
    assert frozen.snapshots == ("tiny-20260301-8c2f6e1a", "tiny-20260301-8c2f6e1a-outcomes")
    trained = make_challenger(workspace, REQUEST, frozen)
    assert trained.is_new
    assert trained.printed == f"fitted on {trained.fitted} rows"
    assert trained.fitted + trained.held_out == 3_000 - 60, "of one in fifty the truth is not known"
    assert trained.until - trained.split == timedelta(days=30)
    manifest = load_manifest(workspace.versions, trained.version)
    assert manifest.trained_on is not None
    assert (manifest.trained_on.snapshot, manifest.trained_on.table) == (frozen.snapshots[0], f"decisions/{NAME}")

    challenge = compare_versions(workspace, frozen, trained.version)
    assert challenge.verdict == "better", challenge.why
    assert challenge.metric == "roc_auc"
    assert challenge.champion == 0.5, "it knows nothing"
    assert challenge.blocks >= DAYS // 2

    again = make_challenger(workspace, REQUEST, freeze_rows(workspace, REQUEST, champion))
    assert (again.version, again.is_new) == (trained.version, False)
    clear_away(workspace, REQUEST)
    assert not list((workspace.data / "retraining").iterdir())


def test_what_came_after_the_rows_were_frozen_changes_nothing(tmp_path: Path) -> None:
    workspace, champion = make_workspace(tmp_path / "w")
    add_decisions(workspace, champion, n=2_500)
    frozen = freeze_rows(workspace, REQUEST, champion)
    table = open_lake(workspace).table(f"decisions/{NAME}")
    more = table.frame().limit(1).with_columns(sequence=pl.lit(99_999), id=pl.lit("late")).collect()
    table.append(more, writer="ledger", position=100_000)
    assert freeze_rows(workspace, REQUEST, champion) == frozen
    assert make_challenger(workspace, REQUEST, frozen).fitted == 1_224


def test_one_that_learned_the_contrary_is_refused(tmp_path: Path, world: tuple[Workspace, str]) -> None:
    workspace, champion = make_workspace(tmp_path / "w", train=CONTRARY)
    add_decisions(workspace, champion)
    frozen = freeze_rows(workspace, REQUEST, champion)
    trained = make_challenger(workspace, REQUEST, frozen)
    challenge = compare_versions(workspace, frozen, trained.version)
    assert challenge.verdict == "not_better"
    assert "surely worse" in challenge.why


CONTRARY = """\
import json


def train(rows, folder, seed):
    (folder / "weights.json").write_text(json.dumps({"a": -2.0, "bias": 0.0}))
"""


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"min_rows": 100_000}, "at least 100,000 rows with a truth"),
        ({"holdout_days": 400}, "none before"),
        ({"table": "intake/upstream/feed", "time": "at"}, "intake/upstream/feed"),
    ],
)
def test_rows_that_do_not_do_are_told(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    workspace, champion = make_workspace(tmp_path / "w", **changes)
    add_decisions(workspace, champion, n=1_500)
    with pytest.raises((Misuse, Failed), match=told):
        make_challenger(workspace, REQUEST, freeze_rows(workspace, REQUEST, champion))


def test_a_capability_without_decisions_says_so(tmp_path: Path) -> None:
    workspace, champion = make_workspace(tmp_path / "w")
    with pytest.raises(Misuse, match="labelled decisions"):
        freeze_rows(workspace, REQUEST, champion)


def test_rows_of_a_table_do_as_well(tmp_path: Path) -> None:
    workspace, champion = make_workspace(tmp_path / "w", table="intake/upstream/feed", time="seen", min_rows=500)
    add_decisions(workspace, champion, n=1_200)
    known = copy_to_table(workspace, "intake/upstream/feed", "yes")
    frozen = freeze_rows(workspace, REQUEST, champion)
    trained = make_challenger(workspace, REQUEST, frozen)
    assert trained.fitted + trained.held_out == known
    assert compare_versions(workspace, frozen, trained.version).verdict == "better"
