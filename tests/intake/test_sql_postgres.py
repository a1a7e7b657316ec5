"""SQL sources over a real PostgreSQL: types, rows that commit late, and a database that misbehaves."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from typing import TYPE_CHECKING

import polars as pl
import psycopg
import pytest

from intake.databases import Shop, read_item, told
from mainstay.errors import Misuse
from mainstay.intake.fetching import Unavailable
from mainstay.intake.sql_postgres import FENCE_FILE

if TYPE_CHECKING:
    from pathlib import Path


def run(database: str, statement: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(statement.encode())


def make_orders(database: str, count: int) -> None:
    run(
        database,
        "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz DEFAULT now(), note text)",
    )
    with psycopg.connect(database) as connection:
        numbers = [(f"order {n}",) for n in range(1, count + 1)]
        connection.cursor().executemany("INSERT INTO orders (note) VALUES (%s)", numbers)


def test_rows_are_taken_step_by_step_and_new_ones_later(tmp_path: Path, database: str) -> None:
    make_orders(database, 10)
    shop = Shop(tmp_path, database, rows=4)
    assert shop.taken() == list(range(1, 11))
    assert [len(read_item(shop.landing, item)) for item in shop.items] == [4, 4, 2]
    assert shop.step() is None
    run(database, "INSERT INTO orders (note) VALUES ('more')")
    assert shop.taken() == [11]


def test_rows_of_one_moment_are_not_cut_and_later_ones_are_taken_once(tmp_path: Path, database: str) -> None:
    run(database, "CREATE TABLE orders (id bigint, at date)")
    run(database, "INSERT INTO orders SELECT n, date '2026-01-01' + n / 10 FROM generate_series(0, 29) AS n")
    shop = Shop(tmp_path, database, cursor="at", rows=3)
    assert shop.taken() == list(range(30))
    run(database, "INSERT INTO orders VALUES (7, '2026-01-03'), (29, '2026-01-03'), (31, '2026-01-04')")
    assert shop.taken() == [7, 29, 31]
    assert shop.step() is None


@pytest.mark.parametrize(
    "kind", ["numeric", "double precision", "text", "uuid", "timestamp(3)", "time", "public.grade"]
)
def test_any_type_with_an_order_is_a_cursor(tmp_path: Path, database: str, kind: str) -> None:
    values = {
        "numeric": ("1.0", "1.00", "2.5", "1e20", "2e20"),
        "double precision": ("-1e300", "0.1", "0.30000000000000004", "1", "1e300"),
        "text": ("a", "b''c", "d%s", "e:x", "f"),
        "uuid": tuple(f"00000000-0000-0000-0000-00000000000{n}" for n in range(5)),
        "timestamp(3)": tuple(f"2026-01-01 00:00:00.00{n}" for n in range(5)),
        "time": tuple(f"00:00:00.00000{n}" for n in range(5)),
        "public.grade": ("low", "middle", "high", "higher", "highest"),
    }[kind]
    run(database, "CREATE TYPE grade AS ENUM ('low', 'middle', 'high', 'higher', 'highest')")
    run(database, f"CREATE TABLE orders (id int, at {kind})")
    for n, value in enumerate(values):
        row = f"({n}, '{value}')"
        run(database, "INSERT INTO orders VALUES " + row)  # noqa: S608 - of this test
    shop = Shop(tmp_path, database, cursor="at", rows=1)
    assert shop.taken() == [0, 1, 2, 3, 4]
    assert shop.step() is None


def test_columns_land_typed(tmp_path: Path, database: str) -> None:
    run(database, "CREATE DOMAIN cents AS numeric(12,2); CREATE TYPE mood AS ENUM ('ok')")
    run(
        database,
        """CREATE TABLE kinds (id int, small smallint, big bigint, r real, d double precision, b boolean, price cents,
        free numeric, wide numeric(60,30), t text, c char(5), by bytea, day date, clock time, plain timestamp,
        zoned timestamptz, u uuid, j jsonb, m mood, i interval, ip inet, ints int[], texts text[], sums numeric[],
        span int4range)""",
    )
    run(
        database,
        r"""INSERT INTO kinds VALUES (1, 2, 9223372036854775807, 0.1, 0.1, true, 12.30, 1.25, 1.5, 'é', 'ab', '\x00ff',
        '2026-03-01', '12:00:00.000001', '2026-03-01 12:00', '2026-03-01 12:00+02',
        '6a2f41a3-c54c-fce8-32d2-0324e1c32e22', '{"a": [1, 2.50]}', 'ok', '1 day 2 hours', '10.0.0.1/8',
        '{1,NULL}', '{a,"b,c"}', '{1.5}', '[1,3)')""",
    )
    run(database, "INSERT INTO kinds (id) VALUES (2)")
    shop = Shop(tmp_path, database, table="public.kinds")
    shop.step()
    frame = pl.read_parquet(shop.landing.path(shop.items[0]))
    assert frame.schema == {
        "id": pl.Int32,
        "small": pl.Int16,
        "big": pl.Int64,
        "r": pl.Float64,
        "d": pl.Float64,
        "b": pl.Boolean,
        "price": pl.Decimal(12, 2),
        "free": pl.Decimal(38, 18),
        "wide": pl.String,
        "t": pl.String,
        "c": pl.String,
        "by": pl.Binary,
        "day": pl.Date,
        "clock": pl.Time,
        "plain": pl.Datetime("us"),
        "zoned": pl.Datetime("us", "UTC"),
        "u": pl.String,
        "j": pl.String,
        "m": pl.String,
        "i": pl.String,
        "ip": pl.String,
        "ints": pl.List(pl.Int32),
        "texts": pl.List(pl.String),
        "sums": pl.String,
        "span": pl.String,
    }
    assert frame.row(0) == (
        1, 2, 9223372036854775807, 0.1, 0.1, True, Decimal("12.30"), Decimal("1.25"),
        "1.500000000000000000000000000000",
        "é", "ab   ", b"\x00\xff", date(2026, 3, 1), time_of_day(12, 0, 0, 1), datetime(2026, 3, 1, 12),  # noqa: DTZ001 - it has none
        datetime(2026, 3, 1, 10, tzinfo=UTC),
        "6a2f41a3-c54c-fce8-32d2-0324e1c32e22", '{"a": [1, 2.50]}', "ok", "P1DT2H",
        "10.0.0.1/8", [1, None], ["a", "b,c"], "{1.5}", "[1,3)",
    )  # fmt: skip
    assert frame.row(1) == (2, *[None] * 24)


def test_what_no_column_holds_lands_as_json_lines_exactly(tmp_path: Path, database: str) -> None:
    run(
        database,
        "CREATE TABLE kinds (id int, n numeric, at timestamptz, day date, a int[], by bytea, j json, line text)",
    )
    run(
        database,
        r"""INSERT INTO kinds VALUES
        (1, 1e40, 'infinity', '2026-01-01', '{{1,2},{3,4}}', '\x00ff', '{"a": 1}', E'a\nb'),
        (2, 'NaN', '2026-01-01 00:00+00', '-infinity', '{1}', NULL, NULL, NULL),
        (3, 0.1234567890123456789, '12026-01-01 00:00+00', '2026-01-02', NULL, NULL, NULL, NULL)""",
    )
    shop = Shop(tmp_path, database, table="kinds", rows=2)
    assert shop.take() == [
        {"id": 1, "n": 10**40, "at": "infinity", "day": "2026-01-01", "a": [[1, 2], [3, 4]], "by": "AP8=",
         "j": '{"a": 1}', "line": "a\nb"},
        {"id": 2, "n": "NaN", "at": "2026-01-01T00:00:00+00:00", "day": "-infinity", "a": [1], "by": None, "j": None,
         "line": None},
        {"id": 3, "n": 0.1234567890123456789, "at": "12026-01-01T00:00:00+00:00", "day": "2026-01-02", "a": None,
         "by": None, "j": None, "line": None},
    ]  # fmt: skip
    assert [item.kind for item in shop.items] == ["jsonl", "jsonl"]
    assert b"0.1234567890123456789" in shop.landing.path(shop.items[1]).read_bytes()
    assert told(shop.items) == ["type_changed"] * 2


def test_a_value_that_fits_no_column_is_found_in_the_middle_of_many(tmp_path: Path, database: str) -> None:
    run(database, "CREATE TABLE orders (id int, n numeric)")
    run(database, "INSERT INTO orders SELECT n, n FROM generate_series(1, 3000) AS n")
    run(database, "UPDATE orders SET n = 'NaN' WHERE id = 2500")
    shop = Shop(tmp_path, database)
    rows = shop.take()
    assert [row["id"] for row in rows] == list(range(1, 3001))
    assert rows[2499]["n"] == "NaN"


@pytest.mark.parametrize("column", ["id", "at"])
def test_a_row_that_commits_late_is_not_lost(tmp_path: Path, database: str, column: str) -> None:
    make_orders(database, 3)
    shop = Shop(tmp_path, database, cursor=column)
    with psycopg.connect(database) as late:
        late.execute("INSERT INTO orders (note) VALUES ('late')")  # takes its id and its time
        run(database, "INSERT INTO orders (note) VALUES ('early')")
        assert shop.taken() == []  # nobody knows yet what stands before `early`
        run(database, "INSERT INTO orders (note) VALUES ('earlier still')")
        assert shop.step() is None
        late.commit()
    assert shop.taken("note") == ["order 1", "order 2", "order 3", "late", "early", "earlier still"]
    assert not (shop.landing.folder.parent / FENCE_FILE).exists()


def test_what_is_waited_for_is_known_after_a_restart(tmp_path: Path, database: str) -> None:
    make_orders(database, 1)
    shop = Shop(tmp_path, database)
    with psycopg.connect(database) as first:
        first.execute("INSERT INTO orders (note) VALUES ('late')")
        run(database, "INSERT INTO orders (note) VALUES ('early')")
        assert shop.step() is None
        with psycopg.connect(database) as second:  # there is always somebody
            second.execute("INSERT INTO orders (note) VALUES ('open')")
            first.commit()
            shop.fetcher = shop.open()
            assert [row["note"] for row in read_item(shop.landing, shop.step())] == ["order 1", "late", "early"]  # type: ignore[arg-type]  # there is one
            assert shop.step() is None
            second.rollback()
    assert shop.taken() == []


def test_an_idle_transaction_is_waited_for_only_so_long(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_orders(database, 3)
    shop = Shop(tmp_path, database, wait_seconds=1.5)
    with psycopg.connect(database) as idle:
        idle.execute("SELECT 1")
        monkeypatch.setattr("mainstay.intake.sql_postgres._LONG_SECONDS", 1.0)
        item = shop.step()
        assert item is not None
        assert item.bytes == 0
        assert shop.taken() == [1, 2, 3]
        assert told(shop.items) == ["commits_awaited"] * 2
        at_once = Shop(tmp_path / "at-once", database, wait_seconds=0)
        assert at_once.taken() == [1, 2, 3]
        assert told(at_once.items) == []


def test_a_prepared_transaction_is_waited_for(tmp_path: Path, database: str) -> None:
    make_orders(database, 1)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO orders (note) VALUES ('prepared')")
        connection.execute("PREPARE TRANSACTION 'p'")
    shop = Shop(tmp_path, database)
    run(database, "INSERT INTO orders (note) VALUES ('after')")
    assert shop.taken() == []
    run(database, "COMMIT PREPARED 'p'")
    assert shop.taken("note") == ["order 1", "prepared", "after"]


def test_writers_that_commit_in_any_order_lose_no_row(tmp_path: Path, database: str) -> None:
    run(database, "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz DEFAULT now())")
    shop = Shop(tmp_path, database, cursor="at", rows=5)

    def write(pause: float) -> None:
        with psycopg.connect(database) as connection:
            for _ in range(25):
                connection.execute("SELECT 1")  # the transaction has its time now
                time.sleep(pause)
                connection.execute("INSERT INTO orders DEFAULT VALUES")
                connection.commit()

    writers = [threading.Thread(target=write, args=(pause,)) for pause in (0.0, 0.003, 0.02, 0.05)]
    for writer in writers:
        writer.start()
    ids: list[int] = []
    while any(writer.is_alive() for writer in writers):
        ids += shop.taken()
    ids += shop.taken()
    assert sorted(ids) == list(range(1, 101))


def test_rows_of_the_future_and_infinite_ones_wait(tmp_path: Path, database: str) -> None:
    make_orders(database, 2)
    run(
        database, "INSERT INTO orders (at, note) VALUES ('infinity', 'i'), (now() + interval '1 day', 'f'), (NULL, 'n')"
    )
    shop = Shop(tmp_path, database, cursor="at")
    assert shop.taken("note") == ["order 1", "order 2"]
    assert told(shop.items) == ["cursor_unusable"]
    run(database, "INSERT INTO orders (note) VALUES ('now')")
    assert shop.taken("note") == ["now"]
    run(database, "CREATE TABLE reals (id int, at real); INSERT INTO reals VALUES (1, 1), (2, 'NaN'), (3, 'infinity')")
    reals = Shop(tmp_path / "reals", database, table="reals", cursor="at")
    assert reals.taken() == [1]
    assert told(reals.items) == ["cursor_unusable"]


def test_the_session_can_change_nothing(tmp_path: Path, database: str) -> None:
    make_orders(database, 1)
    shop = Shop(tmp_path, database)
    with shop.fetcher._database.connect() as connection, pytest.raises(Exception, match="read-only transaction"):
        connection.exec_driver_sql("DELETE FROM orders")


def test_a_statement_that_takes_too_long_is_ended_by_the_server(tmp_path: Path, database: str) -> None:
    run(database, "CREATE VIEW slow AS SELECT n AS id, pg_sleep(5)::text AS slept FROM generate_series(1, 2) AS n")
    shop = Shop(tmp_path, database, table="slow", timeout_seconds=0.5)
    with pytest.raises(Unavailable, match=r"source_slow.*57014"):
        shop.step()


def test_a_locked_table_is_slow(tmp_path: Path, database: str) -> None:
    make_orders(database, 1)
    shop = Shop(tmp_path, database, timeout_seconds=0.3)
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE orders")
        with pytest.raises(Unavailable, match="source_slow"):
            shop.step()


def test_errors_hold_neither_the_url_nor_rows(
    tmp_path: Path, database: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    password = "hunter2-hunter2"
    run(database, "CREATE TABLE orders (id int); INSERT INTO orders VALUES (1)")
    run(database, "CREATE VIEW bad AS SELECT id, ('row-text ' || id)::int AS x FROM orders")
    for i, (url, table, words) in enumerate(
        (
            (f"postgresql://app:{password}@127.0.0.1:1/shop", "orders", "source_down.*refuses the connection"),
            (database.replace("postgres:@", f"nobody:{password}@"), "orders", "source_down.*refuses the connection"),
            (f"{database}&unknown={password}", "orders", "source_down"),
            (database, "bad", "source_down.*22P02"),
            (database, "absent", "column_missing"),
        )
    ):
        shop = Shop(tmp_path / str(i), url, table=table, timeout_seconds=3)
        with pytest.raises(Unavailable, match=words) as raised:
            shop.step()
        printed = "".join(traceback.format_exception(raised.value))
        for text in (printed, repr(raised.value), raised.value.detail, caplog.text, *capfd.readouterr()):
            assert password not in text
            assert "row-text" not in text


def test_a_user_who_may_not_read_is_told_so(tmp_path: Path, database: str) -> None:
    make_orders(database, 1)
    role = f"reader_{abs(hash(database))}"
    run(database, f"CREATE ROLE {role} LOGIN")
    try:
        shop = Shop(tmp_path, database.replace("//postgres:", f"//{role}:"))
        with pytest.raises(Unavailable, match=r"not_authorized.*42501"):
            shop.step()
        run(database, f"GRANT SELECT ON orders TO {role}")
        with psycopg.connect(database) as late:  # it sees whom to wait for without any right
            late.execute("INSERT INTO orders (note) VALUES ('late')")
            run(database, "INSERT INTO orders (note) VALUES ('early')")
            assert shop.taken() == []
            late.commit()
        assert shop.taken() == [1, 2, 3]
    finally:
        run(database, f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_cursor_without_an_order_is_refused(tmp_path: Path, database: str) -> None:
    run(database, "CREATE TABLE orders (id json); INSERT INTO orders VALUES ('1')")
    with pytest.raises(Unavailable, match="type_changed"):
        Shop(tmp_path, database).step()


def test_names_are_taken_literally(tmp_path: Path, database: str) -> None:
    run(database, 'CREATE SCHEMA "S h"; CREATE TABLE "S h"."odd ""; %s" ("Id:x" int, "line" text, "%(a)s" numeric)')
    run(database, "INSERT INTO \"S h\".\"odd \"\"; %s\" VALUES (1, 'x', 2), (2, 'y', 'NaN')")
    shop = Shop(tmp_path, database, table='S h.odd "; %s', cursor="Id:x", rows=1)
    assert shop.take() == [
        {"Id:x": 1, "line": "x", "%(a)s": Decimal(2)},
        {"Id:x": 2, "line": "y", "%(a)s": "NaN"},
    ]
    with pytest.raises(Misuse, match=r"SCHEMA\.TABLE"):
        Shop(tmp_path / "other", database, table=".orders")


def test_a_table_without_a_cursor_comes_whole(tmp_path: Path, database: str) -> None:
    make_orders(database, 3)
    shop = Shop(tmp_path, database, cursor=None, key=("id",))
    assert sorted(shop.taken()) == [1, 2, 3]
    assert shop.step() is None
    run(database, "UPDATE orders SET note = 'changed' WHERE id = 2")
    assert sorted(shop.taken()) == [1, 2, 3]
