from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng

from mainstay.contract.formats import to_python
from mainstay.contract.inference import infer_column, infer_object
from mainstay.contract.inference_evidence import confidence_of, is_enough, is_rising, poisson_upper, weigh
from mainstay.contract.inference_names import tokens_of
from mainstay.contract.inference_privacy import guess_classification
from mainstay.contract.inference_ranges import upper_bound
from mainstay.contract.inference_shapes import shapes_of
from mainstay.contract.inference_texts import shape_of
from mainstay.contract.inference_types import INFERRED, InferredColumn, InferredObject, Unfit, Wanted
from mainstay.contract.near_misses import NEAR_MISS
from mainstay.contract.types import Options
from mainstay.contract.validator import compile_object
from mainstay.contract.writing import plain_struct
from shared_data import shared_data

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import TypeAlias

    Values: TypeAlias = Sequence[Any] | np.ndarray[Any, Any] | pl.Series

SHARE = 1e-4
ROWS = 1_000


def infer(values: Values, name: str = "x", wanted: Wanted | None = None) -> InferredColumn:
    return infer_column(pl.Series(name, values), wanted, share=SHARE)


def options(column: InferredColumn) -> dict[str, Any]:
    made: dict[str, Any] = plain_struct(column.declared.logical_type_options or Options())
    return made


def listed(column: InferredColumn) -> list[Any] | None:
    for check in column.declared.quality:
        if check.arguments is not None:
            found: list[Any] = check.arguments["validValues"]
            return found
    return None


# What a column is.


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1", "-2", "30"] * 100, "integer"),
        (["1", "-2", "30"], "number"),  # three rows may hold no fraction by chance
        (["1.5", "2", "-.5", "1e3"], "number"),
        (["007", "042", "123"], "string"),
        (["0.5", "0.25"], "number"),
        (["true", "False"], "boolean"),
        (["yes", "no"], "string"),
        (["2024-02-29", "2024-03-01"], "date"),
        (["2024-02-30", "2024-03-01"], "string"),
        (["12:30:00", "23:59:59.5"], "time"),
        (["12:30:00", "24:00:00"], "string"),
        (["2024-02-29T10:00:00Z", "2024-02-29T10:00:00+01:00"], "timestamp"),
        (["1", "two"], "string"),
        (["9" * 30, "1"], "number"),
        ([None, None], "string"),
    ],
)
def test_text_is_taken_for_what_every_value_is(texts: list[str | None], kind: str) -> None:
    assert infer(pl.Series(texts, dtype=pl.String)).declared.logical_type == kind


def test_a_day_is_only_read_where_its_month_can_be_told() -> None:
    found = infer(["31/01/2024", "02/03/2024"])
    assert (found.declared.logical_type, options(found)) == ("date", {"format": "dd/MM/yyyy"})
    assert found.values.to_list() == ["2024-01-31", "2024-03-02"]
    unclear = infer(["01/02/2024", "02/03/2024"])
    assert unclear.declared.logical_type == "string"
    assert unclear.notes[0] == "days, but which number is the month cannot be told"


def test_a_timestamp_without_offset_says_so_and_gets_its_t() -> None:
    found = infer(["2024-01-31 10:00:00", "2024-02-01 00:00:00"])
    assert (found.declared.logical_type, options(found)) == ("timestamp", {"timezone": False})
    assert found.values.to_list() == ["2024-01-31T10:00:00", "2024-02-01T00:00:00"]


def test_words_for_missing_count_as_missing_among_numbers_only() -> None:
    numbers = infer(["1.5", "NA", "", "2.5"])
    assert numbers.values.to_list() == [1.5, None, None, 2.5]
    assert "NA taken as missing" in numbers.notes
    texts = infer(["DE", "NA", "", "FR"])
    assert texts.values.to_list() == ["DE", "NA", None, "FR"]


def test_digits_under_the_name_of_a_code_stay_text_unless_the_model_adds_them_up() -> None:
    digits = ["35233", "99501"] * 200
    assert infer(digits, "ZipCode").declared.logical_type == "string"
    assert infer(digits, "ZipCode", "number").declared.logical_type == "integer"
    assert infer([35233, 99501], "ZipCode", "string").values.to_list() == ["35233", "99501"]


