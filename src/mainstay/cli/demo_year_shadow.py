"""What a shadow would have decided otherwise, and the cases that differ most, from the lake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl

from mainstay.cli.demo_story import CAPABILITY
from mainstay.lake.decision_rows import DECISIONS, SHADOWS
from mainstay.lake.lake import open_lake

if TYPE_CHECKING:
    from mainstay.workspace import Workspace

MOST_CASES: Final = 3


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One flight that both decided."""

    key: str
    given: float  # the probability that was stated
    shadow: float
    input: dict[str, Any]

    @property
    def told(self) -> str:
        """In a line."""
        of = self.input
        return (
            f"{of['carrier']} {of['origin']} to {of['dest']}, {of['dep_delay']} min late, wind"
            f" {_number(of.get('wind_speed'))} mi/h, rain {_number(of.get('precip'))} in:"
            f" {self.given:.2f}, with weather {self.shadow:.2f}"
        )


class Differing(msgspec.Struct, frozen=True, kw_only=True):
    """How a shadow and the version in force differ."""

    compared: int
    differ: int  # in outcome, or in what is said of the flight
    cases: tuple[Case, ...]


def differing(workspace: Workspace, version: str) -> Differing:
    """All that the lake has of a shadow, beside what was decided."""
    lake = open_lake(workspace)
    shadows = lake.table(SHADOWS + CAPABILITY).frame().filter(pl.col("version") == version).collect()
    decisions = lake.table(DECISIONS + CAPABILITY).frame().select("id", "key", "outcome", "output", "input").collect()
    both = shadows.join(decisions, left_on="decision_id", right_on="id", suffix="_given")
    compared, differ, cases = both.height, 0, []
    for row in both.iter_rows(named=True):
        said, given = _output(row["output"]), _output(row["output_given"])
        differ += row["outcome"] != row["outcome_given"] or said.get("late") != given.get("late")
        if row["outcome"] == row["outcome_given"] == "answered":
            known = msgspec.json.decode(row["input"])
            cases.append(Case(key=row["key"], given=given["probability"], shadow=said["probability"], input=known))
    cases.sort(key=lambda case: -abs(case.given - case.shadow))
    return Differing(compared=compared, differ=differ, cases=tuple(cases[:MOST_CASES]))


def _output(text: str | None) -> dict[str, Any]:
    return {} if text is None else msgspec.json.decode(text)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
