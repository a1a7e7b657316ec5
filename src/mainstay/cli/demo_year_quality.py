"""What the year was worth: the flights as they were decided, and as other versions would have decided the same ones."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import polars as pl

from mainstay.monitoring.performance import roc_auc
from mainstay.retraining.answering import answer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mainstay.workspace import Workspace

MISSED_USD, NEEDLESS_USD = 180.0, 40.0  # as the capability declares them: a missed connection, a needless rebooking
FEWEST_FLIGHTS: Final = 100  # of a week, to say how good it was


class Week(msgspec.Struct, frozen=True, kw_only=True):
    """A week of flights that landed: area under the ROC curve with its interval, and dollars for each flight."""

    begin: date
    flights: int
    auc: float
    low: float
    high: float
    usd: float


class Flights:
    """All flights that were sent and have landed, in their order, with what was decided."""

    def __init__(self, workspace: Workspace, kept: Path) -> None:
        self._workspace = workspace
        self.frame = _read(kept)
        self._answers: dict[tuple[str, bool], pl.DataFrame] = {}

    def decided(self) -> pl.DataFrame:
        """`at`, `late`, `score`, `said`: as it was; null where a person decided, or nobody."""
        return self.frame.select("at", "late", "score", "said")

    def by(self, version: str, *, sent: bool = False) -> pl.DataFrame:
        """The same as a version would have decided alone: of what was true, or of what was `sent`."""
        if (version, sent) not in self._answers:
            records = [each.encode() for each in self.frame["sent" if sent else "input"]]
            found = answer(self._workspace, version, records)
            self._answers[version, sent] = self.frame.select("at", "late").with_columns(
                pl.Series("score", found["probability"], pl.Float64), pl.Series("said", found["late"], pl.Boolean)
            )
        return self._answers[version, sent]


def _read(kept: Path) -> pl.DataFrame:
    decided: list[dict[str, Any]] = []
    landed: dict[str, bool] = {}
    for line in kept.read_bytes().splitlines():
        row = msgspec.json.decode(line)
        if "late" in row:
            landed[row["key"]] = row["late"]
            continue
        output = row["output"] or {}
        truth = msgspec.json.encode(row["input"]).decode()
        decided.append(
            {
                "key": row["key"],
                "at": datetime.fromisoformat(row["at"]),
                "input": truth,
                "sent": truth if row["sent"] is None else msgspec.json.encode(row["sent"]).decode(),
                "version": row["version"],
                "stage": row["stage"],
                "outcome": row["outcome"],
                "score": output.get("probability"),
                "said": output.get("late"),
            }
        )
    known = pl.DataFrame(
        {"key": list(landed), "late": list(landed.values())}, schema={"key": pl.String, "late": pl.Boolean}
    )
    schema: dict[str, pl.DataType | type[pl.DataType]] = {
        **dict.fromkeys(("key", "input", "sent", "version", "stage", "outcome"), pl.String),
        "at": pl.Datetime("us", "UTC"),
        "score": pl.Float64,
        "said": pl.Boolean,
    }
    return pl.DataFrame(decided, schema=schema).join(known, on="key", how="inner", maintain_order="left")


def usd() -> pl.Expr:
    """What a decision cost, of `late` and `said`."""
    missed = pl.col("late") & ~pl.col("said")
    needless = pl.col("said") & ~pl.col("late")
    return pl.when(missed).then(MISSED_USD).when(needless).then(NEEDLESS_USD).otherwise(0.0)


def both(one: pl.DataFrame, other: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that both have an answer for."""
    there = (one["score"].is_not_null() & other["score"].is_not_null()).alias("there")
    return one.filter(there), other.filter(there)


def joined(parts: Iterable[tuple[date, date, pl.DataFrame]]) -> pl.DataFrame:
    """Of each frame the rows of its days, one after the other."""
    return pl.concat([rows.filter(between(begin, end)) for begin, end, rows in parts]).sort("at", maintain_order=True)


def between(begin: date, end: date) -> pl.Expr:
    """Whether `at` lies in days, the last not among them."""
    return (pl.col("at") >= _instant(begin)) & (pl.col("at") < _instant(end))


def weeks(rows: pl.DataFrame) -> list[Week]:
    """Week by week, those with enough flights."""
    found = []
    first: datetime = rows["at"].min()  # type: ignore[assignment]  # of a column of instants that has rows
    last: datetime = rows["at"].max()  # type: ignore[assignment]
    begin = first.date()
    while _instant(begin) <= last:
        own = rows.filter(between(begin, begin + timedelta(days=7)))
        area = auc(own) if own.height >= FEWEST_FLIGHTS else None
        if area is not None:
            value, low, high = area
            cost = float(own.select(usd().mean()).item())
            found.append(Week(begin=begin, flights=own.height, auc=value, low=low, high=high, usd=cost))
        begin += timedelta(days=7)
    return found


def auc(rows: pl.DataFrame) -> tuple[float, float, float] | None:
    """The area under the ROC curve with its interval."""
    found = roc_auc(rows["late"].to_numpy(), rows["score"].to_numpy().astype(np.float64))
    return None if found is None else (float(found.value), float(found.low), float(found.high))


def total_usd(rows: pl.DataFrame) -> float:
    """What all the decisions cost."""
    return float(rows.select(usd().sum()).item())


def _instant(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
