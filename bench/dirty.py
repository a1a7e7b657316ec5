"""What contracts inferred from clean rows alone catch in dirty ones, and what they wrong.

Two tables of others, each with a clean twin and a list of its wrong cells: a contract is inferred from clean rows,
written as YAML, read back, and held against the dirty table by the check that `mainstay contract check` makes. A cell
is caught when a violation names it, a row when it breaks any rule. Samples:

  half        half of the clean rows, drawn and ordered at random, held against the dirty rows of the other half; the
              mean of several draws
  half of the hospitals, of the breweries   all their rows, held against the rows of the others
  whole       all clean rows, ordered at random, held against all dirty rows: what a complete reference can do
  file order  the same, but as they stand in the file, which is sorted by hospital and by brewery

`refused` is the share of clean rows that break a rule, of those the inference has not seen. The published figures are
for the whole dirty table and for methods that see it, and no clean rows.

Then clean tables of other kinds, for a rule that fits two tables need not fit a third: what is refused of the other
half (drawn at random; and the later half, after a sample of the earlier one), and which share of rows with one made
error is caught.

    python bench/dirty.py [--draws N] [--only dirty|clean] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import polars as pl
from dirty_tables import DIRTY, ENTITIES, KINDS, TABLES, dirty_table, inject

from mainstay.contract.columns import compile_columns
from mainstay.contract.inference import infer_object
from mainstay.contract.load import parse_contract
from mainstay.contract.tables import check_table
from mainstay.contract.types import Contract
from mainstay.contract.writing import write_contract

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from mainstay.contract.types import SchemaObject

ROW = "number of the row"
ALLOWED = 0.01  # of clean rows, that may be refused
PUBLISHED = (
    ("Raha, given labels", {"hospital": 0.818, "beers": 0.988}),
    ("majority by known dependencies", {"hospital": 0.846, "beers": 0.095}),
    ("empty tokens", {"beers": 0.407}),
)


@dataclass(frozen=True)
class Score:
    """How found and really wrong agree."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


@dataclass(frozen=True)
class Caught:
    """What a contract from one kind of sample catches in a dirty table."""

    table: str
    sample: str
    cells: Score
    rows: Score
    refused: float | None  # of unseen clean rows; None where there are none


@dataclass(frozen=True)
class Kept:
    """What a contract lets through of a clean table, and what it catches of made errors."""

    table: str
    rows: int  # of the sample
    refused: float
    refused_later: float
    caught: dict[str, float]  # share of the rows with an error of each kind


def infer(sample: pl.DataFrame, public: Collection[str] = ()) -> SchemaObject:
    """The contract's object, as it reads once it has been written."""
    inferred = infer_object(sample, "row", public=public)
    contract = Contract(
        api_version="v3.1.0", kind="DataContract", id="bench", version="1.0.0", status="draft",
        schema=(inferred.marked(),),
    )  # fmt: skip  # one a line would fill a page
    return parse_contract(write_contract(contract), "contract.odcs.yaml").schema[0]


def broken_cells(declared: SchemaObject, table: pl.DataFrame) -> set[tuple[int, str]]:
    """Row, from 0, and field of every violation in a table of texts."""
    with tempfile.TemporaryDirectory(prefix="mainstay-bench-") as outside:
        source, bad = Path(outside) / "table.csv", Path(outside) / "bad.parquet"
        table.write_csv(source)
        check_table(source, compile_columns(declared), bad=bad)
        found = pl.read_parquet(bad, columns=["mainstay_row", "mainstay_violations"])
    return {(row - 1, each["field"]) for row, violations in found.iter_rows() for each in violations}


def score(found: set[Any], wrong: set[Any]) -> Score:
    right = len(found & wrong)
    return Score(right / len(found) if found else 1.0, right / len(wrong))


def refused_share(declared: SchemaObject, clean: pl.DataFrame) -> float:
    return len({row for row, _ in broken_cells(declared, clean)}) / clean.height


def shuffled(table: pl.DataFrame, seed: int) -> pl.DataFrame:
    return table.sample(fraction=1.0, shuffle=True, seed=seed)


