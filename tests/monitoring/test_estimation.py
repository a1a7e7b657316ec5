from __future__ import annotations

import math
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as sk

from mainstay.errors import Misuse
from mainstay.monitoring.estimation import (
    ASSUMPTION,
    Estimator,
    PerformanceEstimate,
    estimate,
    estimate_windows,
    fit_estimator,
)
from mainstay.monitoring.estimation_record import score_estimates
from mainstay.monitoring.expected_metrics import BY_SCORE, ESTIMABLE, Cases, Estimable
from mainstay.monitoring.intervals import Estimate, wilson
from mainstay.monitoring.partition import Partition, Split, grow
from shared_data import shared_data

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
Bools = np.ndarray[tuple[int], np.dtype[np.bool_]]


class Rows(NamedTuple):
    truth: Bools
    scores: Floats
    said: Bools
    inputs: pl.DataFrame


def draw(rng: np.random.Generator, n: int, *, old: float = 0.3, shift: float = 0.0, concept: float = 0.0) -> Rows:
    """A model that misses what `group` and `place` mean for the outcome; `old` and `shift` move the inputs."""
    group = np.where(rng.random(n) < old, "old", "new")
    place = rng.normal(shift, 1.0, n)
    logit = 1.2 * rng.standard_normal(n) + 0.5 * place
    scores = 1 / (1 + np.exp(-logit))
    real = 1 / (1 + np.exp(-(logit * np.where(group == "old", 0.6, 1.3) + 0.5 * (group == "old") + concept)))
    return Rows(rng.random(n) < real, scores, scores > 0.5, pl.DataFrame({"group": group, "place": place}))


# --- expected metrics ----------------------------------------------------------------------------------------------

samples = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        arrays.arrays(np.bool_, n),
        arrays.arrays(np.float64, n, elements=st.sampled_from([0.05, 0.1, 0.25, 0.5, 0.75, 0.9])),
        arrays.arrays(np.float64, n, elements=st.floats(0.05, 0.95)),
    )
)


@settings(max_examples=25)
@given(samples)
def test_at_certain_chances_a_metric_is_that_of_scikit_learn(sample: tuple[Bools, Floats, Floats]) -> None:
    truth, scores, _ = sample
    said = scores >= 0.5
    assume(0 < truth.sum() < len(truth))
    assume(said.any())
    expected = {
        "accuracy": sk.accuracy_score(truth, said),
        "precision": sk.precision_score(truth, said),
        "recall": sk.recall_score(truth, said),
        "f1": sk.f1_score(truth, said),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, said),
        "roc_auc": sk.roc_auc_score(truth, scores),
        "brier": sk.brier_score_loss(truth, scores),
        "log_loss": sk.log_loss(truth, scores),
    }
    cases = Cases(said, scores)
    for metric in ESTIMABLE:
        found = cases.expect(metric, truth.astype(np.float64))
        assert found is not None
        assert found.value == pytest.approx(expected[metric]), metric


@settings(max_examples=25)
@given(samples)
def test_derivatives_are_those_of_small_steps(sample: tuple[Bools, Floats, Floats]) -> None:
    said, scores, chances = sample
    cases, step = Cases(said, scores), 1e-6
    for metric in ESTIMABLE:
        found = cases.expect(metric, chances)
        if found is None:
            assert metric == "precision"
            continue
        moved = chances.copy()
        moved[0] += step
        after = cases.expect(metric, moved)
        assert after is not None
        assert (after.value - found.value) / step == pytest.approx(found.derivative[0], abs=1e-4), metric


def test_the_moments_are_those_of_drawn_labels() -> None:
    rng = np.random.default_rng(0)
    chances = rng.beta(1, 2, 1_500)
    scores = np.clip(chances + rng.normal(0, 0.1, 1_500), 0, 1)
    cases = Cases(scores > 0.4, scores)
    drawn = (rng.random((300, 1_500)) < chances).astype(np.float64)
    for metric in ESTIMABLE:
        found = cases.expect(metric, chances)
        assert found is not None
        deviation = float(np.sqrt((chances * (1 - chances)) @ found.derivative**2))
        values = [one.value for one in (cases.expect(metric, labels) for labels in drawn) if one]
        assert np.mean(values) == pytest.approx(found.value, abs=4 * deviation / 300**0.5 + 2e-4), metric
        assert np.std(values) == pytest.approx(deviation, rel=0.15), metric


