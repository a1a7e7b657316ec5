from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cedarpy
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract import contracts
from mainstay.authority.cases import AnswerCase, Unfit, encode_case
from mainstay.authority.schema import Attribute, answer_context, schema_document, schema_text
from mainstay.contract.types import Item, Options, Property
from mainstay.errors import InvalidDocument

if TYPE_CHECKING:
    from mainstay.contract.validator import ObjectValidator

LATE = {"type": "Mainstay::Capability", "id": "late"}
PERMIT_ALL = cedarpy.PolicySet.from_str("permit(principal, action, resource);")


def parsed(context: Attribute) -> cedarpy.Schema:
    return cedarpy.Schema.from_json_str(msgspec.json.encode(schema_document(context)).decode())


def input_lines(*properties: Property) -> list[str]:
    """The attributes of the input as the schema in words lists them, without their documentation."""
    text = schema_text(schema_document(answer_context(properties, ())))
    inside = text.partition("input: {")[2].partition("},\n      @doc")[0]
    return [line.strip().rstrip(",") for line in inside.splitlines() if line.strip() and "@doc" not in line]


@pytest.mark.parametrize(
    ("logical", "cedar"),
    [
        ("string", "String"),
        ("integer", "Long"),
        ("number", "decimal"),
        ("boolean", "Bool"),
        ("date", "datetime"),
        ("timestamp", "datetime"),
        ("time", "String"),
    ],
)
def test_every_scalar_of_a_contract_has_a_type_in_cedar(logical: Any, cedar: str) -> None:
    assert input_lines(Property(name="x", logical_type=logical, required=True)) == [f"x: {cedar}"]
    assert input_lines(Property(name="x", logical_type="array", items=Item(logical_type=logical), required=True)) == [
        f"x: Set<{cedar}>"
    ]


def test_an_optional_property_is_an_optional_attribute() -> None:
    assert input_lines(Property(name="x", logical_type="string")) == ["x?: String"]


def test_an_object_is_a_record_and_may_require_its_properties_by_name() -> None:
    below = (Property(name="zip", logical_type="string"), Property(name="city", logical_type="string"))
    options = Options(required=("zip",))
    address = Property(name="address", properties=below, logical_type_options=options, required=True)
    assert input_lines(address) == ["address: {", "city?: String", "zip: String", "}"]


def test_what_cedar_has_no_type_for_is_left_out() -> None:
    assert not input_lines(
        Property(name="anything"),
        Property(name="open", logical_type="object"),
        Property(name="list", logical_type="array"),
        Property(name="lists", logical_type="array", items=Item(logical_type="array", items=Item(logical_type="date"))),
        Property(name="empty", logical_type="object", properties=(Property(name="anything"),)),
        Property(name="__extn", logical_type="string"),
    )


def test_descriptions_of_the_contract_stand_in_the_schema() -> None:
    described = Property(name="x", logical_type="string", description='The "x",\n  in pieces. ')
    assert '@doc("The \\"x\\", in pieces.")' in schema_text(schema_document(answer_context([described], ())))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=4, unique=True))
def test_a_property_may_be_called_anything(names: list[str]) -> None:
    context = answer_context([Property(name=name, logical_type="string", description=name) for name in names], ())
    text = schema_text(schema_document(context))
    assert str(cedarpy.Schema.from_str(text)) == str(parsed(context))


def ask(context: Attribute, encoded: bytes) -> cedarpy.AuthzResult:
    """The engine's verdict on a whole context, which it holds against the schema."""
    request = {"principal": LATE, "action": {"type": "Mainstay::Action", "id": "answer"}, "resource": LATE}
    entities = [{"uid": LATE, "attrs": {"name": "late", "team": "ops"}, "parents": []}]
    return cedarpy.is_authorized({**request, "context": encoded.decode()}, PERMIT_ALL, entities, parsed(context))


@settings(deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow], max_examples=200)
@given(st.data())
def test_whatever_keeps_the_contract_fits_the_schema_or_is_unfit(data: st.DataObject) -> None:
    fields = data.draw(contracts.named_properties(2))
    try:
        validator: ObjectValidator = contracts.validator_of(*fields)
    except InvalidDocument:
        return
    raw = msgspec.json.encode(data.draw(contracts.records(fields)))
    try:
        record = validator.decode(raw)
    except msgspec.DecodeError:
        return
    context = answer_context(validator.properties, validator.properties)
    case = AnswerCase(validator.values(record), raw, 0.5, None, "sha256:0", canary=False)
    try:
        encoded = encode_case(context, case)
    except Unfit:
        return
    result = ask(context, encoded)
    assert not result.diagnostics.errors
    assert result.allowed


def one(logical: Any, value: Any) -> Any:
    context = answer_context([Property(name="x", logical_type=logical, required=True)], ())
    encoded = encode_case(context, AnswerCase((value,), b"{}", None, None, "v", canary=True))
    assert ask(context, encoded).allowed
    return msgspec.json.decode(encoded)["input"]["x"]


@pytest.mark.parametrize(
    ("logical", "value", "written"),
    [
        ("number", 0.00005, "0.0001"),
        ("number", 0.03125, "0.0312"),
        ("number", -0.00001, "-0.0000"),
        ("number", 12, "12.0000"),
        ("number", 922337203685477.5, "922337203685477.5000"),
        ("date", "2024-02-29", "2024-02-29T00:00:00.000Z"),
        ("timestamp", "2024-01-01T01:00:00.1239+02:00", "2023-12-31T23:00:00.123Z"),
        ("timestamp", "2024-01-01T01:00:00", "2024-01-01T01:00:00.000Z"),
        ("timestamp", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
    ],
)
def test_numbers_are_rounded_to_four_digits_and_instants_cut_to_milliseconds(
    logical: Any, value: Any, written: str
) -> None:
    assert one(logical, value)["__extn"]["arg"] == written


@pytest.mark.parametrize(
    ("logical", "value"),
    [
        ("number", 922337203685477.75),
        ("number", float("nan")),
        ("number", float("-inf")),
        ("number", True),
        ("integer", 2**63),
        ("integer", 1.0),
        ("string", 1),
        ("timestamp", "0001-01-01T00:00:00+02:00"),
        ("timestamp", "9999-12-31T23:00:00-02:00"),
        ("string", None),
    ],
)
def test_what_cedar_cannot_hold_makes_a_case_unfit(logical: Any, value: Any) -> None:
    with pytest.raises(Unfit, match=r"^input\.x$"):
        one(logical, value)


def test_null_is_absent_also_in_an_array() -> None:
    tags = Property(name="tags", logical_type="array", items=Item(logical_type="integer"), required=True)
    context = answer_context([tags, Property(name="y", logical_type="string")], ())
    encoded = encode_case(context, AnswerCase(([1, None, 2], None), b"{}", None, None, "v", canary=True))
    assert msgspec.json.decode(encoded)["input"] == {"tags": [1, 2]}
