from __future__ import annotations

import json
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.contract.types import Violation
from mainstay.decision.record import (
    DecisionRecorder,
    OutcomeReport,
    Served,
    ShadowRecorder,
    Stamp,
    Took,
    Verdict,
    id_in_answer,
    record_outcome,
)
from mainstay.decision.types import REASONS, Reason
from mainstay.ledger.entry import LEAF_HEAD, SALT_BYTES, commitment, leaf_hash, parse_id, read_id
from mainstay.ledger.journal import Place
from mainstay.ledger.wal import Segment, SegmentReader

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.ledger.entry import Entry

SERVED = Served(
    capability="late-arrival",
    version="sha256:" + "ab" * 32,
    release=7,
    stage="production",
    policy="sha256:" + "ef" * 32,
)
RECORDER = DecisionRecorder(SERVED, "ledger.example.com/100%")
PRINCIPAL = b"0a1b2c3d"

documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
reasons = st.builds(Reason, code=st.sampled_from(sorted(REASONS)), detail=st.text(max_size=50))
violations = st.builds(
    Violation,
    field=st.text(max_size=20),
    rule=st.just("maximum"),
    expected=st.text(max_size=20),
    found=st.text(max_size=20),
)


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> Segment:
    return Segment(tmp_path_factory.mktemp("wal"))


def read_back(directory: Path, framed: list[bytes]) -> list[Entry]:
    """What a reader finds of these frames."""
    segment = Segment(directory)
    segment.append(framed, len(framed))
    segment.close()
    return [entry for group in SegmentReader(segment.path).groups() for entry in group.entries]


@given(
    key=st.none() | st.text(),
    given_input=documents,
    output=documents,
    confidence=st.none() | st.floats(0, 1),
    why=st.lists(reasons, max_size=3),
    broken=st.lists(violations, max_size=3),
    protected=st.booleans(),
    kept=documents,
)
def test_leaf_body_and_answer_say_the_same_and_are_json(  # noqa: PLR0917 - hypothesis gives them by name
    tmp_path_factory: pytest.TempPathFactory,
    key: str | None,
    given_input: Any,
    output: Any,
    confidence: float | None,
    why: list[Reason],
    broken: list[Violation],
    protected: bool,
    kept: Any,
) -> None:
    directory = tmp_path_factory.mktemp("records")
    verdict = Verdict(
        "refused" if why else "answered",
        json.dumps(output).encode(),
        json.dumps(confidence).encode(),
        tuple(why),
        tuple(broken) if why else (),
        novelty=b"0.25",
        recorded=json.dumps(kept).encode() if protected else None,
        proposed=json.dumps(kept).encode() if protected else None,
        answered_by="rule" if protected else "",
    )
    place = Place(Segment(directory / "other"), 41)
    recorded = RECORDER.record(
        Stamp(place, 1), PRINCIPAL, json.dumps(key).encode(), json.dumps(given_input).encode(), verdict, Took(0.0125004)
    )
    (entry,) = read_back(directory, [recorded.framed])
    leaf, body, answer = json.loads(entry.leaf), json.loads(entry.body), json.loads(recorded.answer)
    assert leaf["body"] == commitment(entry.salt, entry.body)
    assert answer["receipt"] == {
        "leaf": leaf_hash(entry.leaf).hex(),
        "log": "ledger.example.com/100%",
        "recorded_at": leaf["at"],
    }
    assert datetime.fromisoformat(leaf["at"]).tzinfo is not None
    assert (leaf["id"], leaf["outcome"]) == (answer["decision_id"], answer["outcome"])
    assert leaf["policy"] == SERVED.policy
    assert (leaf["version"], leaf["release"]) == (SERVED.version, 7) == (answer["version"], answer["release"])
    assert leaf["reasons"] == [reason["code"] for reason in answer["reasons"]] == [reason.code for reason in why]
    assert (body["key"], body["input"], body["novelty"]) == (key, given_input, 0.25)
    assert body["seconds"] == 0.0125, "to the microsecond"
    assert "call_size" not in body
    assert body["output"] == (kept if protected else output)
    assert answer["output"] == output
    assert body["confidence"] == answer["confidence"] == confidence
    if why and broken:
        assert len(body["details"]["violations"]) == len(answer["violations"]) == len(broken)
    if why and protected:
        assert (body["details"]["proposed"], body["details"]["answered_by"]) == (kept, "rule")
    found = parse_id(leaf["id"])
    assert found is not None
    assert (found.segment, found.counter) == (place.segment.name, 41)