def test_an_area_without_one_of_the_classes_is_none() -> None:
    cases = Cases(np.array([True, True]), np.array([0.2, 0.8]))
    assert cases.expect("roc_auc", np.zeros(2)) is None
    assert cases.expect("roc_auc", np.ones(2)) is None
    assert cases.expect("recall", np.zeros(2)) is None


def test_cases_in_groups_are_as_good_as_one_by_one() -> None:
    """Windows of the same groups at once, against all their cases."""
    rng = np.random.default_rng(10)
    said, ranks = np.arange(40) % 2 == 1, np.repeat(np.arange(20, dtype=np.float64), 2)
    counts, chances = rng.integers(0, 9, (3, 40)), rng.random(40)
    counts[:, :2] = 0
    for metric in ESTIMABLE:
        if metric in BY_SCORE:
            continue
        found = Cases(said, ranks).expect_groups(metric, counts.astype(np.float64), counts * chances)
        for window in range(3):
            of = np.repeat(np.arange(40), counts[window])
            one = Cases(said[of], ranks[of]).expect(metric, chances[of])
            assert one is not None
            assert found.value[window] == pytest.approx(one.value), metric
            whole = np.broadcast_to(found.derivative, (3, 40))[window]
            assert whole[of] == pytest.approx(one.derivative), metric


# --- estimates -----------------------------------------------------------------------------------------------------


def real(metric: Estimable, rows: Rows) -> float:
    found = Cases(rows.said, rows.scores).expect(metric, rows.truth.astype(np.float64))
    assert found is not None
    return found.value


def test_intervals_cover_as_often_as_they_say_when_inputs_shift() -> None:
    """References and windows are drawn anew each time, with other inputs in the window than in the reference."""
    hits = dict.fromkeys(ESTIMABLE, 0)
    references, windows = 6, 20
    for seed in range(references):
        rng = np.random.default_rng(seed)
        reference = draw(rng, 12_000)
        estimator = fit_estimator(reference.truth, reference.scores, reference.said, reference.inputs, chunk_rows=1_000)
        for _ in range(windows):
            window = draw(rng, 1_000, old=0.6, shift=0.4)
            for one in estimate(estimator, window.scores, window.said, window.inputs, ESTIMABLE):
                hits[one.metric] += one.low <= real(one.metric, window) <= one.high
    for metric, found in hits.items():
        share = wilson(found, references * windows, level=0.99)
        assert share is not None
        assert share.high >= 0.95, metric
        assert share.low <= 0.985, metric


def test_weighting_by_the_shift_is_better_than_the_scores_calibration_alone() -> None:
    rng = np.random.default_rng(1)
    reference = draw(rng, 30_000, old=0.1)
    window = draw(rng, 100_000, old=0.8)
    with_inputs = fit_estimator(reference.truth, reference.scores, reference.said, reference.inputs)
    nothing = pl.DataFrame({"nothing": np.zeros(30_000)})
    without = fit_estimator(reference.truth, reference.scores, reference.said, nothing)
    (shifted,) = estimate(with_inputs, window.scores, window.said, window.inputs, ["accuracy"])
    (plain,) = estimate(without, window.scores, window.said, window.inputs, ["accuracy"])
    truth = real("accuracy", window)
    assert abs(shifted.value - truth) < 0.01 < abs(plain.value - truth)


def test_every_estimate_is_marked_and_says_what_it_assumes() -> None:
    rng = np.random.default_rng(2)
    reference = draw(rng, 5_000)
    estimator = fit_estimator(reference.truth, reference.scores, reference.said, reference.inputs)
    found = estimate(estimator, reference.scores, reference.said, reference.inputs)
    assert [one.metric for one in found] == ["accuracy", "roc_auc"]
    for one in found:
        assert one.is_estimate
        assert one.assumption == ASSUMPTION
        assert one.label_deviation > one.calibration_deviation > 0
        assert one.unsupported < 0.05
    assert estimate(estimator, np.empty(0), np.empty(0, dtype=np.bool_), reference.inputs.clear()) == []


