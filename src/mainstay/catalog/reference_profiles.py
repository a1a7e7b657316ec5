"""What ordinary input looks like, column by column, as rows of a table `profiles/CAPABILITY`.

A version that brought reference rows has a row there for each of its input fields that a model may take: how many rows,
how many without a value, and the shares of bins. A number's bins lie between `edges`, which are tenths of the reference
rows where these differ; the last bin holds its upper edge. A text or boolean has a bin for each of `levels`, and texts
one more for all others. The shares of all bins are of all rows, so that with those without a value they make one. Of a
classified field the bins have neither edges nor levels, because these are values of somebody.
"""

from __future__ import annotations

import logging
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from mainstay.catalog.declared import load_declared
from mainstay.catalog.reference import read_reference
from mainstay.catalog.samples import features_of
from mainstay.catalog.versions import digest_of, load_manifest, read_bounded, stored_digests, version_path
from mainstay.contract.rules import is_classified
from mainstay.errors import Damaged, MainstayError
from mainstay.lineage.naming import described, own_dataset, table_dataset

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mainstay.capability.load import Declared
    from mainstay.catalog.types import Digest
    from mainstay.lake.lake import Lake
    from mainstay.lineage.emitting import Emitter
    from mainstay.runtime.types import Feature
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.lake")

PREFIX: Final = "profiles/"
WRITER: Final = "versions"
JOB: Final = "lake.profiles"
BINS: Final = 10
MOST_LEVELS: Final = 64
FEWEST_ROWS: Final = 2  # that share a text which is named; a text of one row may name somebody
MOST_CHARACTERS: Final = 256  # of a level

SCHEMA: Final = pl.Schema(
    {
        "version": pl.String(),
        "column": pl.String(),
        "kind": pl.String(),  # number, integer, boolean or string
        "rows": pl.Int64(),
        "missing": pl.Int64(),
        "edges": pl.List(pl.Float64()),
        "levels": pl.List(pl.String()),
        "shares": pl.List(pl.Float64()),
        "exported_at": pl.Datetime("us", "UTC"),
    }
)


class ProfileExporter:
    """Puts the profile of each version into its table once. An object is for one thread."""

    def __init__(self) -> None:
        self._seen: set[Digest] = set()

    def __call__(self, workspace: Workspace, lake: Lake, emitter: Emitter) -> None:
        """Export the versions that are not there yet. One that cannot be read is logged, and tried by the next process.

        Raises Failed when the storage refuses.
        """
        for version in stored_digests(workspace.versions):
            if version not in self._seen:
                self._export(workspace, lake, emitter, version)
                self._seen.add(version)

    def _export(self, workspace: Workspace, lake: Lake, emitter: Emitter, version: Digest) -> None:
        try:
            capability = load_manifest(workspace.versions, version).capability
        except (MainstayError, OSError) as error:
            logger.warning("no profile of version %s: %s", version, error)
            return
        name = PREFIX + capability
        table = lake.find(name)
        if table is not None and _has(table.frame(), version):
            return
        try:
            rows = profile_of(workspace, version)
        except (MainstayError, OSError) as error:
            logger.warning("no profile of version %s: %s", version, error)
            return
        if not rows.height:
            return
        table = table or lake.create(name, SCHEMA)
        reached = table.refresh().position(WRITER)
        if _has(table.frame(), version):  # another process was faster
            return
        source = own_dataset(workspace.settings.log, "versions", version)
        with emitter.run(JOB, inputs=[source]) as run:
            table.append(
                rows,
                writer=WRITER,
                position=(reached or 0) + 1,
                previous=-1 if reached is None else reached,
                metadata={"version": version},
            )
            place = table_dataset(lake.location.root, name)
            columns = ((column, str(kind)) for column, kind in SCHEMA.items())
            run.wrote(described(place, columns, version=table.version), rows=rows.height)


def profile_of(workspace: Workspace, version: Digest) -> pl.DataFrame:
    """The rows of a version, none where it brought no reference rows.

    Raises Misuse when there is no such version, Damaged when it is not what was registered.
    """
    stored = load_manifest(workspace.versions, version).reference
    if stored is None:
        return pl.DataFrame(schema=SCHEMA)
    declared = load_declared(workspace, version)
    path = version_path(workspace.versions, version) / stored.path
    content = read_bounded(path, stored.bytes)
    if digest_of(content) != stored.digest:
        raise Damaged(f"{path}: expected the reference rows that were registered, found other content")
    inputs = read_reference(content, str(path), declared).inputs
    exported_at = datetime.now(UTC)
    found = [
        {"version": version, "exported_at": exported_at, **_column(declared, feature, inputs)}
        for feature in features_of(declared)
    ]
    return pl.DataFrame(found, schema=SCHEMA)


def _column(declared: Declared, feature: Feature, inputs: Sequence[Sequence[Any]]) -> dict[str, Any]:
    place = declared.input.fields.index(feature.name)
    values = [row[place] for row in inputs if row[place] is not None]
    edges: list[float] | None = None
    levels: list[str] | None = None
    if feature.kind in {"number", "integer"}:
        edges, counts = _bins(values)
    else:
        levels, counts = _levels(values, others=feature.kind == "string")
    if is_classified(next(each for each in declared.input.properties if each.name == feature.name)):
        edges = levels = None
    return {
        "column": feature.name,
        "kind": feature.kind,
        "rows": len(inputs),
        "missing": len(inputs) - len(values),
        "edges": edges,
        "levels": levels,
        "shares": [count / len(inputs) for count in counts],
    }


def _bins(values: Sequence[float]) -> tuple[list[float], list[int]]:
    """Edges between tenths, each once, and how many values lie between each two. One value alone has two equal ones."""
    if not values:
        return [], []
    numbers = np.array(values, np.float64)
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, BINS + 1), method="nearest"))
    if len(edges) == 1:
        return [float(edges[0])] * 2, [len(numbers)]
    counts, _ = np.histogram(numbers, edges)
    return edges.tolist(), counts.tolist()


def _levels(values: Iterable[Any], *, others: bool) -> tuple[list[str], list[int]]:
    """The most frequent values, and how many rows have each; with `others`, how many have any other at the end."""
    counts = Counter(str(value).lower() if isinstance(value, bool) else str(value) for value in values)
    named = [
        (level, count)
        for level, count in sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:MOST_LEVELS]
        if not others or (count >= FEWEST_ROWS and len(level) <= MOST_CHARACTERS)
    ]
    rest = [counts.total() - sum(count for _, count in named)] if others else []
    return [level for level, _ in named], [count for _, count in named] + rest


def _has(rows: pl.LazyFrame, version: Digest) -> bool:
    return rows.filter(pl.col("version") == version).select("version").head(1).collect().height > 0
