"""Every rule of a contract over the data of one object: the rows, the table as a whole, and what was promised of it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from mainstay.contract.columns import compile_columns
from mainstay.contract.quality import compile_quality
from mainstay.contract.quality_measures import QualityMeter, duplicate_keys
from mainstay.contract.rules import compile_fields
from mainstay.contract.service_facts import FactsGatherer
from mainstay.contract.service_levels import checks_of, compile_service_levels
from mainstay.contract.sql import SqlRunner
from mainstay.contract.sql_tables import TableCopy
from mainstay.contract.sql_types import SqlTable
from mainstay.contract.tables import check_table, table_files
from mainstay.contract.tables_files import scratch_folder
from mainstay.documents import nearest, shorten
from mainstay.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from mainstay.contract.quality import QualityCheck, QualityVerdict
    from mainstay.contract.service_levels import ServiceVerdict
    from mainstay.contract.tables_types import Observer, Progress, TableReport
    from mainstay.contract.types import Contract, SchemaObject

Verdict: TypeAlias = Literal["pass", "fail", "unknown"]

_PARQUET: Final = frozenset({".parquet", ".pq"})


@dataclass(frozen=True, slots=True)
class Assessment:
    """What came of it. `service_levels` are those of the object and of the contract as a whole."""

    rows: TableReport
    quality: tuple[QualityVerdict, ...]
    service_levels: tuple[ServiceVerdict, ...]

    @property
    def verdict(self) -> Verdict:
        """Fail when a row or a check fails; unknown when a check stayed open that a table could have answered."""
        checks: tuple[QualityVerdict | ServiceVerdict, ...] = (*self.quality, *self.service_levels)
        if self.rows.bad_rows or any(check.verdict == "fail" for check in checks):
            return "fail"
        return "unknown" if any(check.verdict == "unknown" and check.answerable for check in checks) else "pass"


def choose_object(contract: Contract, name: str | None) -> SchemaObject:
    """The object of a name, or the only one. Raises Misuse with the names there are."""
    names = [each.name for each in contract.schema]
    if not names:
        raise Misuse("expected a contract that describes an object, found one with an empty schema")
    if name is None and len(names) == 1:
        return contract.schema[0]
    for each in contract.schema:
        if each.name == name:
            return each
    listed = ", ".join(names)
    if name is None:
        raise Misuse(
            f"the contract has {len(names)} objects; expected the one that the data is of", hint=f"It has: {listed}."
        )
    near = nearest(name, names)
    raise Misuse(
        f"the contract has no object {shorten(name)!r}",
        hint=f"Did you mean {near}? It has: {listed}." if near else f"It has: {listed}.",
    )


def assess_table(
    contract: Contract,
    declared: SchemaObject,
    source: Path,
    *,
    clean: Path | None = None,
    bad: Path | None = None,
    now: datetime,
    progress: Callable[[Progress], None] | None = None,
) -> Assessment:
    """Hold the data of one object of a contract to all of it, at the moment `now`; the data is read once.

    Good rows go to `clean` and bad ones, with every reason, to `bad`, where these are given. Queries run afterwards, on
    the data itself or a temporary copy. Raises what `check_table` raises; a check that cannot be made is unknown.
    """
    checks = compile_quality(declared)
    validator = compile_columns(declared, duplicate_keys(checks, compile_fields(declared.properties, (), 1)))
    levels = checks_of(compile_service_levels(contract), declared.name)
    meter, gatherer = QualityMeter(checks), FactsGatherer(declared, levels)
    observers: list[Observer] = [*([meter] if checks else []), *([gatherer] if levels else [])]
    asks = any(check.query is not None for check in checks)
    copied = asks and not _is_parquet(source)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch_folder(Path(gettempdir()))) if asks else Path()
        copy = TableCopy(declared, folder)
        report = check_table(
            source, validator, clean, bad, progress, observers=[*observers, *([copy] if copied else [])]
        )
        table = SqlTable(_names(declared), copy.files if copied else report.files)
        answers = _ask(checks, table, folder)
    counted = meter.verdicts(report.rows, report.repeated)
    quality = tuple(answer or found for answer, found in zip(answers, counted, strict=True))
    facts = gatherer.facts(report.rows, report.bad_rows)
    return Assessment(
        report,
        tuple(each for each in quality if each is not None),
        tuple(level.judged(facts, now) for level in levels),
    )


def _is_parquet(source: Path) -> bool:
    """Whether DuckDB reads the files as they are."""
    return all(each.suffix.lower() in _PARQUET for each in table_files(source))


def _names(declared: SchemaObject) -> tuple[str, ...]:
    """What queries may call the object: the engine does not tell names apart by case."""
    names = {name.casefold(): name for name in (declared.physical_name, declared.name) if name}
    return tuple(names.values())


def _ask(checks: Sequence[QualityCheck], table: SqlTable, folder: Path) -> list[QualityVerdict | None]:
    with SqlRunner([table], folder) as runner:
        return [None if check.query is None else check.answered(runner.run(check.query)) for check in checks]
