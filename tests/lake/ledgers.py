"""Ledgers that are exported, and what their tables should say, worked out an entry at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from mainstay.lake.decision_rows import DECISIONS, OUTCOMES, SHADOWS
from mainstay.lake.decisions import Exporter
from mainstay.ledger.index_key import KeyDigests
from mainstay.ledger.log import Log

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.lake.lake import Lake

DIGESTS = KeyDigests(b"k" * 32)


def exporter(ledger: Path, lake: Lake) -> Exporter:
    return Exporter(lake, ledger, DIGESTS)


def content(lake: Lake) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables of decisions, outcomes and shadows, in the order of the log."""
    names = [name for kind in (DECISIONS, OUTCOMES, SHADOWS) for name in lake.names(kind)]
    return {name: lake.table(name).frame().sort("sequence").collect().to_dicts() for name in names}


def sequences(lake: Lake) -> list[int]:
    """The places in the log of every exported row, doubled ones twice."""
    return sorted(row["sequence"] for rows in content(lake).values() for row in rows)


def expected_sequences(ledger: Path) -> list[int]:
    log = Log(ledger)
    kinds = [msgspec.json.decode(leaf).get("kind") for leaf in log.leaves(0, log.size)]
    return [sequence for sequence, kind in enumerate(kinds) if kind in {"decision", "outcome", "shadow"}]


def texts(lake: Lake) -> list[str]:
    """Every text that stands in a row, as engines see it."""
    found = []
    for name in [*lake.names(DECISIONS), *lake.names(OUTCOMES), *lake.names(SHADOWS)]:
        frame = lake.table(name).frame().select(pl.col(pl.String)).collect()
        found += [str(value) for row in frame.rows() for value in row if value is not None]
    return found
