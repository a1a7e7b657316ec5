"""What rows of decisions, labels and shadows count for: the arms of a canary, and how a shadow agrees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
from msgspec import Struct

from mainstay.monitoring.binning import Column, make_bins
from mainstay.monitoring.evidence import parse
from mainstay.monitoring.histograms import Tally
from mainstay.monitoring.layouts import OUTPUT, as_segment, most_frequent, segment_codes
from mainstay.monitoring.service_counts import NOT_OURS
from mainstay.rollout.judging import MOST_SEGMENTS
from mainstay.rollout.judging_types import Arm
from mainstay.rollout.sequential_differences import Sums

if TYPE_CHECKING:
    from mainstay.capability.keeping import Cost
    from mainstay.monitoring.layouts import Watched

# First reasons for which a decision says nothing about the version that was asked.
NOT_ITS_DOING: Final = (NOT_OURS - {"outside_authority"}) | {"feed_stopped", "stopped", "protection_failed"}
ERRORS: Final = frozenset(
    {"deadline_exceeded", "model_error", "model_crashed", "model_unavailable", "output_invalid", "overloaded"}
)
ALONE_SHARE: Final = 0.1  # of the decisions have to be calls of their own, for latency to be compared at all
FEWEST_SAMPLED: Final = 50  # answers of the version in force, for bins of outputs and a bound of latency
SLOW_SHARE: Final = 0.99
MOST_KEYS: Final = 512

ARM: Final = "canary"  # of a row: whether the version on trial decided it
STEP: Final = "step"
_SEGMENT: Final = "segment."


class Yardstick(Struct, frozen=True, kw_only=True):
    """What is measured by, settled on decisions of the version in force from before the trial began."""

    sampled: int = 0
    slow_seconds: float | None = None  # what 99 % were faster than; None: not known, and latency is not compared
    columns: tuple[Column, ...] = ()  # of the outputs, by their full names; none: not known, and none is counted
    segments: dict[str, tuple[str, ...]] = {}

    @property
    def names(self) -> list[str]:
        """The segments, as `field=value`, those of the first field first."""
        found = [f"{field}={value}" for field, values in self.segments.items() for value in values]
        return found[:MOST_SEGMENTS]


def yardstick(sample: pl.DataFrame, watched: Watched) -> Yardstick:
    """The yardstick from rows of the table of decisions, all of the version in force."""
    rows = judged(sample)
    answered = rows.filter(pl.col("outcome") == "answered")
    segments = {}
    if watched.segments:
        read = parse(
            rows["input"], pl.Schema({name: watched.inputs.get(name, pl.String()) for name in watched.segments})
        )
        segments = {name: most_frequent(as_segment(read[name])) for name in watched.segments}
    if answered.height < FEWEST_SAMPLED:
        return Yardstick(sampled=rows.height, segments=segments)
    said = parse(answered["output"], watched.outputs).rename(lambda name: OUTPUT + name)
    timed = rows.filter(alone())["seconds"]
    enough = len(timed) >= max(FEWEST_SAMPLED, ALONE_SHARE * rows.height)
    slow = timed.quantile(SLOW_SHARE, "higher") if enough else None
    return Yardstick(
        sampled=rows.height,
        slow_seconds=slow,
        columns=make_bins(said) if said.width else (),
        segments=segments,
    )


def judged(decisions: pl.DataFrame) -> pl.DataFrame:
    """The rows that say something about the version that was asked: the call was right, and nothing was stopped."""
    first = pl.col("reasons").list.first().fill_null("")
    return decisions.filter(~first.is_in(sorted(NOT_ITS_DOING)))


def alone() -> pl.Expr:
    """Whether the time that a decision took is its own: it was timed, and nothing else was asked for in its call.

    The decisions of one call share its time, and each version's part of them runs at once: the few that a canary is
    given are done sooner, or wait for the many, whatever the versions are like. So they say nothing of either.
    """
    return pl.col("seconds").is_not_null() & pl.col("call_size").is_null()


def with_segments(rows: pl.DataFrame, known: Yardstick, watched: Watched) -> pl.DataFrame:
    """The rows with the place of their value among the known ones, for each segment field."""
    if not known.segments:
        return rows
    schema = pl.Schema({name: watched.inputs.get(name, pl.String()) for name in known.segments})
    read = parse(rows["input"], schema)
    codes = [
        pl.Series(_SEGMENT + name, segment_codes(read[name], values), dtype=pl.Int64)
        for name, values in known.segments.items()
    ]
    return rows.with_columns(codes)


def count_arms(rows: pl.DataFrame, known: Yardstick, watched: Watched, cost: Cost) -> dict[bool, Arm]:
    """What the rows of each arm count for. Rows have the column ARM."""
    return {bool(arm): _arm(part, known, watched, cost) for (arm,), part in rows.group_by(ARM, maintain_order=True)}


def count_segments(rows: pl.DataFrame, known: Yardstick) -> dict[str, dict[bool, Arm]]:
    """The same for each segment, without outputs and cost. Rows have the columns of `with_segments`."""
    found: dict[str, dict[bool, Arm]] = {}
    counted = rows.with_columns(*_flags(known))
    for field, values in known.segments.items():
        column = _SEGMENT + field
        groups = counted.group_by(column, ARM).agg(
            pl.len(), pl.col("_error", "_fallback", "_review", "_untimed", "_slow").sum()
        )
        for code, arm, decisions, *hits in groups.iter_rows():
            if code < len(values):
                errors, fallback, review, untimed, slow = hits
                made = Arm(
                    decisions=decisions, errors=errors, fallback=fallback, review=review, untimed=untimed, slow=slow
                )
                found.setdefault(f"{field}={values[code]}", {})[bool(arm)] = made
    return found


def loss_sums(rows: pl.DataFrame, known: Yardstick) -> tuple[dict[bool, Sums], dict[str, dict[bool, Sums]]]:
    """The sums of the column `loss` of each arm, of all rows and of each segment."""
    whole = {bool(arm): _sums(part["loss"]) for (arm,), part in rows.group_by(ARM)}
    parts: dict[str, dict[bool, Sums]] = {}
    for field, values in known.segments.items():
        for (code, arm), part in rows.group_by(_SEGMENT + field, ARM):
            if isinstance(code, int) and code < len(values):
                parts.setdefault(f"{field}={values[code]}", {})[bool(arm)] = _sums(part["loss"])
    return whole, parts


def _arm(rows: pl.DataFrame, known: Yardstick, watched: Watched, cost: Cost) -> Arm:
    counted = rows.select(*_flags(known)).sum().row(0)
    errors, fallback, review, untimed, slow = (int(each or 0) for each in counted)
    seconds = rows.select(pl.when(alone()).then("seconds").otherwise(0.0)).to_series().to_numpy()
    waits = (rows["outcome"] == "review").to_numpy()
    spent = cost.per_decision + cost.per_second * seconds + cost.per_review * waits
    return Arm(
        decisions=rows.height,
        errors=errors,
        fallback=fallback,
        review=review,
        untimed=untimed,
        slow=slow,
        outputs=_bins(rows.filter(pl.col("outcome") == "answered"), known, watched),
        cost=Sums(rows.height, float(spent.sum()), float(np.square(spent).sum())),
    )


def failed() -> pl.Expr:
    """Whether the model could not answer."""
    return pl.col("reasons").list.eval(pl.element().is_in(sorted(ERRORS))).list.any().fill_null(value=False)


def _flags(known: Yardstick) -> list[pl.Expr]:
    bound = float("inf") if known.slow_seconds is None else known.slow_seconds
    return [
        failed().cast(pl.Int64).alias("_error"),
        (pl.col("outcome") == "fallback").cast(pl.Int64).alias("_fallback"),
        (pl.col("outcome") == "review").cast(pl.Int64).alias("_review"),
        (~alone()).cast(pl.Int64).alias("_untimed"),
        (alone() & (pl.col("seconds") > bound)).cast(pl.Int64).alias("_slow"),
    ]


def _bins(answered: pl.DataFrame, known: Yardstick, watched: Watched) -> dict[str, tuple[int, ...]]:
    if not known.columns or not answered.height:
        return {}
    tally = Tally(known.columns)
    tally.add(parse(answered["output"], watched.outputs).rename(lambda name: OUTPUT + name))
    (found,) = tally.result()
    return {name.removeprefix(OUTPUT): histogram.counts for name, histogram in found.items()}


def _sums(values: pl.Series) -> Sums:
    return Sums(len(values), float(values.sum()), float((values**2).sum()))


# Keys that decide more than once.


class Keys(Struct, frozen=True, kw_only=True):
    """How often keys decide: exactly, of a share of 1/2**level of them, chosen by their digests alone."""

    level: int = 0
    seen: dict[str, int] = {}
    without: int = 0  # decisions without a key: each is one of its own

    @property
    def decisions_per_key(self) -> float:
        """sum(m^2)/sum(m) over keys that have m decisions."""
        counts = np.array(list(self.seen.values()), dtype=float) if self.seen else np.zeros(0)
        weight = 2.0**self.level
        total = weight * counts.sum() + self.without
        return float((weight * np.square(counts).sum() + self.without) / total) if total else 1.0


def count_keys(known: Keys, keys: pl.Series) -> Keys:
    """The same with the keys of more decisions, which are hexadecimal digests."""
    there = keys.drop_nulls().rename("key")
    seen, level = dict(known.seen), known.level
    for key, number in there.value_counts(name="number").iter_rows():
        if _is_sampled(key, level):
            seen[key] = seen.get(key, 0) + number
    while len(seen) > MOST_KEYS:
        level += 1
        seen = {key: number for key, number in seen.items() if _is_sampled(key, level)}
    return Keys(level=level, seen=seen, without=known.without + len(keys) - len(there))


def _is_sampled(key: str, level: int) -> bool:
    return int(key[:8], 16) % (1 << level) == 0


# Shadows.


class Agreement(Struct, frozen=True, kw_only=True):
    """How a shadow's decisions compare with those that were given, of the same inputs."""

    compared: int = 0
    outcomes_differ: int = 0
    outputs_differ: int = 0  # of those whose outcome is the same
    errors: int = 0  # that the shadow could not answer
    seconds: Sums = Sums()  # that the shadow took
    given_seconds: Sums = Sums()  # that the decisions took

    @property
    def disagreement(self) -> float | None:
        """The share of decisions on which they differ; None where none was compared."""
        return (self.outcomes_differ + self.outputs_differ) / self.compared if self.compared else None

    def plus(self, other: Agreement) -> Agreement:
        return Agreement(
            compared=self.compared + other.compared,
            outcomes_differ=self.outcomes_differ + other.outcomes_differ,
            outputs_differ=self.outputs_differ + other.outputs_differ,
            errors=self.errors + other.errors,
            seconds=self.seconds.plus(other.seconds),
            given_seconds=self.given_seconds.plus(other.given_seconds),
        )


