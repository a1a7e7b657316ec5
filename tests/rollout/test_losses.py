from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import tiny
from mainstay.capability.load import load_capability
from mainstay.rollout.losses import Loss, loss_of, losses

if TYPE_CHECKING:
    from pathlib import Path

BINARY = {"kind": "binary", "truth": "yes"}


@pytest.mark.parametrize(
    ("labels", "metrics", "name"),
    [
        ({**BINARY, "prediction": "yes", "score": "probability"}, [], "wrong"),
        ({**BINARY, "prediction": "yes", "score": "probability"}, ["brier"], "squared"),
        ({**BINARY, "prediction": "yes", "score": "probability"}, ["brier", "accuracy"], "wrong"),
        ({**BINARY, "score": "probability"}, ["roc_auc"], "squared"),
        ({"kind": "classes", "truth": "yes", "prediction": "yes"}, [], "wrong"),
    ],
)
def test_the_loss_follows_from_what_is_declared(
    tmp_path: Path, labels: dict[str, Any], metrics: list[str], name: str
) -> None:
    monitoring = {"labels": labels, "metrics": [{"name": each} for each in metrics]}
    found = loss_of(load_capability(tiny.write_folder(tmp_path / "tiny", monitoring=monitoring)))
    assert found is not None
    assert found.name == name


def test_without_labels_there_is_none(tmp_path: Path) -> None:
    assert loss_of(load_capability(tiny.write_folder(tmp_path / "tiny"))) is None


def frame(truth: list[Any], said: list[Any], score: list[float | None] | None = None) -> pl.DataFrame:
    names = [str(number) for number in range(len(truth))]
    return pl.DataFrame({"id": names, "truth": truth, "prediction": said, "score": score or [None] * len(truth)})


def test_losses_of_each_kind_are_within_their_bounds() -> None:
    wrong = losses(Loss(name="wrong"), frame([True, True, None], [True, False, True]))
    assert wrong.rows() == [("0", 0.0), ("1", 1.0)]
    squared = losses(Loss(name="squared"), frame([True, False], [None, None], [0.75, 0.5]))
    assert squared["loss"].to_list() == [0.0625, 0.25]
    absolute = losses(Loss(name="absolute", high=10.0), frame([1.0, 2.0, 3.0], [4.0, 500.0, float("nan")]))
    assert absolute.rows() == [("0", 3.0), ("1", 10.0)]
    ranked = losses(Loss(name="rank"), frame([["b"], ["z"], None], [["a", "b"], ["a"], ["a"]]))
    assert ranked.rows() == [("0", 0.5), ("1", 1.0)]
