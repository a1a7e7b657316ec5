"""Which dependencies go into the contract, each as a table of what was seen.

Every settled column gets two opinions, from determinants that settle as many columns as can be: two, so that where a
record contradicts itself, the rest of it can say which side is wrong. Dependencies with exceptions are taken while all
tables together wrong no more than a thousandth of clean rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from mainstay.contract.inference_dependencies import find_dependencies
from mainstay.contract.inference_settling import NOT_BESIDE, PARTS
from mainstay.contract.inference_things import MOST_REFUSED
from mainstay.contract.own_rules import ENGINE, FUNCTIONAL_DEPENDENCY
from mainstay.contract.types import Quality

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mainstay.contract.inference_dependencies import Dependency
    from mainstay.contract.inference_things import Things
    from mainstay.contract.inference_types import InferredColumn

OPINIONS: Final = 2
WORTH: Final = (1.0, 0.5)  # of a first and a second opinion
COLUMN_COSTS: Final = 0.3  # each column of a determinant beyond the first, in the same measure
MOST_CELLS: Final = 40_000  # of all tables: people read a contract, and its nodes are bounded
WRONGED_SHARE: Final = 1e-3  # of clean rows, by all tables together


@dataclass(frozen=True, slots=True)
class InferredTable:
    """A determinant, the columns it settles, and what each of its values settles: None where that is not known."""

    dependencies: tuple[Dependency, ...]
    mapping: tuple[tuple[Any, ...], ...]

    @property
    def determinant(self) -> tuple[str, ...]:
        return self.dependencies[0].determinant.names

    @property
    def dependents(self) -> tuple[str, ...]:
        return tuple(each.name for each in self.dependencies)

    @property
    def support(self) -> int:
        return min(each.weight.rows for each in self.dependencies)

    @property
    def confidence(self) -> float:
        return min(each.weight.confidence for each in self.dependencies)

    def words(self) -> str:
        """What speaks for it, in a line."""
        wronged = sum(each.weight.wronged for each in self.dependencies)
        least = max(each.weight.least for each in self.dependencies)
        said = [
            f"inferred from {len(self.mapping):,} values of {' and '.join(self.determinant)}",
            f"{self.support:,} rows agree with others that have the same",
        ]
        if wronged:
            said.append(f"{wronged:,} would have been judged wrongly")
        if any(each.weight.apart for each in self.dependencies):
            said.append("a value is believed where rows far apart have shown it")
        if least > 1:
            said.append(f"a value is believed once {least} rows have shown it")
        return "; ".join(said)

    def quality(self) -> Quality:
        """The check that binds every record to the table."""
        return Quality(
            type="custom",
            engine=ENGINE,
            dimension="consistency",
            implementation={
                "rule": FUNCTIONAL_DEPENDENCY,
                "determinant": list(self.determinant),
                "dependent": list(self.dependents),
                "mapping": [list(row) for row in self.mapping],
            },
        )

    def facts(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "support": self.support,
            "confidence": self.confidence,
            "rules": {each.name: each.weight.confidence for each in self.dependencies},
        }


def infer_tables(columns: Sequence[InferredColumn], things: Things) -> tuple[InferredTable, ...]:
    """The tables worth having, of the columns of a sample."""
    found, rows = find_dependencies(columns)
    found = [each for each in found if _holds_of_new_things(each, things)]
    by_name = {each.name: each for each in columns}
    return tuple(
        InferredTable(tuple(chosen), _mapping(by_name, chosen)) for chosen in _choose(found, int(WRONGED_SHARE * rows))
    )


def _holds_of_new_things(found: Dependency, things: Things) -> bool:
    names = found.determinant.names
    return len(names) > 1 or things.contradicted_share(names[0], found.name) <= MOST_REFUSED


def _choose(found: Sequence[Dependency], wronged: int) -> Iterator[list[Dependency]]:
    """The dependencies of one determinant after the other, the most useful first; `wronged` rows may be, in all."""
    options: dict[tuple[str, ...], list[Dependency]] = {}
    for each in found:
        options.setdefault(each.determinant.names, []).append(each)
    opinions = dict.fromkeys((each.name for each in found), 0)
    cells = MOST_CELLS
    while options:
        best = max(options, key=lambda names: (_gain(options[names], opinions), options[names][0].weight.rows))
        if _gain(options[best], opinions) <= 0:
            return
        chosen = []
        for each in sorted(options.pop(best), key=lambda each: each.weight.wronged):
            if each.weight.wronged <= wronged:
                wronged -= each.weight.wronged
                chosen.append(each)
        needed = chosen[0].determinant.values * (len(best) + len(chosen)) if chosen else 0
        if not chosen or needed > cells:
            continue
        cells -= needed
        for each in chosen:
            opinions[each.name] += 1
        yield sorted(chosen, key=lambda each: each.place)


def _gain(settled: Sequence[Dependency], opinions: Mapping[str, int]) -> float:
    gains = [WORTH[opinions[each.name]] for each in settled if opinions[each.name] < OPINIONS]
    return sum(gains) - COLUMN_COSTS * (len(settled[0].determinant.names) - 1)


def _mapping(columns: Mapping[str, InferredColumn], chosen: Sequence[Dependency]) -> tuple[tuple[Any, ...], ...]:
    """What each value of the determinant settles, in their order; None where its rows are too few or disagree."""
    names = chosen[0].determinant.names
    keys = [f"d{i}" for i in range(len(names))]
    frame = pl.DataFrame(
        [columns[name].values.alias(key) for name, key in zip(names, keys, strict=True)]
        + [columns[each.name].values.alias(f"y{i}") for i, each in enumerate(chosen)]
    ).with_columns((pl.int_range(pl.len()) * PARTS // pl.len()).alias("part"))
    is_apart = pl.col("part").max() - pl.col("part").min() >= NOT_BESIDE
    told = [
        pl.when(
            (pl.col(f"y{i}").n_unique() == 1) & (pl.len() >= each.weight.least) & (is_apart | (not each.weight.apart))
        ).then(pl.col(f"y{i}").first())
        for i, each in enumerate(chosen)
    ]
    known = frame.drop_nulls(keys).group_by(keys).agg(told)
    return tuple(known.filter(pl.any_horizontal(pl.exclude(keys).is_not_null())).sort(keys).rows())
