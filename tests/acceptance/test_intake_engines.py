"""The tables of the intake as other engines read them, in a folder and in a bucket."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import duckdb
import polars as pl
import pytest

import tiny
from lake.lakes import s3_lake, s3_server
from mainstay.capability.load import load_capability
from mainstay.intake.door import Door
from mainstay.intake.landing import Landing
from mainstay.lake.lake import Lake
from mainstay.lake.maintenance import Policy, maintain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.lake.tables import Table

pytestmark = pytest.mark.acceptance

ROWS = 40  # of an item, of which every fourth is not accepted


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with s3_server(tmp_path_factory.mktemp("s3")) as environment:
        yield environment


def take_in(lake: Lake, folder: Path, items: int) -> None:
    """Let items through the door of a pushed source."""
    declared = load_capability(tiny.write_folder(folder / "capability", sources=[{"name": "feed", "push": {}}]))
    (source,) = declared.capability.sources
    landing = Landing(folder / "landing")
    door = Door(lake, tiny.NAME, source, declared.contract, declared.contract.schema[0])
    for _ in range(items):
        with landing.begin("jsonl") as draft:
            for n in range(ROWS):
                draft.file.write(b'{"a": %d, "note": "of %d"}\n' % (1_000 if n % 4 == 0 else n, n))
            item = draft.land(origin="a test")
        door.take(item, landing.path(item))


def by_polars(table: Table, environment: dict[str, str]) -> pl.DataFrame:
    """What Polars reads by itself."""
    options = {**environment, "AWS_ALLOW_HTTP": "true"} if environment else None
    return pl.scan_delta(str(table.delta().table_uri), storage_options=options).collect()


def by_duckdb(table: Table) -> list[tuple[object, ...]]:
    """What DuckDB makes of what the table's own reader hands it, or of the files where it can open them itself."""
    delta = table.delta()
    batches = delta.scan(columns=["mainstay_item"])  # named in the query
    with duckdb.connect() as connection:
        query = "SELECT mainstay_item, count(*) FROM {} GROUP BY 1 ORDER BY 1"
        found = connection.sql(query.format("batches")).fetchall()
        if not delta.table_uri.startswith("s3:"):  # there it needs an extension that is fetched
            files = f"read_parquet({delta.file_uris()}, hive_partitioning = true)"
            assert connection.sql(query.format(files)).fetchall() == found
    del batches
    return found


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_polars_and_duckdb_read_what_was_accepted_and_what_was_not(
    where: str, bucket: dict[str, str], tmp_path: Path
) -> None:
    environment = bucket if where == "bucket" else {}
    lake = s3_lake(bucket, "intake") if environment else Lake(tmp_path / "lake")
    take_in(lake, tmp_path, 3)
    expected = {f"intake/{tiny.NAME}/feed": 30, f"quarantine/{tiny.NAME}/feed": 10}

    def check() -> None:
        for name, rows in expected.items():
            table = lake.table(name)
            frame = by_polars(table, environment)
            assert frame.height == 3 * rows
            assert by_duckdb(table) == [(1, rows), (2, rows), (3, rows)]
            assert frame.schema["mainstay_arrived_at"] == pl.Datetime("us", "UTC")
        quarantine = by_polars(lake.table(f"quarantine/{tiny.NAME}/feed"), environment)
        assert quarantine.filter(pl.col("mainstay_item") == 2)["mainstay_raw"][0].startswith(b'{"a": 1000')

    check()
    done = list(maintain(lake, Policy(timedelta()), datetime.now(UTC) + timedelta(days=2)))
    assert {each.table: each.joined for each in done if each.table in expected} == dict.fromkeys(expected, 3)
    assert not any(each.problem for each in done)
    check()
