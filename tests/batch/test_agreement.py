from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiny
from batch.online import Record, assert_same, decide_online, read_records
from mainstay.batch.batches import Asked, run_batch
from mainstay.catalog.holding import stop
from mainstay.catalog.releases import publish_shadow
from mainstay.cli.versions import record_promotion, record_registration
from mainstay.decision.types import Hold
from mainstay.ledger.wal import segments
from mainstay.signing import load_signing_key

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.workspace import Workspace

LADDER = [
    {"rule": [{"when": [{"field": "b", "at_least": 50}], "then": {"probability": 0.9, "yes": True}}]},
    {"constant": {"probability": 0.5, "yes": False}},
]
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "doubting": {
        "min_confidence": 0.6,
        "when": {"low_confidence": "fallback", "contract_violation": "review"},
        "fallback": LADDER,
    },
    "answering in spite of doubts": {"min_confidence": 0.9, "when": {"low_confidence": "answer"}},
    "poisonous": {
        "graph": tiny.probability_graph(poisonous=True),
        "fallback": [{"person": True}],
        "when": {"model_error": "fallback"},
    },
}

Served = tuple["Workspace", str]


@pytest.fixture(scope="module", params=VARIANTS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    return tiny.make_served(tmp_path_factory.mktemp("agreement") / "w", **VARIANTS[request.param])


NUMBERS = st.one_of(
    st.none(),
    st.floats(-3, 3),
    st.sampled_from([0.0, -0.0, 40.0, 60.0, 100.0, 100.5, -1e15, 1e16, 1e-7, 5e-324]),
    st.floats(allow_nan=True, allow_infinity=True),
)
TEXTS = st.one_of(st.none(), st.text(max_size=5), st.sampled_from(['"b":null,', ',"note":null}', "\\", "é\u2028\x00"]))
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, TEXTS, st.one_of(TEXTS, st.just("k" * 513))), min_size=1, max_size=12)


def whole(record: dict[str, Any]) -> bytes:
    """A row as a caller writes it: without what is null, and as Python's json where msgspec would write null."""
    present = {name: value for name, value in record.items() if value is not None}
    if any(isinstance(value, float) and not math.isfinite(value) for value in present.values()):
        return json.dumps(present, ensure_ascii=False, separators=(",", ":")).encode()
    return msgspec.json.encode(present)


def call(given: bytes, key: str | None) -> bytes:
    try:
        json.loads(given, parse_constant=lambda _: 1 / 0)
    except (ValueError, ZeroDivisionError, RecursionError):
        return given
    return b'{"input":%b}' % given if key is None else b'{"input":%b,"key":%b}' % (given, msgspec.json.encode(key))


def decided(served: Served, source: Path, **asked: Any) -> list[Record]:
    """The records of a batch over a file, by their rows."""
    workspace, token = served
    before = len(read_records(workspace.ledger))
    output = source.with_name(f"out-{os.urandom(4).hex()}")
    summary, worked = run_batch(workspace, Asked(tiny.NAME, str(source), output, **asked), token)
    records = [each for each in read_records(workspace.ledger) if each.source is not None]
    records = [each for each in records if each.source["batch"] == summary.batch]
    assert worked
    assert len(records) == summary.rows == len(read_records(workspace.ledger)) - before
    return sorted(records, key=lambda each: int(each.source["row"]))


SLOW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SLOW
@given(rows=ROWS)
def test_a_row_of_parquet_is_decided_as_its_call_is(
    served: Served, tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]]
) -> None:
    frame = pl.DataFrame(
        rows, schema={"a": pl.Float64, "b": pl.Float64, "note": pl.String, "id": pl.String}, orient="row"
    )
    path = tmp_path_factory.mktemp("x") / "rows.parquet"
    frame.write_parquet(path)
    calls = [call(whole(dict(zip(("a", "b", "note"), row, strict=False))), row[3]) for row in rows]
    assert_same(decided(served, path, key="id"), decide_online(served[0], calls))


LINES = st.one_of(
    st.builds(lambda a, b, note: whole({"a": a, "b": b, "note": note}), NUMBERS, NUMBERS, TEXTS),
    st.builds(
        lambda value: json.dumps(value).encode(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from("ab") | st.text(max_size=2), inner, max_size=3)
            ),
            max_leaves=5,
        ),
    ),
    st.sampled_from(
        [b'{"a":1}}', b'1,"key":"x"', b"{", b"\xff", b'{"a":1,"a":2}', b' {"a" : 0.5} ', b"[" * 2_000, b'{"a":1,"c":2}']
    ),
)


