"""What is counted of a version: its columns with their bins, its segments, and what its windows are compared with.

A layout is made once for each version and never changes, so that windows add up: of the version's reference rows where
it brought some, and of what its model answers to them; else of its first decisions. Novelty is held against what it is
calibrated to be. It is a row of the table `references/CAPABILITY`.

Of classified numbers the edges are rounded to two digits, so that none is a value of somebody; of classified texts no
value is named. Fields that are protected in records are left out: what is recorded is not what was decided about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np
import polars as pl
from msgspec import Struct

from mainstay.contract.rules import is_classified
from mainstay.monitoring.binning import Column, Numbers, Values, make_bins, p_value_column
from mainstay.monitoring.estimation import Estimator  # noqa: TC001 - msgspec reads the types of a struct
from mainstay.monitoring.evidence import columns_of
from mainstay.monitoring.histograms import Histogram  # noqa: TC001 - msgspec reads the types of a struct
from mainstay.monitoring.reference_counts import count_blocks, p_value_counts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from mainstay.capability.load import Declared
    from mainstay.contract.types import Property
    from mainstay.lake.lake import Lake

PREFIX: Final = "references/"
INPUT: Final = "input."
OUTPUT: Final = "output."
CONFIDENCE: Final = "confidence"
NOVELTY: Final = "novelty"
MOST_SEGMENTS: Final = 20  # values of a segment field that are counted by themselves
OTHERS: Final = "(others)"  # all further values of a segment field
MOST_FIRST_ROWS: Final = 100_000  # decisions that a reference is made of where there are no reference rows
BLOCKS: Final = 12  # runs of neighbouring rows that a reference is counted in: they show how far rows depend

ROWS_NAMED: Final = "reference rows"
CALIBRATION_NAMED: Final = "calibration"

_DIGITS: Final = 2  # of an edge between classified numbers

_SCHEMA: Final = pl.Schema(
    {
        "version": pl.String(),
        "of": pl.String(),
        "rows": pl.Int64(),
        "document": pl.String(),
        "made_at": pl.Datetime("us", "UTC"),
    }
)


class Known(NamedTuple):
    """What reference rows show of a version."""

    inputs: pl.DataFrame  # `input.x` of all rows
    answered: pl.DataFrame | None  # `input.x`, `output.x`, `confidence` of rows it answers by itself; None: not known
    calibrating: int | None  # rows among which its novelty is counted; None where it has none


class Reference(Struct, frozen=True, kw_only=True):
    """Counts that windows are compared with."""

    of: str  # `reference rows`, `first N decisions`, or `calibration`
    rows: int
    blocks: dict[str, tuple[Histogram, ...]]  # by column: of runs of neighbouring rows, in their order
    segments: dict[str, dict[str, dict[str, tuple[Histogram, ...]]]]  # the same, by segment field, value and column


class Layout(Struct, frozen=True, kw_only=True):
    """The columns of a version and what they are compared with."""

    version: str
    columns: tuple[Column, ...]
    segments: dict[str, tuple[str, ...]]  # the values of each segment field; OTHERS is not among them
    inputs: Reference
    outputs: Reference
    novelty: Reference | None = None  # its segments are of the first decisions: no part of the rows is calibrated alone
    estimator: Estimator | None = None  # of quality before labels are there; None: the reference rows do not allow it

    def reference_of(self, column: str) -> Reference:
        if column == NOVELTY and self.novelty is not None:
            return self.novelty
        return self.inputs if column.startswith(INPUT) else self.outputs

    @property
    def places(self) -> int:
        """How many histograms of segments a step has at most."""
        return len(self.columns) * sum(len(values) + 1 for values in self.segments.values())

    def column(self, name: str) -> Column:
        return next(each for each in self.columns if each.name == name)


class Watched(Struct, frozen=True):
    """What of a capability's objects is watched, by what a version declares."""

    inputs: pl.Schema  # by their own names
    outputs: pl.Schema
    segments: tuple[str, ...]
    classified: frozenset[str]  # full names, such as `input.age`
    whole: frozenset[str]  # the same, of whole numbers
    scored: pl.Schema  # of the output: what estimates of binary labels are made of; empty where there are none


