"""Which columns settle others: found where they do, and not where too few repeats or an accident would have it so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng

from mainstay.contract.inference import infer_object
from mainstay.contract.inference_mappings import MOST_CELLS
from mainstay.contract.inference_settling import rows_judged, together
from mainstay.contract.inference_types import INFERRED
from mainstay.contract.load import parse_contract
from mainstay.contract.types import Contract
from mainstay.contract.validator import compile_object
from mainstay.contract.writing import write_contract
from shared_data import shared_data

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mainstay.contract.inference_mappings import InferredTable
    from mainstay.contract.validator import ObjectValidator

ROWS = 2_000


def tables(columns: Mapping[str, Any], public: tuple[str, ...] = ()) -> dict[tuple[str, ...], InferredTable]:
    inferred = infer_object(pl.DataFrame(dict(columns)), "o", public=public)
    return {each.determinant: each for each in inferred.tables}


def cities(rows: int, seed: int = 0, kinds: int = 40) -> dict[str, np.ndarray[Any, Any]]:
    """A city, its state, and two columns that have nothing to do with either."""
    random = default_rng(seed)
    city = random.integers(kinds, size=rows)
    return {
        "city": np.array([f"city {number:02}" for number in range(kinds)])[city],
        "state": np.array(["AL", "AK", "AZ", "AR", "CA", "CO", "CT", "DE"])[city % 8],
        "grade": random.integers(5, size=rows),
        "weight": random.normal(size=rows).round(3),
    }


def validator_of(frame: pl.DataFrame) -> ObjectValidator:
    """The validator of the contract that is inferred, written and read again."""
    made = Contract(
        api_version="v3.1.0",
        kind="DataContract",
        id="c",
        version="1.0.0",
        status="draft",
        schema=(infer_object(frame, "o").marked(),),
    )
    return compile_object(parse_contract(write_contract(made), "contract.yaml").schema[0])


def test_a_city_settles_its_state_and_nothing_else_settles_anything() -> None:
    found = tables(cities(ROWS))
    assert list(found) == [("city",)]
    table = found["city",]
    assert table.dependents == ("state",)
    assert table.mapping[:2] == (("city 00", "AL"), ("city 01", "AK"))
    assert len(table.mapping) == 40
    assert table.dependencies[0].weight.wronged == 0
    assert 0.998 < table.confidence < 0.9999


def test_what_was_inferred_is_declared_written_and_held_against_new_records() -> None:
    validator = validator_of(pl.DataFrame(cities(ROWS)))
    record = {"city": "city 01", "state": "AK", "grade": 1, "weight": 0.5}
    assert not validator.violations(msgspec.json.encode(record))
    (found,) = validator.violations(msgspec.json.encode({**record, "state": "AL"}))
    assert (found.field, found.rule, found.expected) == (
        "state",
        "functional-dependency",
        '"AK", by city "city 01"',
    )
    (found,) = validator.violations(msgspec.json.encode({**record, "city": "a town far away"}))
    assert (found.field, found.rule) == ("city", "valid-values")


def test_each_table_carries_what_speaks_for_it() -> None:
    marked = infer_object(pl.DataFrame(cities(ROWS)), "o").marked()
    (check,) = marked.quality
    (mark,) = check.custom_properties
    assert mark.property == INFERRED
    assert mark.value["support"] == ROWS
    assert mark.value["rules"] == {"state": mark.value["confidence"]}
    (table,) = infer_object(pl.DataFrame(cities(ROWS)), "o").tables
    assert table.words() == "inferred from 40 values of city; 2,000 rows agree with others that have the same"


def test_two_columns_together_settle_what_neither_does_alone() -> None:
    random = default_rng(1)
    origin, dest = random.integers(5, size=ROWS), random.integers(8, size=ROWS)
    miles = (origin * 8 + dest) * 37.5
    found = tables({"origin": origin, "dest": dest, "miles": miles, "grade": random.permutation(dest)})
    assert found["origin", "dest"].dependents == ("miles",)
    assert set(found) == {("origin", "dest")}  # miles are measured, and settle nothing


# Too few repeats.


def test_299_rows_that_others_judge_are_the_fewest_that_declare_a_dependency() -> None:
    for rows, is_found in ((298, False), (299, True)):
        assert bool(tables(cities(rows, kinds=8) | {"grade": [1] * rows})) == is_found


def test_a_determinant_that_hardly_repeats_settles_nothing() -> None:
    random = default_rng(2)
    many = random.permutation(ROWS // 2).repeat(2)
    assert not tables({"ticket": random.permutation(many), "grade": random.integers(4, size=ROWS)})
    assert not tables({"ticket": random.permutation(ROWS), "grade": random.integers(4, size=ROWS)})


def test_rows_count_only_where_their_determinant_comes_again_elsewhere_in_the_sample() -> None:
    assert rows_judged(np.arange(40).repeat(50)) == 0  # sorted: each value in one place
    assert rows_judged(np.tile(np.arange(40), 50)) == ROWS
    assert rows_judged(np.full(ROWS, -1)) == 0
    sorted_cities = pl.DataFrame(cities(ROWS)).sort("city")
    assert not infer_object(sorted_cities, "o").tables
    assert infer_object(sorted_cities.sample(fraction=1.0, shuffle=True, seed=0), "o").tables


# Accidents.


def test_a_dependent_that_hardly_varies_is_settled_by_nothing() -> None:
    random = default_rng(3)
    rare = np.zeros(ROWS, dtype=np.int64)
    rare[random.integers(ROWS, size=4)] = 1
    assert not tables({"city": random.integers(40, size=ROWS), "rare": rare})


def test_columns_that_move_slowly_do_not_settle_each_other() -> None:
    hours = np.arange(ROWS) // 10 % 24
    slow = np.sin(np.arange(ROWS) / 300).round(1)
    assert not tables({"hour": hours, "slow": slow})


def test_few_things_with_many_rows_each_are_few_witnesses() -> None:
    random = default_rng(4)
    thing = random.integers(20, size=ROWS)
    town = np.array([*range(17), 0, 1, 2])[thing]  # three towns have two
    owner = np.array([0, 1, 2, 3, *[random.integers(2)] * 16])[thing]
    owner[thing >= 17] = town[thing >= 17]
    found = tables({"number": thing, "town": town, "owner": owner})
    assert set(found) == {("number",)}
    assert found["number",].dependents == ("town", "owner")


def test_of_columns_that_tell_the_same_things_apart_those_called_as_keys_are_asked() -> None:
    random = default_rng(5)
    thing = random.integers(25, size=ROWS)
    names = [f"thing {number}" for number in range(25)]
    columns = {"id": thing, "name": np.array(names)[thing], "town": np.array(names[::-1])[thing], "grade": thing % 4}
    assert set(tables(columns, public=("name",))) == {("id",), ("name",)}
    assert set(tables({"place": thing, "town": columns["town"]})) == {("place",), ("town",)}


def test_a_column_that_adds_nothing_is_no_part_of_a_determinant() -> None:
    random = default_rng(6)
    found = cities(ROWS)
    state = found["state"].copy()
    state[random.integers(ROWS, size=200)] = "ZZ"
    assert not tables({"city": found["city"], "noise": random.integers(30, size=ROWS), "state": state})


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_independent_columns_settle_nothing(seed: int) -> None:
    random = default_rng(seed)
    columns = {f"c{i}": random.integers(int(random.integers(2, 60)), size=1_000) for i in range(8)}
    slow = {f"s{i}": np.sort(random.integers(30, size=1_000)) for i in range(2)}
    assert not tables(columns | slow | {"rare": (random.random(1_000) < 0.01).astype(int)})


# Exceptions, gaps and what is not told.


def test_exceptions_are_left_out_of_the_table_where_they_are_few() -> None:
    found = cities(4_000, kinds=100)
    state = found["state"].copy()
    state[np.flatnonzero(found["city"] == "city 07")[:1]] = "ZZ"
    table = tables({"city": found["city"], "state": state})["city",]
    assert table.dependencies[0].weight.wronged == 1
    assert "1 would have been judged wrongly" in table.words()
    assert "city 07" not in dict(table.mapping)
    assert len(table.mapping) == 99
    state[np.flatnonzero(default_rng(7).random(4_000) < 0.02)] = "ZZ"
    assert not tables({"city": found["city"], "state": state})


def test_a_gap_in_the_determinant_says_nothing_and_one_in_the_dependent_disagrees() -> None:
    found = cities(ROWS)
    gaps = default_rng(8).random(ROWS) < 0.1
    holes = pl.Series("city", found["city"]).set(pl.Series(gaps), None)
    (table,) = tables({"city": holes, "state": found["state"]}).values()
    assert len(table.mapping) == 40
    assert not tables({"city": found["city"], "state": pl.Series("state", found["state"]).set(pl.Series(gaps), None)})


def test_values_of_columns_that_may_tell_of_a_person_are_not_written_down() -> None:
    found = cities(ROWS)
    renamed = {"phone": found["city"], "state": found["state"]}
    assert not tables(renamed)
    assert set(tables(renamed, public=("phone",))) == {("phone",)}
    assert not tables({"patient": found["city"], "state": found["state"]})


def test_tables_together_stay_within_their_cells() -> None:
    random = default_rng(9)
    one = random.integers(1_900, size=30_000)
    keys = {f"key{i}": random.permutation(1_900)[one] for i in range(3)}  # each settles the others, and all the rest
    found = tables({**keys, **{f"c{i}": random.permutation(1_900)[one] % 97 for i in range(5)}})
    cells = [len(each.mapping) * (1 + len(each.dependents)) for each in found.values()]
    assert cells == [1_900 * 8] * 2
    assert sum(cells) <= MOST_CELLS < sum(cells) + cells[0]


def test_columns_are_taken_together_by_their_values() -> None:
    one, other = np.array([1, 1, 2, 0, 2]), np.array([3, 3, 3, 3, 0])
    assert together([one]).tolist() == [0, 0, 1, -1, 1]
    assert together([one, other]).tolist() == [0, 0, 1, -1, -1]


def test_the_sample_keeps_what_it_declares() -> None:
    frame = pl.read_csv(shared_data("dirty", "hospital", "clean.csv"), infer_schema=False)
    frame = frame.sample(fraction=1.0, shuffle=True, seed=1)
    inferred = infer_object(frame, "hospital", public=frame.columns)
    settles = {each.determinant: set(each.dependents) for each in inferred.tables}
    assert {"HospitalName", "City", "ZipCode", "PhoneNumber", "HospitalOwner"} <= settles["ProviderNumber",]
    assert {"Condition", "MeasureName"} <= settles["MeasureCode",]
    assert settles["State", "MeasureCode"] == {"Stateavg"}
    validator = compile_object(inferred.marked())
    for record in inferred.records(range(frame.height)):
        assert not validator.check(record)


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_small_samples_have_none(rows: int) -> None:
    assert not tables({"a": pl.Series([1] * rows, dtype=pl.Int64), "b": pl.Series(["x"] * rows, dtype=pl.String)})
