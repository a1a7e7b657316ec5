from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.contract.load import parse_contract
from mainstay.contract.validator import ObjectValidator, compile_object
from mainstay.privacy.protection import MASK, ProtectionFailed, Protector, any_classified

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.capability.classified import Action
    from mainstay.contract.types import Property

KEY = bytes(range(32))
LEVELS = 25  # of objects; a contract may have few more

PERSON: list[dict[str, Any]] = [
    {"name": "age", "logicalType": "integer", "classification": "public"},
    {"name": "name", "logicalType": "string", "classification": "Restricted"},
    {
        "name": "address",
        "logicalType": "object",
        "properties": [
            {"name": "country", "logicalType": "string"},
            {"name": "street", "logicalType": "string", "classification": "confidential"},
        ],
    },
    {
        "name": "phones",
        "logicalType": "array",
        "items": {"logicalType": "string", "classification": "confidential", "name": "phone"},
    },
    {"name": "income", "logicalType": "number", "classification": "confidential"},
    {"name": "married", "logicalType": "boolean", "classification": "restricted"},
    {"name": "born", "logicalType": "date", "classification": "confidential"},
    {"name": "file", "logicalType": "object", "classification": "restricted"},
    {"name": "extra", "logicalType": "object"},
    {"name": "tags", "logicalType": "array", "items": {"logicalType": "string", "name": "tag"}},
]


def validator(properties: list[dict[str, Any]]) -> ObjectValidator:
    document = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "c",
        "version": "1.0.0",
        "status": "active",
        "schema": [{"name": "person", "logicalType": "object", "properties": properties}],
    }
    return compile_object(parse_contract(json.dumps(document).encode(), "contract.odcs.yaml").schema[0])


DECLARED = validator(PERSON)


def properties() -> tuple[Property, ...]:
    return DECLARED.properties


def protector(**actions: Action) -> Protector:
    """Actions by classification; `other` stands for any other."""
    return Protector(properties(), KEY, {"*" if name == "other" else name: each for name, each in actions.items()})


def protect(value: Any, **actions: Action) -> Any:
    return json.loads(protector(**actions).protect(json.dumps(value).encode()))


RECORD: dict[str, Any] = {
    "age": 41,
    "name": "N. N.",
    "address": {"country": "NO", "street": "Storgata 1"},
    "phones": ["+47 1", "+47 2", "+47 1"],
    "income": 512_345.67,
    "married": True,
    "born": "1984-05-06",
    "file": {"note": "x"},
    "extra": {"anything": [1, {"at": "all"}]},
    "tags": ["a", "b"],
}


def test_classified_values_become_pseudonyms_unless_the_folder_says_otherwise() -> None:
    record = protect(RECORD)
    assert list(record) == list(RECORD)
    assert (record["age"], record["address"]["country"], record["extra"]) == (41, "NO", RECORD["extra"])
    assert record["tags"] == ["a", "b"]
    hidden = [record[name] for name in ("name", "income", "married", "born", "file")]
    for each in (*hidden, record["address"]["street"], *record["phones"]):
        assert each.startswith("pseudonym:")
    assert record["phones"][0] == record["phones"][2] != record["phones"][1]


def test_a_mask_is_the_same_for_every_value_and_tells_nothing_of_it() -> None:
    record = protect(RECORD, confidential="mask", restricted="mask")
    assert {record[name] for name in ("name", "income", "married", "born", "file")} == {MASK}
    assert record["address"] == {"country": "NO", "street": MASK}
    assert record["phones"] == [MASK] * 3


def test_what_is_dropped_is_gone_and_items_keep_their_positions() -> None:
    record = protect(RECORD, confidential="drop", restricted="drop")
    assert record == {
        "age": 41,
        "address": {"country": "NO"},
        "phones": [None, None, None],
        "extra": RECORD["extra"],
        "tags": ["a", "b"],
    }
    assert "name" not in protect({"name": None}, restricted="drop")


def test_each_classification_has_its_own_action_and_the_star_is_for_any_other() -> None:
    record = protect(RECORD, confidential="drop", other="mask")
    assert record["name"] == record["married"] == MASK
    assert "income" not in record
    assert protect({"unknown": 1, "name": "x"}, other="drop") == {}
    assert protect({"unknown": {"a": 1}}, other="mask") == {"unknown": MASK}


