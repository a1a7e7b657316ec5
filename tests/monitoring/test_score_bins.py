from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mainstay.monitoring.score_bins import ScoreBins

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]

probabilities = st.one_of(
    st.floats(0, 1),
    st.floats(0, 1e-6),
    st.floats(0, 1e-6).map(lambda near: 1 - near),
    st.sampled_from([0.0, 0.5, 1.0]),
)
some = st.integers(1, 150).flatmap(lambda n: arrays.arrays(np.float64, n, elements=probabilities))


@settings(max_examples=40)
@given(some, some)
def test_bins_rise_with_the_score(reference: Floats, window: Floats) -> None:
    cut = ScoreBins.cut(reference)
    bins = cut.bin_of(np.sort(window))
    assert (np.diff(bins.astype(np.int64)) >= 0).all()
    assert bins.max() < cut.bins <= 135
    assert (np.diff(cut.middles) > 0).all()


@settings(max_examples=40)
@given(some)
def test_every_coarse_bin_has_rows_of_its_reference_and_ends_where_a_bin_does(reference: Floats) -> None:
    cut = ScoreBins.cut(reference)
    assert cut.coarse[0] == 0
    assert (np.diff(cut.coarse) > 0).all()
    found = cut.coarse_of[cut.bin_of(reference)]
    assert set(found.tolist()) == set(range(len(cut.coarse)))


def test_bins_have_as_many_rows_each_however_near_to_an_end_scores_are() -> None:
    rng = np.random.default_rng(0)
    for scores in (rng.random(60_000), rng.random(60_000) * 1e-4, 1 - rng.random(60_000) * 1e-4):
        rows = np.bincount(ScoreBins.cut(scores).bin_of(scores))
        assert rows.max() / 60_000 == pytest.approx(1 / 120, rel=0.25)


def test_the_middle_of_a_bin_is_in_it() -> None:
    rng = np.random.default_rng(1)
    cut = ScoreBins.cut(np.concatenate([rng.random(1_000), 1e-5 * rng.random(1_000), 1 - 1e-5 * rng.random(1_000)]))
    assert (cut.bin_of(cut.middles) == np.arange(cut.bins)).all()


def test_equal_scores_share_a_bin_and_a_document_says_all() -> None:
    cut = ScoreBins.cut(np.full(2_000, 0.3))
    assert set(cut.bin_of(np.full(5, 0.3)).tolist()) == {cut.bin_of(np.array([0.3]))[0]}
    assert msgspec.json.decode(msgspec.json.encode(cut), type=ScoreBins) == cut