@pytest.mark.parametrize(
    ("values", "kind", "first"),
    [
        ([dt.date(2024, 1, 31)], "date", "2024-01-31"),
        ([dt.time(1, 2, 3)], "time", "01:02:03"),
        ([dt.datetime(2024, 1, 31, 1, 2, 3)], "timestamp", "2024-01-31T01:02:03"),  # noqa: DTZ001 - without a zone
        ([dt.datetime(2024, 1, 31, 1, 2, 3, tzinfo=dt.UTC)], "timestamp", "2024-01-31T01:02:03Z"),
        ([1.5, float("nan")], "number", 1.5),
        ([True, None], "boolean", True),
    ],
)
def test_typed_columns_become_what_json_has(values: list[Any], kind: str, first: Any) -> None:
    found = infer(values)
    assert (found.declared.logical_type, found.values.to_list()[0]) == (kind, first)
    made = compile_object(infer_object(pl.DataFrame({"x": values}), "o").marked())
    assert not made.violations(msgspec.json.encode({"x": first}))


def test_what_is_wanted_and_cannot_be_is_said() -> None:
    with pytest.raises(Unfit, match='column x: expected values of type number, found strings such as "two"'):
        infer(["two", "3"], wanted="number")
    with pytest.raises(Unfit, match="column x: expected text, numbers, booleans, dates or times, found List"):
        infer([[1], [2]])
    assert infer([1.0, 2.0], wanted="integer").declared.logical_type == "integer"
    assert infer([0, 1], wanted="boolean").values.to_list() == [False, True]


# How much a sample says.


def test_299_draws_are_the_fewest_that_declare_anything() -> None:
    assert is_enough(299)
    assert not is_enough(298)
    assert confidence_of(0) == 0
    assert infer(list(range(299))).declared.required
    few = infer(list(range(298)))
    assert not few.declared.required
    assert "no gap seen, in too few rows to require it" in few.notes


def test_a_gap_makes_a_property_optional_and_is_counted() -> None:
    found = infer([1, None, 3, 4] * 100)
    assert not found.declared.required
    assert "missing in 100 of 400 rows (25.00%)" in found.notes


@given(st.lists(st.integers(0, 5), min_size=1, max_size=200))
@settings(deadline=None)
def test_rows_are_worth_at_most_as_many_draws_and_at_least_one(values: list[int]) -> None:
    found = weigh(pl.Series(values))
    assert 1 <= found.draws <= found.values == len(values)
    assert found.seen_once <= found.distinct <= found.runs <= found.values


def test_equal_values_side_by_side_are_worth_one_draw() -> None:
    dice = default_rng(0)
    mixed = pl.Series(dice.choice(["a", "b", "c"], 3_000))
    assert weigh(mixed).draws > 2_500
    assert weigh(mixed.sort()).draws < 10
    assert listed(infer(mixed)) == ["a", "b", "c"]
    assert listed(infer(mixed.sort())) is None


def test_the_poisson_bound_is_the_tables() -> None:
    # One-sided 95 %: 3.00, 4.74, 6.30, 16.96 for 0, 1, 2 and 10 events.
    assert [round(poisson_upper(events), 1) for events in (0, 1, 2, 10)] == [3.0, 4.7, 6.3, 17.0]


# Listed values.


def test_a_set_is_closed_only_where_nothing_unseen_is_to_be_expected() -> None:
    dice = default_rng(1)
    assert listed(infer(dice.choice(["no", "yes"], 2_000))) == ["no", "yes"]
    assert listed(infer(dice.choice(["no", "yes"], 400))) is None  # 3/400 is too much
    tail = np.array([f"v{each}" for each in np.minimum(dice.zipf(1.5, 5_000), 10**6)])
    assert listed(infer(tail)) is None
    assert listed(infer(["always"] * 2_000)) is None


def test_codes_with_gaps_are_listed_and_scales_get_bounds() -> None:
    dice = default_rng(2)
    assert listed(infer(dice.choice([1, 2, 4, 8], 2_000))) == [1, 2, 4, 8]
    scale = infer(dice.integers(1, 6, 2_000))
    assert listed(scale) is None
    assert options(scale) == {"minimum": 1, "maximum": 5}