def test_windows_at_once_are_estimated_as_one_by_one() -> None:
    rng = np.random.default_rng(11)
    reference, rows = draw(rng, 5_000), draw(rng, 90_000)
    estimator = fit_estimator(reference.truth, reference.scores, reference.said, reference.inputs)
    sizes = [10, 70_000, 0, 1_990, 18_000]
    found = estimate_windows(estimator, *rows[1:], sizes, ESTIMABLE)
    start = 0
    for size, estimates in zip(sizes, found, strict=True):
        window = slice(start, start + size)
        alone = estimate(estimator, rows.scores[window], rows.said[window], rows.inputs[window], ESTIMABLE)
        assert [one.metric for one in alone] == [one.metric for one in estimates]
        for one, same in zip(alone, estimates, strict=True):
            assert one.n == size
            assert [one.value, one.low] == pytest.approx([same.value, same.low])
        start += size
    with pytest.raises(Misuse, match="sizes that add up to 90000 rows, found 5"):
        estimate_windows(estimator, *rows[1:], [5])


@pytest.mark.parametrize("power", [1, 6, 1 / 6], ids=["usual", "rare yes", "rare no"])
def test_bins_of_scores_lose_nothing_that_matters_of_an_area(power: float) -> None:
    rng = np.random.default_rng(12)
    scores = rng.beta(0.7, 0.9, 30_000) ** power
    said, nothing = scores > 0.5, pl.DataFrame({"nothing": np.zeros(30_000)})
    estimator = fit_estimator(rng.random(30_000) < scores, scores, said, nothing)
    for shifted, apart in ((scores, 0.0001), (scores**2, 0.001), (np.sqrt(scores), 0.001)):
        (found,) = estimate(estimator, shifted, said, nothing, ["roc_auc"])
        chances = estimator.table.chances[estimator.score_bins.bin_of(shifted).astype(np.int64) * 2]
        exact = Cases(said, shifted).expect("roc_auc", chances)
        assert exact is not None
        assert found.value == pytest.approx(exact.value, abs=apart)


def test_inputs_that_the_reference_hardly_has_are_said_to_be_guessed() -> None:
    rng = np.random.default_rng(3)
    reference, window = draw(rng, 20_000), draw(rng, 1_000)
    both = (reference.inputs["group"] == "new").to_numpy() | (reference.scores < 0.5)
    truth, scores, said, inputs = reference
    kept = Rows(truth[both], scores[both], said[both], inputs.filter(both))
    estimator = fit_estimator(*kept)
    (found,) = estimate(estimator, *window[1:], ["accuracy"])
    unheard = (window.inputs["group"] == "old").to_numpy() & (window.scores > 0.5)
    assert found.unsupported == pytest.approx(unheard.mean(), abs=0.05)
    (usual,) = estimate(estimator, *kept[1:], ["accuracy"])
    assert usual.unsupported < 0.01


def test_an_estimator_is_a_small_document_and_estimates_the_same_when_read_again() -> None:
    rng = np.random.default_rng(4)
    reference, window = draw(rng, 5_000), draw(rng, 1_000)
    estimator = fit_estimator(reference.truth, reference.scores, reference.said, reference.inputs)
    content = msgspec.json.encode(estimator)
    assert len(content) < 40_000
    again = msgspec.json.decode(content, type=Estimator)
    assert estimate(again, *window[1:], ESTIMABLE) == estimate(estimator, *window[1:], ESTIMABLE)


def test_concept_shift_is_not_seen_and_is_found_when_labels_come() -> None:
    rng = np.random.default_rng(5)
    reference = draw(rng, 20_000)
    estimator = fit_estimator(reference.truth, reference.scores, reference.said, reference.inputs, chunk_rows=1_000)
    tracks = []
    for concept in (0.0, 1.5):
        windows = [draw(rng, 1_000, concept=concept) for _ in range(30)]
        said = [estimate(estimator, *window[1:], ["accuracy"])[0] for window in windows]
        was = [wilson(int((window.truth == window.said).sum()), 1_000) for window in windows]
        tracks.append(score_estimates(said, was, reference=real("accuracy", reference)))
    good, blind = tracks
    assert good is not None
    assert blind is not None
    assert (good.holds, blind.holds) == (True, False)
    assert blind.mean_error.low > 0
    assert blind.covered.value < good.covered.value