def watched_of(declared: Declared) -> Watched:
    """The plain columns of the input and the output that are neither ignored nor protected."""
    monitoring, protected = declared.capability.monitoring, declared.capability.protect
    ignored = set(monitoring.ignore)

    def kept(properties: Iterable[Property], schema: pl.Schema) -> pl.Schema:
        names = [
            each.name
            for each in properties
            if each.name in schema
            and each.name not in ignored
            and each.logical_type in {"number", "integer", "boolean", "string"}
            and each.classification not in protected
        ]
        return pl.Schema({name: schema[name] for name in names})

    inputs = columns_of(declared.input)
    segments = [
        each.name
        for each in declared.input.properties
        if each.name in monitoring.segments and each.name in inputs and not is_classified(each)
    ]
    classified = {INPUT + each.name for each in declared.input.properties if is_classified(each)}
    classified |= {OUTPUT + each.name for each in declared.output.properties if is_classified(each)}
    return Watched(
        kept(declared.input.properties, inputs),
        kept(declared.output.properties, columns_of(declared.output)),
        tuple(segments),
        frozenset(classified),
        frozenset(
            side + each.name
            for side, declares in ((INPUT, declared.input), (OUTPUT, declared.output))
            for each in declares.properties
            if each.logical_type == "integer"
        ),
        _scored(declared),
    )


def _scored(declared: Declared) -> pl.Schema:
    """The score and the prediction of binary labels, where both are recorded as they were answered."""
    labels, protected = declared.capability.monitoring.labels, declared.capability.protect
    if labels is None or labels.kind != "binary" or labels.score is None:
        return pl.Schema()
    plain = columns_of(declared.output)
    open_names = {each.name for each in declared.output.properties if each.classification not in protected}
    names = dict.fromkeys(name for name in (labels.score, labels.prediction) if name is not None)
    return pl.Schema({name: plain[name] for name in names} if names.keys() <= open_names & plain.keys() else {})


def make_layout(
    version: str,
    watched: Watched,
    first: pl.DataFrame,
    known: Known | None = None,
    estimator: Estimator | None = None,
) -> Layout:
    """The layout of a version, by its first decisions and, where it brought some, its reference rows.

    `first` has columns `input.x` and `output.x`, `confidence`, `novelty` and `answered`. All frames have at least one
    row, and each segment field among their columns.
    """
    first_named = f"first {first.height:,} decisions"
    of_inputs, inputs_named = (first, first_named) if known is None else (known.inputs, ROWS_NAMED)
    inputs = _binned(of_inputs, [INPUT + name for name in watched.inputs], watched)
    segments = {field: most_frequent(as_segment(of_inputs[INPUT + field])) for field in watched.segments}
    if known is not None and known.answered is not None:
        said, said_named = known.answered, ROWS_NAMED
    else:
        answered = first.filter("answered")
        said, said_named = answered if answered.height else first, first_named
    outputs = list(_binned(said, [OUTPUT + name for name in watched.outputs], watched))
    if said[CONFIDENCE].null_count() < said.height:
        outputs += make_bins(said.select(CONFIDENCE))
    novelty = _novelty(first, None if known is None else known.calibrating, segments)
    return Layout(
        version=version,
        columns=(*inputs, *outputs, *(() if novelty is None else (p_value_column(NOVELTY),))),
        segments=segments,
        inputs=_reference(inputs_named, of_inputs, inputs, segments),
        outputs=_reference(said_named, said, outputs, segments),
        novelty=novelty,
        estimator=estimator,
    )


def _novelty(first: pl.DataFrame, calibrating: int | None, segments: dict[str, tuple[str, ...]]) -> Reference | None:
    """What novelty is held against; None where there is none. `calibrating`: rows among which it is counted."""
    scored = first.filter(pl.col(NOVELTY).is_not_null())
    if calibrating is None and not scored.height:
        return None
    found = _reference(f"first {first.height:,} decisions", scored, [p_value_column(NOVELTY)], segments)
    if calibrating is None:
        return found
    even = p_value_counts(calibrating)
    return msgspec.structs.replace(found, of=CALIBRATION_NAMED, rows=even.rows, blocks={NOVELTY: (even,)})


