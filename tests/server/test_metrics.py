from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from mainstay.server.metrics import Counts, load_counts, render, save_counts, slot_file, total

if TYPE_CHECKING:
    from pathlib import Path

seconds = st.floats(0, 100)
events = st.lists(
    st.tuples(
        st.sampled_from(["one", "two"]), st.sampled_from(["answered", "refused"]), st.sampled_from(["", "why"]), seconds
    )
)


def counted(made: list[tuple[str, str, str, float]]) -> Counts:
    counts = Counts()
    for capability, outcome, reason, took in made:
        counts.count(capability, outcome, reason, took)
    return counts


@given(events, events)
def test_the_sum_of_two_workers_is_what_one_would_have_counted(
    first: list[tuple[str, str, str, float]], second: list[tuple[str, str, str, float]]
) -> None:
    parts = total([counted(first), counted(second)])
    whole = counted(first + second)
    assert parts.decisions == whole.decisions
    assert {name: each.buckets for name, each in parts.latency.items()} == {
        name: each.buckets for name, each in whole.latency.items()
    }


@given(events)
def test_what_is_rendered_is_openmetrics_and_adds_up(made: list[tuple[str, str, str, float]]) -> None:
    text = render(counted(made), in_flight=3).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert sum(sample.value for sample in families["mainstay_decisions"].samples) == len(made)
    histogram = families["mainstay_decision_seconds"].samples
    assert sum(each.value for each in histogram if each.name.endswith("_count")) == len(made)
    assert families["mainstay_worker_in_flight"].samples[0].value == 3


def test_counts_survive_their_worker(tmp_path: Path) -> None:
    counts = counted([("one", "answered", "", 0.003)])
    counts.count_outcomes("one", 7)
    counts.count_refused_call(401)
    save_counts(slot_file(tmp_path, 0), counts)
    assert msgspec.to_builtins(load_counts(slot_file(tmp_path, 0))) == msgspec.to_builtins(counts)


def test_unreadable_counts_begin_again(tmp_path: Path) -> None:
    slot_file(tmp_path, 0).write_bytes(b"{half")
    assert load_counts(slot_file(tmp_path, 0)) == Counts()
    assert load_counts(slot_file(tmp_path, 1)) == Counts()
