"""What some properties settle about others, by a table: of a record, of columns, and who is blamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from contract.contracts import document
from mainstay.contract.columns import ColumnValidator, compile_columns
from mainstay.contract.columns_records import plain
from mainstay.contract.load import parse_contract
from mainstay.contract.quality import compile_quality
from mainstay.contract.validator import ObjectValidator, compile_object
from mainstay.errors import InvalidDocument

if TYPE_CHECKING:
    from mainstay.contract.types import SchemaObject, Violation

CITY = {"name": "city", "logicalType": "string"}
STATE = {"name": "state", "logicalType": "string", "logicalTypeOptions": {"maxLength": 2}}
COUNTY = {"name": "county", "logicalType": "string"}
MILES = {"name": "miles", "logicalType": "number"}
CITIES = {"determinant": ["city"], "dependent": ["state"], "mapping": [["mobile", "al"], ["juneau", "ak"]]}


def parsed(*tables: dict[str, Any], fields: Any = (CITY, STATE)) -> SchemaObject:
    contract = msgspec.json.decode(document(list(fields)))
    contract["schema"][0]["quality"] = [
        {"type": "custom", "engine": "mainstay", "implementation": {"rule": "functional-dependency", **each}}
        for each in tables
    ]
    return parse_contract(msgspec.json.encode(contract), "contract.yaml").schema[0]


def compiled(*tables: dict[str, Any], fields: Any = (CITY, STATE)) -> tuple[ObjectValidator, ColumnValidator]:
    declared = parsed(*tables, fields=fields)
    return compile_object(declared), compile_columns(declared)


def told(validator: ObjectValidator, **record: Any) -> list[tuple[str, str, str]]:
    """Field, expected and found of each violation, which must be of this rule, and what the decoder says as well."""
    raw = msgspec.json.encode(record)
    found = validator.violations(raw)
    assert all(each.rule == "functional-dependency" for each in found)
    if found:
        with pytest.raises(msgspec.ValidationError):
            validator.decode(raw)
    else:
        validator.decode(raw)
    return [(each.field, each.expected, each.found) for each in found]


def test_a_dependent_that_is_not_what_its_determinant_settles_is_told() -> None:
    validator, _ = compiled(CITIES)
    assert told(validator, city="mobile", state="al") == []
    assert told(validator, city="mobile", state="ak") == [("state", '"al", by city "mobile"', '"ak"')]
    assert told(validator, city="mobile") == [("state", '"al", by city "mobile"', "nothing")]
    assert told(validator, city="mobile", state=None) == [("state", '"al", by city "mobile"', "nothing")]


def test_who_is_in_no_row_of_the_table_is_not_judged() -> None:
    validator, _ = compiled(CITIES)
    for record in ({"city": "dothan", "state": "xx"}, {"state": "al"}, {"city": None, "state": "ak"}, {}):
        assert told(validator, **record) == []


def test_a_null_in_the_table_settles_nothing() -> None:
    table = {"determinant": "city", "dependent": ["state", "county"], "mapping": [["mobile", "al", None]]}
    validator, _ = compiled(table, fields=(CITY, STATE, COUNTY))
    assert told(validator, city="mobile", state="al", county="whichever") == []
    assert [each[0] for each in told(validator, city="mobile", state="ak")] == ["state"]


def test_numbers_are_compared_as_the_doubles_they_become() -> None:
    table = {"determinant": "city", "dependent": "miles", "mapping": [["mobile", 1], ["juneau", 2**53 + 1]]}
    validator, columns = compiled(table, fields=(CITY, MILES))
    assert told(validator, city="mobile", miles=1.0) == []
    assert told(validator, city="juneau", miles=2**53) == []
    assert told(validator, city="juneau", miles=2**53 + 1) == []
    assert told(validator, city="mobile", miles=1.609) == [("miles", '1.0, by city "mobile"', "1.609")]
    assert columns.check(pl.DataFrame({"city": ["mobile", "juneau"], "miles": [1, 2**53 + 1]})).bad_rows == ()


def test_a_value_that_breaks_a_rule_of_its_own_is_not_held_against_others() -> None:
    validator, columns = compiled(CITIES)
    (found,) = validator.check({"city": "mobile", "state": "alabama"})
    assert found.rule == "max-length"
    (found,) = validator.check({"city": 7, "state": "al"})
    assert found.rule == "type"
    checked = columns.check(pl.DataFrame({"city": ["mobile"], "state": ["alabama"]}))
    assert [each.rule for each in checked.violations[0]] == ["max-length"]


HOSPITALS = [["1", "east", "mobile", "al"], ["2", "west", "dothan", "al"], ["3", "north", "juneau", "ak"]]
FIELDS = tuple({"name": name, "logicalType": "string"} for name in ("id", "name", "city", "state"))
TABLES = (
    {"determinant": "id", "dependent": ["name", "city", "state"], "mapping": HOSPITALS},
    {
        "determinant": "name",
        "dependent": ["id", "city", "state"],
        "mapping": [[name, number, city, state] for number, name, city, state in HOSPITALS],
    },
    {"determinant": "city", "dependent": "state", "mapping": [[city, state] for _, _, city, state in HOSPITALS]},
)


@pytest.mark.parametrize(
    ("record", "blamed"),
    [
        (("1", "east", "mobile", "ak"), ["state"]),
        (("1", "east", "juneau", "al"), ["city"]),
        (("2", "east", "mobile", "al"), ["id"]),  # the name agrees with city and state
        (("1", "north", "mobile", "al"), ["name"]),
        (("9", "east", "dothan", "al"), ["name"]),  # one wrong name is likelier than two wrong others
        (("1", "east", "dothan", "ak"), ["city", "state"]),
        (("1", "east", "mobile", "al"), []),
        (("9", "south", "nome", "ak"), []),
    ],
)
def test_the_field_is_blamed_that_most_of_the_others_contradict(record: tuple[str, ...], blamed: list[str]) -> None:
    validator, columns = compiled(*TABLES, fields=FIELDS)
    given_record = dict(zip(("id", "name", "city", "state"), record, strict=True))
    assert sorted(each[0] for each in told(validator, **given_record)) == sorted(blamed)
    checked = columns.check(pl.DataFrame([given_record]))
    assert [each.field for found in checked.violations for each in found] == [
        each[0] for each in told(validator, **given_record)
    ]


def test_a_determinant_that_is_blamed_is_told_what_it_does_not_go_with() -> None:
    validator, _ = compiled(*TABLES[:1], TABLES[2], fields=FIELDS)
    ((field, expected, found),) = told(validator, id="2", name="east", city="mobile", state="al")
    assert (field, found) == ("id", '"2"')
    assert expected == 'a value that goes with name "east", city "mobile"'


def test_classified_values_are_masked_on_either_side() -> None:
    hidden = {**STATE, "classification": "personal"}
    validator, _ = compiled(CITIES, fields=(CITY, hidden))
    assert told(validator, city="mobile", state="ak") == [("state", '(masked), by city "mobile"', "(masked)")]
    validator, _ = compiled(CITIES, fields=({**CITY, "classification": "personal"}, STATE))
    assert told(validator, city="mobile", state="ak") == [("state", "(masked), by city (masked)", '"ak"')]


def test_a_violation_names_at_most_three_others_and_long_names_are_cut() -> None:
    names = [f"{'long ' * 20}{number}" for number in range(5)]
    fields = [{"name": each, "logicalType": "string"} for each in names]
    table = {"determinant": names[:4], "dependent": names[4], "mapping": [["a", "b", "c", "d", "e"]]}
    validator, columns = compiled(table, fields=fields)
    record = dict(zip(names, "abcdx", strict=True))
    ((field, expected, _),) = told(validator, **record)
    assert field == names[4]
    assert expected.endswith("and 1 more")
    assert [each.field for each in columns.check(pl.DataFrame([record])).violations[0]] == [names[4]]


def test_a_column_that_is_missing_breaks_what_the_table_settles_of_it() -> None:
    validator, columns = compiled(CITIES)
    checked = columns.check(pl.DataFrame({"city": ["mobile", "dothan"]}))
    assert (checked.bad_rows, checked.violations) == ((0,), (validator.check({"city": "mobile"}),))
    assert columns.check(pl.DataFrame({"state": ["al"]})).bad_rows == ()


@pytest.mark.parametrize(
    ("changes", "where", "expected"),
    [
        ({"determinant": ["town"]}, "determinant", "a property of the object that holds one value"),
        ({"determinant": ["City"]}, "determinant", "did you mean city?"),
        ({"determinant": []}, "determinant", "the name of a property, or a list of names"),
        ({"determinant": ["city", "city"]}, "determinant", "different names, at most 8"),
        ({"determinant": ["miles"], "mapping": [[1.5, "al"]]}, "determinant", "properties whose values are exact"),
        ({"dependent": ["city"], "mapping": [["mobile", "mobile"]]}, "dependent", "other properties"),
        ({"mapping": []}, "mapping", "a list of rows"),
        ({"mapping": [["mobile"]]}, "mapping[0]", "a row of 2 values"),
        ({"mapping": [["mobile", "al"], ["mobile", "ak"]]}, "mapping[1]", "this is that of row 0"),
        ({"mapping": [["mobile", 1]]}, "mapping[0][1]", "a value of type string"),
        ({"mapping": [[None, "al"]]}, "mapping[0][0]", "a value of type string"),
        ({"dependents": "state"}, "dependents", "did you mean dependent?"),
        ({"rule": "near-miss"}, "rule", "no such rule but at a property of logicalType string"),
        ({"rule": "fd"}, "rule", "a rule of mainstay: near-miss or functional-dependency"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused_in_its_place(
    changes: dict[str, Any], where: str, expected: str
) -> None:
    with pytest.raises(InvalidDocument) as caught:
        parsed({**CITIES, **changes}, fields=(CITY, STATE, MILES))
    (problem,) = caught.value.problems
    assert problem.where.endswith(f"implementation.{where}")
    assert expected in problem.expected


def test_a_table_without_a_mapping_is_refused() -> None:
    with pytest.raises(InvalidDocument, match="mapping"):
        parsed({"determinant": "city", "dependent": "state"})


def test_the_quality_checks_leave_it_to_the_rows() -> None:
    assert compile_quality(parsed(CITIES)) == ()


# One set of rules, two executions.

KINDS: dict[str, tuple[Any, ...]] = {
    "string": ("", "a", "b", "é"),
    "integer": (0, 1, -1, 2**53 + 1, 2**63 - 1),
    "boolean": (True, False),
    "date": ("2024-01-01", "2024-02-29"),
    "timestamp": ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00+00:00"),
    "number": (0, 1, -0.0, 0.1, 2**53 + 1, 1e300),
}
OTHERS: dict[str, tuple[Any, ...]] = {**dict.fromkeys(KINDS, (None, "c", 1.5, 3, True)), "boolean": (None, 1, "a")}


@st.composite
def objects(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Four properties, and up to three tables of them."""
    kinds = [draw(st.sampled_from(list(KINDS))) for _ in range(4)]
    fields = [{"name": f"f{i}", "logicalType": kind, "required": draw(st.booleans())} for i, kind in enumerate(kinds)]
    exact = [i for i, kind in enumerate(kinds) if kind != "number"]
    tables = []
    for _ in range(draw(st.integers(1, 3)) if exact else 0):
        determinant = draw(st.lists(st.sampled_from(exact), min_size=1, max_size=2, unique=True))
        left = [i for i in range(4) if i not in determinant]
        dependent = draw(st.lists(st.sampled_from(left), min_size=1, max_size=2, unique=True))
        keys = st.tuples(*(st.sampled_from(KINDS[kinds[i]]) for i in determinant))
        settled = st.tuples(*(st.sampled_from((*KINDS[kinds[i]], None)) for i in dependent))
        rows = draw(st.dictionaries(keys, settled, min_size=1, max_size=6))
        named = {"determinant": [f"f{i}" for i in determinant], "dependent": [f"f{i}" for i in dependent]}
        tables.append({**named, "mapping": [[*key, *values] for key, values in rows.items()]})
    return fields, tables


