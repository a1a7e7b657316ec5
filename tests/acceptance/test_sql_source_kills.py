"""SQL and files sources that are killed at random moments, again and again, while others write: each record once."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest

from intake.databases import Shop, fresh_database, postgres_server, read_item
from intake.folders import Feed
from intake.source_children import Children

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.acceptance, pytest.mark.alone]

KILLS = 12
LONGEST_SECONDS = 0.6  # of a process that asks
LONGEST_PAUSE_SECONDS = 0.03  # of a writer


def kill_again_and_again(feed: Shop | Feed, write: Callable[[int], None], *, writers: int = 1) -> None:
    """Start, kill and start again while others write, and then take what is left. `write` writes once."""
    children = Children()
    moments = random.Random(7)
    enough = threading.Event()

    def keep_writing(writer: int) -> None:
        for n in itertools.count(writer, writers):
            if enough.wait(moments.uniform(0, LONGEST_PAUSE_SECONDS)):
                return
            write(n)

    with ThreadPoolExecutor() as pool:
        writing = [pool.submit(keep_writing, writer) for writer in range(writers)]
        try:
            for _ in range(KILLS):
                process = children.start(type(feed.fetcher), feed.workspace, feed.source, feed.landing)
                time.sleep(moments.uniform(0, LONGEST_SECONDS))
                assert process.is_alive()  # it ends by nothing else
                os.kill(process.pid or 0, signal.SIGKILL)
                process.join()
        finally:
            enough.set()
        for each in writing:
            each.result()
    waiting = feed.landing.waiting()
    assert len(waiting) > 5  # they came to something before they were killed
    feed.cursor = waiting[-1].cursor
    feed.fetcher = feed.open()
    while feed.step() is not None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server() as url:
        yield url


def test_rows_of_postgresql_land_once_while_transactions_commit_in_any_order(tmp_path: Path, server: str) -> None:
    with fresh_database(server) as url:
        with psycopg.connect(url) as connection:
            connection.execute(
                "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz DEFAULT now())"
            )
        shop = Shop(tmp_path, url, cursor="at", rows=20)

        def write(n: int) -> None:
            with psycopg.connect(url) as connection:
                connection.execute("SELECT 1")  # the transaction has its time now
                time.sleep(n % 4 / 100)
                connection.execute("INSERT INTO orders SELECT FROM generate_series(1, %s)", (1 + n % 7,))
                if n % 10 == 0:
                    connection.rollback()

        kill_again_and_again(shop, write, writers=2)
        with psycopg.connect(url) as connection:
            written = [row[0] for row in connection.execute("SELECT id FROM orders ORDER BY id")]
    assert sorted(_landed(shop)) == written


def test_rows_of_sqlite_land_once(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, at INTEGER)")
    shop = Shop(tmp_path, f"sqlite:///{path}", cursor="at", rows=20)

    def write(n: int) -> None:
        with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
            connection.executemany("INSERT INTO orders VALUES (NULL, ?)", [(n // 3,)] * (1 + n % 5))

    kill_again_and_again(shop, write)
    with closing(sqlite3.connect(path)) as connection:
        written = [row[0] for row in connection.execute("SELECT id FROM orders ORDER BY id")]
    assert sorted(_landed(shop)) == written


def test_files_land_once(tmp_path: Path) -> None:
    folder = tmp_path / "incoming"
    folder.mkdir()
    feed = Feed(tmp_path, str(folder))

    written = []

    def write(n: int) -> None:
        hidden = folder / f".{n}.jsonl"
        hidden.write_bytes(b'{"id": %d}\n' % n)
        os.utime(hidden, (n % 5,) * 2)
        hidden.rename(folder / f"{n}.jsonl")
        written.append(n)

    kill_again_and_again(feed, write)
    assert sorted(_landed(feed)) == written


def _landed(feed: Shop | Feed) -> list[int]:
    """The ids of all items there are, whoever landed them."""
    return [row["id"] for item in feed.landing.waiting() for row in read_item(feed.landing, item)]
