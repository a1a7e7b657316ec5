"""Things that keep coming, as breweries: what is declared of them holds for those that the sample has not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.random import default_rng

from mainstay.contract.inference import infer_object
from mainstay.contract.inference_settling import stands_together
from mainstay.contract.inference_things import MOST_REFUSED, Things

if TYPE_CHECKING:
    from mainstay.contract.inference_types import InferredColumn, InferredObject

ROWS = 3_000


def breweries(kinds: int, states: int, rows: int = ROWS) -> dict[str, Any]:
    """Rows of so many breweries in random order, each in one state; few of the breweries have most rows."""
    random = default_rng(0)
    of_state = random.zipf(1.5, size=kinds) % states
    brewery = (random.pareto(0.6, size=rows) * 5).astype(np.int64) % kinds
    return {
        "brewery_id": np.array([f"b{number:05}" for number in range(kinds)])[brewery],
        "state": np.array([f"{one}{other}" for one in "ABCDEF" for other in "ABCDEFGH"])[of_state][brewery],
        "ounces": random.integers(5, size=rows),
    }


def things(columns: dict[str, Any]) -> Things:
    return Things([pl.Series(name, values) for name, values in columns.items()])


def has_list(column: InferredColumn) -> bool:
    return "validValues" in [each.rule for each in column.findings]


def inferred(columns: dict[str, Any]) -> InferredObject:
    return infer_object(pl.DataFrame(columns), "o")


def test_values_that_one_thing_alone_has_are_to_be_expected_of_new_things_too() -> None:
    found = things(breweries(1_000, 48)).spread_of("state")
    assert found is not None
    assert found.name == "brewery_id"
    assert MOST_REFUSED < found.unseen_share <= found.unseen_share_upper
    assert not has_list(inferred(breweries(1_000, 48)).column("state"))


def test_values_that_many_things_have_are_listed() -> None:
    columns = breweries(1_000, 4)
    found = things(columns).spread_of("state")
    assert found is not None
    assert found.alone == 0
    assert has_list(inferred(columns).column("state"))


def test_things_of_which_no_new_ones_come_are_left_alone() -> None:
    random = default_rng(1)
    carrier = random.integers(16, size=ROWS)
    columns = {
        "carrier": np.array(list("ABCDEFGHIJKLMNOP"))[carrier],
        "airline": [f"airline {each}" for each in carrier],
    }
    assert things(columns).spread_of("airline") is None
    assert has_list(inferred(columns).column("airline"))


def test_what_things_do_not_settle_has_no_spread_in_them() -> None:
    assert things(breweries(1_000, 4)).spread_of("ounces") is None


def test_a_name_that_two_things_share_settles_nothing_of_new_ones() -> None:
    random = default_rng(2)
    ids = random.integers(400, size=ROWS)
    columns = {"id": [f"b{each:03}" for each in ids], "name": [f"brewery {each % 380:03}" for each in ids]}
    columns["city"] = [f"city {each:03}" for each in ids]
    found = things(columns)
    assert found.contradicted_share("id", "city") == 0
    assert found.contradicted_share("name", "city") in (0, 40 / 400)  # 0 where no thing keeps coming
    columns["id"] += [f"new {each}" for each in range(100)]
    columns["name"] += [f"new brewery {each}" for each in range(100)]
    columns["city"] += [f"new city {each}" for each in range(100)]
    assert things(columns).contradicted_share("name", "city") == 40 / 500
    assert ("name",) not in [each.determinant for each in inferred(columns).tables]


def test_an_id_of_things_has_no_bounds() -> None:
    columns = breweries(1_000, 4)
    columns["brewery_id"] = [int(each[1:]) + 500 for each in columns["brewery_id"]]
    columns["brewery_name"] = [f"brewery {each}" for each in columns["brewery_id"]]
    found = inferred(columns).column("brewery_id")
    assert {each.rule for each in found.findings}.isdisjoint({"minimum", "maximum"})
    assert "a key has no bounds" in found.notes


def test_rows_side_by_side_are_one_witness() -> None:
    order = np.arange(ROWS) // 20
    assert stands_together(order)
    assert not stands_together(default_rng(0).permutation(order))
    assert not stands_together(np.full(5, -1))


def test_a_value_that_one_place_of_a_sorted_sample_shows_is_not_in_its_table() -> None:
    random = default_rng(3)
    model = np.sort(random.integers(40, size=ROWS))
    model = np.where(random.random(ROWS) < 0.5, random.integers(40, size=ROWS), model)  # sorted in half of the rows
    model[:20] = 99
    columns = {"model": [f"m{each}" for each in model], "seats": [f"s{each % 7}" for each in model]}
    (table,) = [each for each in inferred(columns).tables if each.determinant == ("model",)]
    known = {row[0] for row in table.mapping}
    assert "m99" not in known
    assert len(known) == 40
    assert "rows far apart" in table.words()


def test_lists_together_refuse_no_more_than_one_may() -> None:
    random = default_rng(4)
    columns = {f"column_{place}": random.choice([f"v{each}" for each in range(20)], ROWS) for place in range(10)}
    for place in range(10):
        columns[f"column_{place}"][place * 200 : place * 200 + 1] = "vv"
        columns[f"column_{place}"][place * 200 + 100 : place * 200 + 101] = "ww"
    found = inferred(columns)
    assert 0 < sum(has_list(each) for each in found.columns) < 10


def test_a_list_that_later_rows_would_have_broken_is_none() -> None:
    random = default_rng(5)
    texts = np.concatenate([random.choice(["a", "b"], 5_000), random.choice(["a", "b", "c"], 5_000)])
    (column,) = inferred({"kind": texts}).columns
    assert not has_list(column)


def test_a_bound_that_later_rows_would_have_broken_is_none() -> None:
    random = default_rng(6)
    level = np.repeat(random.permutation([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0]), 500)
    level[:2_000] = 0.0
    level[3_000:3_500] = 9.0
    (column,) = inferred({"price": random.normal(size=4_000) + level}).columns
    assert "maximum" not in [each.rule for each in column.findings]
    assert "minimum" in [each.rule for each in column.findings]