def test_null_stays_null() -> None:
    assert protect(dict.fromkeys(RECORD)) == dict.fromkeys(RECORD)
    assert protect({"name": None, "unknown": None}, other="mask") == {"name": None, "unknown": None}


def test_the_same_value_has_the_same_pseudonym_and_another_field_or_key_another() -> None:
    assert protect({"name": "\u00e9"}) == json.loads(protector().protect(b' {"name" : "\\u00e9"} '))
    assert protect({"name": "x"})["name"] != protect({"address": {"street": "x"}})["address"]["street"]
    other = Protector(properties(), bytes(32), {})
    assert json.loads(other.protect(b'{"name": "x"}')) != protect({"name": "x"})


@given(st.text(min_size=12))
def test_a_field_that_nobody_classed_is_not_recorded_in_clear(value: str) -> None:
    assert protect({"unknown": value})["unknown"].startswith("pseudonym:")
    assert protect({"address": {"unknown": value}})["address"]["unknown"].startswith("pseudonym:")


@pytest.mark.parametrize(
    "record",
    [
        {"address": "Storgata 1"},
        {"address": ["Storgata 1"]},
        {"phones": "Storgata 1"},
        {"phones": {"mobile": "Storgata 1"}},
        {"age": {"street": "Storgata 1"}},
        {"age": ["Storgata 1"]},
        {"tags": [{"street": "Storgata 1"}]},
    ],
    ids=str,
)
def test_what_stands_where_something_else_is_declared_was_classed_by_nobody(record: Any) -> None:
    assert "Storgata" not in json.dumps(protect(record))
    assert "Storgata" not in json.dumps(protect(record, other="mask"))


def test_the_value_of_a_repeated_name_that_does_not_count_is_gone() -> None:
    assert b"first" not in protector().protect(b'{"name": "first", "name": "second"}')


# --- values of enough entropy, so that finding one in the record is no accident ------------------------------------

secrets = st.integers(10**14, 10**17).map(lambda number: f"secret-{number}")
numbers = st.integers(10**14, 10**15 - 1)
actions = st.dictionaries(
    st.sampled_from(["confidential", "restricted", "*"]), st.sampled_from(["mask", "drop", "pseudonym"])
)


@st.composite
def records(draw: st.DrawFn) -> tuple[dict[str, Any], list[str]]:
    """A record, whole or wrong, and the texts that must not be found in what is recorded of it."""
    clear: list[str] = []

    def secret() -> str:
        clear.append(draw(secrets))
        return clear[-1]

    def number() -> int:
        made = draw(numbers)
        clear.append(str(made))
        return made

    def hidden() -> Any:
        match draw(st.integers(0, 3)):
            case 0:
                return secret()
            case 1:
                return number()
            case 2:
                return [secret()]
            case _:
                return {"of": {secret(): number()}}

    record: dict[str, Any] = {
        "age": draw(st.integers(0, 120)),
        "name": hidden(),
        "address": {"country": "NO", "street": hidden(), "floor": hidden()},
        "phones": [hidden(), None, hidden()],
        "income": hidden(),
        "married": hidden(),
        "born": hidden(),
        "file": hidden(),
        "unknown": hidden(),
    }
    for name in draw(st.sets(st.sampled_from(["age", "address", "phones"]))):
        record[name] = draw(st.sampled_from([[secret()], {"of": secret()}]))
    return record, clear


@given(records(), actions)
def test_no_clear_value_is_found_anywhere_in_what_is_recorded(
    made: tuple[dict[str, Any], list[str]], chosen: dict[str, Action]
) -> None:
    record, clear = made
    recorded = Protector(properties(), KEY, chosen).protect(json.dumps(record).encode())
    assert isinstance(json.loads(recorded), dict)
    for value in clear:
        assert value.encode() not in recorded


