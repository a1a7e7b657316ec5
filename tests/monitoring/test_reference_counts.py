from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from mainstay.errors import Damaged, Misuse
from mainstay.monitoring.binning import Values, p_value_column
from mainstay.monitoring.drift import Sample, compare
from mainstay.monitoring.histograms import count, stack
from mainstay.monitoring.reference_counts import count_blocks, count_reference, decode_reference, p_value_counts


def rows(n: int = 2_400) -> pl.DataFrame:
    random = np.random.default_rng(0)
    names = np.array([f"v{i}" for i in range(500)])
    return pl.DataFrame(
        {"x": random.normal(size=n), "c": random.choice(["a", "b"], n), "id": names[random.integers(0, 500, n)]}
    )


def test_a_reference_is_counted_in_blocks_in_its_order() -> None:
    frame = rows()
    reference = count_reference(frame)
    assert len(reference.blocks) == 24
    sample = reference.sample("x")
    assert set(sample.counts.sum(1).tolist()) == {100}
    whole = count(frame, reference.columns)
    assert tuple(sample.total.tolist()) == whole["x"].counts
    first = count(frame.head(100), reference.columns)
    assert np.array_equal(sample.counts[:1], stack([first["x"]]))


def test_rows_that_named_values_do_not_count_for_them() -> None:
    reference = count_reference(rows())
    (column,) = (each for each in reference.columns if each.name == "id")
    assert isinstance(column.bins, Values)
    assert column.bins.chosen_from_even_rows
    assert reference.sample("id").rows == 1_200
    assert reference.sample("c").rows == 2_400


def test_groups_of_a_reference_add_up_to_its_blocks() -> None:
    frame = rows()
    columns = count_reference(frame).columns
    whole, parts = count_blocks(frame, columns, 12, [(np.arange(frame.height) % 3, 3)])
    assert (len(whole), len(parts)) == (12, 36)
    for name in frame.columns:
        counted = stack([block[name] for block in parts]).reshape(3, 12, -1)
        assert np.array_equal(counted.sum(0), stack([block[name] for block in whole]))


def test_a_reference_is_stored_and_read_again() -> None:
    reference = count_reference(rows())
    assert decode_reference(reference.encode()) == reference
    assert reference.encode() == count_reference(rows()).encode()


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"columns": [], "blocks": []}', b'{"columns": [], "blocks": [{"x": {"counts": [1]}}]}']
)
def test_other_content_is_no_reference(content: bytes) -> None:
    with pytest.raises(Damaged):
        decode_reference(content)


def test_edges_out_of_order_are_no_reference() -> None:
    edges = b'"edges":['
    content = count_reference(rows()).encode()
    with pytest.raises(Damaged):
        decode_reference(content.replace(edges, edges + b"9.0,8.0,", 1))


def test_a_small_reference_has_few_blocks() -> None:
    assert len(count_reference(rows(120)).blocks) == 2
    assert len(count_reference(rows(7)).blocks) == 1
    with pytest.raises(Misuse):
        count_reference(rows(0))


def test_p_values_are_even_until_more_rows_are_strange() -> None:
    random = np.random.default_rng(0)
    column, reference = p_value_column("novelty"), Sample.of([p_value_counts(6_000)])
    assert reference.rows == 6_001, "the row itself is counted among those that calibrate"
    assert p_value_counts(300).counts[:4] == (0, 0, 1, 2), "the smallest of 301 is 1 / 301"

    def window(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Sample:
        steps = np.array_split(values, 24)
        return Sample.of([count(pl.DataFrame({"novelty": step}), [column])["novelty"] for step in steps])

    quiet = compare(column, reference, window(random.random(5_000)))
    strange = compare(column, reference, window(np.where(random.random(5_000) < 0.05, 0.0004, random.random(5_000))))
    assert quiet.p_value is not None
    assert strange.p_value is not None
    assert strange.p_value < 1e-6
    assert quiet.p_value > 0.01
    assert strange.bins[0].bin == "below 0.001"
