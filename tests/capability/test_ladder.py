from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capability.folders import CAPABILITY, CONTRACT, problems_of, write

if TYPE_CHECKING:
    from pathlib import Path

HEAD = CAPABILITY[: CAPABILITY.index("fallback:")]
WIDE = CONTRACT.replace(
    "      - {name: at, logicalType: timestamp}\n",
    """\
      - {name: at, logicalType: timestamp}
      - {name: wet, logicalType: boolean}
      - {name: wind, logicalType: number}
      - {name: crew, logicalType: array, items: {logicalType: string}}
      - {name: note}
""",
)
OUTPUT = {"probability": 0.2, "late": False}
DIGEST = "sha256:" + "ab" * 32


def ladder_problems(folder: Path, *rungs: Any) -> list[str]:
    """The problems of a folder with these rungs, without file and line."""
    found = problems_of(write(folder, f"{HEAD}fallback: {msgspec.json.encode(rungs).decode()}\n", WIDE))
    return [each.partition(" ")[2] for each in found]


def rule(*conditions: dict[str, Any], then: Any = OUTPUT) -> dict[str, Any]:
    return {"rule": [{"when": conditions, "then": then}]}


def test_a_whole_ladder_is_no_problem(tmp_path: Path) -> None:
    conditions = (
        {"field": "delay", "at_least": 15, "below": 30.5},
        {"field": "wind", "above": 3, "at_most": 3.5, "equals": 3.25},
        {"field": "carrier", "one_of": ["AA", "UA"]},
        {"field": "wet", "equals": True},
        {"field": "at", "missing": True},
        {"field": "wind", "missing": False},
        {"field": "at", "equals": "2024-01-01T00:00:00Z"},
    )
    rungs: tuple[dict[str, Any], ...] = (
        {"version": DIGEST},
        {"version": "previous"},
        rule(*conditions),
        {"last_good": {}},
        {"last_good": {"max_age_seconds": 5}},
        {"rule": [{"when": [{"field": "wet", "equals": False}], "then": OUTPUT}, {"then": OUTPUT}]},
    )
    assert ladder_problems(tmp_path, *rungs) == []


@pytest.mark.parametrize(
    ("rung", "problem"),
    [
        ({}, "fallback[0]: exactly one of version, rule, last_good, constant, person | none of them"),
        ({"rule": []}, "fallback[0]: exactly one of version, rule, last_good, constant, person | none of them"),
        ({"last_good": None}, "fallback[0]: exactly one of version, rule, last_good, constant, person | none of them"),
        (
            {"person": True, "constant": OUTPUT},
            "fallback[0]: exactly one of version, rule, last_good, constant, person | constant, person",
        ),
        ({"person": False}, "fallback[0].person: true, or no such rung | false"),
        (
            {"version": "latest"},
            (
                "fallback[0].version: a version of this capability (`sha256:...`), or `previous`: the one in force "
                'before | "latest"'
            ),
        ),
        (
            {"constant": {"probability": 2, "late": False}},
            "fallback[0].constant.probability: at most 1 (maximum) | 2",
        ),
        (rule(then={"probability": 0.5}), "fallback[0].rule[0].then.late: a value (required) | nothing"),
        (
            rule(then={**OUTPUT, "lat": True}),
            'fallback[0].rule[0].then.lat: a field of the contract (did you mean "late"?) (unknown-field) | "lat"',
        ),
    ],
)
def test_each_rung_says_one_whole_thing(tmp_path: Path, rung: Any, problem: str) -> None:
    assert ladder_problems(tmp_path, rung) == [problem]


TESTS = "missing, equals, one_of, at_least, above, at_most, below"
SCALARS = "integer or number or boolean or string or date or timestamp or time"


@pytest.mark.parametrize(
    ("condition", "problem"),
    [
        ({"field": "delay"}, f": at least one of {TESTS} | none of them"),
        ({"field": "delay", "one_of": []}, f": at least one of {TESTS} | none of them"),
        ({"field": "delay", "equals": None}, f": at least one of {TESTS} | none of them"),
        (
            {"field": "dely", "above": 1},
            '.field: a property of the input departure (did you mean "delay"?) | "dely"',
        ),
        ({"field": "crew", "equals": "x"}, f".field: a property of logicalType {SCALARS} | crew, of array"),
        (
            {"field": "note", "equals": "x"},
            f".field: a property of logicalType {SCALARS} | note, without a logicalType",
        ),
        ({"field": "carrier", "equals": 1}, ".equals: a value of logicalType string | 1"),
        ({"field": "delay", "equals": 1.5}, ".equals: a value of logicalType integer | 1.5"),
        ({"field": "delay", "equals": True}, ".equals: a value of logicalType integer | true"),
        ({"field": "wet", "equals": "true"}, '.equals: a value of logicalType boolean | "true"'),
        ({"field": "wet", "equals": 1}, ".equals: a value of logicalType boolean | 1"),
        ({"field": "wind", "one_of": [1, 1.5, "x"]}, '.one_of[2]: a value of logicalType number | "x"'),
        (
            {"field": "carrier", "at_least": 1},
            ".at_least: a property of logicalType integer or number | carrier, of string",
        ),
        ({"field": "at", "below": 1}, ".below: a property of logicalType integer or number | at, of timestamp"),
        ({"field": "wind", "missing": True, "above": 1}, ": no other test beside missing: true | above"),
        ({"field": "wind", "at_least": 2, "at_most": 1}, ": bounds that some number is within | none is"),
        ({"field": "wind", "at_least": 2, "below": 2}, ": bounds that some number is within | none is"),
        ({"field": "wind", "above": 2, "at_most": 2}, ": bounds that some number is within | none is"),
    ],
)
def test_a_condition_asks_what_can_be_asked(tmp_path: Path, condition: dict[str, Any], problem: str) -> None:
    assert ladder_problems(tmp_path, rule(condition)) == [f"fallback[0].rule[0].when[0]{problem}"]