def test_a_track_leaves_out_windows_that_lack_a_side() -> None:
    one = PerformanceEstimate(
        metric="accuracy",
        value=0.9,
        low=0.88,
        high=0.92,
        level=0.95,
        n=500,
        label_deviation=0.01,
        calibration_deviation=0.0,
        chunk_deviation=0.0,
        unsupported=0.0,
    )
    truth = Estimate(0.91, 0.9, 0.92)
    track = score_estimates([one, None, one], [truth, truth, None])
    assert track is not None
    assert (track.windows, track.holds, track.better_than_reference) == (1, None, None)
    assert track.mean_absolute_error == pytest.approx(0.01)
    assert score_estimates([None], [truth]) is None


def test_a_reference_that_is_none_is_refused() -> None:
    rows = draw(np.random.default_rng(6), 999)
    with pytest.raises(Misuse, match="at least 1000 labelled rows as a reference, found 999"):
        fit_estimator(rows.truth, rows.scores, rows.said, rows.inputs)
    more = draw(np.random.default_rng(6), 1_000)
    with pytest.raises(Misuse, match="expected every score to be a probability"):
        fit_estimator(more.truth, more.scores + 1, more.said, more.inputs)
    with pytest.raises(Misuse, match="as many scores, predictions and inputs as labels"):
        fit_estimator(more.truth, more.scores, more.said, more.inputs.head(3))


def test_a_score_that_is_always_the_same_can_be_estimated() -> None:
    rng = np.random.default_rng(7)
    n = 2_000
    truth = rng.random(n) < 0.3
    rows = Rows(truth, np.full(n, 0.5), np.ones(n, dtype=np.bool_), pl.DataFrame({"a": np.ones(n)}))
    estimator = fit_estimator(*rows)
    found = {one.metric: one for one in estimate(estimator, *rows[1:], ESTIMABLE)}
    assert found["accuracy"].value == pytest.approx(truth.mean())
    assert found["roc_auc"].value == pytest.approx(0.5)


# --- parts of the input space --------------------------------------------------------------------------------------


def test_nothing_is_split_where_columns_say_nothing() -> None:
    rng = np.random.default_rng(8)
    made = 0
    for _ in range(40):
        inputs = pl.DataFrame({f"c{i}": rng.standard_normal(2_000) for i in range(5)})
        made += bool(grow(inputs, rng.standard_normal(2_000)).splits)
    assert made <= 10  # of 40 at 10 %: more with a chance of 0.1 %


def test_parts_are_found_by_numbers_texts_and_what_is_missing() -> None:
    rng = np.random.default_rng(9)
    n = 8_000
    number = np.where(rng.random(n) < 0.2, np.nan, rng.standard_normal(n))
    text = rng.choice(np.array(["a", "b", "c", None], dtype=object), n)
    means = np.where(np.isnan(number), 2.0, np.where(number > 0.7, 1.0, 0.0)) + np.where(text == "b", 5.0, 0.0)
    inputs = pl.DataFrame({"number": number, "text": pl.Series(list(text), dtype=pl.String)})
    partition = grow(inputs, means + 0.1 * rng.standard_normal(n))
    leaves = partition.leaf_of(inputs)
    for leaf in range(partition.leaves):
        assert np.std(means[leaves == leaf]) < 0.35
    again = msgspec.json.decode(msgspec.json.encode(partition), type=Partition)
    assert (again.leaf_of(inputs) == leaves).all()
    # Texts and columns never seen go somewhere.
    assert len(partition.leaf_of(pl.DataFrame({"text": ["new", None]}))) == 2


def walked(partition: Partition, row: dict[str, Any]) -> int:
    """The leaf of a row, split by split."""
    number = 0
    while number >= 0:
        split, value = partition.splits[number], row.get(partition.splits[number].column)
        if split.of_texts:
            goes_left = (value in split.texts) != split.missing_left
        elif value is None or not math.isfinite(value):
            goes_left = split.missing_left
        else:
            goes_left = value <= (math.inf if split.at_most is None else split.at_most)
        number = split.left if goes_left else split.right
    return -1 - number


