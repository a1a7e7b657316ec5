from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from mainstay.intake.state import Counts as Rows
from mainstay.intake.state import Holding, State
from mainstay.lake.lagging import Lag, Progress, Standing
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
        counts.count(capability, "canary" if took > 50 else "production", outcome, reason, took)
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


def test_how_far_the_lake_is_behind_is_among_the_metrics_where_it_is_known() -> None:
    assert b"mainstay_lake" not in render(Counts(), in_flight=0)
    export = Standing(Progress(exported=4, at="2026-03-01T12:00:00Z", problem="no disk"), Lag(10, 4, 2.5))
    text = render(Counts(), in_flight=0, export=export).decode()
    families = {
        family.name: family.samples[0].value for family in text_string_to_metric_families(text) if family.samples
    }
    assert {name: value for name, value in families.items() if name.startswith("mainstay_lake")} == {
        "mainstay_lake_exported_entries": 4,
        "mainstay_lake_waiting_entries": 6,
        "mainstay_lake_lag_seconds": 2.5,
        "mainstay_lake_failing": 1,
    }


def test_how_feeds_are_is_among_the_metrics_where_there_are_any() -> None:
    assert b"mainstay_source" not in render(Counts(), in_flight=0)
    long_ago = datetime(2026, 3, 1, tzinfo=UTC)
    held = Holding(code="bad_share", reason="half of it", since=long_ago, item=3, fallback=True)
    state = State(began_at=long_ago, failures=2, held=held, counts=Rows(accepted=7, quarantined=2, repeated=1))
    text = render(Counts(), in_flight=0, feeds=[("one", "months", state), ("one", "weeks", State(began_at=long_ago))])
    samples = {
        (sample.name, sample.labels["source"], sample.labels.get("verdict")): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if family.name.startswith("mainstay_source")
    }
    assert samples["mainstay_source_rows_total", "months", "accepted"] == 7
    assert samples["mainstay_source_rows_total", "months", "quarantined"] == 2
    assert samples["mainstay_source_held", "months", None] == 1
    assert samples["mainstay_source_held", "weeks", None] == 0
    assert samples["mainstay_source_failures", "months", None] == 2
    assert samples["mainstay_source_lag_seconds", "weeks", None] > 0


def test_counts_survive_their_worker(tmp_path: Path) -> None:
    counts = counted([("one", "answered", "", 0.003)])
    counts.count_outcomes("one", 7)
    counts.count_refused_call(401)
    save_counts(slot_file(tmp_path, 0), counts)
    assert msgspec.to_builtins(load_counts(slot_file(tmp_path, 0))) == msgspec.to_builtins(counts)


def test_counts_from_before_there_were_stages_count_as_production_s(tmp_path: Path) -> None:
    counts = counted([("one", "answered", "", 0.003)])
    older = msgspec.to_builtins(counts)
    older["decisions"] = {"one\tanswered\t": 1}
    older["latency"] = {"one": older["latency"]["one\tproduction"]}
    del older["shadows"], older["shadow_latency"]
    slot_file(tmp_path, 0).write_bytes(msgspec.json.encode(older))
    assert load_counts(slot_file(tmp_path, 0)) == counts


def test_counts_with_keys_of_another_form_begin_again(tmp_path: Path) -> None:
    forms: list[dict[str, dict[str, Any]]] = [
        {"decisions": {"a\tb\tc\td\te": 1}},
        {"shadows": {"a": 1}},
        {"latency": {"a\tb\tc": {}}},
    ]
    for found in forms:
        slot_file(tmp_path, 0).write_bytes(msgspec.json.encode(found))
        assert load_counts(slot_file(tmp_path, 0)) == Counts()


def test_what_shadows_do_stands_in_families_of_its_own() -> None:
    assert b"shadow" not in render(counted([("one", "answered", "", 0.003)]), in_flight=0)
    parts = [Counts(), Counts()]
    for part in parts:
        part.count_shadow("one", "compared", 1, 0.003)
        part.count_shadow("one", "failed", 1, 3.0)
        part.count_shadow("one", "dropped", 7, 0.0)
    families = {
        family.name: family.samples
        for family in text_string_to_metric_families(render(total(parts), in_flight=0).decode())
    }
    fates = {each.labels["fate"]: each.value for each in families["mainstay_shadow_decisions"]}
    assert fates == {"compared": 2, "failed": 2, "dropped": 14}
    (ran,) = [each.value for each in families["mainstay_shadow_decision_seconds"] if each.name.endswith("_count")]
    assert ran == 4, "what is dropped took no time"
    assert families["mainstay_decisions"] == []


def test_unreadable_counts_begin_again(tmp_path: Path) -> None:
    slot_file(tmp_path, 0).write_bytes(b"{half")
    assert load_counts(slot_file(tmp_path, 0)) == Counts()
    assert load_counts(slot_file(tmp_path, 1)) == Counts()