def test_a_decision_says_how_many_its_call_asked_for_where_they_were_several(segment: Segment, tmp_path: Path) -> None:
    verdict, took = Verdict("answered", b'{"p":1}'), Took(0.25, call_size=100)
    recorded = RECORDER.record(Stamp(Place(segment, 0), 1), PRINCIPAL, b"null", b'{"a":1}', verdict, took)
    (entry,) = read_back(tmp_path, [recorded.framed])
    body = json.loads(entry.body)
    assert (body["seconds"], body["call_size"]) == (0.25, 100)


def test_a_shadow_s_record_says_whose_decision_it_is_about_and_holds_neither_input_nor_key(
    segment: Segment, tmp_path: Path
) -> None:
    stamp = Stamp(Place(segment, 3), 2)
    decided = RECORDER.record(stamp, PRINCIPAL, b'"key"', b'{"a":1}', Verdict("answered", b'{"p":1}'), Took(0.0))
    decision_id = id_in_answer(decided.answer)
    assert decision_id.decode() == json.loads(decided.answer)["decision_id"]
    verdict = Verdict(
        "review", reasons=(Reason("low_confidence", "100%"),), confidence=b"0.5", proposed=b'{"secret":1}'
    )
    framed = ShadowRecorder("a%b", "sha256:22", 7, "sha256:33").record(stamp, decision_id, verdict, 0.25)
    (entry,) = read_back(tmp_path, [framed])
    leaf, body = json.loads(entry.leaf), json.loads(entry.body)
    assert leaf["body"] == commitment(entry.salt, entry.body)
    assert {name: leaf[name] for name in leaf if name not in {"id", "at", "body"}} == {
        "kind": "shadow",
        "capability": "a%b",
        "version": "sha256:22",
        "release": 7,
        "policy": "sha256:33",
        "decision_id": decision_id.decode(),
        "outcome": "review",
        "reasons": ["low_confidence"],
    }
    assert body == {
        "output": None,
        "confidence": 0.5,
        "novelty": None,
        "seconds": 0.25,
        "details": {"reasons": [{"code": "low_confidence", "detail": "100%"}], "proposed": {"secret": 1}},
    }
    assert LEAF_HEAD.match(entry.leaf) is not None
    assert read_id(entry.leaf) == parse_id(leaf["id"])


def test_ids_of_a_batch_count_up_and_salts_differ(segment: Segment) -> None:
    stamp = Stamp(Place(segment, 5), 100)
    made = [stamp.next() for _ in range(100)]
    counters = [parsed.counter for parsed in (parse_id(name.decode()) for name, _ in made) if parsed is not None]
    assert counters == list(range(5, 105))
    assert len({salt for _, salt in made}) == 100
    assert {len(salt) for _, salt in made} == {SALT_BYTES}


def test_no_personal_data_stands_in_a_leaf(segment: Segment, tmp_path: Path) -> None:
    verdict = Verdict("answered", b'{"secret-output":1}')
    recorded = RECORDER.record(
        Stamp(Place(segment, 0), 1), PRINCIPAL, b'"secret-key"', b'{"secret-input":1}', verdict, Took(0.0)
    )
    (entry,) = read_back(tmp_path, [recorded.framed])
    assert b"secret" not in entry.leaf
    assert sha256(entry.salt + entry.body).hexdigest().encode() in entry.leaf


def test_an_outcome_is_recorded_as_it_was_reported(segment: Segment, tmp_path: Path) -> None:
    report = OutcomeReport(b"null", b'"case-1"', b'{"late":true}', b'"2026-01-01T00:00:00Z"')
    framed, entry_id, leaf = record_outcome(Stamp(Place(segment, 3), 1), PRINCIPAL, b'"late-arrival"', report)
    (entry,) = read_back(tmp_path, [framed])
    assert leaf_hash(entry.leaf).hex() == leaf
    assert json.loads(entry.leaf)["id"] == entry_id
    assert json.loads(entry.body) == {
        "decision_id": None,
        "key": "case-1",
        "outcome": {"late": True},
        "observed_at": "2026-01-01T00:00:00Z",
    }