def test_listed_values_say_how_much_may_be_missing() -> None:
    found = infer(default_rng(3).choice(["a", "b"], 10_000))
    finding = next(each for each in found.findings if each.rule == "validValues")
    assert finding.confidence == pytest.approx(0.9997, abs=1e-4)
    assert finding.words == "2 different values, and a share of at most 0.03% holds others"


# Bounds.


@pytest.mark.parametrize(
    "draw",
    [
        lambda dice, rows: dice.normal(100, 15, rows),
        lambda dice, rows: dice.lognormal(0, 1, rows),
        lambda dice, rows: dice.exponential(10, rows),
        lambda dice, rows: dice.uniform(-1, 1, rows),
        lambda dice, rows: dice.standard_t(4, rows),
        lambda dice, rows: dice.poisson(3, rows),
        lambda dice, rows: dice.gamma(2, 2, rows),
    ],
    ids=["normal", "lognormal", "exponential", "uniform", "t4", "poisson", "gamma"],
)
def test_new_rows_of_the_same_source_keep_the_bounds(draw: Callable[..., np.ndarray[Any, Any]]) -> None:
    refused, raw = 0, 0
    for seed in range(20):
        dice = default_rng(seed)
        seen, fresh = draw(dice, 500), draw(dice, 5_000)
        bounds = options(infer(seen))
        refused += int((fresh < bounds.get("minimum", -np.inf)).sum() + (fresh > bounds.get("maximum", np.inf)).sum())
        raw += int((fresh < seen.min()).sum() + (fresh > seen.max()).sum())
    assert refused <= 0.001 * 20 * 5_000  # beyond the extremes of 500 rows are about 0.004
    assert refused <= raw / 3


def test_bounds_are_near_where_the_tail_is_light() -> None:
    bounds = options(infer(default_rng(0).normal(100, 15, 1_000)))
    assert 20 <= bounds["minimum"] < 60
    assert 140 < bounds["maximum"] < 200
    assert bounds["maximum"] == round(bounds["maximum"])


def test_where_many_values_stand_at_the_end_there_is_nothing_beyond() -> None:
    capped = np.minimum(default_rng(0).exponential(5, 2_000), 10.0)
    assert options(infer(capped))["maximum"] == 10.0
    assert upper_bound(np.full(100, 3.0), SHARE) == 3.0


def test_a_tail_that_is_too_heavy_gets_no_bound() -> None:
    assert "maximum" not in options(infer(default_rng(0).pareto(0.2, 1_000)))


def test_what_still_moves_gets_no_bound() -> None:
    assert is_rising(pl.Series(range(100)))
    assert not is_rising(pl.Series(default_rng(0).normal(size=5_000)))
    walk = infer(np.arange(1_000) * 1.5 + default_rng(0).normal(size=1_000), "reading")
    assert "maximum" not in options(walk)
    every_day = np.tile(np.arange(60.0), 100) + default_rng(0).normal(size=6_000)
    assert not is_rising(pl.Series(every_day))


def test_numbers_that_begin_at_zero_are_never_below_it() -> None:
    assert options(infer(default_rng(0).lognormal(0, 1, 1_000)))["minimum"] == 0
    assert options(infer(np.maximum(default_rng(0).normal(1, 1, 1_000), 0)))["minimum"] == 0
    assert options(infer(default_rng(0).normal(3, 1, 1_000)))["minimum"] < 0


@pytest.mark.parametrize(
    ("name", "low", "high", "bounds"),
    [
        ("month", 1, 4, (1, 12)),
        ("age", 18, 70, (0, 130)),
        ("sched_hour", 5, 23, (0, 24)),
        ("waiting_minute", 0, 20, None),
    ],
)
def test_known_quantities_have_their_own_bounds(name: str, low: int, high: int, bounds: tuple[int, int] | None) -> None:
    found = infer(default_rng(0).integers(low, high, 2_000), name)
    expected = (
        {"minimum": low, "maximum": high - 1}
        if bounds is None
        else dict(zip(("minimum", "maximum"), bounds, strict=True))
    )
    assert options(found) == expected


def test_whole_cents_are_declared_of_money_only() -> None:
    cents = np.round(default_rng(0).exponential(50, 3_000), 2)
    assert options(infer(cents, "price"))["multipleOf"] == 0.01
    assert "multipleOf" not in options(infer(cents, "reading"))
    assert "multipleOf" not in options(infer(cents[:500], "price"))
    assert "multipleOf" not in options(infer(np.round(cents), "price"))


