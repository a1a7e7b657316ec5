"""`mainstay batch`: a table in, decisions out."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from mainstay.batch.batches import Asked, run_batch
from mainstay.batch.scheduled import run_scheduled
from mainstay.cli.calls import api_key
from mainstay.cli.common import DEFAULT, Common, columns, err, out, print_json, require
from mainstay.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mainstay.batch.batches import Reached
    from mainstay.batch.types import Summary

MAX_WORKERS = 1_024


@Parameter(name="*")
@dataclass(frozen=True)
class Rows:
    """Which rows, and how they are known."""

    key: Annotated[
        str | None, Parameter(help="The field that holds the business key; without it a row is known by its number.")
    ] = None
    version: Annotated[int | None, Parameter(help="Of a table of the lake; by default the newest.")] = None
    since: Annotated[
        int | None, Parameter(help="Of a table of the lake: only the rows that came after this version.")
    ] = None


@Parameter(name="*")
@dataclass(frozen=True)
class Way:
    """How they are decided."""

    engine: Annotated[Literal["local", "ray"], Parameter(help="Where the rows are decided.")] = "local"
    workers: Annotated[int, Parameter(help="How many processes decide.")] = 1
    new: Annotated[bool, Parameter(negative="", help="Decide all rows anew, whatever was begun or finished.")] = False


ALL_ROWS = Rows()
PLAIN = Way()


def batch(
    name: str,
    source: str | None = None,
    output: Path | None = None,
    /,
    *,
    rows: Rows = ALL_ROWS,
    way: Way = PLAIN,
    scheduled: Annotated[
        str | None, Parameter(help="Make this batch of the capability's schedule now, in place of SOURCE and OUTPUT.")
    ] = None,
    common: Common = DEFAULT,
) -> None:
    """Decide every row of a table, with the key in MAINSTAY_API_KEY; each is recorded as a call is.

    Stopped or killed, the same command goes on where it was: no row is decided twice.

    Example: mainstay batch late-arrival june.parquet decided.parquet --key flight

    Parameters
    ----------
    name
        The capability.
    source
        A file of Parquet, CSV, Arrow or JSON lines, a folder of them, or lake:intake/NAME/SOURCE.
    output
        A file that ends in .parquet or .jsonl, or a folder.
    """
    workspace = common.open()
    if not 1 <= way.workers <= MAX_WORKERS:
        raise Misuse(f"--workers: expected 1 to {MAX_WORKERS}, found {way.workers}")
    if scheduled is not None:
        if source is not None:
            raise Misuse("expected SOURCE and OUTPUT, or --scheduled, found both")
        require(workspace, name, "change")
        _tell_scheduled(run_scheduled(workspace, name, scheduled), name, scheduled, json=common.json)
        return
    if source is None or output is None:
        raise Misuse("expected SOURCE and OUTPUT", hint="Or name a batch of the schedule with --scheduled.")
    asked = Asked(name, source, output, rows.key, rows.version, rows.since, way.engine, way.workers, way.new)
    try:
        with _progress() as told:
            summary, worked = run_batch(workspace, asked, api_key(), told)
    except KeyboardInterrupt:
        err.print("stopped: the same command goes on from here")
        raise
    if common.json:
        print_json(summary)
    else:
        for line in summary_lines(summary, worked=worked):
            out.print(line, markup=False)


@contextmanager
def _progress() -> Iterator[Callable[[Reached], None]]:
    with Progress(
        TextColumn("deciding"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]}"),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    ) as bar:
        task = bar.add_task("", total=1.0, rows="")

        def told(reached: Reached) -> None:
            summary = reached.summary
            rows = f"{summary.rows:,} rows, {summary.rows_per_second:,.0f}/s"
            bar.update(task, completed=reached.share, rows=rows)

        yield told


def summary_lines(summary: Summary, *, worked: bool) -> Iterator[str]:
    """What a batch did, for people."""
    if not worked:
        yield f"finished before: nothing was decided now, and {summary.output} holds every decision"
    speed = f", {summary.rows_per_second:,.0f} a second" if worked else ""
    yield f"{summary.rows:,} rows decided by {summary.capability}, release {summary.release}{speed}"
    yield from (f"  {line}" for line in columns([(word, f"{count:,}") for word, count in summary.outcomes.items()]))
    if summary.reasons:
        yield "because"
        yield from (f"  {line}" for line in columns([(word, f"{count:,}") for word, count in summary.reasons.items()]))
    facts = [("version", summary.version), ("batch", summary.batch), ("output", summary.output)]
    if summary.first_id is not None:
        facts.append(("records", f"{summary.first_id} to {summary.last_id}"))
    yield from columns(facts)


def _tell_scheduled(summary: Summary | None, name: str, scheduled: str, *, json: bool) -> None:
    if json:
        print_json(summary)
    elif summary is None:
        out.print(f"nothing new: {name} {scheduled} has decided all that its source took in", markup=False)
    else:
        for line in summary_lines(summary, worked=True):
            out.print(line, markup=False)
