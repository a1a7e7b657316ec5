"""What service levels are made of: counts of decisions that add up, over steps, versions and stages.

Whether a decision was good for its caller is said by its outcome and its first reason alone, so that the counts of the
lake and those of `/metrics` (`mainstay_decisions_total`, labels `outcome` and `reason`) mean the same.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# First reasons that lie with the call or with the policy: no promise is made to these calls, however they ended.
NOT_OURS: Final = frozenset({"malformed_input", "contract_violation", "outside_authority"})
# First reasons for which a person is asked on purpose; such reviews are neither answered nor lost.
UNSURE: Final = frozenset({"low_confidence", "out_of_distribution"})

SERVED: Final = ("outcome", "reasons", "source_batch", "seconds")  # columns of decisions that are read here
BUCKET_RATIO: Final = 1.02  # of a latency bucket's upper to its lower end: a bound is met to 1 %
SHORTEST_SECONDS: Final = 1e-6
_LOG_RATIO: Final = math.log(BUCKET_RATIO)
_BETWEEN: Final = "\t"


class ServiceCounts(Struct, frozen=True, kw_only=True):
    """Counts of some decisions. Keys of `calls` and `batch` are the outcome and the first reason, tab-separated."""

    calls: dict[str, int] = field(default_factory=dict)  # somebody waited for these
    batch: dict[str, int] = field(default_factory=dict)  # rows of batches: they cost and need people as calls do
    reasons: dict[str, int] = field(default_factory=dict)  # of both; a decision counts under each of its reasons
    latency: dict[int, int] = field(default_factory=dict)  # of calls: by n, those above r**(n-1) and up to r**n seconds
    timed: int = 0  # decisions of both whose seconds are known
    seconds: float = 0.0  # of those, the sum
    squares: float = 0.0  # of those, the sum of the seconds' squares

    def __add__(self, other: ServiceCounts) -> ServiceCounts:
        return merged((self, other))

    @property
    def decisions(self) -> int:
        return sum(self.calls.values()) + sum(self.batch.values())

    def count(self, *, outcome: str | None = None, batch: bool = True) -> int:
        """Decisions of an outcome, or of any; without `batch`, calls only."""
        return self._sum(lambda found, _: outcome in (None, found), batch=batch)

    @property
    def promised(self) -> int:
        """Calls that a promise is made to: those whose first reason lies neither with the call nor with the policy."""
        return self._sum(lambda _, reason: reason not in NOT_OURS, batch=False)

    @property
    def answered(self) -> int:
        """Of the promised calls, those that got an answer, of the model or of the fallback."""
        return self._sum(
            lambda outcome, reason: reason not in NOT_OURS and outcome in {"answered", "fallback"}, batch=False
        )

    @property
    def answered_by_model(self) -> int:
        """Of the promised calls, those that the model itself answered."""
        return self._sum(lambda outcome, reason: reason not in NOT_OURS and outcome == "answered", batch=False)

    @property
    def handed_over(self) -> int:
        """Of the promised calls, those that wait for a person because the model was not sure enough."""
        return self._sum(lambda outcome, reason: outcome == "review" and reason in UNSURE, batch=False)

    def within(self, seconds: float) -> int:
        """Calls that took at most so long, by the bucket's end that is nearest: exact within 1 % of the bound."""
        last = round(math.log(max(seconds, SHORTEST_SECONDS)) / _LOG_RATIO)
        return sum(number for bucket, number in self.latency.items() if bucket <= last)

    def quantile(self, share: float) -> float | None:
        """The seconds within which that share of the calls ended, to 1 %; None where none was timed."""
        total = sum(self.latency.values())
        if not total:
            return None
        wanted, seen = math.ceil(share * total), 0
        for bucket in sorted(self.latency):
            seen += self.latency[bucket]
            if seen >= wanted:
                return float(BUCKET_RATIO ** (bucket - 0.5))
        raise AssertionError("a share is at most 1")

    def _sum(self, fits: Callable[[str, str], bool], *, batch: bool) -> int:
        counted = (self.calls, self.batch) if batch else (self.calls,)
        return sum(number for part in counted for key, number in part.items() if fits(*key.split(_BETWEEN)))


def merged(parts: Iterable[ServiceCounts]) -> ServiceCounts:
    """The sum of counts; none of no counts."""
    calls, batch, reasons = Counter[str](), Counter[str](), Counter[str]()
    latency = Counter[int]()
    timed, seconds, squares = 0, [], []
    for part in parts:
        calls.update(part.calls)
        batch.update(part.batch)
        reasons.update(part.reasons)
        latency.update(part.latency)
        timed += part.timed
        seconds.append(part.seconds)
        squares.append(part.squares)
    return ServiceCounts(
        calls=dict(calls),
        batch=dict(batch),
        reasons=dict(reasons),
        latency=dict(latency),
        timed=timed,
        seconds=math.fsum(seconds),
        squares=math.fsum(squares),
    )


def service_counts(decisions: pl.DataFrame) -> ServiceCounts:
    """Counts of the rows of a table `decisions/NAME`.

    The columns that are read are `outcome`, `reasons`, `source_batch` (not null: the row of a batch) and `seconds`;
    a table of before the last was recorded lacks it, and its decisions are not timed.
    """
    if "seconds" not in decisions.columns:
        decisions = decisions.with_columns(pl.lit(None, dtype=pl.Float64).alias("seconds"))
    is_call = pl.col("source_batch").is_null()
    first = pl.col("reasons").list.first().fill_null("")
    key = pl.concat_str(pl.col("outcome").fill_null(""), first, separator=_BETWEEN)
    bucket = (pl.col("seconds").clip(SHORTEST_SECONDS).log() / _LOG_RATIO).ceil().cast(pl.Int64)
    rows = decisions.select(key.alias("key"), is_call.alias("is_call"), "reasons", "seconds", bucket.alias("bucket"))
    timed = rows["seconds"].drop_nulls()
    calls = rows.filter("is_call")
    return ServiceCounts(
        calls=_numbers(calls["key"]),
        batch=_numbers(rows.filter(~pl.col("is_call"))["key"]),
        reasons=_numbers(rows["reasons"].list.unique().explode()),
        latency=_numbers(calls["bucket"]),
        timed=len(timed),
        seconds=float(timed.sum()),
        squares=float((timed**2).sum()),
    )


def _numbers(values: pl.Series) -> dict[Any, int]:
    """How often each value stands there; what is null does not count."""
    found = values.drop_nulls().rename("value").value_counts(sort=True, name="number")
    return dict(zip(found["value"], found["number"], strict=True))
