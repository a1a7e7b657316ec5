from __future__ import annotations

from pathlib import Path

import pytest
from openlineage.client.naming import dataset as theirs

from mainstay.lineage.naming import (
    database_dataset,
    described,
    file_dataset,
    own_dataset,
    table_dataset,
    url_dataset,
)

SECRET = "hunter2"


def test_names_are_those_that_the_standards_own_client_gives() -> None:
    cases = [
        (file_dataset(Path("/data/orders.csv")), theirs.LocalFileSystem("/data/orders.csv")),
        (url_dataset("/data/orders.csv"), theirs.LocalFileSystem("/data/orders.csv")),
        (url_dataset("s3://bucket/in/orders 1.csv"), theirs.S3("bucket", "in/orders 1.csv")),
        (table_dataset("s3://bucket/lake", "intake/a/b"), theirs.S3("bucket", "lake/intake/a/b")),
        (table_dataset("/srv/lake", "intake/a/b"), theirs.LocalFileSystem("/srv/lake/intake/a/b")),
        (
            database_dataset(f"postgresql+psycopg://me:{SECRET}@db.example.com/shop?sslmode=require", "orders"),
            theirs.Postgres("db.example.com", "5432", "shop", "public", "orders"),
        ),
        (
            database_dataset("postgresql://db.example.com:6543/shop", "sales.orders"),
            theirs.Postgres("db.example.com", "6543", "shop", "sales", "orders"),
        ),
    ]
    for ours, named in cases:
        assert (ours.namespace, ours.name) == (named.get_namespace(), named.get_name())


@pytest.mark.parametrize(
    "dataset",
    [
        url_dataset(f"https://me:{SECRET}@api.example.com:8443/orders?key={SECRET}#{SECRET}"),
        database_dataset(f"mysql+pymysql://me:{SECRET}@db.example.com/shop?password={SECRET}", "orders"),
        database_dataset(f"postgresql://me:{SECRET}@db.example.com/shop?password={SECRET}", "orders"),
        database_dataset(f"postgresql://me:/{SECRET}@db.example.com/shop", "orders"),
        database_dataset(f"postgresql://me:2024/{SECRET}#@db.example.com/shop", "orders"),
        database_dataset(f"postgresql://me:x@2/{SECRET}@db.example.com/shop", "orders"),
    ],
)
def test_no_name_holds_a_secret(dataset: object) -> None:
    assert SECRET not in repr(dataset)


def test_a_url_whose_password_may_end_anywhere_is_no_name() -> None:
    with pytest.raises(ValueError, match="nobody can say"):
        database_dataset(f"postgresql://me:1/?{SECRET}@db.example.com/shop", "orders")


def test_an_address_is_a_namespace_and_a_path() -> None:
    found = url_dataset("https://api.example.com:8443/v1/orders/?page=2")
    assert (found.namespace, found.name) == ("https://api.example.com:8443", "v1/orders")
    assert url_dataset("https://api.example.com").name == "/"
    assert url_dataset("http://[::1]:80/x").namespace == "http://[::1]:80"


def test_a_sqlite_table_is_named_by_its_file() -> None:
    found = database_dataset("sqlite:////srv/shop.db", "orders")
    assert (found.namespace, found.name) == ("sqlite", "/srv/shop.db/orders")


def test_what_mainstay_keeps_itself_stands_under_the_origin_of_its_ledger() -> None:
    found = own_dataset("ledger.example.com/pilots", "ledger")
    assert (found.namespace, found.name) == ("mainstay://ledger.example.com", "pilots/ledger")
    assert own_dataset("ledger.example.com", "versions", "sha256:ab").name == "versions/sha256:ab"


def test_facets_say_what_is_known_and_nothing_else() -> None:
    bare = file_dataset(Path("/a"))
    assert bare.facets == type(bare.facets)()
    full = described(bare, [("n", "Int64")], version=4)
    assert full.version == "4"
    assert full.facets.version.dataset_version == "4"  # type: ignore[union-attr]  # it is set