# Text.


def some_codes(form: str, rows: int = ROWS) -> list[str]:
    dice = default_rng(0)
    letters = {"A": "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "a": "abcdefghij", "9": "0123456789"}
    return ["".join(str(dice.choice(list(letters[c]))) if c in letters else c for c in form) for _ in range(rows)]


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("AA-9999", "^[A-Z]{2}-[0-9]{4}$"),
        ("A9", "^[A-Z][0-9]$"),
        ("a.9+9", r"^[a-z]\.[0-9]\+[0-9]$"),
        ("AAA", "^[A-Z]{3}$"),
    ],
)
def test_codes_of_one_shape_get_their_pattern(form: str, pattern: str) -> None:
    codes = some_codes(form)
    assert shape_of(pl.Series(codes).unique()) == pattern
    column = infer(codes)
    assert options(column) == {"pattern": pattern} or listed(column)


def test_codes_of_one_length_and_alphabet_get_a_pattern_and_words_none() -> None:
    dice = default_rng(0)
    mixed = ["".join(dice.choice(list("AXZ123"), 5)) for _ in range(ROWS)]
    assert options(infer(mixed)) == {"pattern": "^[0-9A-Z]{5}$"}
    assert options(infer([f"INV-{place}" for place in dice.integers(1, 10**6, ROWS)])) == {"pattern": "^[A-Z]+-[0-9]+$"}
    words = ["".join(dice.choice(list("abc de"), dice.integers(3, 20))) + "." for _ in range(ROWS)]
    assert options(infer(words)) == {"minLength": 1, "maxLength": 50}


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (lambda place: f"user{place}@example.com", "email"),
        (lambda place: f"123e4567-e89b-12d3-a456-{place:012d}", "uuid"),
        (lambda place: f"10.0.{place // 250}.{place % 250}", "ipv4"),
        (lambda place: f"2001:db8::{place:x}", "ipv6"),
        (lambda place: f"https://example.com/{place}", "uri"),
    ],
)
def test_formats_are_found(made: Callable[[int], str], name: str) -> None:
    assert options(infer([made(place) for place in range(ROWS)])) == {"format": name}


def test_one_value_of_another_form_is_enough_to_declare_no_format() -> None:
    assert "format" not in options(infer([*(f"user{place}@example.com" for place in range(ROWS)), "none given"]))


# Keys, and what may be said of a person.


def test_a_key_is_unique_where_repeats_were_to_be_expected() -> None:
    ids = default_rng(0).permutation(10**6)[:ROWS]
    assert infer(ids, "order_id").declared.unique
    assert not infer(ids, "amount").declared.unique
    assert not infer([*ids, ids[0]], "order_id").declared.unique
    assert not infer(ids[:400], "order_id").declared.unique


@pytest.mark.parametrize(
    ("name", "values", "guess"),
    [
        ("x", [f"user{place}@example.com" for place in range(50)], "personal"),
        ("x", ["GB82 WEST 1234 5698 7654 32", "DE89370400440532013000", "FR1420041010050500013M02606"] * 4, None),
        ("x", [f"+49 30 {place:07d}" for place in range(50)], "personal"),
        ("x", [f"{place:03d}-12-{place + 1:04d}" for place in range(1, 50)], "personal"),
        ("customer_name", ["a", "b"], "personal"),
        ("HospitalName", ["a", "b"], None),
        ("date_of_birth", ["a", "b"], "personal"),
        ("SEX", [1, 2], "quasi-identifier"),
        ("page", [1, 2], None),
        ("wage", [1, 2], None),
    ],
)
def test_columns_that_may_say_something_of_a_person_are_guessed(
    name: str, values: list[Any], guess: str | None
) -> None:
    found = guess_classification(pl.Series(name, values))
    assert (found.classification if found else None) == guess


def with_check_digit(body: str) -> str:
    digits = [int(each) for each in reversed(body)]
    total = sum(sum(divmod(2 * each, 10)) if place % 2 == 0 else each for place, each in enumerate(digits))
    return f"{body}{-total % 10}"