def test_leaves_are_those_of_a_walk_split_by_split_however_the_columns_are_stored() -> None:
    rng = np.random.default_rng(10)
    n = 70_000  # more than are looked up at once
    whole, number = rng.integers(-3, 90, n), np.where(rng.random(n) < 0.1, np.nan, rng.standard_normal(n))
    gaps = pl.Series(rng.integers(0, 20, n)).set(pl.Series(rng.random(n) < 0.2), None)
    text = rng.choice(np.array(["a", "b", "c"]), n)
    means = 2.0 * (whole > 40) + 3.0 * (number > 0.3) + gaps.fill_null(30).to_numpy() / 10 + 4.0 * (text == "b")
    inputs = pl.DataFrame({"whole": whole, "number": number, "gaps": gaps, "text": text})
    partition = grow(inputs, means + 0.1 * rng.standard_normal(n))
    asked = {split.column for split in partition.splits}
    assert asked == {"whole", "number", "gaps", "text"}
    strange = pl.DataFrame(
        {"whole": [1, 80], "number": [math.inf, -math.inf], "gaps": [None, 3], "text": [None, "new"]},
        schema=inputs.schema,
    )
    for frame in (inputs.head(300), pl.concat([inputs.tail(300), strange], rechunk=False), strange.drop("text")):
        expected = [walked(partition, row) for row in frame.iter_rows(named=True)]
        assert partition.leaf_of(frame).tolist() == expected
        narrow = frame.with_columns(pl.col("whole").cast(pl.Int8), pl.col("gaps").cast(pl.Float32))
        assert partition.leaf_of(narrow).tolist() == expected
    assert (partition.leaf_of(inputs)[-300:] == partition.leaf_of(inputs.tail(300))).all()
    rows = partition.read(inputs)
    assert (rows.leaf_of(slice(66_000, 66_100)) == partition.leaf_of(inputs)[66_000:66_100]).all()


@pytest.mark.parametrize("questions", [1, 7, 8, 9, 15])
def test_one_answer_more_is_the_lowest_bit_whatever_bytes_the_others_fill(questions: int) -> None:
    rng = np.random.default_rng(questions)
    inputs = pl.DataFrame({"number": np.append(rng.normal(8.0, 5.0, 500), [math.nan, math.inf, -math.inf])})
    splits = [
        Split(
            column="number",
            of_texts=False,
            at_most=float(place),
            texts=(),
            missing_left=place % 3 == 0,
            left=-1 - place,
            right=-1 - questions if place == questions - 1 else place + 1,
        )
        for place in range(questions)
    ]
    partition, last = Partition(tuple(splits)), rng.random(503) < 0.5
    leaves = np.array([walked(partition, row) for row in inputs.iter_rows(named=True)])
    assert partition.leaf_of(inputs).tolist() == leaves.tolist()
    table = (np.repeat(partition.leaf_of_answers, 2) * 2 + np.tile([0, 1], 1 << questions)).astype(np.uint16)
    found = partition.read(inputs).look_up(slice(3, 503), table, last)
    assert found.tolist() == (leaves * 2 + last)[3:].tolist()


def test_on_the_census_stream_errors_are_within_what_was_promised() -> None:
    folder = shared_data("streams")
    later = pl.read_csv(folder / "acs_employment_ma_analysis.csv")
    truth = pl.read_csv(folder / "acs_employment_ma_analysis_target.csv")
    estimator = fit_estimator(*census(pl.read_csv(folder / "acs_employment_ma_reference.csv")))
    errors: dict[str, list[float]] = {"accuracy": [], "roc_auc": []}
    covered: dict[str, int] = {"accuracy": 0, "roc_auc": 0}
    for chunk in later.join(truth, on="id").iter_slices(5_000):
        rows = census(chunk)
        for one in estimate(estimator, *rows[1:]):
            errors[one.metric].append(abs(one.value - real(one.metric, rows)))
            covered[one.metric] += one.low <= real(one.metric, rows) <= one.high
    assert np.mean(errors["accuracy"]) <= 0.0051
    assert np.mean(errors["roc_auc"]) <= 0.0040
    assert {0.93 <= hits / 42 <= 0.97 for hits in covered.values()} == {True}


def census(frame: pl.DataFrame) -> Rows:
    inputs = frame.drop("id", "year", "employed", "prediction", "predicted_probability")
    yes, said = (frame[name].to_numpy() == 1 for name in ("employed", "prediction"))
    return Rows(yes, frame["predicted_probability"].to_numpy(), said, inputs)
