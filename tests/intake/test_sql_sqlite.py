"""What an SQL source takes, and what it says when it cannot; the database is SQLite's."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intake.databases import Shop, read_item, told
from mainstay.capability.sources import Source
from mainstay.errors import Damaged, Misuse
from mainstay.intake.fetching import Unavailable, open_fetcher
from mainstay.intake.sql import SqlFetcher

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Base:
    """A database file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"

    def run(self, statement: str, rows: Sequence[Sequence[Any]] = ((),)) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.executemany(statement, rows)


@pytest.fixture
def base(tmp_path: Path) -> Base:
    made = Base(tmp_path / "shop.db")
    made.run("CREATE TABLE orders (id INTEGER PRIMARY KEY, at INTEGER, note TEXT)")
    return made


def insert(base: Base, first: int, last: int, *, per_at: int = 1) -> None:
    base.run("INSERT INTO orders VALUES (?, ?, ?)", [(n, n // per_at, f"order {n}") for n in range(first, last)])


def test_a_step_takes_so_many_rows_and_the_next_goes_on_behind_them(tmp_path: Path, base: Base) -> None:
    insert(base, 1, 11)
    shop = Shop(tmp_path, base.url, rows=4)
    assert shop.taken() == list(range(1, 11))
    assert [item.kind for item in shop.items] == ["parquet"] * 3
    assert [item.origin for item in shop.items] == ["table orders"] * 3
    assert shop.step() is None
    insert(base, 11, 13)
    assert shop.taken() == [11, 12]


def test_rows_of_one_value_are_never_cut(tmp_path: Path, base: Base) -> None:
    insert(base, 0, 30, per_at=10)
    shop = Shop(tmp_path, base.url, cursor="at", rows=3)
    assert shop.taken() == list(range(30))
    assert [len(read_item(shop.landing, item)) for item in shop.items] == [10, 10, 10]


def test_rows_that_come_later_with_the_value_a_step_ended_at_are_taken_once(tmp_path: Path, base: Base) -> None:
    base.run("INSERT INTO orders VALUES (5, 7, 'x'), (6, 7, 'x')")
    shop = Shop(tmp_path, base.url, cursor="at", columns=("at", "note"))  # rows that are alike
    assert len(shop.take()) == 2
    assert shop.step() is None
    base.run("INSERT INTO orders VALUES (1, 7, 'x'), (9, 7, 'y')")
    assert [row["note"] for row in shop.take()] == ["x", "y"]
    base.run("INSERT INTO orders VALUES (2, 7, 'y'), (3, 8, 'z')")
    assert sorted(row["note"] for row in shop.take()) == ["y", "z"]
    assert shop.step() is None


def test_a_row_that_changes_without_its_cursor_comes_again_while_it_is_the_last(tmp_path: Path, base: Base) -> None:
    insert(base, 1, 4, per_at=100)
    shop = Shop(tmp_path, base.url, cursor="at", key=("id",))
    shop.take()
    base.run("UPDATE orders SET note = 'changed' WHERE id = 2")
    assert [(row["id"], row["note"]) for row in shop.take()] == [(2, "changed")]


def test_more_ties_than_digests_are_counted(tmp_path: Path, base: Base) -> None:
    insert(base, 0, 5000, per_at=10_000)
    keyed, plain = Shop(tmp_path / "a", base.url, cursor="at", key=("id",)), Shop(tmp_path / "b", base.url, cursor="at")
    for shop in (keyed, plain):
        assert len(shop.take()) == 5000
        assert shop.step() is None
    insert(base, 5000, 5001, per_at=10_000)
    assert len(keyed.take()) == 5001  # the door knows them by their key
    assert keyed.step() is None
    with pytest.raises(Unavailable, match="cursor_ties"):
        plain.step()


def test_a_new_column_does_not_bring_the_last_rows_again(tmp_path: Path, base: Base) -> None:
    insert(base, 1, 4, per_at=100)
    shop = Shop(tmp_path, base.url, cursor="at")
    shop.take()
    base.run("ALTER TABLE orders ADD COLUMN more TEXT DEFAULT 'm'")
    assert shop.step() is None
    insert_row = "INSERT INTO orders VALUES (9, 0, 'order', 'n')"
    base.run(insert_row)
    assert [(row["id"], row["more"]) for row in shop.take()] == [(9, "n")]
    base.run("ALTER TABLE orders DROP COLUMN note")
    assert shop.step() is None
    base.run("INSERT INTO orders VALUES (10, 5, 'n')")
    assert shop.taken() == [10]


def test_rows_without_a_usable_value_wait_and_are_told_of_once(tmp_path: Path, base: Base) -> None:
    insert(base, 1, 4)
    base.run("INSERT INTO orders VALUES (50, NULL, '')")
    base.run("INSERT INTO orders VALUES (51, 9e999, ''), (52, -9e999, ''), (53, 'later', ''), (54, x'00', '')")
    shop = Shop(tmp_path, base.url, cursor="at")
    assert shop.taken() == [1, 2, 3]
    assert told(shop.items) == ["cursor_unusable"]
    assert shop.step() is None
    base.run("DELETE FROM orders WHERE id >= 50")
    empty = shop.step()
    assert empty is not None
    assert empty.bytes == 0
    assert shop.step() is None
    base.run("INSERT INTO orders VALUES (60, NULL, '')")
    assert shop.take() == []
    assert told(shop.items) == ["cursor_unusable"] * 2


def test_before_the_first_row_there_is_nothing_to_land(tmp_path: Path, base: Base) -> None:
    shop = Shop(tmp_path, base.url, cursor="at")
    assert shop.step() is None
    base.run("INSERT INTO orders VALUES (1, NULL, '')")
    shop.step()
    assert shop.step() is None
    assert told(shop.items) == ["cursor_unusable"]


def test_a_table_that_ends_before_the_cursor_is_told_of(tmp_path: Path, base: Base) -> None:
    insert(base, 1, 10)
    shop = Shop(tmp_path, base.url)
    shop.take()
    base.run("DELETE FROM orders")
    assert shop.step() is None  # emptied tables are usual
    insert(base, 1, 5)
    assert shop.take() == []
    assert told(shop.items) == ["cursor_backwards"]
    insert(base, 9, 12)
    assert shop.taken() == [10, 11]  # 9 is the same as before


def test_texts_are_cursors_too(tmp_path: Path, base: Base) -> None:
    base.run("CREATE TABLE events (id TEXT, at DATETIME)")
    base.run("INSERT INTO events VALUES (?, ?)", [(f"e{n}", f"2026-03-0{n}T00:00:00Z") for n in range(1, 6)])
    base.run("INSERT INTO events VALUES ('number', 5)")
    shop = Shop(tmp_path, base.url, table="main.events", cursor="at", rows=2)
    assert shop.taken() == ["e1", "e2", "e3", "e4", "e5"]
    assert told(shop.items) == ["cursor_unusable"]


def test_columns_land_typed(tmp_path: Path, base: Base) -> None:
    base.run("CREATE TABLE kinds (id INTEGER, b BOOLEAN, r DOUBLE, t VARCHAR(9), d DATE, x BLOB, n DECIMAL(9,2), any)")
    base.run(
        "INSERT INTO kinds VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(1, 1, 1.5, "é", "2026-01-01", b"\x00\xff", 2.25, 7), (2, None, None, None, None, None, 3, None)],
    )
    shop = Shop(tmp_path, base.url, table="kinds")
    shop.step()
    frame = pl.read_parquet(shop.landing.path(shop.items[0]))
    assert frame.schema == {
        "id": pl.Int64,
        "b": pl.Boolean,
        "r": pl.Float64,
        "t": pl.String,
        "d": pl.String,
        "x": pl.Binary,
        "n": pl.Float64,
        "any": pl.Int64,
    }
    assert frame.row(0) == (1, True, 1.5, "é", "2026-01-01", b"\x00\xff", 2.25, 7)
    assert frame.row(1) == (2, None, None, None, None, None, 3.0, None)


def test_values_of_other_types_land_as_json_lines_each_as_it_is(tmp_path: Path, base: Base) -> None:
    base.run("CREATE TABLE kinds (id INTEGER, b BOOLEAN, r DOUBLE, t TEXT, x BLOB)")
    base.run("INSERT INTO kinds VALUES (1, 2, 'no', x'ff', 'text'), (2, 'yes', 9e999, 'ok', x'00')")
    base.run("INSERT INTO kinds VALUES (3, 0, 1.5, CAST(x'fe' AS TEXT), NULL)")
    shop = Shop(tmp_path, base.url, table="kinds")
    assert shop.take() == [
        {"id": 1, "b": 2, "r": "no", "t": "/w==", "x": "text"},
        {"id": 2, "b": "yes", "r": "inf", "t": "ok", "x": "AA=="},
        {"id": 3, "b": 0, "r": 1.5, "t": "/g==", "x": None},
    ]
    assert [item.kind for item in shop.items] == ["jsonl"]
    assert told(shop.items) == ["type_changed"]


def test_an_integer_that_is_no_double_does_not_become_one(tmp_path: Path, base: Base) -> None:
    base.run("CREATE TABLE kinds (id INTEGER, n NUMERIC)")
    base.run("INSERT INTO kinds VALUES (1, 9007199254740993)")
    shop = Shop(tmp_path, base.url, table="kinds")
    assert shop.take() == [{"id": 1, "n": 9007199254740993}]


def test_names_are_taken_literally(tmp_path: Path, base: Base) -> None:
    base.run('CREATE TABLE "odd ""; name%s" ("a ""b:c" INTEGER, "select" TEXT, "%(x)s" TEXT)')
    base.run("INSERT INTO \"odd \"\"; name%s\" VALUES (1, 'x', 'y')")
    shop = Shop(tmp_path, base.url, table='odd "; name%s', cursor='a "b:c')
    assert shop.take() == [{'a "b:c': 1, "select": "x", "%(x)s": "y"}]


def test_many_columns_are_told_apart(tmp_path: Path, base: Base) -> None:
    names = [f"c{n}" for n in range(1500)]
    base.run(f"CREATE TABLE wide (id INTEGER, {', '.join(names)})")
    base.run("INSERT INTO wide VALUES (1" + ", ?" * len(names) + ")", [list(range(1500))])  # noqa: S608 - of this test
    shop = Shop(tmp_path, base.url, table="wide")
    assert shop.take()[0]["c1499"] == 1499
    assert shop.step() is None


def test_only_declared_columns_are_taken(tmp_path: Path, base: Base) -> None:
    insert(base, 1, 3)
    shop = Shop(tmp_path, base.url, columns=("note", "id"))
    assert [list(row) for row in shop.take()] == [["note", "id"]] * 2


def test_a_view_is_taken(tmp_path: Path, base: Base) -> None:
    insert(base, 1, 5)
    base.run("CREATE VIEW even AS SELECT id, note FROM orders WHERE id % 2 = 0")
    assert Shop(tmp_path, base.url, table="even").taken() == [2, 4]


def test_a_table_without_a_cursor_comes_whole_each_time_it_has_changed(tmp_path: Path, base: Base) -> None:
    insert(base, 1, 4)
    shop = Shop(tmp_path, base.url, cursor=None, key=("id",), rows=4)
    assert sorted(shop.taken()) == [1, 2, 3]
    assert shop.step() is None
    base.run("UPDATE orders SET note = 'changed' WHERE id = 2")
    assert sorted(shop.taken()) == [1, 2, 3]
    insert(base, 4, 6)
    with pytest.raises(Misuse, match="at most `rows`=4"):
        shop.step()
    with pytest.raises(Misuse, match="expected `cursor`; or `key`"):
        Shop(tmp_path / "other", base.url, cursor=None)


def test_a_source_that_got_a_cursor_begins_anew(tmp_path: Path, base: Base) -> None:
    insert(base, 1, 4)
    shop = Shop(tmp_path, base.url, cursor=None, key=("id",))
    shop.take()
    now = Shop(tmp_path / "now", base.url, key=("id",))
    now.cursor = shop.cursor
    assert now.taken() == [1, 2, 3]
    with pytest.raises(Damaged):
        now.fetcher.step({"page": 2})


def test_nothing_of_the_database_is_changed(tmp_path: Path, base: Base) -> None:
    insert(base, 1, 4)
    before = base.path.read_bytes()
    shop = Shop(tmp_path, base.url)
    shop.take()
    assert base.path.read_bytes() == before
    with shop.fetcher._database.connect() as connection, pytest.raises(Exception, match="readonly"):
        connection.exec_driver_sql("DELETE FROM orders")


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    shop = Shop(tmp_path, f"sqlite:///{tmp_path}/absent.db")
    with pytest.raises(Unavailable) as raised:
        shop.step()
    assert raised.value.code == "source_down"
    assert not (tmp_path / "absent.db").exists()
    (tmp_path / "absent.db").write_bytes(b"no database" * 100)
    with pytest.raises(Unavailable, match=r"no SQLite database \(SQLITE_NOTADB\)"):
        shop.step()


def test_a_path_that_is_not_absolute_is_below_the_workspace(tmp_path: Path, base: Base) -> None:
    insert(base, 1, 3)
    shop = Shop(tmp_path, "sqlite:///../shop.db")
    assert shop.taken() == [1, 2]


@pytest.mark.parametrize(
    "url", ["mysql://u:s3cret@h/d", "s3cret", "sqlite://", "sqlite:///:memory:", "postgresql://u:s3cret@h:port/d"]
)
def test_another_url_is_refused_without_saying_it(tmp_path: Path, url: str) -> None:
    with pytest.raises(Misuse) as raised:
        Shop(tmp_path, url)
    assert "s3cret" not in str(raised.value)


def test_a_missing_table_or_column_is_told(tmp_path: Path, base: Base) -> None:
    for changes in ({"table": "absent"}, {"cursor": "absent"}, {"columns": ("absent",)}):
        shop = Shop(tmp_path / next(iter(changes)), base.url, **changes)
        with pytest.raises(Unavailable, match="column_missing"):
            shop.step()


def test_a_locked_database_is_slow(tmp_path: Path, base: Base) -> None:
    insert(base, 1, 3)
    shop = Shop(tmp_path, base.url, timeout_seconds=0.2)
    with closing(sqlite3.connect(base.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable, match=r"source_slow.*SQLITE_BUSY"):
            shop.step()
    assert shop.taken() == [1, 2]


def test_a_statement_that_takes_too_long_is_interrupted(tmp_path: Path, base: Base) -> None:
    endless = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id FROM n"
    base.run(f"CREATE VIEW endless AS {endless}")
    shop = Shop(tmp_path, base.url, table="endless", timeout_seconds=0.3)
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"source_slow.*SQLITE_INTERRUPT"):
        shop.step()
    assert time.monotonic() - began < 5


def test_a_table_that_is_written_while_it_is_read_gives_each_row_once(tmp_path: Path, base: Base) -> None:
    base.run("PRAGMA journal_mode = WAL")
    shop = Shop(tmp_path, base.url, cursor="at", rows=7)

    def write() -> None:
        with closing(sqlite3.connect(base.path, timeout=30)) as connection:
            for n in range(300):
                with connection:
                    connection.execute("INSERT INTO orders VALUES (?, ?, '')", (n, n // 10))

    writer = threading.Thread(target=write)
    writer.start()
    ids: list[int] = []
    while writer.is_alive():
        ids += shop.taken()
    ids += shop.taken()
    writer.join()
    assert sorted(ids) == list(range(300))


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab")), max_size=8), max_size=5),
    rows=st.integers(1, 4),
    restarts=st.booleans(),
)
def test_rows_in_the_order_of_their_values_are_taken_once_however_they_are_cut(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[int, str]]], rows: int, *, restarts: bool
) -> None:
    folder = tmp_path_factory.mktemp("once")
    base = Base(folder / "shop.db")
    base.run("CREATE TABLE orders (at INTEGER, note TEXT)")
    shop = Shop(folder, base.url, cursor="at", rows=rows)
    written: list[tuple[int, str]] = []
    landed: list[tuple[int, str]] = []
    for batch in batches:
        begin = written[-1][0] if written else 0
        new = sorted((begin + step, note) for step, note in batch)
        base.run("INSERT INTO orders VALUES (?, ?)", new)
        written += new
        landed += [(row["at"], row["note"]) for row in shop.take()]
        if restarts:
            shop.fetcher = shop.open()
    assert sorted(landed) == sorted(written)


def test_it_is_opened_by_its_kind(tmp_path: Path, base: Base) -> None:
    shop = Shop(tmp_path, base.url)
    assert isinstance(open_fetcher(shop.workspace, "late-arrival", shop.source, shop.landing), SqlFetcher)
    with pytest.raises(Misuse, match="expected one of kind sql"):
        SqlFetcher(shop.workspace, "late-arrival", Source(name="x"), shop.landing)
