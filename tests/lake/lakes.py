"""Lakes for tests: in a folder, and in a bucket of an S3 server of this machine."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from datetime import date, timedelta
from typing import TYPE_CHECKING

import polars as pl

from mainstay.lake.lake import Lake

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mainstay.lake.tables import Table

DAY = date(2026, 3, 1)
SCHEMA = pl.Schema({"day": pl.Date(), "n": pl.Int64(), "who": pl.String(), "x": pl.Float64()})
BUCKET = "lake-of-tests"


def rows(first: int, last: int, *, per_day: int = 10) -> pl.DataFrame:
    """The rows first to last, a day for every few of them, about five persons in turn."""
    numbers = range(first, last)
    return pl.DataFrame(
        {
            "day": [DAY + timedelta(days=n // per_day) for n in numbers],
            "n": numbers,
            "who": [f"K-{n % 5}" for n in numbers],
            "x": [n / 4 for n in numbers],
        },
        schema=SCHEMA,
    )


def make_table(lake: Lake, name: str = "intake/flights/feed", count: int = 0) -> Table:
    """A table by the day, with some rows by a writer `w`, ten in a commit."""
    table = lake.create(name, SCHEMA, partition_by=["day"])
    for last in range(10, count + 1, 10):
        table.append(rows(last - 10, last), writer="w", position=last, metadata={"after": last})
    return table


def numbers(table: Table, **which: int) -> list[int]:
    return sorted(table.frame(**which).collect()["n"].to_list())  # type: ignore[arg-type]  # a version is a number


def parquet_with(folder: Path, text: str) -> list[str]:
    """The Parquet files below a folder in which a text stands, be they in a version of a table or not."""
    found = []
    for path in sorted(folder.rglob("*.parquet")):
        if "_delta_log" in path.parts:
            continue
        frame = pl.read_parquet(path, hive_partitioning=False)
        if any(column.str.contains(text, literal=True).any() for column in frame.select(pl.col(pl.String))):
            found.append(path.name)
    return found


@contextmanager
def s3_server(directory: Path) -> Iterator[dict[str, str]]:
    """A moto server with an empty bucket BUCKET; the variables with which it is reached."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    log = (directory / "s3.log").open("wb")
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            _wait(port)
            request = urllib.request.Request(f"{url}/{BUCKET}", method="PUT")  # noqa: S310 - of this machine
            urllib.request.urlopen(request, timeout=10).close()  # noqa: S310 - of this machine
            yield {
                "AWS_ENDPOINT_URL": url,
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_REGION": "us-east-1",
            }
        finally:
            process.terminate()


def _wait(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the S3 server did not begin")


def s3_lake(environment: dict[str, str], folder: str = "lake") -> Lake:
    return Lake(f"s3://{BUCKET}/{folder}", environment)