def test_card_numbers_are_told_from_other_numbers_by_their_check_digit() -> None:
    bodies = [f"4{place:014d}" for place in default_rng(0).integers(0, 10**14, 60)]
    cards = guess_classification(pl.Series("x", list(map(with_check_digit, bodies))))
    assert cards is not None
    assert cards.words == "100% of its values are payment card numbers with a right check digit"
    assert guess_classification(pl.Series("x", [body + "0" for body in bodies])) is None


def test_accounts_are_told_by_their_check_digits() -> None:
    def iban(account: int) -> str:
        body = f"{account:018d}"
        return f"DE{98 - int(f'{body}131400') % 97:02d}{body}"

    assert guess_classification(pl.Series("x", [iban(place * 7919) for place in range(40)])) is not None
    assert guess_classification(pl.Series("x", [f"DE00{place:018d}" for place in range(40)])) is None


def test_names_are_taken_apart() -> None:
    assert tokens_of("HTTPStatus_code2") == ("http", "status", "code", "2")
    assert tokens_of("e-mail Adresse") == ("e", "mail", "adresse")


# Whole tables.


def test_each_property_carries_what_speaks_for_it() -> None:
    found = infer_object(pl.DataFrame({"age": default_rng(0).integers(18, 80, 1_000)}), "person")
    marked = found.marked().properties[0]
    facts = marked.custom_properties[0].value
    assert marked.custom_properties[0].property == INFERRED
    assert facts["support"] == 1_000
    assert facts["confidence"] == min(facts["rules"].values()) >= 0.99
    assert facts["rules"].keys() == {"type", "required", "minimum", "maximum"}
    assert facts["classification"] == {"guess": "quasi-identifier", "confidence": 0.7}
    assert found.columns[0].words().startswith("inferred from 1,000 values; no gap seen; 18 to 79 seen")


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "a": st.one_of(st.none(), st.integers(-5, 5)),
                "b": st.one_of(st.none(), st.floats(-10, 10)),
                "c": st.one_of(st.none(), st.sampled_from(["x", "y", "zed"])),
                "d": st.one_of(st.none(), st.booleans()),
            }
        ),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 120),
)
@settings(deadline=None)
def test_every_row_of_the_sample_keeps_what_was_inferred_from_it(rows: list[dict[str, Any]], times: int) -> None:
    schema = {"a": pl.Int64, "b": pl.Float64, "c": pl.String, "d": pl.Boolean}
    frame = pl.DataFrame(rows * times, schema=schema)
    found = infer_object(frame, "o")
    validator = compile_object(found.marked())
    for record in found.records(range(frame.height)):
        assert not validator.violations(msgspec.json.encode(record))


@pytest.mark.parametrize(
    ("parts", "rows"),
    [
        (("streams", "elec2.csv"), 1_000),
        (("streams", "acs_employment_ma_reference.csv"), 1_000),
        (("streams", "nyc_weather_2013.csv"), 1_000),
        (("dirty", "hospital", "clean.csv"), 600),
    ],
    ids=["elec2", "acs", "weather", "hospital"],
)
def test_fresh_clean_rows_of_real_tables_are_not_refused(parts: tuple[str, ...], rows: int) -> None:
    refused, fresh = refusals(shared_data(*parts), rows)
    assert refused / fresh < 0.01


def refusals(path: Path, rows: int) -> tuple[int, int]:
    """How many rows of the rest of a table what was inferred from some refuses, and of how many."""
    table = pl.read_csv(path, infer_schema=False)
    order = default_rng(0).permutation(table.height)
    seen, rest = table[np.sort(order[:rows])], table[np.sort(order[rows : rows + 2_000])]
    found = infer_object(seen, "o")
    kinds: dict[str, Wanted] = {}
    for each in found.columns:
        kind = each.declared.logical_type
        if kind in ("string", "integer", "number", "boolean"):
            kinds[each.name] = kind
    validator = compile_object(found.marked())
    records = list(infer_object(rest, "o", kinds).records(range(rest.height)))
    return sum(bool(validator.violations(msgspec.json.encode(each))) for each in records), len(records)


# Slips, and shapes of several kinds.


def near_rule(column: InferredColumn) -> dict[str, Any] | None:
    for check in column.declared.quality:
        if isinstance(check.implementation, dict) and check.implementation["rule"] == NEAR_MISS:
            return check.implementation
    return None


