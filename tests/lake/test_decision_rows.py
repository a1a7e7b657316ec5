from __future__ import annotations

from datetime import UTC, date, datetime

import msgspec
import pytest

from lake.ledgers import DIGESTS
from ledger.samples import make_entry
from mainstay.lake.decision_rows import BODIES, DECISIONS, OUTCOMES, SCHEMAS, SHADOWS, Rows
from mainstay.lake.lagging import instant
from mainstay.ledger.entry import Entry, format_id

ID = format_id("0123456789", 7, 1_767_225_600_000)
BODY = {
    "principal": "key-1",
    "key": "flight-9",
    "input": {"dep_delay": 12, "name": "Ä"},
    "output": {"late": True},
    "confidence": 0.75,
    "novelty": 1,
    "details": {"reasons": []},
    "seconds": 0.0125,
}


def row_of(*entries: Entry, kind: str = DECISIONS) -> dict[str, object]:
    rows = Rows(DIGESTS)
    for sequence, entry in enumerate(entries):
        rows.add(sequence, entry, entry.leaf_hash.hex())
    frame = rows.frames()[kind, "late-arrival"]
    assert {**frame.schema} == {**SCHEMAS[kind]}
    return frame.row(0, named=True)


def test_a_decision_becomes_a_row() -> None:
    entry = make_entry(ID, body=BODY, reasons=["low_confidence", "out_of_distribution"], policy="sha256:p")
    assert row_of(entry) == {
        "day": date(2026, 1, 1),
        "sequence": 0,
        "id": ID,
        "at": datetime(2026, 1, 1, tzinfo=UTC),
        "capability": "late-arrival",
        "version": "sha256:v1",
        "release": 1,
        "stage": "production",
        "outcome": "answered",
        "reasons": ["low_confidence", "out_of_distribution"],
        "policy": "sha256:p",
        "principal": "ops",
        "leaf_hash": entry.leaf_hash.hex(),
        "key": DIGESTS.of("flight-9").hex(),
        "input": '{"dep_delay":12,"name":"Ä"}',
        "output": '{"late":true}',
        "confidence": 0.75,
        "novelty": 1.0,
        "details": '{"reasons":[]}',
        "seconds": 0.0125,
        "call_size": None,
        "source_batch": None,
        "source_table": None,
        "source_item": None,
        "source_file": None,
        "source_row": None,
    }


def test_a_decision_of_a_call_for_several_says_so() -> None:
    assert row_of(make_entry(ID, body={**BODY, "call_size": 100}))["call_size"] == 100


def test_a_decision_about_a_row_of_a_table_says_which() -> None:
    where = {"batch": "nightly", "table": "intake/late-arrival/feed", "item": 7, "row": 3}
    row = row_of(make_entry(ID, body={**BODY, "source": where}))
    assert {name: row[f"source_{name}"] for name in where} == where
    assert row["source_file"] is None
    where = {"batch": "b", "file": "march.csv", "row": 4}
    row = row_of(make_entry(ID, body={**BODY, "source": where}))
    assert {name: row[f"source_{name}"] for name in where} == where


def test_what_a_shadow_would_have_decided_becomes_a_row() -> None:
    body = {"output": {"late": True}, "confidence": 0.75, "novelty": None, "seconds": 0.5, "details": None}
    said = {"version": "sha256:v2", "release": 3, "decision_id": ID, "outcome": "fallback", "reasons": ["model_error"]}
    entry = make_entry(ID, kind="shadow", body=body, policy="sha256:p", **said)
    row = row_of(entry, kind=SHADOWS)
    assert {name: row[name] for name in said} == said
    assert (row["policy"], row["leaf_hash"]) == ("sha256:p", entry.leaf_hash.hex())
    assert {name: row[name] for name in body} == body | {"output": '{"late":true}'}


def test_an_outcome_becomes_a_row_with_its_instant_in_utc() -> None:
    body = {
        "decision_id": ID.upper(),
        "key": None,
        "outcome": {"late": True},
        "observed_at": "2026-01-01T02:00:00+02:00",
    }
    row = row_of(make_entry(ID, kind="outcome", body=body), kind=OUTCOMES)
    assert row["decision_id"] == ID
    assert row["observed_at"] == datetime(2026, 1, 1, tzinfo=UTC)
    assert (row["outcome"], row["key"]) == ('{"late":true}', None)


@pytest.mark.parametrize("observed", [None, "not a time", "9999-12-31T23:59:59-12:00"])
def test_an_outcome_without_a_time_was_observed_when_it_was_recorded(observed: str | None) -> None:
    body = {"decision_id": None, "key": "k", "outcome": 1, "observed_at": observed}
    row = row_of(make_entry(ID, kind="outcome", body=body), kind=OUTCOMES)
    assert row["observed_at"] == row["at"]


@pytest.mark.parametrize("kind", [DECISIONS, OUTCOMES, SHADOWS])
def test_an_erased_body_leaves_a_row_whose_body_columns_are_null(kind: str) -> None:
    leaf = {"version": "v", "release": 1, "decision_id": ID, "outcome": "refused"} if kind == SHADOWS else {}
    entry = make_entry(ID, kind=kind.rstrip("s/"), **leaf)
    row = row_of(Entry(entry.leaf, b"", b""), kind=kind)
    assert [name for name, value in row.items() if value is None and name != "policy"] == list(BODIES[kind])
    assert row.get("reasons", []) == []


def test_changes_and_what_mainstay_did_not_write_have_no_row() -> None:
    rows = Rows(DIGESTS)
    strangers = [
        b"",
        b"{",
        b'{"kind":"decision"',
        b'{"kind":"decision","id":1}',
        b'{"kind":"outcome","id":"x","at":"y"}',
    ]
    for leaf in [make_entry(ID, kind="change", action="x").leaf, *strangers]:
        rows.add(0, Entry(leaf, b"", b""), "")
    assert rows.frames() == {}


def test_a_body_that_mainstay_did_not_write_is_counted_and_leaves_nulls() -> None:
    rows = Rows(DIGESTS)
    for kind in ("decision", "outcome", "shadow"):
        entry = make_entry(ID, kind=kind)
        rows.add(0, Entry(entry.leaf, entry.salt, b'{"key": 7}'), "")
    assert rows.unread == 3
    assert all(
        frame.select(BODIES[kind]).row(0) == (None,) * len(BODIES[kind]) for (kind, _), frame in rows.frames().items()
    )


def test_a_leaf_without_a_time_has_no_day() -> None:
    row = row_of(make_entry(ID, at="yesterday"))
    assert (row["at"], row["day"]) == (None, None)
    assert instant("2026-01-01") == datetime(2026, 1, 1, tzinfo=UTC)
    assert instant("") is None


def test_rows_of_several_capabilities_go_to_several_tables() -> None:
    rows = Rows(DIGESTS)
    for place, capability in enumerate(["a", "b", "a"]):
        rows.add(place, make_entry(ID, capability=capability), "")
    assert {place: frame["sequence"].to_list() for place, frame in rows.frames().items()} == {
        (DECISIONS, "a"): [0, 2],
        (DECISIONS, "b"): [1],
    }
    assert msgspec.json.decode(rows.frames()[DECISIONS, "b"]["output"][0]) == {"p": 0.5}