def _loads(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


@given(st.binary() | st.text().map(str.encode) | st.integers().map(lambda number: str(number).encode()))
def test_whatever_is_not_an_object_leaves_only_its_digest(raw: bytes) -> None:
    record = json.loads(protector().protect(raw))
    if not isinstance(_loads(raw), dict):
        assert set(record) == {"withheld"}
        assert record["withheld"]["bytes"] == len(raw)


@given(st.sampled_from(["[", '{"name":', '{"extra":{"a":', '{"extra":[', '{"unknown":[']), st.integers(1, 5_000))
def test_nesting_of_any_depth_is_protected_withheld_or_refused(opening: str, depth: int) -> None:
    closing = {"[": "]", "{": "}"}
    tail = "".join(closing[each] for each in reversed(opening) if each in closing)
    raw = (opening * depth + '"Storgata 1"' + tail * depth).encode()
    try:
        recorded = protector().protect(raw)
    except ProtectionFailed:
        return
    assert isinstance(json.loads(recorded), dict)


@pytest.fixture
def shallow_stack() -> Iterator[None]:
    before = sys.getrecursionlimit()
    yield
    sys.setrecursionlimit(before)


def test_a_failure_refuses_and_says_nothing_of_the_value(shallow_stack: None) -> None:
    """Deep enough for the decoder and too deep for the rules, whatever the stack holds already."""
    nested: dict[str, Any] = {"name": "leaf", "logicalType": "string", "classification": "confidential"}
    for _ in range(LEVELS):
        nested = {"name": "x", "logicalType": "object", "properties": [nested]}
    deep = Protector(validator([nested]).properties, KEY, {})
    raw = b'{"x":' * LEVELS + b'{"leaf":"Storgata 1"}' + b"}" * LEVELS
    assert b"Storgata" not in deep.protect(raw)
    failures = []
    for limit in range(60, 400):
        try:
            sys.setrecursionlimit(limit)
        except RecursionError:  # the stack is that deep now
            continue
        try:
            recorded = deep.protect(raw)
        except ProtectionFailed as error:
            failures.append(str(error))
        except RecursionError:  # before `protect` was entered
            continue
        else:
            assert b"Storgata" not in recorded
    sys.setrecursionlimit(1_000)
    assert set(failures) == {"RecursionError"}


# --- what leaves ---------------------------------------------------------------------------------------------------


def row_of(record: dict[str, Any]) -> tuple[Any, ...]:
    return DECLARED.values(DECLARED.decode(json.dumps(record).encode()))


def leaving(record: dict[str, Any], **actions: Action) -> dict[str, Any]:
    return dict(zip(DECLARED.fields, protector(**actions).for_remote(row_of(record)), strict=True))


def test_texts_leave_as_what_is_recorded_of_them_and_other_classified_values_do_not_leave() -> None:
    left, recorded = leaving(RECORD), protect(RECORD)
    assert {name: left[name] for name in ("age", "name", "born", "extra", "tags")} == {
        name: recorded[name] for name in ("age", "name", "born", "extra", "tags")
    }
    assert {left[name] for name in ("income", "married", "file", "address", "phones")} == {None}
    masked = leaving(RECORD, other="mask")
    assert (masked["name"], masked["born"], masked["income"], masked["married"]) == (MASK, MASK, None, None)
    dropped = leaving(RECORD, other="drop")
    assert {dropped[name] for name in RECORD if name not in ("age", "extra", "tags")} == {None}


def test_what_is_absent_stays_absent() -> None:
    assert set(leaving({}, other="mask").values()) == {None}


def test_a_row_without_classified_fields_leaves_as_it_is() -> None:
    open_fields = validator([PERSON[0], PERSON[8], PERSON[9]])
    row = (41, {"a": 1}, ["b"])
    assert Protector(open_fields.properties, KEY, {}).for_remote(row) is row


@given(secrets, numbers, actions)
def test_no_clear_value_leaves(secret: str, number: int, chosen: dict[str, Action]) -> None:
    record = {
        "name": secret,
        "income": number,
        "file": {"note": secret, "number": number},
        "address": {"country": "NO", "street": secret},
        "phones": [secret],
    }
    left = repr(Protector(properties(), KEY, chosen).for_remote(row_of(record)))
    assert secret not in left
    assert str(number) not in left


def test_a_row_of_another_object_is_refused() -> None:
    with pytest.raises(ProtectionFailed, match="IndexError"):
        protector().for_remote((1,))


def test_nothing_is_classified_below_public_properties() -> None:
    assert any_classified(properties())
    assert not any_classified(properties()[:1])
    assert any_classified(properties()[2:3])
    assert any_classified(properties()[3:4])
