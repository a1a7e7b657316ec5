from __future__ import annotations

import math
import subprocess
import sys
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.catalog.profile import fit_profile
from mainstay.errors import Damaged
from mainstay.runtime.novelty import Novelty, Profile
from mainstay.runtime.types import Feature, Row

FIELDS = ("carrier", "dest", "distance", "delay", "amount", "rain", "count", "paid", "fixed", "gust", "humid", "note")
KINDS = ("string", "string", "number", "number", "number", "number", "integer", "boolean", "number", "number", "number")
FEATURES = [Feature(name, kind, nullable=True) for name, kind in zip(FIELDS, KINDS, strict=False)]  # type: ignore[arg-type]  # kinds are literals
DISTANCES = {"BOS": 187.0, "ORD": 733.0, "LAX": 2475.0, "MIA": 1089.0, "DEN": 1626.0}
FLIES_TO = {"UA": ("ORD", "LAX", "DEN"), "B6": ("BOS", "MIA", "LAX"), "AA": ("ORD", "MIA", "DEN")}


def flights(count: int, seed: int) -> list[Row]:
    """Ordinary rows with a bit of everything. `note` is of no kind that is scored."""
    random = np.random.default_rng(seed)
    rows: list[Row] = []
    for _ in range(count):
        carrier = str(random.choice(["UA", "B6", "AA"], p=[0.6, 0.38, 0.02]))
        dest = str(random.choice(FLIES_TO[carrier]))
        dry = random.random() < 0.1
        rows.append(
            (
                carrier,
                dest,
                DISTANCES[dest] + float(random.integers(0, 20)),
                float(random.normal(5, 10)),
                float(np.exp(random.normal(0, 2))),
                0.0 if random.random() < 0.8 else float(random.exponential()),
                int(random.poisson(3)),
                bool(random.random() < 0.5),
                7.5,
                None if dry else float(random.normal(20, 3)),
                None if dry else float(random.normal(60, 10)),
                {"any": "thing"},
            )
        )
    return rows


@cache
def profile() -> bytes:
    return fit_profile(flights(3_000, 1), FIELDS, FEATURES)


@cache
def novelty() -> Novelty:
    return Novelty.load(profile(), FIELDS)


def usual(**changes: Any) -> Row:
    values = {
        "carrier": "UA", "dest": "ORD", "distance": 740.0, "delay": 4.0, "amount": 1.5, "rain": 0.0, "count": 3,
        "paid": True, "fixed": 7.5, "gust": 20.0, "humid": 61.0, "note": None,
    }  # fmt: skip
    return tuple({**values, **changes}.values())


def p_of(**changes: Any) -> float:
    return novelty().p_values([usual(**changes)])[0]


def test_a_usual_row_is_not_strange() -> None:
    assert p_of() > 0.1


@pytest.mark.parametrize("name", [name for name, kind in zip(FIELDS, KINDS, strict=False) if kind != "string"])
@pytest.mark.parametrize("value", [1e9, -1e9, math.inf, -math.inf, 10**400, -(10**400), 1e308])
def test_a_value_far_outside_its_range_is_found_in_any_field(name: str, value: float) -> None:
    assert p_of(**{name: value}) <= 0.01
    assert novelty().explain(usual(**{name: value}))[0][0] == name


def test_what_is_far_depends_on_how_heavy_the_tail_is() -> None:
    assert p_of(amount=60.0) > 0.01  # two deviations of the logarithm, and forty of the typical value
    assert p_of(delay=95.0) <= 0.01  # nine deviations


@pytest.mark.parametrize("name", ["carrier", "dest"])
def test_a_category_never_seen_is_found(name: str) -> None:
    assert p_of(**{name: "ZZ"}) <= 0.01
    assert novelty().explain(usual(**{name: "ZZ"}))[0][0] == name


def test_rare_categories_are_graded_by_how_rare_they_are() -> None:
    nats = [
        novelty()._viewer.field_nats(*novelty()._read([usual(carrier=carrier)]))[0, -2]
        for carrier in ("UA", "B6", "AA", "ZZ")
    ]
    assert nats == sorted(nats)
    assert nats[0] == pytest.approx(0)
    assert math.exp(-nats[2]) == pytest.approx(0.02, rel=0.5)


@pytest.mark.parametrize("name", ["distance", "carrier", "paid", "fixed"])
def test_missing_where_nothing_was_ever_missing_is_found(name: str) -> None:
    assert p_of(**{name: None}) <= 0.01


def test_missing_where_it_often_is_is_ordinary_and_where_it_never_is_alone_is_not() -> None:
    assert p_of(gust=None, humid=None) > 0.05
    assert p_of(gust=None) < 0.05


def test_a_distance_that_is_ordinary_but_not_for_its_destination_is_found() -> None:
    assert p_of(distance=2480.0) <= 0.01
    assert novelty().explain(usual(distance=2480.0))[0][0] == "joint"


def test_a_destination_that_its_carrier_never_flies_to_is_found() -> None:
    assert p_of(carrier="B6", dest="ORD") <= 0.01


def test_another_value_in_a_constant_column_is_found() -> None:
    assert p_of(fixed=7.4) <= 0.01
    assert p_of(fixed=7.5) > 0.1


def test_a_value_between_whole_numbers_is_found() -> None:
    assert p_of(count=2.5) <= 0.01
    assert p_of(count=2) > 0.1


