"""Pilots for the tests of drafting folders, and what a person would do with a draft: answer its questions."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType
from sklearn.tree import DecisionTreeClassifier

from mainstay.catalog.drafting import Drafted, Wish, draft

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mainstay.problems import Problem

ROWS = 400
ANSWERS: dict[str, Any] = {
    "purpose": "To be tested.",
    "owner.team": "tests",
    "owner.contact": "tests@example.com",
    "replaces": "nothing",
    "deadline_ms": 5_000,
}
_TODO = re.compile(r'"TODO:(?:[^"\\]|\\.)*"')


def readings(rows: int = ROWS) -> pd.DataFrame:
    """Three numbers, and whether their sum is above zero."""
    dice = np.random.default_rng(0)
    table = pd.DataFrame(dice.normal(size=(rows, 3)), columns=["a", "b", "c"])
    return table.assign(above=(table.sum(axis="columns") > 0).astype(int))


def write_graph(path: Path, *, integers: bool = False) -> Path:
    """A tree over a nameless matrix of three numbers, as ONNX."""
    table = readings()
    fitted = DecisionTreeClassifier(max_depth=4, random_state=0).fit(table[["a", "b", "c"]].to_numpy(), table["above"])
    tensor = Int64TensorType if integers else FloatTensorType
    graph = to_onnx(fitted, initial_types=[("m", tensor([None, 3]))], options={id(fitted): {"zipmap": False}})
    path.write_bytes(graph.SerializeToString())
    return path


def write_sample(path: Path, table: pd.DataFrame | None = None) -> Path:
    (readings() if table is None else table).to_csv(path, index=False)
    return path


def make(folder: Path, **said: Any) -> Drafted:
    """Draft the graph, or what is said, into `folder / "drafted"`."""
    wish: dict[str, Any] = {"name": "drafted", "target": folder / "drafted"} | said
    if "model" not in wish:
        wish["model"] = str(write_graph(folder / "model.onnx"))
    if "data" not in wish:
        wish["data"] = write_sample(folder / "sample.csv")
    return draft(Wish(**wish))


def answer(questions: Iterable[Problem], positive: Any = 1, **more: Any) -> None:
    """Write an answer over every question; `more` are answers by the last part of where it stands."""
    for each in questions:
        _write(each.file, each.line, _TODO, json.dumps(_said(each.where, positive, more)))


def _said(where: str, positive: Any, more: dict[str, Any]) -> Any:
    last = where.rpartition(".")[2]
    if last in more:
        return more[last]
    if where in ANSWERS:
        return ANSWERS[where]
    if last == "classification":
        return "internal"
    return 0.5 if last.startswith("probability") else positive


def _write(file: str, line: int, pattern: re.Pattern[str], said: str) -> None:
    with open(file, encoding="utf-8") as opened:  # noqa: PTH123 - problems name files as text
        lines = opened.read().split("\n")
    found = pattern.search(lines[line - 1])
    assert found is not None, (file, line)
    lines[line - 1] = lines[line - 1].replace(found[0], said)
    with open(file, "w", encoding="utf-8") as opened:  # noqa: PTH123 - likewise
        opened.write("\n".join(lines))
