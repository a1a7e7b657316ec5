"""What datasets are called, so that others who read or write them call them the same (OpenLineage, `spec/Naming.md`).

A namespace is where a dataset stands, as `scheme:[//authority]`, and its name the path there. No name holds a user, a
password or a query: any of them may be a secret.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from msgspec import UNSET, Struct, structs

from mainstay.lineage.events import (
    Column,
    ColumnLineageFacet,
    DatasetFacets,
    DataSourceFacet,
    InputField,
    MadeFrom,
    SchemaFacet,
    VersionFacet,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_PORTS: Final = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433, "oracle": 1521}
_SCHEMES: Final = {"postgresql": "postgres"}


class Dataset(Struct, frozen=True):
    """A dataset that a run reads or writes, and what is known of it."""

    namespace: str
    name: str
    columns: tuple[tuple[str, str], ...] = ()  # names and types; empty: not known
    version: str | None = None  # of its content; None where there is none
    source: DataSourceFacet | None = None
    copied_from: tuple[str, str] | None = None  # namespace and name of what its columns are copies of

    @property
    def facets(self) -> DatasetFacets:
        """What is known of it, as an event has it."""
        columns = tuple(Column(name, kind) for name, kind in self.columns)
        return DatasetFacets(
            schema=SchemaFacet(fields=columns) if columns else UNSET,
            version=UNSET if self.version is None else VersionFacet(dataset_version=self.version),
            data_source=UNSET if self.source is None else self.source,
            column_lineage=UNSET if self.copied_from is None else self._copied(*self.copied_from),
        )

    def _copied(self, namespace: str, name: str) -> ColumnLineageFacet:
        return ColumnLineageFacet(
            fields={
                column: MadeFrom(input_fields=(InputField(namespace=namespace, name=name, field=column),))
                for column, _ in self.columns
            }
        )


def file_dataset(path: Path) -> Dataset:
    """A file or folder of this machine."""
    return Dataset("file", str(path.absolute()))


def url_dataset(url: str) -> Dataset:
    """What stands behind a URL: http(s)://HOST/PATH, s3://BUCKET/KEY, or a path of this machine."""
    if "://" not in url:
        return file_dataset(Path(url))
    parts = urlsplit(url)
    namespace = f"{parts.scheme}://{_authority(parts.hostname or '', parts.port)}"
    name = unquote(parts.path) if parts.scheme == "s3" else parts.path
    return Dataset(namespace, name.strip("/") or "/")


def table_dataset(lake: str, name: str) -> Dataset:
    """A table of a lake that stands at `lake`, a folder or s3://BUCKET/FOLDER."""
    return url_dataset(f"{lake}/{name}")


def database_dataset(url: str, table: str) -> Dataset:
    """A table of a database, by an SQLAlchemy URL of which nothing but the place is kept.

    Of PostgreSQL a table without its schema stands in `public`. A SQLite database is a file, and its table a part of
    its name; the standard has no rule for it. Raises ValueError for what is no such URL.
    """
    scheme, _, rest = url.partition("://")
    kind = scheme.partition("+")[0].lower()
    if kind == "sqlite":
        path = rest.partition("?")[0].removeprefix("/")
        return Dataset("sqlite", f"{Path(path).absolute()}/{table}")
    user, _, place = rest.rpartition("@")  # SQLAlchemy takes any character in a password, which other URLs do not
    if "?" in user:
        raise ValueError("a URL of which nobody can say where its password ends")
    parts = urlsplit(f"//{place}")
    database = unquote(parts.path).strip("/")
    authority = _authority(parts.hostname or "localhost", parts.port or _PORTS.get(kind))
    qualified = f"public.{table}" if kind in {"postgresql", "postgres"} and "." not in table else table
    return Dataset(f"{_SCHEMES.get(kind, kind)}://{authority}", f"{database}.{qualified}")


def described(dataset: Dataset, columns: Iterable[tuple[str, str]], *, version: int | str | None = None) -> Dataset:
    """The same dataset, with what is known of it."""
    return structs.replace(dataset, columns=tuple(columns), version=None if version is None else str(version))


def own_dataset(log: str, *path: str) -> Dataset:
    """Something that Mainstay itself keeps, by the origin of the ledger of its installation."""
    host, _, rest = log.partition("/")
    return Dataset(f"mainstay://{host}", "/".join([*([rest] if rest else []), *path]))


def _authority(host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"
