"""What `compare_contracts` says of two contracts, held against what their validators say of records."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from contract.contracts import NAMES, document, named_properties, properties, records
from mainstay.contract.difference import compare_contracts, overall
from mainstay.contract.load import parse_contract
from mainstay.contract.validator import ObjectValidator, compile_object
from mainstay.errors import InvalidDocument

if TYPE_CHECKING:
    from mainstay.contract.difference_types import Change, Side
    from mainstay.contract.types import Contract

thorough = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
Fields = list[dict[str, Any]]


def contract_of(fields: Fields) -> Contract | None:
    """The contract of one object with these properties; None where a contract may not say that."""
    try:
        return parse_contract(document(fields), "contract.yaml")
    except InvalidDocument:
        return None


@st.composite
def changed(draw: st.DrawFn, fields: Fields, depth: int = 2) -> Fields:
    """The fields after a few changes, at any depth."""
    made = copy.deepcopy(fields)
    for _ in range(draw(st.integers(1, 2))):
        if not made or draw(st.integers(0, 9)) == 0:
            taken = {each["name"] for each in made}
            name = draw(st.sampled_from([name for name in NAMES if name not in taken]))
            made.append({"name": name, **draw(properties(max(depth - 1, 0)))})
            continue
        i = draw(st.integers(0, len(made) - 1))
        if draw(st.integers(0, 9)) == 0:
            del made[i]
        else:
            made[i] = {"name": made[i].get("name", ""), **draw(changed_property(made[i], depth))}
    return made


@st.composite
def changed_property(draw: st.DrawFn, declared: dict[str, Any], depth: int) -> dict[str, Any]:
    made = copy.deepcopy(declared)
    made.pop("name", None)
    drawn = draw(properties(max(depth - 1, 0)))
    match draw(st.sampled_from(("below", "option", "option", "required", "quality", "all", "take"))):
        case "below" if made.get("properties"):
            made["properties"] = draw(changed(made["properties"], depth - 1))
        case "below" if made.get("items"):
            made["items"] = draw(changed_property(made["items"], depth - 1))
        case "option" if drawn.get("logicalType") == made.get("logicalType") and drawn.get("logicalTypeOptions"):
            key = draw(st.sampled_from(sorted(drawn["logicalTypeOptions"])))
            made.setdefault("logicalTypeOptions", {})[key] = drawn["logicalTypeOptions"][key]
        case "option" if made.get("logicalTypeOptions"):
            given = made["logicalTypeOptions"]
            key = draw(st.sampled_from(sorted(given)))
            if isinstance(given[key], int) and not isinstance(given[key], bool):
                given[key] = max(given[key] + draw(st.sampled_from((-1, 1, 2))), 0)
            else:
                del given[key]
        case "required":
            made["required"] = not made.get("required", False)
        case "quality" if "quality" in drawn:
            made["quality"] = drawn["quality"]
        case "take":
            for key in ("items", "properties", "logicalTypeOptions", "quality"):
                if draw(st.booleans()):
                    made.pop(key, None)
        case _:
            made = drawn
    return made


def accepts(validator: ObjectValidator, record: Any, *, tolerant: bool = False) -> bool:
    return not [each for each in validator.check(record) if not (tolerant and each.rule == "unknown-field")]


def held(
    changes: tuple[Change, ...],
    side: Side,
    source: ObjectValidator,
    target: ObjectValidator,
    record: Any,
    *,
    tolerant: bool = False,
) -> None:
    """A record of the source is one of the target where all changes are compatible for the side."""
    if overall(changes, (side,)) == "compatible" and accepts(source, record):
        event(f"{side}: a record went through")
        assert accepts(target, record, tolerant=tolerant), (record, target.check(record), changes)


@pytest.mark.parametrize("tolerant", [False, True])
def test_where_all_changes_are_compatible_no_record_is_lost(tolerant: bool) -> None:
    @thorough
    @given(st.data())
    def compare(data: st.DataObject) -> None:
        before = data.draw(named_properties(2))
        after = data.draw(changed(before))
        old, new = contract_of(before), contract_of(after)
        if old is None or new is None:
            return
        changes = compare_contracts(old, new, tolerant_readers=tolerant)
        validators = compile_object(old.schema[0]), compile_object(new.schema[0])
        for side in ("producers", "consumers"):
            event(f"{side}: {overall(changes, (side,))}")
        shown(changes, *validators, tolerant=tolerant)
        for fields in (before, after):
            for record in data.draw(st.lists(records(fields), min_size=3, max_size=3)):
                held(changes, "producers", *validators, record)
                held(changes, "consumers", validators[1], validators[0], record, tolerant=tolerant)

    compare()


def shown(changes: tuple[Change, ...], old: ObjectValidator, new: ObjectValidator, *, tolerant: bool) -> None:
    """Every witness is accepted under one contract, and refused under the other."""
    for change in changes:
        for verdict, source, target, how in (
            (change.producers, old, new, False),
            (change.consumers, new, old, tolerant),
        ):
            if isinstance(verdict.witness, dict):
                assert verdict.effect == "breaking"
                assert accepts(source, verdict.witness)
                assert not accepts(target, verdict.witness, tolerant=how)
