"""Slips of the pen: the distance of two texts, and the rule that refuses what is nearly a listed text."""

from __future__ import annotations

import time
from itertools import product
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.contracts import document, validator_of
from mainstay.contract.columns import compile_columns
from mainstay.contract.load import parse_contract
from mainstay.contract.near_misses import MOST_VALUES, NearMisses, edits
from mainstay.errors import InvalidDocument

TOWNS = ("anchorage", "birmingham", "dothan", "montgomery")

few_letters = st.text("abc", max_size=9)
shares = st.sampled_from((0.05, 0.1, 0.2, 0.25, 0.34, 0.5))


def by_table(one: str, other: str) -> int:
    """The distance of optimal string alignment, as it is defined."""
    made = {(i, j): max(i, j) for i, j in product(range(len(one) + 1), range(len(other) + 1)) if not i or not j}
    for i, j in product(range(1, len(one) + 1), range(1, len(other) + 1)):
        replaced = made[i - 1, j - 1] + (one[i - 1] != other[j - 1])
        made[i, j] = min(made[i - 1, j] + 1, made[i, j - 1] + 1, replaced)
        if i > 1 and j > 1 and one[i - 2 : i] == other[j - 1] + other[j - 2]:
            made[i, j] = min(made[i, j], made[i - 2, j - 2] + 1)
    return made[len(one), len(other)]


def declared(values: Any = TOWNS, distance: Any = 0.2, **others: Any) -> dict[str, Any]:
    given = {"rule": "near-miss", "values": list(values), "distance": distance, **others}
    quality = [{"type": "custom", "engine": "mainstay", "implementation": given}]
    return {"name": "town", "logicalType": "string", "quality": quality}


@given(few_letters, few_letters)
def test_the_distance_is_the_fewest_edits_of_the_table(one: str, other: str) -> None:
    assert edits(one, other) == by_table(one, other) == edits(other, one)


@given(st.text(max_size=80), st.integers(0, 79), st.characters())
def test_one_replaced_letter_is_one_edit_at_any_length(text: str, at: int, letter: str) -> None:
    place = at % max(1, len(text))
    changed = text[:place] + letter + text[place + 1 :]
    assert edits(text, changed) == (text != changed)


@settings(max_examples=300)
@given(st.lists(few_letters, min_size=1, max_size=8), few_letters, shares)
def test_a_text_is_near_when_a_listed_one_is_within_the_share(listed: list[str], text: str, share: float) -> None:
    near = [each for each in listed if 0 < by_table(text, each) <= int(share * max(len(text), len(each)))]
    found = NearMisses(listed, share).nearest(text)
    assert (found is None) == (not near)
    assert found is None or by_table(text, found) == min(by_table(text, each) for each in near)


def test_what_is_listed_or_far_from_it_is_accepted_and_a_slip_is_told_with_what_was_meant() -> None:
    validator = validator_of(declared())
    for town in (*TOWNS, "mobile", "", "dxxxan", "birminghams and others"):
        assert not validator.violations(msgspec.json.encode({"town": town})), town
        assert validator.values(validator.decode(msgspec.json.encode({"town": town}))) == (town,)
    for town in ("birminghxm", "birmigham", "brimingham", "Dothan", "montgomery "):
        (found,) = validator.violations(msgspec.json.encode({"town": town}))
        assert (found.field, found.rule) == ("town", "near-miss")
        with pytest.raises(msgspec.ValidationError, match="Expected a listed text, or one far from all of them"):
            validator.decode(msgspec.json.encode({"town": town}))
    assert validator.check({"town": "birminghxm"})[0].expected == '"birmingham", or a text less like it'


def test_columns_say_the_same_and_classified_values_are_not_shown() -> None:
    hidden = {**declared(), "classification": "personal"}
    table = compile_columns(parse_contract(document([hidden]), "contract.yaml").schema[0])
    checked = table.check(pl.DataFrame({"town": ["dothan", "dothxn", None, "mobile"]}))
    assert checked.bad_rows == (1,)
    assert checked.violations[0] == validator_of(hidden).check({"town": "dothxn"})
    assert (checked.violations[0][0].expected, checked.violations[0][0].found) == (
        "a listed text, or one far from all of them",
        "(masked)",
    )


@pytest.mark.parametrize(
    ("changed", "where", "expected"),
    [
        (declared([]), "implementation.values", "a list of 1 to 2,000 texts"),
        (declared(["a", 1]), "implementation.values[1]", "a text of at most 400 characters"),
        (declared(["a" * 401]), "implementation.values[0]", "a text of at most 400 characters"),
        (declared(distance=0), "implementation.distance", "a share above 0, and at most 0.5"),
        (declared(distance=True), "implementation.distance", "a share above 0, and at most 0.5"),
        (declared(distances=1), "implementation.distances", "one of rule, values, distance (did you mean distance?)"),
        ({**declared(), "logicalType": "integer"}, "implementation.rule", "at a property of logicalType string"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_in_its_place(changed: Any, where: str, expected: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        parse_contract(document([changed]), "contract.yaml")
    (problem,) = caught.value.problems
    assert problem.where.endswith(where)
    assert expected in problem.expected


def test_a_rule_of_ours_that_is_not_known_or_stands_elsewhere_is_refused() -> None:
    for rule, expected in (
        ("nearmiss", "a rule of mainstay"),
        ("functional-dependency", "no such rule but at an object"),
    ):
        with pytest.raises(InvalidDocument, match=expected):
            parse_contract(document([declared(rule=rule)]), "contract.yaml")


def test_a_rule_of_another_engine_is_its_own_business() -> None:
    other = declared()
    other["quality"][0]["engine"] = "soda"
    assert not validator_of(other).check({"town": "birminghxm"})


def test_the_most_values_and_the_longest_text_take_bounded_time() -> None:
    rule = NearMisses([f"{number:08}{'abcdefgh' * 4}" for number in range(MOST_VALUES)], 0.2)
    began = time.perf_counter()
    rule.nearest("x" * 38)
    rule.nearest("y" * 1_000_000)
    assert time.perf_counter() - began < 1