def compare(shadows: pl.DataFrame, decisions: pl.DataFrame, watched: Watched) -> Agreement:
    """How shadows compare with the decisions they were given; those whose decision is not among them are left out.

    Outputs differ where a field differs that is no number; of outputs that are numbers alone, where one of them differs
    by more than a hundredth of the larger.
    """
    given = decisions.select("id", given="outcome", said="output", took="seconds")
    pairs = shadows.join(given, left_on="decision_id", right_on="id", how="inner")
    if not pairs.height:
        return Agreement()
    differ = (pairs["outcome"] != pairs["given"]).to_numpy()
    outputs = differing(parse(pairs["output"], watched.outputs), parse(pairs["said"], watched.outputs))
    errors = pairs.select(failed()).to_series().sum()
    return Agreement(
        compared=pairs.height,
        outcomes_differ=int(differ.sum()),
        outputs_differ=int((outputs & ~differ).sum()),
        errors=int(errors),
        seconds=_sums(pairs["seconds"].drop_nulls()),
        given_seconds=_sums(pairs["took"].drop_nulls()),
    )


def differing(one: pl.DataFrame, other: pl.DataFrame) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(rows,) whether two outputs say something else, as `compare` has it."""
    plain = [name for name, kind in one.schema.items() if not kind.is_float()]
    found = np.zeros(one.height, dtype=np.bool_)
    for name in plain or one.columns:
        if plain:
            same = one[name].eq_missing(other[name])
        else:
            larger = pl.select(pl.max_horizontal(one[name].abs(), other[name].abs())).to_series()
            same = ((one[name] - other[name]).abs() <= larger / 100).fill_null(
                one[name].is_null() & other[name].is_null()
            )
        found |= ~same.to_numpy()
    return found