@SLOW
@given(lines=st.lists(LINES, min_size=1, max_size=12))
def test_a_line_of_json_is_decided_as_its_call_is(
    served: Served, tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("x") / "rows.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    records = decided(served, path)
    assert_same(records, decide_online(served[0], [call(line.strip(), None) for line in lines]))
    assert [each.source["row"] for each in records] == list(range(1, len(lines) + 1))


def test_the_canary_decides_its_share_of_the_keys_and_of_the_rows_without_one(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    folder = tiny.write_folder(workspace.capabilities / tiny.NAME, title="Tiny, changed")
    version = record_registration(workspace, folder, None).version
    record_promotion(workspace, tiny.NAME, version, "for a test", canary_percent=30)
    numbers = range(400)
    frame = pl.DataFrame({"a": [0.5] * 400, "b": [i / 400 for i in numbers], "id": [f"k{i}" for i in numbers]})
    frame.write_parquet(tmp_path / "rows.parquet")
    calls = [call(whole({"a": 0.5, "b": i / 400}), f"k{i}") for i in numbers]
    records = decided((workspace, token), tmp_path / "rows.parquet", key="id")
    assert_same(records, decide_online(workspace, calls))
    assert 80 < sum(each.stage == "canary" for each in records) < 160
    frame.drop("id").write_parquet(tmp_path / "keyless.parquet")
    keyless = decided((workspace, token), tmp_path / "keyless.parquet")
    assert 100 < sum(each.stage == "canary" for each in keyless) < 140


def test_a_capability_that_is_held_answers_rows_as_it_does_calls(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"when": {"feed_stopped": "fallback"}, "fallback": LADDER}
    workspace, token = tiny.make_served(tmp_path / "w", **changes)
    pl.DataFrame({"a": [0.5, 200.0], "b": [60.0, 1.0]}).write_parquet(tmp_path / "rows.parquet")
    workspace.holds.mkdir(parents=True)
    (workspace.holds / f"{tiny.NAME}.json").write_text("{}")  # whatever stands there holds
    records = decided((workspace, token), tmp_path / "rows.parquet")
    calls = [call(whole({"a": a, "b": b}), None) for a, b in ((0.5, 60.0), (200.0, 1.0))]
    why = "it is held, and the document that says why cannot be relied on"
    assert_same(records, decide_online(workspace, calls, Hold("stopped", why)))
    assert [each.recorded.reasons[0] for each in records] == ["stopped", "contract_violation"]


def test_a_capability_that_is_stopped_answers_rows_with_its_ladder(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"when": {"feed_stopped": "answer"}, "fallback": LADDER}
    workspace, token = tiny.make_served(tmp_path / "w", **changes)
    pl.DataFrame({"a": [0.5, 0.25], "b": [60.0, 1.0]}).write_parquet(tmp_path / "rows.parquet")
    key = load_signing_key(workspace.keys, None)
    made = stop(workspace, tiny.NAME, reason="a drill", principal="os:ops", key=key)
    records = decided((workspace, token), tmp_path / "rows.parquet")
    calls = [call(whole({"a": a, "b": b}), None) for a, b in ((0.5, 60.0), (0.25, 1.0))]
    hold = Hold("stopped", f"it is stopped since {made.since}, by os:ops")
    assert_same(records, decide_online(workspace, calls, hold))
    assert [each.recorded.reasons[0] for each in records] == ["stopped", "stopped"]


def test_rows_are_shown_to_no_shadow(tmp_path: Path) -> None:
    workspace, token = tiny.make_served(tmp_path / "w")
    folder = tiny.write_folder(workspace.capabilities / tiny.NAME, title="Another")
    version = record_registration(workspace, folder, None).version
    key = load_signing_key(workspace.keys, None)
    publish_shadow(workspace, tiny.NAME, version, share=1, queue=64, key=key, reason="to look at", principal="os:ops")
    pl.DataFrame({"a": [0.5, 0.25], "b": [6.0, 1.0]}).write_parquet(tmp_path / "rows.parquet")
    assert len(decided((workspace, token), tmp_path / "rows.parquet")) == 2
    written = b"".join(path.read_bytes() for path in segments(workspace.ledger / "wal"))
    assert written.count(b'"kind":"decision"') == 2
    assert b'"kind":"shadow"' not in written
