from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from intake.workspaces import NAME, make_workspace
from mainstay.capability.sources import Files, Push, Rest, Secret, Source, Sql
from mainstay.intake.run_lineage import dataset_of

if TYPE_CHECKING:
    from pathlib import Path

URL = "postgresql+psycopg://me:hunter22@db.example.com/shop?password=hunter22"


@pytest.mark.parametrize(
    ("source", "namespace", "name"),
    [
        (Source(name="a", rest=Rest(url="https://api.example.com/v2/orders")), "https://api.example.com", "v2/orders"),
        (Source(name="a", files=Files(folder="s3://bucket/in")), "s3://bucket", "in"),
        (
            Source(name="a", sql=Sql(url=Secret(variable="SHOP"), table="sales.orders")),
            "postgres://db.example.com:5432",
            "shop.sales.orders",
        ),
        (
            Source(name="a", sql=Sql(url=Secret(variable="NEVER_SET"), table="orders")),
            "mainstay://tests.example.com",
            f"intake/sources/{NAME}/a",
        ),
        (Source(name="a", push=Push()), "mainstay://tests.example.com", f"intake/sources/{NAME}/a"),
    ],
)
def test_a_source_is_named_as_others_name_it_and_without_its_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Source, namespace: str, name: str
) -> None:
    monkeypatch.setenv("SHOP", URL)
    found = dataset_of(make_workspace(tmp_path / "w"), NAME, source)
    assert (found.namespace, found.name) == (namespace, name)
    assert "hunter22" not in repr(found)


def test_a_folder_is_that_of_the_workspace(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "w")
    found = dataset_of(workspace, NAME, Source(name="a", files=Files(folder="in")))
    assert (found.namespace, found.name) == ("file", str(workspace.root / "in"))
