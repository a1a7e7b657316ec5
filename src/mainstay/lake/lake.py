"""The lake: which tables there are, and how one is made.

A bucket cannot be asked for its folders, so the names of the tables stand in a table themselves, written before the
table that they name. A name whose table was never made, because its maker was killed, is passed over.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import polars as pl
from deltalake import DeltaTable
from deltalake import Schema as DeltaSchema

from mainstay.errors import Failed, Misuse
from mainstay.lake.commits import Notes, properties_of, translated
from mainstay.lake.durable import make_durable
from mainstay.lake.location import check_name, find_location
from mainstay.lake.schemas import differences, storable
from mainstay.lake.tables import PROPERTIES, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mainstay.workspace import Workspace

REGISTRY: Final = "tables"
MOST_STATISTICS: Final = 32  # columns that engines keep statistics of by themselves, the first ones

_OURS: Final = "mainstay_"  # how columns begin that we add to those of a contract, and look rows up by
_PLAIN_NAME: Final = re.compile(r"\w+", re.ASCII)

_REGISTRY_SCHEMA: Final = pl.Schema({"name": pl.String(), "created_at": pl.Datetime("us", "UTC")})


def open_lake(workspace: Workspace) -> Lake:
    """The lake of a workspace. Raises Misuse when its setting is no place for one."""
    place = workspace.settings.lake
    if not place:
        return Lake(workspace.data / "lake")
    return Lake(place if "://" in place else workspace.root / place)


class Lake:
    """The tables at one place. It holds nothing open."""

    def __init__(self, location: str | Path, environment: Mapping[str, str] = os.environ) -> None:
        """A folder, made when the first table is, or s3://BUCKET/FOLDER. Raises Misuse when it is neither.

        How to reach the bucket (endpoint, region, credentials) is said by the AWS_* variables in `environment`.
        """
        self.location = find_location(location, environment)

    def create(
        self,
        name: str,
        schema: pl.Schema,
        *,
        partition_by: Sequence[str] = (),
        properties: Mapping[str, str] | None = None,
    ) -> Table:
        """The table of this name, made when there is none. It is one table, however many make it at once.

        Raises Misuse when there is one with other columns or partitions, or no table can have these.
        """
        kept = storable(schema)
        found = self.find(name)
        if found is None:
            if name != REGISTRY:
                self._register(name)
            found = self._make(name, kept, partition_by, properties or {})
        changes = differences(found.schema, kept)
        if changes or changes.refused or list(partition_by) != found.partition_by:
            raise Misuse(
                f"table {name}: it exists with the columns {dict(found.schema)} in partitions by {found.partition_by};"
                f" expected {dict(kept)} by {list(partition_by)}",
                hint="Change its columns with `Table.evolve`; its partitions cannot be changed.",
            )
        return found

    def table(self, name: str) -> Table:
        """Raises Misuse when there is no such table."""
        return Table(self.location, name)

    def find(self, name: str) -> Table | None:
        """The table of this name, or None. Raises Failed when the storage does not answer."""
        uri = self.location.uri(check_name(name))
        try:
            with translated(f"table {name}"):
                there = DeltaTable.is_deltatable(uri, self.location.options or None)
        except Misuse:
            return None
        return Table(self.location, name) if there else None

    def names(self, prefix: str = "") -> list[str]:
        """The tables whose names begin so, by name."""
        registry = self.find(REGISTRY)
        if registry is None:
            return []
        known = registry.frame().select("name").collect()["name"].unique().sort().to_list()
        return [name for name in known if name.startswith(prefix) and self.find(name) is not None]

    def _register(self, name: str) -> None:
        registry = self.create(REGISTRY, _REGISTRY_SCHEMA)
        row = pl.DataFrame({"name": [name], "created_at": [datetime.now(UTC)]}, schema=_REGISTRY_SCHEMA)
        made = False
        while not made:  # somebody else may take the position
            position = (registry.refresh().position("names") or 0) + 1
            made = registry.append(row, writer="names", position=position).made

    def _make(self, name: str, schema: pl.Schema, partition_by: Sequence[str], properties: Mapping[str, str]) -> Table:
        try:
            with translated(f"table {name}"):
                DeltaTable.create(
                    self.location.uri(name),
                    DeltaSchema.from_arrow(schema),
                    partition_by=list(partition_by),
                    configuration={**PROPERTIES, **_statistics(schema), **properties},
                    raise_if_key_not_exists=False,
                    storage_options=self.location.options or None,
                    commit_properties=properties_of(Notes()),
                )
        except (Failed, Misuse) as error:
            found = self.find(name)  # somebody else made it meanwhile
            if found is None:
                raise Failed(f"table {name}: none can be made in {self.location.root}: {error.message}") from None
            return found
        if self.location.is_local:
            make_durable(self.location.path(name), 0, 0)
        return Table(self.location, name)


def _statistics(schema: pl.Schema) -> dict[str, str]:
    """What of a wide table files say the least and greatest value of: our columns, which may stand last, and others."""
    if sum(map(_width, schema.values())) <= MOST_STATISTICS:
        return {}
    plain = [name for name, kind in schema.items() if _PLAIN_NAME.fullmatch(name) and not kind.is_nested()]
    ours_first = sorted(plain, key=lambda name: not name.startswith(_OURS))
    return {"delta.dataSkippingStatsColumns": ",".join(ours_first[:MOST_STATISTICS])} if plain else {}


def _width(kind: pl.DataType) -> int:
    """How many columns of plain values a column is."""
    if isinstance(kind, pl.Struct):
        return sum(
            _width(field.dtype if isinstance(field.dtype, pl.DataType) else field.dtype()) for field in kind.fields
        )
    return 1