def test_the_wrong_side_of_a_bound_is_found_however_near() -> None:
    assert p_of(rain=-0.01) <= 0.02
    assert p_of(rain=0.3) > 0.05


def test_correlated_numbers_that_disagree_are_found_though_each_is_ordinary() -> None:
    random = np.random.default_rng(3)
    common = random.normal(size=1_000)
    rows = [(float(x), float(x + e)) for x, e in zip(common, 0.1 * random.normal(size=1_000), strict=True)]
    features = [Feature(name, "number", nullable=False) for name in "ab"]
    made = Novelty.load(fit_profile(rows, "ab", features), "ab")
    agree, disagree = made.p_values([(1.5, 1.5), (1.5, -1.5)])
    assert agree > 0.05
    assert disagree <= 0.01
    assert [name for name, _ in made.explain((1.5, -1.5))] == ["joint"]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            *[
                st.one_of(
                    st.none(),
                    st.booleans(),
                    st.integers(),
                    st.integers(min_value=10**300, max_value=10**400),
                    st.floats(),
                    st.text(),
                    st.text(alphabet=st.characters(categories=["Cs"])),
                    st.sampled_from(["UA", "BOS", "", "x" * 100_000]),
                    st.just([1, 2]),
                )
                for _ in FIELDS
            ]
        ),
        max_size=8,
    )
)
def test_whatever_a_row_holds_it_gets_a_p_value(rows: list[Row]) -> None:
    values = novelty().p_values(rows)
    assert len(values) == len(rows)
    assert all(0 < value <= 1 for value in values)
    for row in rows:
        reasons = novelty().explain(row)
        assert 1 <= len(reasons) <= 5
        assert all(math.isfinite(nats) for _, nats in reasons)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_the_rows_beside_a_row_do_not_matter(seed: int, sizes: list[int]) -> None:
    rows = flights(sum(sizes), seed)
    together = novelty().p_values(rows)
    ends = np.cumsum(sizes)
    parts = [rows[end - size : end] for size, end in zip(sizes, ends.tolist(), strict=True)]
    assert [value for part in parts for value in novelty().p_values(part)] == together
    assert [novelty().p_values([row])[0] for row in rows] == together


def test_many_rows_at_once_are_scored_in_parts() -> None:
    rows = flights(1_500, 9)
    assert novelty().p_values(rows) == [value for row in rows for value in novelty().p_values([row])]
    assert novelty().p_values([]) == []


def test_scores_order_rows_beyond_every_reference_row() -> None:
    near, far = novelty().scores([usual(delay=500.0), usual(delay=5_000.0)])
    assert far > near


def test_fields_are_found_by_name_wherever_they_stand_in_a_row() -> None:
    backwards = Novelty.load(profile(), FIELDS[::-1])
    rows = flights(100, 5)
    assert backwards.p_values([row[::-1] for row in rows]) == novelty().p_values(rows)


@pytest.mark.parametrize("name", ["carrier", "distance"])
def test_a_single_scored_field_is_enough(name: str) -> None:
    feature = next(feature for feature in FEATURES if feature.name == name)
    made = Novelty.load(fit_profile(flights(500, 1), FIELDS, [feature]), FIELDS)
    assert made.p_values([usual()])[0] > 0.05
    assert made.p_values([usual(**{name: None})])[0] <= 0.01


def test_a_profile_of_fields_that_the_input_lacks_is_refused() -> None:
    with pytest.raises(Damaged, match="fields that the input does not have: delay"):
        Novelty.load(profile(), [name for name in FIELDS if name != "delay"])


@pytest.mark.parametrize("content", [b"", b"\x80", b"not a profile", b"\x91" * 100_000])
def test_what_is_no_profile_is_refused(content: bytes) -> None:
    with pytest.raises(Damaged, match="expected a mainstay-profile/1 document"):
        Novelty.load(content, FIELDS)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_profile_cut_short_is_refused(data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(profile()) - 1))
    with pytest.raises(Damaged):
        Novelty.load(profile()[:cut], FIELDS)


def changed(**arrays: Any) -> bytes:
    made = msgspec.msgpack.decode(profile(), type=Profile)
    return msgspec.msgpack.encode(msgspec.structs.replace(made, arrays={**made.arrays, **arrays}))


def packed(name: str) -> Any:
    return msgspec.msgpack.decode(profile(), type=Profile).arrays[name]


def test_arrays_that_do_not_fit_are_refused() -> None:
    location = packed("location")
    replace = msgspec.structs.replace
    wrong = {
        "as many bytes as its shape says": replace(location, shape=(*location.shape, 2)),
        "in shape": replace(location, shape=(location.shape[0] - 1,), data=location.data[8:]),
        "as <f8": replace(location, dtype="<i8"),
        "finite numbers": replace(location, data=b"\xff" * len(location.data)),
    }
    for message, array in wrong.items():
        with pytest.raises(Damaged, match=message):
            Novelty.load(changed(location=array), FIELDS)
    with pytest.raises(Damaged, match="too many or too few: extra"):
        Novelty.load(changed(extra=location), FIELDS)
    empty = replace(packed("scores"), shape=(0,), data=b"")
    with pytest.raises(Damaged, match="sizes that fit each other"):
        Novelty.load(changed(scores=empty), FIELDS)


def test_scoring_needs_numpy_alone() -> None:
    code = "import sys, mainstay.runtime.novelty; print(sorted({'scipy', 'sklearn', 'pandas'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