def test_bounds_may_meet_in_one_number(tmp_path: Path) -> None:
    assert ladder_problems(tmp_path, rule({"field": "wind", "at_least": 2, "at_most": 2})) == []


@pytest.mark.parametrize("last", [{"constant": OUTPUT}, {"person": True}, rule()])
def test_a_rung_after_one_that_always_answers_can_never_be_reached(tmp_path: Path, last: dict[str, Any]) -> None:
    unreached = "a rung that can be reached | one after fallback[1], which always answers"
    assert ladder_problems(tmp_path, {"last_good": {}}, last, {"version": "previous"}, {"person": True}) == [
        f"fallback[2]: {unreached}",
        f"fallback[3]: {unreached}",
    ]


def test_a_case_after_one_that_always_fits_can_never_be_reached(tmp_path: Path) -> None:
    cases = [{"then": OUTPUT}, {"when": [{"field": "wet", "equals": True}], "then": OUTPUT}]
    assert ladder_problems(tmp_path, {"rule": cases}) == [
        "fallback[0].rule[1]: a case that can be reached | one after fallback[0].rule[0], which always fits"
    ]


def test_no_rung_stands_twice(tmp_path: Path) -> None:
    wet = rule({"field": "wet", "equals": True})
    rungs: tuple[dict[str, Any], ...] = (
        {"version": "previous"},
        wet,
        {"last_good": {}},
        wet,
        {"last_good": {"max_age_seconds": 86400}},
    )
    assert ladder_problems(tmp_path, *rungs) == [
        "fallback[3]: each rung once | the same as fallback[1]",
        "fallback[4]: each rung once | the same as fallback[2]",
    ]


def test_rungs_are_checked_where_the_contract_is_not_sound(tmp_path: Path) -> None:
    text = HEAD + "fallback: [{person: false}, {rule: [{when: [{field: dely, above: 1}], then: {}}]}]\n"
    found = problems_of(write(tmp_path, text, CONTRACT.replace("id: c\n", "")))
    assert [each.partition(":")[2].partition(" ")[2].partition(":")[0] for each in found] == [
        "fallback[0].person",
        "fallback[1].rule[0].when[0].field",
        "id",
    ]


scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.sampled_from(["AA", "", "late"])
records = st.just(OUTPUT) | st.dictionaries(st.sampled_from(["probability", "late", "lat"]), scalars, max_size=3)
numbers = st.none() | st.integers(-3, 3)
conditions = st.fixed_dictionaries(
    {"field": st.sampled_from(["delay", "carrier", "wet", "wind", "at", "crew", "note", "x"])},
    optional={
        "missing": st.none() | st.booleans(),
        "equals": scalars,
        "one_of": st.lists(scalars.filter(lambda value: value is not None), max_size=2),
        **dict.fromkeys(("at_least", "above", "at_most", "below"), numbers),
    },
)
cases = st.fixed_dictionaries({"then": records}, optional={"when": st.lists(conditions, max_size=2)})
any_rung = st.fixed_dictionaries(
    {},
    optional={
        "version": st.sampled_from(["previous", DIGEST]),
        "rule": st.lists(cases, max_size=3),
        "last_good": st.just({}),
        "constant": records,
        "person": st.booleans(),
    },
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(any_rung, max_size=4))
def test_a_ladder_without_problems_gives_whole_outputs_and_ends_where_it_always_answers(
    tmp_path: Path, ladder: list[dict[str, Any]]
) -> None:
    if ladder_problems(tmp_path, *ladder):
        return
    for i, rung in enumerate(ladder):
        (name,) = (name for name, value in rung.items() if value not in (None, []))
        given_outputs = [rung["constant"]] if name == "constant" else [case["then"] for case in rung.get("rule", ())]
        assert all(output.keys() == {"probability", "late"} for output in given_outputs)
        if name in ("constant", "person") or any(not case.get("when") for case in rung.get("rule", ())):
            assert i == len(ladder) - 1