def far_apart(count: int, length: int = 12) -> list[str]:
    """Random words, of about that many letters."""
    random = default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    return ["".join(letters[random.integers(26, size=length + number % 4)]) for number in range(count)]


def test_names_that_keep_apart_are_listed_so_that_a_slip_is_told_from_a_new_one() -> None:
    names = far_apart(200)
    found = infer(default_rng(1).choice(names, ROWS * 3), "town")
    rule = near_rule(found)
    assert rule is not None
    assert set(rule["values"]) <= set(names)
    validator = compile_object(InferredObject("o", (found,), ROWS).marked())
    assert not validator.check({"town": names[0]})
    assert not validator.check({"town": "somewhere else"})
    assert [each.rule for each in validator.check({"town": names[0][:-1] + "#"})] == ["near-miss"]


def test_ids_that_differ_in_a_letter_get_no_such_rule() -> None:
    assert near_rule(infer(default_rng(1).choice([f"tail no {n:03}" for n in range(200)], ROWS * 3))) is None


def test_columns_that_keep_bringing_new_values_get_no_such_rule() -> None:
    assert near_rule(infer(far_apart(ROWS))) is None


def test_what_may_say_who_somebody_is_is_not_listed() -> None:
    values = default_rng(1).choice(far_apart(40), ROWS * 3)
    assert listed(infer(values, "town")) is not None
    found = infer(values, "full_name")
    assert (listed(found), near_rule(found), found.declared.examples) == (None, None, ())
    assert found.guess is not None
    said = infer_column(pl.Series("full_name", values), share=SHARE, is_public=True)
    assert listed(said) is not None
    assert said.guess is None


def test_a_constant_is_no_list_but_its_misspellings_are_slips() -> None:
    found = infer(["acute care hospitals"] * ROWS)
    assert listed(found) is None
    assert near_rule(found) == {"rule": NEAR_MISS, "values": ["acute care hospitals"], "distance": 0.2}
    assert near_rule(infer(["yes"] * ROWS)) is None
    assert near_rule(infer(["acute care hospitals"] * 100)) is None


def test_a_few_shapes_are_declared_with_what_never_varies_in_them() -> None:
    random = default_rng(0)
    scores = [f"{number}%" if number > 50 else "empty" for number in random.integers(0, 1_000, ROWS)]
    assert options(infer(scores)) == {"pattern": "^(?:[0-9]+%|empty)$"}
    counts = [f"{number} patients" for number in random.integers(100, 1_000, ROWS)]
    mixed = [*counts, *["none"] * 100]
    random.shuffle(mixed)
    assert options(infer(mixed)) == {"pattern": "^(?:[0-9]{3} patients|none)$"}


def test_shapes_that_few_texts_have_are_none_though_many_rows_have_them() -> None:
    streets = [f"{number} {word}" for number, word in zip(range(11, 31), far_apart(20, 5), strict=True)]
    streets += [f"{number} {word} street" for number, word in zip(range(11, 31), far_apart(20, 5), strict=True)]
    assert shapes_of(pl.Series(default_rng(0).choice(streets[:30], ROWS))) is None
    assert shapes_of(pl.Series(default_rng(0).choice(streets, ROWS))) is not None


def test_words_have_no_shape_and_a_rare_one_leaves_none() -> None:
    random = default_rng(0)
    names = far_apart(ROWS, 6)
    pairs = [f"{one} {other}" for one, other in zip(names, names[::-1], strict=True)]
    assert "pattern" not in options(infer([*names, *pairs]))
    rare = [f"{number}%" for number in random.integers(0, 101, ROWS)]
    rare[7], rare[500], rare[900] = "n.a. 1", "?2", "3 or 4"
    assert "pattern" not in options(infer(rare))


@settings(deadline=None)
@given(st.lists(st.from_regex(r"\A(?:[a-z]{1,3}-[0-9]{1,3}|[A-Z][a-z]+ [0-9]+[.][0-9]|none)\Z"), max_size=20))
def test_every_text_of_the_sample_has_the_shapes_it_gave(texts: list[str]) -> None:
    found = shapes_of(pl.Series(texts * 40))
    assert found is None or all(re.search(to_python(found.pattern), each) for each in texts)
