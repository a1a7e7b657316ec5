"""The central promise: what decodes breaks no rule, and what does not decode breaks at least one that is told."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from contract.contracts import (
    EDGES,
    PATTERNS,
    STRINGS,
    document,
    named_properties,
    records,
    scalar_properties,
    validator_of,
    values,
)
from mainstay.contract.load import parse_contract
from mainstay.contract.types import RULES
from mainstay.contract.validator import ObjectValidator, compile_object
from mainstay.errors import InvalidDocument

SWEEP = (
    *(edge + shift for edge in EDGES for shift in (-1, 0, 1)),
    *(0.0, -0.0, 0.1, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 20.0, 1e-3, 1e20, 1e300, -1e300, 5e-324, 3.4e38, 3.5e38, 2.0**63),
    *STRINGS,
    *PATTERNS,
    *(None, True, False, [], {}, [1], {"a": 1}, 10**400),
)
thorough = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def compiled(fields: list[dict[str, Any]]) -> ObjectValidator | None:
    """The validator of generated fields, or None when a contract may not say that, as with bounds that cross."""
    try:
        return compile_object(parse_contract(document(fields), "contract.yaml").schema[0])
    except InvalidDocument:
        return None


def decodes(validator: ObjectValidator, raw: bytes) -> bool:
    try:
        record = validator.decode(raw)
    except msgspec.DecodeError:
        return False
    assert len(validator.values(record)) == len(validator.fields)
    return True


@thorough
@given(st.data())
def test_a_record_decodes_exactly_when_it_has_no_violations(data: st.DataObject) -> None:
    fields = data.draw(named_properties(2))
    validator = compiled(fields)
    if validator is None:
        event("no contract")
        return
    for record in data.draw(st.lists(records(fields), min_size=4, max_size=4)):
        raw = json.dumps(record, ensure_ascii=False).encode()
        violations = validator.violations(raw)
        accepted = decodes(validator, raw)
        event("accepted" if accepted else "refused")
        assert accepted == (not violations), (record, violations)
        assert violations == validator.check(record)
        for violation in violations:
            assert violation.rule in RULES
            assert violation.rule != "duplicate-key"
            assert len(violation.found) <= 80
            event(violation.rule)


@thorough
@given(scalar_properties())
def test_a_scalar_property_has_one_verdict_on_every_edge_value(declared: dict[str, Any]) -> None:
    validator = compiled([{"name": "it", **declared}])
    if validator is None:
        event("no contract")
        return
    for value in SWEEP:
        raw = json.dumps({"it": value}).encode()
        violations = validator.violations(raw)
        assert decodes(validator, raw) == (not violations), (value, violations)
        assert violations == validator.check({"it": value})
        for violation in violations:
            event(violation.rule)


@settings(thorough, max_examples=200)
@given(named_properties(1), st.one_of(st.binary(max_size=40), values.map(lambda value: json.dumps(value).encode())))
def test_arbitrary_bytes_and_json_are_refused_with_a_reason_or_decoded(
    fields: list[dict[str, Any]], raw: bytes
) -> None:
    validator = compiled(fields)
    if validator is not None:
        assert decodes(validator, raw) == (not validator.violations(raw))


@settings(thorough, max_examples=200)
@given(st.data())
def test_records_in_which_names_repeat_are_refused_with_a_reason_or_decoded(data: st.DataObject) -> None:
    fields = data.draw(named_properties(1))
    validator = compiled(fields)
    if validator is None:
        return
    twice = [data.draw(records(fields)) for _ in range(2)]
    members = [f"{json.dumps(name)}:{json.dumps(value)}" for record in twice for name, value in record.items()]
    raw = ("{" + ",".join(members) + "}").encode()
    assert decodes(validator, raw) == (not validator.violations(raw))


@settings(thorough, max_examples=200)
@given(st.data())
def test_a_decoded_record_encodes_to_what_decodes_to_the_same(data: st.DataObject) -> None:
    fields = data.draw(named_properties(2))
    validator = compiled(fields)
    raw = json.dumps(data.draw(records(fields))).encode()
    if validator is not None and decodes(validator, raw):
        record = validator.decode(raw)
        assert validator.decode(msgspec.json.encode(record)) == record
        made = validator.make(*validator.values(record))
        assert msgspec.json.decode(msgspec.json.encode(made)) == msgspec.json.decode(msgspec.json.encode(record))


def test_values_nested_too_deeply_are_refused_on_both_paths() -> None:
    validator = validator_of(
        {"name": "open"}, {"name": "list", "logicalType": "array", "items": {"logicalType": "array"}}
    )
    for levels, accepted in ((62, True), (63, True), (64, False), (500, False), (100_000, False)):
        raw = b'{"open": ' + b"[" * levels + b"]" * levels + b"}"
        assert decodes(validator, raw) is accepted
        assert (validator.violations(raw) == ()) is accepted
        raw = b'{"list": ' + b"[" * levels + b"]" * levels + b"}"
        assert decodes(validator, raw) is accepted
        assert (validator.violations(raw) == ()) is accepted
