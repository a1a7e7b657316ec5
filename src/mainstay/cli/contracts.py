from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from mainstay.cli.common import columns, err, out, print_json
from mainstay.cli.contract_files import contract_file
from mainstay.contract.assessment import assess_table, choose_object
from mainstay.contract.durations import parse_moment
from mainstay.contract.load import load_contract
from mainstay.documents import shorten
from mainstay.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mainstay.contract.assessment import Assessment
    from mainstay.contract.quality import QualityVerdict
    from mainstay.contract.service_levels import ServiceVerdict
    from mainstay.contract.tables_types import Progress as Reached
    from mainstay.contract.tables_types import RuleCount
    from mainstay.contract.types import Contract

_EXAMPLES = 3  # rows shown of each rule
_WORDS = 60  # characters of what a rule expects


def check(
    contract: Path,
    data: Path,
    /,
    *,
    object_: Annotated[
        str | None,
        Parameter(name="--object", help="The object of the contract that the data is of, where it has several."),
    ] = None,
    clean: Annotated[Path | None, Parameter(help="Write the good rows here, as Parquet.")] = None,
    bad: Annotated[
        Path | None, Parameter(help="Write the bad rows here, as Parquet, each with every rule that it breaks.")
    ] = None,
    now: Annotated[
        str | None, Parameter(help="The moment at which service levels are judged, such as 2026-03-01T06:00:00Z.")
    ] = None,
    json: Annotated[bool, Parameter(negative="", help="Print facts as JSON.")] = False,
) -> int:
    """Hold data to every rule of a contract: its rows, its quality checks, its service levels.

    The exit code is 1 when anything fails, or stays unknown although a table could have answered it.

    Example: mainstay contract check contract.odcs.yaml orders.parquet --bad bad.parquet

    Parameters
    ----------
    contract
        A contract, or a capability folder whose contract is meant.
    data
        A file of Parquet, CSV, Arrow or JSON lines, or a folder of them.
    """
    moment = _moment(now)
    declared = load_contract(contract_file(contract))
    owner = choose_object(declared, object_)
    with Progress(
        TextColumn("checking"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), console=err, transient=True
    ) as bar:
        task = bar.add_task("", total=1.0)

        def show(reached: Reached) -> None:
            bar.update(task, completed=reached.share)

        found = assess_table(declared, owner, data, clean=clean, bad=bad, now=moment, progress=show)
    if json:
        print_json(_facts(declared, found, moment))
    else:
        for line in report_lines(declared, found, moment):
            out.print(line, markup=False)
    return 0 if found.verdict == "pass" else 1


def _moment(given: str | None) -> datetime:
    if given is None:
        return datetime.now(UTC)
    try:
        return parse_moment(given)
    except ValueError as error:
        raise Misuse(f"--now: {error}") from None


def _facts(contract: Contract, found: Assessment, now: datetime) -> dict[str, Any]:
    return {
        "contract": {"id": contract.id, "name": contract.name, "version": contract.version},
        "object": found.rows.object,
        "now": now,
        "verdict": found.verdict,
        "rows": msgspec.to_builtins(found.rows, enc_hook=str),
        "quality": found.quality,
        "service_levels": found.service_levels,
    }


def report_lines(contract: Contract, found: Assessment, now: datetime) -> Iterator[str]:
    """What was found, for people."""
    rows = found.rows
    yield f"{contract.name or contract.id} {contract.version}, object {rows.object}"
    yield f"{_counted(rows.rows, 'row')} in {_named(rows.files)}, {rows.bad_rows:,} of them bad"
    if rows.counts:
        yield from ("", "rules of a row")
        yield from _indented([["broken", "field", "rule", "expected", "found in"], *map(_rule_row, rows.counts)])
    if rows.uncounted:
        yield f"  and {rows.uncounted:,} more in further fields"
    if found.quality:
        yield from ("", "quality")
        yield from _indented([_quality_row(each) for each in found.quality])
    if found.service_levels:
        yield from ("", f"service levels at {_short(now)}")
        yield from _indented([_level_row(each) for each in found.service_levels])
    yield ""
    for what, path in (("good", rows.clean), ("bad", rows.bad)):
        if path is not None:
            count = rows.bad_rows if what == "bad" else rows.clean_rows
            yield f"{_counted(count, f'{what} row')} in {path}"
    yield _conclusion(found)


def _indented(table: Sequence[Sequence[str]]) -> Iterator[str]:
    for line in columns(table):
        yield f"  {line}"


def _rule_row(count: RuleCount) -> list[str]:
    shown = [f"row {each.row:,}: {each.found}" for each in count.examples[:_EXAMPLES]]
    more = count.count - len(shown)
    places = ", ".join([*shown, *([f"{more:,} more"] if more > 0 else [])])
    expected = shorten(count.examples[0].expected, _WORDS) if count.examples else ""
    return [f"{count.count:,}", count.field, count.rule, expected, places]


def _quality_row(check: QualityVerdict) -> list[str]:
    name = check.name or check.id or check.metric or check.description or check.kind
    where = "the table" if check.field == "$" else check.field
    if check.verdict == "unknown":
        said = check.reason
    else:
        said = f"{_number(check.observed)}{_measured(check)}; must be {check.required}"
    severity = f" ({check.severity})" if check.severity and check.verdict == "fail" else ""
    return [check.verdict, where, shorten(name, _WORDS), said + severity]


def _measured(check: QualityVerdict) -> str:
    """The unit of what was counted, and of how many where that is not all."""
    if check.count is None or check.places is None:
        return ""
    if check.metric == "rowCount":
        return " rows"
    return f" percent ({check.count:,} of {check.places:,})" if check.unit == "percent" else f" of {check.places:,}"


def _number(value: Any) -> str:
    """A number, or a truth value, which is one to Python."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def _level_row(level: ServiceVerdict) -> list[str]:
    said = [level.observed, level.reason, f"promised: {level.required}" if level.required else ""]
    return [level.verdict, level.element or "the contract", level.property, "; ".join(filter(None, said))]


def _conclusion(found: Assessment) -> str:
    checks: list[QualityVerdict | ServiceVerdict] = [*found.quality, *found.service_levels]
    failed = sum(each.verdict == "fail" for each in checks)
    unknown = sum(each.verdict == "unknown" and each.answerable for each in checks)
    elsewhere = sum(each.verdict == "unknown" and not each.answerable for each in checks)
    parts = [f"{_counted(found.rows.bad_rows, 'bad row')}"]
    parts += [f"{failed:,} of {_counted(len(checks), 'check')} failed"] if checks else []
    parts += [f"{unknown:,} unknown"] if unknown else []
    parts += [f"{elsewhere:,} that no table can answer"] if elsewhere else []
    return f"{found.verdict}: {', '.join(parts)}"


def _named(files: Sequence[str]) -> str:
    return files[0] if len(files) == 1 else _counted(len(files), "file")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _short(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
