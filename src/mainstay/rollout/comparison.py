"""How a shadow's decisions compare with those that were given: outcome, output, time, cost, and where they differ most.

Only rows of its time are read: those of the releases in which it was a shadow, each once, in bounded batches. What is
kept meanwhile are sums, decisions that their shadow may still follow, and the cases that differ most so far.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl

from mainstay.errors import NOT_READ, Misuse
from mainstay.monitoring.evidence import BATCH_POSITIONS, RELEASE, SEQUENCE, Evidence, parse
from mainstay.monitoring.intervals import Estimate
from mainstay.monitoring.layouts import MOST_SEGMENTS, OTHERS, as_segment, most_frequent, watched_of
from mainstay.monitoring.service_cost import cost_of
from mainstay.monitoring.service_counts import ServiceCounts, service_counts
from mainstay.rollout import sequential_pairs as pairs
from mainstay.rollout.comparison_types import Case, Comparison, Ending, FieldDifference, Part, Timing, Trial
from mainstay.rollout.counting import Keys, alone, count_keys, differing, failed
from mainstay.rollout.evidence import MOST_RECENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mainstay.capability.keeping import Cost
    from mainstay.capability.load import Declared
    from mainstay.catalog.types import Release
    from mainstay.lake.lake import Lake

MOST_CASES: Final = 100
NEWEST: Final = 3  # ids of decisions that ended otherwise
_KEPT: Final = 5 * MOST_CASES  # cases: ranges of numbers still grow, and so their order may change

_GIVEN: Final = ["id", "at", "key", "outcome", "reasons", "output", "confidence", "seconds", "input"]
_SAID: Final = ["outcome", "reasons", "output", "confidence", "seconds"]
_OUTCOMES: Final = "_outcomes"  # columns of pairs: whether they end otherwise ...
_OUTPUTS: Final = "_outputs"  # ... or say something else
_ERRORS: Final = "_errors"
_SEGMENT: Final = "_segment."
_APART: Final = "_apart."  # of a field: how far apart two values are
_DISTANCE: Final = "_distance"


def trial_of(releases: Sequence[Release], version: str | None = None) -> Trial:
    """The last time in which a version was a shadow; without `version`, that of the shadow that was released last.

    `releases` are all of the capability, oldest first. Raises Misuse where it was none, or two are meant.
    """
    places = [
        place
        for place, release in enumerate(releases)
        if (version is None and release.shadows) or any(each.version == version for each in release.shadows)
    ]
    if not places:
        what = "no version" if version is None else f"version {version}"
        raise Misuse(f"expected a shadow, found that {what} is or was one", hint="See: mainstay history NAME")
    last = first = places[-1]
    shadows = {each.version for each in releases[last].shadows}
    if version is None and len(shadows) > 1:
        raise Misuse(f"expected one shadow, found {len(shadows)}: name the version", hint="\n".join(sorted(shadows)))
    found = version or shadows.pop()
    while first and any(each.version == found for each in releases[first - 1].shadows):
        first -= 1
    after = releases[last + 1] if last + 1 < len(releases) else None
    return Trial(
        version=found,
        beside=releases[last].version,
        first=releases[first].number,
        last=releases[last].number,
        since=datetime.fromisoformat(releases[first].published_at),
        until=None if after is None else datetime.fromisoformat(after.published_at),
    )


def compare_shadow(
    lake: Lake,
    declared: Declared,
    trial: Trial,
    cases: int,
    progress: Callable[[int], None] = lambda _: None,
    *,
    positions: int = BATCH_POSITIONS,
) -> Comparison:
    """All that the lake has of a shadow, beside what was decided. `declared` is the folder of the version in force.

    `cases` is how many are told that differ most, at most MOST_CASES; `progress` is told how many were compared;
    `positions` of the ledger are read at once. Raises Misuse for more cases, Failed when the storage does not answer.
    """
    if not 0 <= cases <= MOST_CASES:
        raise Misuse(f"expected from 0 to {MOST_CASES} cases, found {cases}")
    found = _Comparing(declared)
    tables = Evidence(lake, declared.capability.name)
    first, last = tables.positions_of(trial.first, trial.last)
    recent = pl.DataFrame()
    of_it = pl.col(RELEASE).is_between(trial.first, trial.last)
    for batch in tables.batches(first, positions) if first < last else ():
        if batch.first >= last:
            break
        given = batch.decisions.filter(of_it)
        found.decided += given.height
        own_time = pl.when(alone()).then("seconds").alias("seconds")  # each of a call for several has the time of all
        given = given.with_columns(own_time).select(_GIVEN)
        recent = pl.concat([recent, given]) if recent.height else given
        shadows = batch.shadows.filter(of_it, pl.col("version") == trial.version)
        both = shadows.select(SEQUENCE, *_SAID, id="decision_id").join(recent, on="id", suffix="_given")
        if both.height:
            found.add(both)
            progress(found.whole.compared)
        recent = recent.join(both.select("id"), on="id", how="anti").tail(MOST_RECENT)
    return found.told(trial, cases)


@dataclass(slots=True)
class _Sums:
    """What was counted of some pairs."""

    compared: int = 0
    outcomes: int = 0
    outputs: int = 0
    errors: int = 0
    given: ServiceCounts = field(default_factory=ServiceCounts)
    said: ServiceCounts = field(default_factory=ServiceCounts)

    def add(self, both: pl.DataFrame) -> None:
        self.compared += both.height
        self.outcomes += int(both[_OUTCOMES].sum())
        self.outputs += int(both[_OUTPUTS].sum())
        self.errors += int(both[_ERRORS].sum())
        no_batch = pl.lit(None, pl.String).alias("source_batch")  # rows of batches have no shadows
        self.said += service_counts(both.select("outcome", "reasons", "seconds", no_batch))
        given = {name: f"{name}_given" for name in ("outcome", "reasons", "seconds")}
        self.given += service_counts(both.select(no_batch, **given))

    def part(self, segment: str | None, per_key: float, cost: Cost | None) -> Part:
        differ = self.outcomes + self.outputs
        state = pairs.fold(pairs.Pairs(), self.compared, differ, 0, decisions_per_key=per_key)
        bounds = pairs.interval(state)
        assert bounds is not None, "there is no part without a pair"
        return Part(
            segment=segment,
            compared=self.compared,
            outcomes_differ=self.outcomes,
            outputs_differ=self.outputs,
            errors=self.errors,
            disagreement=Estimate(differ / self.compared, max(0.0, bounds[0]), bounds[1]),
            given_timing=_timing(self.given),
            shadow_timing=_timing(self.said),
            given_cost=_cost(self.given, cost),
            shadow_cost=_cost(self.said, cost),
        )


@dataclass(slots=True)
class _FieldSums:
    """What was counted of a field of the output."""

    compared: int = 0
    differ: int = 0
    total: float = 0.0
    absolute: float = 0.0
    largest: float = 0.0
    low: float = float("inf")  # of the values that were seen, of either
    high: float = float("-inf")
    numbers: int = 0  # of which both are one

    @property
    def range(self) -> float:
        """What a distance is a part of; 1 where nothing but equal numbers, or none, were seen."""
        return self.high - self.low if self.high > self.low else 1.0

    def add(self, said: pl.Series, given: pl.Series) -> pl.Series:
        """Count them, and say how far apart the values of each pair are: infinitely, where one has none."""
        self.compared += len(said)
        self.differ += int(differing(said.to_frame(), given.to_frame()).sum())
        if not said.dtype.is_numeric():
            return (~said.eq_missing(given)).cast(pl.Float64)
        apart = (said - given).cast(pl.Float64)
        known = apart.drop_nulls()
        self.numbers += len(known)
        self.total += float(known.sum())
        self.absolute += float(known.abs().sum())
        self.largest = max(self.largest, float(known.abs().max() or 0.0))  # type: ignore[arg-type]  # a number
        seen = pl.concat([said, given]).drop_nulls()
        if len(seen):
            self.low = min(self.low, float(seen.min()))  # type: ignore[arg-type]  # a number
            self.high = max(self.high, float(seen.max()))  # type: ignore[arg-type]  # a number
        one_alone = said.is_null() != given.is_null()
        return apart.abs().fill_null(0.0).zip_with(~one_alone, pl.Series([float("inf")]))

    def told(self, name: str) -> FieldDifference:
        n = self.numbers
        return FieldDifference(
            name=name,
            compared=self.compared,
            differ=self.differ,
            mean=self.total / n if n else None,
            mean_absolute=self.absolute / n if n else None,
            largest=self.largest if n else None,
        )


@dataclass(slots=True)
class _Ended:
    decisions: int = 0
    newest: tuple[str, ...] = ()


@dataclass
class _Comparing:
    """What is kept while pairs are read."""

    declared: Declared
    decided: int = 0
    whole: _Sums = field(default_factory=_Sums)
    keys: Keys = field(default_factory=Keys)

    def __post_init__(self) -> None:
        self._watched = watched_of(self.declared)
        self._fields = {name: _FieldSums() for name in self._watched.outputs}
        self._segments: dict[str, dict[str, _Sums]] = {name: {} for name in self._watched.segments}
        self._ended: dict[tuple[str, str], _Ended] = {}
        self._cases = pl.DataFrame()

    def add(self, both: pl.DataFrame) -> None:
        """Count pairs: rows with what the shadow said, and with what was given under names that end in `_given`."""
        self.keys = count_keys(self.keys, both["key"])
        said, given = (parse(both[name], self._watched.outputs) for name in ("output", "output_given"))
        otherwise = both["outcome"].ne_missing(both["outcome_given"])
        both = both.with_columns(
            otherwise.alias(_OUTCOMES),
            (pl.Series(differing(said, given)) & ~otherwise).alias(_OUTPUTS),
            failed().alias(_ERRORS),
            *self._segment_columns(both["input"]),
        )
        self.whole.add(both)
        for name, known in self._segments.items():
            for (value,), rows in both.group_by(_SEGMENT + name, maintain_order=True):
                known.setdefault(str(value), _Sums()).add(rows)
        for (one, other), rows in both.filter(_OUTCOMES).group_by("outcome_given", "outcome", maintain_order=True):
            ended = self._ended.setdefault((str(one), str(other)), _Ended())
            ended.decisions += rows.height
            ended.newest = (*ended.newest, *rows["id"].tail(NEWEST))[-NEWEST:]
        self._keep_cases(both, said, given)

    def _segment_columns(self, inputs: pl.Series) -> Iterator[pl.Series]:
        """The segment that each row is of, by field; the values seen first have one each, and all others one."""
        if not self._segments:
            return
        schema = {name: self._watched.inputs.get(name, pl.String()) for name in self._segments}
        read = parse(inputs, pl.Schema(schema))
        for name, known in self._segments.items():
            texts = as_segment(read[name])
            new = [value for value in most_frequent(texts) if value not in known]
            named = [*(value for value in known if value != OTHERS), *new][:MOST_SEGMENTS]
            yield (
                pl.select(pl.when(texts.is_in(named)).then(texts).otherwise(pl.lit(OTHERS)))
                .to_series()
                .alias(_SEGMENT + name)
            )

    def _keep_cases(self, both: pl.DataFrame, said: pl.DataFrame, given: pl.DataFrame) -> None:
        """Of the pairs of two outputs, those that are furthest apart."""
        answered = ~both[_OUTCOMES] & both["output"].is_not_null() & both["output_given"].is_not_null()
        if not self._fields or not answered.any():
            return
        said, given = said.filter(answered), given.filter(answered)
        apart = [sums.add(said[name], given[name]).alias(_APART + name) for name, sums in self._fields.items()]
        new = both.filter(answered).with_columns(*apart)
        parts = [
            (pl.col(_APART + name) / (sums.range if self._is_number(name) else 1.0)).clip(upper_bound=1.0)
            for name, sums in self._fields.items()
        ]
        kept = pl.concat([self._cases, new], how="diagonal") if self._cases.height else new
        kept = kept.with_columns(pl.mean_horizontal(parts).alias(_DISTANCE)).filter(pl.col(_DISTANCE) > 0)
        sure = pl.min_horizontal("confidence", "confidence_given").fill_null(0.0)
        order = [pl.col(_DISTANCE), sure, pl.col(SEQUENCE)]  # of those alike, the surest and newest
        self._cases = kept.sort(order, descending=True).head(_KEPT)

    def _is_number(self, name: str) -> bool:
        return self._watched.outputs[name].is_numeric()

    def told(self, trial: Trial, cases: int) -> Comparison:
        capability = self.declared.capability
        declared = capability.cost
        cost = declared if declared.per_decision or declared.per_second or declared.per_review else None
        per_key = max(1.0, self.keys.decisions_per_key)
        endings = [
            Ending(given=one, shadow=other, decisions=ended.decisions, newest=ended.newest[::-1])
            for (one, other), ended in self._ended.items()
        ]
        return Comparison(
            capability=capability.name,
            trial=trial,
            decided=self.decided,
            currency=None if cost is None else cost.currency,
            whole=self.whole.part(None, per_key, cost) if self.whole.compared else None,
            segments=tuple(
                sums.part(f"{name}={value}", per_key, cost)
                for name, known in self._segments.items()
                for value, sums in sorted(known.items(), key=lambda each: (each[0] == OTHERS, -each[1].compared))
            ),
            fields=tuple(sums.told(name) for name, sums in self._fields.items() if sums.compared),
            endings=tuple(sorted(endings, key=lambda each: -each.decisions)),
            cases=tuple(self._case(row) for row in self._cases.head(cases).iter_rows(named=True)),
        )

    def _case(self, row: dict[str, Any]) -> Case:
        return Case(
            decision_id=row["id"],
            at=row["at"],
            distance=row[_DISTANCE],
            input=_object(row["input"]),
            given=_object(row["output_given"]) or {},
            shadow=_object(row["output"]) or {},
            given_confidence=row["confidence_given"],
            shadow_confidence=row["confidence"],
            segments={name: row[_SEGMENT + name] for name in self._segments},
        )


def _object(text: str | None) -> dict[str, Any] | None:
    """The object of a JSON text; None where it is none: what was recorded of a call that broke the contract."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except NOT_READ:
        return None


def _timing(counts: ServiceCounts) -> Timing | None:
    median, slow = counts.quantile(0.5), counts.quantile(0.99)
    if median is None or slow is None:
        return None
    return Timing(decisions=counts.timed, mean=counts.seconds / counts.timed, median=median, slow=slow)


def _cost(counts: ServiceCounts, cost: Cost | None) -> Estimate | None:
    found = None if cost is None else cost_of(counts, cost)
    return None if found is None else found.per_decision
