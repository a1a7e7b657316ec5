"""Workspaces with labelled decisions in their lake, and a champion that knows little."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from mainstay.catalog.register import register
from mainstay.cli.init import create_workspace
from mainstay.lake.decision_rows import DECISIONS, OUTCOMES, SCHEMAS
from mainstay.lake.decisions import _EXPORTS_SCHEMA, EXPORTS, WRITER
from mainstay.lake.lake import open_lake
from retraining.folders import write_folder
from tiny import NAME

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mainstay.workspace import Workspace

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 60


def make_workspace(root: Path, **changes: Any) -> tuple[Workspace, str]:
    """A workspace with one registered version, which knows nothing; its id."""
    workspace = create_workspace(root)[0]
    folder = write_folder(root / "capabilities" / NAME, weights=(0.0, 0.0), **changes)
    return workspace, register(folder, workspace.versions).version


def add_decisions(workspace: Workspace, version: str, *, n: int = 3_000, slope: float = 3.0, seed: int = 0) -> None:
    """Decisions over DAYS days up to NOW, the truth of nearly all of them, as the exporter would have put them."""
    random = np.random.default_rng(seed)
    a = random.normal(size=n)
    truth = random.random(n) < 1 / (1 + np.exp(-slope * a))
    add_labelled(
        workspace, version, a.tolist(), {"probability": 0.5, "yes": True}, [{"yes": t} for t in truth.tolist()]
    )


def add_labelled(
    workspace: Workspace, version: str, a: Sequence[float], output: dict[str, Any], truths: Sequence[dict[str, Any]]
) -> None:
    """Decisions about these values of `a`, each answered with `output`, and their outcomes but every fiftieth."""
    n = len(a)
    at = [NOW - timedelta(days=DAYS * (1 - i / n)) for i in range(n)]
    ids = [f"id-{i:08}" for i in range(n)]
    decisions = pl.DataFrame(
        {
            "day": [each.date() for each in at],
            "sequence": range(n),
            "id": ids,
            "at": at,
            "capability": NAME,
            "version": version,
            "release": 1,
            "stage": "production",
            "outcome": "answered",
            "input": [json.dumps({"a": value, "b": None}) for value in a],
            "output": json.dumps(output),
        }
    )
    labelled = [i for i in range(n) if i % 50]
    outcomes = pl.DataFrame(
        {
            "day": [at[i].date() for i in labelled],
            "sequence": [n + i for i in range(len(labelled))],
            "id": [f"o-{i:08}" for i in labelled],
            "at": [at[i] + timedelta(hours=1) for i in labelled],
            "capability": NAME,
            "decision_id": [ids[i] for i in labelled],
            "outcome": [json.dumps(truths[i]) for i in labelled],
            "observed_at": [at[i] + timedelta(hours=1) for i in labelled],
        }
    )
    lake = open_lake(workspace)
    for kind, rows in ((DECISIONS, decisions), (OUTCOMES, outcomes)):
        schema = SCHEMAS[kind]
        table = lake.create(kind + NAME, schema, partition_by=["day"])
        typed = rows.with_columns(pl.col(name).cast(schema[name]) for name in rows.columns)
        table.append(typed, writer=WRITER, position=2 * n)
    exports = lake.create(EXPORTS, _EXPORTS_SCHEMA, partition_by=["day"])
    exports.append(pl.DataFrame(schema=_EXPORTS_SCHEMA), writer=WRITER, position=2 * n)


def copy_to_table(workspace: Workspace, name: str, truth: str) -> int:
    """The labelled decisions as a table of a source, with columns `a`, `seen` and the truth; how many have one."""
    lake = open_lake(workspace)
    decisions = lake.table(f"{DECISIONS}{NAME}").frame().collect()
    outcomes = lake.table(f"{OUTCOMES}{NAME}").frame().collect()
    known = {row["decision_id"]: json.loads(row["outcome"])[truth] for row in outcomes.iter_rows(named=True)}
    rows = pl.DataFrame(
        {
            "a": [json.loads(each)["a"] for each in decisions["input"]],
            truth: [known.get(each) for each in decisions["id"]],
            "seen": decisions["at"],
        }
    )
    lake.create(name, rows.schema).append(rows, writer="door", position=1)
    return len(known)