def as_segment(series: pl.Series) -> pl.Series:
    """The values of a segment field as texts: whole numbers without their `.0`; null stays null."""
    if series.dtype == pl.Boolean:
        return series.cast(pl.UInt8).replace_strict({0: "false", 1: "true"}, return_dtype=pl.String)
    if not series.dtype.is_numeric():
        return series.cast(pl.String)
    whole = series.cast(pl.Int64, strict=False)
    texts = series.cast(pl.String)
    return pl.select(pl.when(whole.cast(pl.Float64) == series).then(whole.cast(pl.String)).otherwise(texts)).to_series()


def segment_codes(series: pl.Series, values: Sequence[str]) -> NDArray[np.intp]:
    """(rows,) the place of each value among `values`; `len(values)` for all others, also for those that are missing."""
    known = as_segment(series).cast(pl.Enum(values), strict=False).to_physical().cast(pl.Int64)
    return known.fill_null(len(values)).to_numpy().astype(np.intp)


def most_frequent(texts: pl.Series) -> tuple[str, ...]:
    """The values that are segments of their own, the most frequent first."""
    counted = texts.drop_nulls().rename("value").value_counts(name="rows")
    return tuple(counted.sort(["rows", "value"], descending=[True, False]).head(MOST_SEGMENTS)["value"].to_list())


def _binned(rows: pl.DataFrame, names: Sequence[str], watched: Watched) -> tuple[Column, ...]:
    if not names:
        return ()
    whole = [pl.col(name).cast(pl.Int64, strict=False) for name in names if name in watched.whole]
    made = make_bins(rows.select(names).with_columns(whole))
    return tuple(_blurred(each) if each.name in watched.classified else each for each in made)


def _blurred(column: Column) -> Column:
    bins = column.bins
    if isinstance(bins, Values):
        return Column(column.name, Values(()))
    edges = sorted({_rounded(edge) for edge in bins.edges})
    return Column(column.name, Numbers(tuple(edges), (), _rounded(bins.centre), bins.whole))


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _reference(
    of: str, rows: pl.DataFrame, columns: Sequence[Column], segments: dict[str, tuple[str, ...]]
) -> Reference:
    """Counts of the rows; of a column whose values were chosen from every other row, those of the others."""
    groupings = [(segment_codes(rows[INPUT + field], values), len(values) + 1) for field, values in segments.items()]
    whole, *parts = count_blocks(rows, columns, BLOCKS, groupings)
    within = {
        field: {
            value: _by_column(found[place * BLOCKS : (place + 1) * BLOCKS])
            for place, value in enumerate((*values, OTHERS))
        }
        for (field, values), found in zip(segments.items(), parts, strict=True)
    }
    return Reference(of=of, rows=rows.height, blocks=_by_column(whole), segments=within)


def _by_column(blocks: Sequence[dict[str, Histogram]]) -> dict[str, tuple[Histogram, ...]]:
    return {name: tuple(block[name] for block in blocks) for name in blocks[0]}


class Layouts:
    """The layouts of a capability, as the lake has them."""

    def __init__(self, lake: Lake, capability: str) -> None:
        self._lake = lake
        self._name = PREFIX + capability
        self._known: dict[str, Layout] = {}

    def find(self, version: str) -> Layout | None:
        """The layout of a version; None where there is none yet. Raises Failed when the storage does not answer."""
        if version not in self._known:
            table = self._lake.find(self._name)
            if table is None:
                return None
            rows = table.frame().filter(pl.col("version") == version).select("document").collect()
            if rows.height:
                self._known[version] = msgspec.json.decode(rows["document"][0], type=Layout)
        return self._known.get(version)

    def keep(self, layout: Layout, now: datetime) -> Layout:
        """Keep a layout, unless the version has one: which of them it has from now on."""
        table = self._lake.find(self._name) or self._lake.create(self._name, _SCHEMA)
        row = {
            "version": layout.version,
            "of": layout.inputs.of,
            "rows": layout.inputs.rows,
            "document": msgspec.json.encode(layout).decode(),
            "made_at": now,
        }
        table.append(pl.DataFrame([row], schema=_SCHEMA), writer=layout.version, position=1)
        found = self.find(layout.version)
        assert found is not None, "it was written just now, by whoever was first"
        return found