def halves(table: pl.DataFrame, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    mixed = shuffled(table, seed)
    return mixed.head(table.height // 2), mixed.tail(table.height - table.height // 2)


def unseen_entities(table: pl.DataFrame, seed: int, key: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows of half of the entities, and those of the others, in random order."""
    keys = table[key].unique(maintain_order=True)
    chosen = keys.sample(len(keys) // 2, shuffle=True, seed=seed)
    mixed = shuffled(table, seed)
    is_chosen = mixed[key].is_in(chosen.implode())
    return mixed.filter(is_chosen), mixed.filter(~is_chosen)


def catch(name: str, draws: int) -> list[Caught]:
    clean, dirty, wrong = dirty_table(name)
    numbered = clean.with_row_index(ROW)
    by_entity = partial(unseen_entities, key=ENTITIES[name])
    made = []
    for sample, draw, public in (
        ("half", halves, ()),
        ("half, all columns public", halves, clean.columns),
        (f"the rows of half of the {ENTITIES[name]}s", by_entity, ()),
    ):
        scores, refused = [], []
        for seed in range(draws):
            seen, unseen = draw(numbered, seed=seed)
            declared = infer(seen.drop(ROW), public)
            scores.append(_judge(declared, dirty, wrong, set(unseen[ROW].to_list())))
            refused.append(refused_share(declared, unseen.drop(ROW)))
        cells, rows = (_mean(each) for each in zip(*scores, strict=True))
        made.append(Caught(name, f"{sample} ({draws} draws)", cells, rows, fmean(refused)))
    every = set(range(clean.height))
    for sample, table, public in (
        ("whole", shuffled(clean, 0), ()),
        ("whole, all columns public", shuffled(clean, 0), clean.columns),
        ("whole, in file order", clean, ()),
    ):
        made.append(Caught(name, sample, *_judge(infer(table, public), dirty, wrong, every), None))
    return made


def _judge(
    declared: SchemaObject, dirty: pl.DataFrame, wrong: set[tuple[int, str]], rows: set[int]
) -> tuple[Score, Score]:
    """The score by cells and by rows, of some rows of the dirty table."""
    found = {(row, field) for row, field in broken_cells(declared, dirty) if row in rows}
    real = {(row, field) for row, field in wrong if row in rows}
    return score(found, real), score({row for row, _ in found}, {row for row, _ in real})


def _mean(scores: Iterable[Score]) -> Score:
    listed = list(scores)
    return Score(fmean(each.precision for each in listed), fmean(each.recall for each in listed))


def keep(name: str) -> Kept:
    table = TABLES[name]()
    seen, unseen = halves(table, 0)
    declared = infer(seen)
    refused = refused_share(declared, unseen)
    spoilt, errors = inject(declared, unseen, seed=0)
    found = {row for row, _ in broken_cells(declared, spoilt)}
    caught = {kind: len(found & rows) / len(rows) for kind, rows in errors.items() if rows}
    half = table.height // 2
    later = refused_share(infer(table.head(half)), table.tail(table.height - half))
    return Kept(name, seen.height, refused, later, caught)


def show_caught(results: list[Caught]) -> None:
    print(
        "| table | from | cells: precision | recall | F1 | rows: precision | recall | F1 | unseen clean rows refused |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for each in results:
        numbers = [*_three(each.cells), *_three(each.rows), "" if each.refused is None else f"{each.refused:.2%}"]
        print(f"| {each.table} | {each.sample} | {' | '.join(numbers)} |")
    for what, figures in PUBLISHED:
        for table, f1 in figures.items():
            print(f"| {table} | *{what}, as published* | | | {f1:.3f} | | | | |")


def _three(found: Score) -> list[str]:
    return [f"{found.precision:.3f}", f"{found.recall:.3f}", f"{found.f1:.3f}"]


def show_kept(results: list[Kept]) -> None:
    print(f"| table | sample rows | refused of the other half | of the later half | {' | '.join(KINDS)} |")
    print(f"|{'---|' * (4 + len(KINDS))}")
    for each in results:
        shares = [f"{each.caught[kind]:.0%}" if kind in each.caught else "" for kind in KINDS]
        refused = f"{each.refused:.2%} | {each.refused_later:.2%}"
        print(f"| {each.table} | {each.rows:,} | {refused} | {' | '.join(shares)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5, help="halves that are drawn")
    parser.add_argument("--only", choices=["dirty", "clean"], help="the dirty tables, or the clean ones")
    parser.add_argument("--json", action="store_true", help="print facts as JSON")
    options = parser.parse_args()
    caught = [] if options.only == "clean" else [each for name in DIRTY for each in catch(name, options.draws)]
    kept = [] if options.only == "dirty" else [keep(name) for name in TABLES]
    if options.json:
        print(json.dumps({"caught": [asdict(each) for each in caught], "kept": [asdict(each) for each in kept]}))
    else:
        if caught:
            show_caught(caught)
        if kept:
            show_kept(kept)
    halved = [each.refused for each in caught if each.refused is not None and each.sample.startswith("half (")]
    if any(share >= ALLOWED for share in (*halved, *(each.refused for each in kept))):
        sys.exit(1)


if __name__ == "__main__":
    main()
