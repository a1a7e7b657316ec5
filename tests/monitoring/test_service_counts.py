from __future__ import annotations

import math
from typing import Any

import msgspec
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.monitoring.service_counts import BUCKET_RATIO, ServiceCounts, merged, service_counts

SCHEMA = {
    "outcome": pl.String(),
    "reasons": pl.List(pl.String()),
    "seconds": pl.Float64(),
    "source_batch": pl.String(),
}
REASONS = ["model_error", "low_confidence", "contract_violation", "no_fallback", "stopped"]
decisions = st.tuples(
    st.sampled_from(["answered", "fallback", "review", "refused"]),
    st.lists(st.sampled_from(REASONS), max_size=3),
    st.none() | st.floats(0, 700),
    st.none() | st.just("b1"),
)


def frame(rows: list[Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


@settings(max_examples=40)
@given(st.lists(decisions), st.lists(decisions))
def test_counts_of_two_parts_add_up_to_those_of_the_whole(first: list[Any], second: list[Any]) -> None:
    parts = merged([service_counts(frame(first)), service_counts(frame(second))])
    whole = service_counts(frame(first + second))
    assert (parts.calls, parts.batch, parts.reasons) == (whole.calls, whole.batch, whole.reasons)
    assert (parts.latency, parts.timed) == (whole.latency, whole.timed)
    assert math.isclose(parts.seconds, whole.seconds, abs_tol=1e-9)
    assert math.isclose(parts.squares, whole.squares, abs_tol=1e-9)
    assert whole.decisions == len(first + second)


@given(st.lists(decisions))
def test_counts_are_the_same_after_json(rows: list[Any]) -> None:
    counts = service_counts(frame(rows))
    assert msgspec.json.decode(msgspec.json.encode(counts), type=ServiceCounts) == counts


def test_the_first_reason_says_what_kind_of_call_it_was_and_every_reason_is_counted() -> None:
    counts = service_counts(
        frame(
            [
                ("answered", [], 0.1, None),
                ("answered", ["out_of_distribution"], 0.1, None),
                ("fallback", ["model_error"], 0.1, None),
                ("refused", ["model_error", "no_fallback"], 0.1, None),
                ("refused", ["contract_violation"], 0.1, None),
                ("review", ["low_confidence"], 0.1, None),
                ("review", ["outside_authority", "low_confidence"], 0.1, None),
                ("review", ["model_crashed"], 0.1, None),
                ("fallback", ["model_error"], 0.1, "b1"),
            ]
        )
    )
    assert counts.reasons["model_error"] == 3
    assert counts.reasons["low_confidence"] == 2
    assert (counts.promised, counts.answered, counts.answered_by_model, counts.handed_over) == (6, 3, 2, 1)
    assert counts.count(outcome="fallback") == 2
    assert counts.count(outcome="fallback", batch=False) == 1


def test_a_table_without_times_has_counts_and_no_latency() -> None:
    counts = service_counts(frame([("answered", [], None, None)]).drop("seconds"))
    assert (counts.decisions, counts.timed, counts.latency, counts.quantile(0.5)) == (1, 0, {}, None)


@settings(max_examples=40)
@given(st.lists(st.floats(1e-6, 600), min_size=1), st.floats(1e-6, 600))
def test_calls_within_a_bound_are_exact_to_a_hundredth_of_the_bound(times: list[float], bound: float) -> None:
    counts = service_counts(frame([("answered", [], each, None) for each in times]))
    least = sum(each <= bound / BUCKET_RATIO**0.5001 for each in times)
    most = sum(each <= bound * BUCKET_RATIO**0.5001 for each in times)
    assert least <= counts.within(bound) <= most


@settings(max_examples=40)
@given(st.lists(st.floats(1e-6, 600), min_size=1), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_quantiles_are_exact_to_a_hundredth(times: list[float], share: float) -> None:
    counts = service_counts(frame([("answered", [], each, None) for each in times]))
    true = sorted(times)[math.ceil(share * len(times)) - 1]
    found = counts.quantile(share)
    assert found is not None
    assert true / BUCKET_RATIO**0.5001 <= found <= true * BUCKET_RATIO**0.5001
