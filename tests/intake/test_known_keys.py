from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.intake import known_keys
from mainstay.intake.known_keys import KnownKeys
from mainstay.intake.types import ITEM, ROW

if TYPE_CHECKING:
    from mainstay.intake.known_keys import Digests

BATCHES = st.lists(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), max_size=12), max_size=12)


def digests(known: KnownKeys, item: int, rows: list[tuple[int, int]]) -> Digests:
    frame = pl.DataFrame(rows, schema={"key": pl.Int64(), "said": pl.Int64()}, orient="row")
    places = pl.int_range(1, frame.height + 1, dtype=pl.Int64, eager=True).alias(ROW)
    frame = frame.with_columns(places, pl.lit(item, pl.Int64).alias(ITEM))
    return known.digests(frame, ["key"], ["key", "said"])


@settings(max_examples=60, deadline=None)
@given(BATCHES, st.booleans(), st.booleans())
def test_records_are_known_as_a_dictionary_would_know_them(
    batches: list[list[tuple[int, int]]],
    newest: bool,
    opened_again: bool,
) -> None:
    contents: dict[int, int] = {}
    with TemporaryDirectory() as name:
        known = KnownKeys(Path(name), "a")
        for item, rows in enumerate(batches, 1):
            made = digests(known, item, rows)
            found = known.resolve(made, newest=newest)
            expected = []
            kept = []
            for key, said in rows:
                before = contents.get(key)
                expected.append((before == said, before is not None and before != said))
                taken = before is None or (newest and before != said)
                kept.append(taken)
                if taken:
                    contents[key] = said
            assert list(zip(found.same.tolist(), found.changed.tolist(), strict=True)) == expected
            known.add(made.only(np.array(kept, np.bool_)))
            if item % 3:  # what was added counts before it is kept, too
                known.commit(item)
                known = KnownKeys(Path(name), "a") if opened_again else known
                assert known.covers == item


def test_large_runs_are_joined_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_keys, "_MERGED_AT_ONCE", 7)
    monkeypatch.setattr(known_keys, "_LOOKED_AT_ONCE", 5)
    known = KnownKeys(tmp_path, "a")
    for item in range(1, 9):
        known.add(digests(known, item, [(key, item) for key in range(0, 200, item)]))
        known.commit(item)
    again = KnownKeys(tmp_path, "a")
    newest = {key: max(item for item in range(1, 9) if key % item == 0) for key in range(200)}
    found = again.resolve(digests(again, 9, list(newest.items())), newest=True)
    assert found.same.all()
    assert not again.resolve(digests(again, 9, [(key, 1) for key in range(200, 300)]), newest=True).same.any()
    assert len(list(tmp_path.glob("*.first"))) < 4


@pytest.mark.parametrize("harm", ["torn", "no manifest", "other manifest", "other columns"])
def test_what_is_damaged_or_of_other_columns_is_forgotten(tmp_path: Path, harm: str) -> None:
    known = KnownKeys(tmp_path, "a")
    known.add(digests(known, 1, [(1, 1)]))
    known.commit(7)
    run = next(tmp_path.glob("*.first"))
    about = "a"
    match harm:
        case "torn":
            run.write_bytes(run.read_bytes()[:-1])
        case "no manifest":
            (tmp_path / "keys.json").unlink()
        case "other manifest":
            (tmp_path / "keys.json").write_bytes(b'{"covers": "much"}')
        case _:
            about = "b"
    again = KnownKeys(tmp_path, about)
    assert again.covers == -1
    assert not list(tmp_path.glob("*.first"))
    assert not again.resolve(digests(again, 1, [(1, 1)]), newest=False).same.any()


def test_what_was_discarded_or_never_kept_is_not_known(tmp_path: Path) -> None:
    known = KnownKeys(tmp_path, "a")
    known.commit(1)
    made: Any = digests(known, 1, [(1, 1)])
    known.add(made)
    assert known.resolve(made, newest=False).same.all()
    known.discard()
    assert not known.resolve(made, newest=False).same.any()
    known.add(made)
    again = KnownKeys(tmp_path, "a")
    assert (again.covers, again.resolve(made, newest=False).same.any()) == (1, False)
    known.reset()
    assert known.covers == -1
