from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mainstay.capability.words import Name
from mainstay.cli.common import DEFAULT, Common, err, out, print_json, require_sight
from mainstay.errors import Misuse
from mainstay.files import write_atomic
from mainstay.lake.lake import open_lake
from mainstay.monitoring.passes import Monitor
from mainstay.monitoring.report import gather
from mainstay.monitoring.report_lines import lines_of
from mainstay.monitoring.report_page import page_of
from mainstay.monitoring.store import read_memory
from mainstay.state.database import open_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.monitoring.report import Report


def monitor(
    name: Name,
    /,
    *,
    since: Annotated[
        str | None, Parameter(help="How far back: days such as 7, or an instant such as 2026-03-01; else 30 windows.")
    ] = None,
    html: Annotated[Path | None, Parameter(help="Write the report to this file, as one page with plots.")] = None,
    common: Common = DEFAULT,
) -> None:
    """Is it still as it was? Count what is new, judge what is complete, and tell what was found, the worst first.

    Example: mainstay monitor late-arrival --since 7 --html report.html
    """
    workspace = common.open()
    require_sight(workspace, name)
    lake = open_lake(workspace)
    with open_database(workspace) as database:
        with _progress(name):
            Monitor(workspace, lake, database, name).go()
        memory = read_memory(database, name)
        newest = datetime.now(UTC) if memory is None or memory.judged_until is None else memory.judged_until
        report = gather(workspace, lake, database, name, None if since is None else _instant(since, newest))
    if html is not None:
        write_atomic(html.absolute(), page_of(report).encode(), mode=0o644)
    if common.json:
        print_json(report)
    else:
        _show(report, html)


def _show(report: Report, html: Path | None) -> None:
    colours = {"CRITICAL": "bold red", "WARNING": "yellow", "OK": "green"}
    for line in lines_of(report):
        style = colours.get(line.partition(" ")[0])
        out.print(line, markup=False, style=style)
    if html is not None:
        out.print(f"\nwritten: {html}", markup=False)


def _instant(text: str, newest: datetime) -> datetime:
    """Days before the newest window, or an instant (RFC 3339; UTC where it says no offset). Raises Misuse."""
    try:
        days = float(text)
    except ValueError:
        pass
    else:
        if not 0 < days <= 36_500:
            raise Misuse(f"--since {text}: expected days above 0 and up to 36,500, or an instant such as 2026-03-01")
        return newest - timedelta(days=days)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Misuse(f"--since {text[:80]!r}: expected days such as 7, or an instant such as 2026-03-01") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


@contextmanager
def _progress(name: str) -> Iterator[None]:
    """Say on standard error, where a person looks, that it goes on."""
    columns = (SpinnerColumn(), TextColumn("counting and judging {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        progress.add_task(name)
        yield