def typed(values: list[Any], kind: str) -> pl.Series:
    """A column of a type that holds the values, or of text."""
    if all(value is None or (isinstance(value, int) and not isinstance(value, bool)) for value in values):
        return pl.Series(values, dtype=pl.Int64)
    if all(value is None or isinstance(value, bool) for value in values):
        return pl.Series(values, dtype=pl.Boolean)
    if kind == "number" and not any(isinstance(value, str) for value in values):
        return pl.Series([None if value is None else float(value) for value in values], dtype=pl.Float64)
    return pl.Series([None if value is None else str(value) for value in values], dtype=pl.String)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_columns_say_of_each_row_what_the_record_says_and_the_decoder_agrees(data: st.DataObject) -> None:
    fields, tables = data.draw(objects())
    record, columns = compiled(*tables, fields=fields)
    frame = pl.DataFrame(
        {
            each["name"]: typed(
                data.draw(
                    st.lists(
                        st.one_of(
                            st.sampled_from(KINDS[each["logicalType"]]), st.sampled_from(OTHERS[each["logicalType"]])
                        ),
                        min_size=8,
                        max_size=8,
                    )
                ),
                each["logicalType"],
            )
            for each in fields
            if data.draw(st.integers(0, 9))
        }
    )
    nodes = dict(columns.nodes)
    values = [plain(frame[name], nodes[name]) for name in frame.columns]
    rows = [dict(zip(frame.columns, row, strict=True)) for row in zip(*values, strict=True)]
    expected: dict[int, tuple[Violation, ...]] = {}
    for number, row in enumerate(rows):
        whole = {name: value for name, value in row.items() if value is not None}
        found = record.violations(msgspec.json.encode(whole))
        event(", ".join(sorted({each.rule for each in found})))
        if found:
            expected[number] = found
    checked = columns.check(frame)
    assert dict(zip(checked.bad_rows, checked.violations, strict=True)) == expected
