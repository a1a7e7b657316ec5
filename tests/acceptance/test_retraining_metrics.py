"""Runs of retraining that are decided by a metric of counts, and by one of lists: trained, compared, and told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

from mainstay.catalog.register import register
from mainstay.cli.init import create_workspace
from mainstay.retraining.runs import clear_away, compare_versions, freeze_rows, make_challenger
from mainstay.retraining.types import Request
from retraining.folders import write_folder
from retraining.worlds import DAYS, NOW, add_decisions, add_labelled, copy_to_table, make_workspace
from tiny import NAME

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.retraining.challenge import Challenge
    from mainstay.workspace import Workspace

pytestmark = pytest.mark.acceptance

REQUEST = Request(id="5e1b0c77-run", capability=NAME, cause="by_hand", reason="to see", asked_by="tests", asked_at=NOW)
ITEMS = {"north": -1.0, "east": -0.4, "south": 0.4, "west": 1.0}

OFFER = f"""\
import json
from pathlib import Path

ITEMS = {ITEMS!r}
SLOPE = json.loads(Path(__file__).with_name("weights.json").read_text())["a"]


def predict(records):
    return [{{"offered": sorted(ITEMS, key=lambda item: -SLOPE * record["a"] * ITEMS[item])}} for record in records]
"""

LEARN = f"""\
import json

import polars as pl

ITEMS = {ITEMS!r}


def train(rows, folder, seed):
    frame = pl.read_parquet(rows)
    liked = [sum(map(ITEMS.get, items)) for items in frame["chosen"]]
    slope = SIGN * sum(a * place for a, place in zip(frame["a"], liked, strict=True)) / frame.height
    (folder / "weights.json").write_text(json.dumps({{"a": slope, "bias": 0.0}}))
    print(f"fitted on {{frame.height}} lists")
"""


def run(workspace: Workspace, champion: str) -> Challenge:
    """Freeze, train in the process that is confined, and compare."""
    frozen = freeze_rows(workspace, REQUEST, champion)
    trained = make_challenger(workspace, REQUEST, frozen)
    assert trained.version != champion
    clear_away(workspace, REQUEST)
    return compare_versions(workspace, frozen, trained.version)


def test_a_challenger_with_a_better_f1_is_better(tmp_path: Path) -> None:
    workspace, champion = make_workspace(tmp_path / "w", metric="f1")
    add_decisions(workspace, champion)
    found = run(workspace, champion)
    assert (found.metric, found.verdict, found.top) == ("f1", "better", None), found.why
    assert found.champion == pytest.approx(2 / 3, abs=0.03), "it says yes to all, and half are"
    assert found.challenger is not None
    assert found.challenger > 0.75
    assert found.better is not None
    assert 0 < found.better.low < found.better.value < found.better.high < 0.3
    assert found.blocks >= DAYS // 2


def test_where_the_newest_rows_have_no_yes_nothing_is_decided(tmp_path: Path) -> None:
    """What was learned of the older half may be good; of these rows no F1 says so."""
    workspace, champion = make_workspace(tmp_path / "w", metric="f1")
    a = np.random.default_rng(0).normal(size=2_000)
    truths = [{"yes": bool(value > 0 and i < 900)} for i, value in enumerate(a)]
    add_labelled(workspace, champion, a.tolist(), {"probability": 0.5, "yes": True}, truths)
    found = run(workspace, champion)
    assert found.verdict == "unknown"
    assert found.why.endswith("expected at least 10 rows of each kind, found 0 that were yes")


def make_ranked(root: Path, sign: int, **changes: Any) -> tuple[Workspace, str]:
    """A workspace whose capability offers lists, in an order that says nothing yet."""
    workspace = create_workspace(root)[0]
    learn = LEARN.replace("SIGN", str(sign))
    folder = write_folder(root / "capabilities" / NAME, train=learn, weights=(0.0, 0.0), metric="ndcg", **changes)
    declaration: dict[str, Any] = yaml.safe_load((folder / "capability.yaml").read_text("utf-8"))
    declaration["monitoring"] = {
        "labels": {"kind": "ranking", "truth": "chosen", "prediction": "offered"},
        "metrics": [{"name": "ndcg", "top": 2}],
    }
    declaration.pop("promise", None)
    contract: dict[str, Any] = yaml.safe_load((folder / "contract.odcs.yaml").read_text("utf-8"))
    for described, name in ((contract["schema"][1], "offered"), (contract["schema"][2], "chosen")):
        listed = {"name": name, "logicalType": "array", "required": True, "items": {"logicalType": "string"}}
        described["properties"] = [listed]
    (folder / "capability.yaml").write_text(yaml.safe_dump(declaration, sort_keys=False), "utf-8")
    (folder / "contract.odcs.yaml").write_text(yaml.safe_dump(contract, sort_keys=False), "utf-8")
    (folder / "predict.py").write_text(OFFER, "utf-8")
    champion = register(folder, workspace.versions).version
    random = np.random.default_rng(0)
    a = random.normal(size=2_000)
    worth = np.outer(a, [*ITEMS.values()]) + random.normal(size=(2_000, len(ITEMS)))
    truths = [{"chosen": [item for item, each in zip(ITEMS, row, strict=True) if each > 1]} for row in worth.tolist()]
    add_labelled(workspace, champion, a.tolist(), {"offered": [*ITEMS]}, truths)
    return workspace, champion


@pytest.mark.parametrize(("sign", "verdict"), [(1, "better"), (-1, "not_better")])
def test_lists_are_decided_by_their_own_metric(tmp_path: Path, sign: int, verdict: str) -> None:
    workspace, champion = make_ranked(tmp_path / "w", sign)
    found = run(workspace, champion)
    assert (found.metric, found.top, found.verdict) == ("ndcg", 2, verdict), found.why
    assert found.unanswered == (0.0, 0.0)
    assert 500 < found.rows < 970, "lists in which nothing was chosen are left out"
    assert found.better is not None
    assert found.blocks >= DAYS // 2
    assert found.better.low > 0 if sign > 0 else found.better.high < 0


def test_lists_of_a_table_are_read_as_those_of_decisions_are(tmp_path: Path) -> None:
    workspace, champion = make_ranked(tmp_path / "w", 1, table="intake/upstream/feed", time="seen", min_rows=500)
    copy_to_table(workspace, "intake/upstream/feed", "chosen")
    found = run(workspace, champion)
    assert (found.metric, found.top, found.verdict) == ("ndcg", 2, "better"), found.why
    assert 500 < found.rows < 970
