from __future__ import annotations

from time import sleep
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from cyclopts import Parameter
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mainstay.catalog.releases import read_current
from mainstay.cli.common import DEFAULT, Common, columns, err, operator, out, print_json, record_change, require
from mainstay.errors import Misuse
from mainstay.retraining import store
from mainstay.retraining.candidate import declared_in
from mainstay.retraining.triggers import Wish
from mainstay.signing import load_verifier
from mainstay.state.database import open_database
from mainstay.state.lease import standing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.retraining.challenge import Challenge
    from mainstay.retraining.types import Request
    from mainstay.state.database import Database

POLL_SECONDS: Final = 0.5
SHORT_ID: Final = 8
SHORT_DIGEST: Final = 19
WORST_SEGMENTS: Final = 5

_SAID: Final = {
    "better": "better: it enters as a shadow",
    "not_better": "not better: refused",
    "unknown": "unknown: refused",
    "same": "the same version as before",
    "failed": "failed",
    "withdrawn": "taken back",
}


def request(
    name: str,
    /,
    *,
    reason: Annotated[str, Parameter(help="Why; recorded.")],
    wait: Annotated[bool, Parameter(negative="", help="Wait until the run has ended.")] = False,
    common: Common = DEFAULT,
) -> int:
    """Ask for a challenger: the control process freezes rows, trains, and compares it with the version in force.

    Exits with 1 when the run failed or made nothing better, where it is waited for.

    Example: mainstay retraining request late-arrival --reason "summer schedule" --wait

    Parameters
    ----------
    name
        The capability.
    """
    workspace = common.open()
    require(workspace, name, "change")
    declared_in(workspace, read_current(workspace.releases, name, load_verifier(workspace.keys)).version)
    if not reason.strip():
        raise Misuse("retraining is asked for with a reason: expected why, found nothing")
    with open_database(workspace) as database:
        steered = _steered(database)
        if wait and not steered:
            raise Misuse(
                "nobody steers this workspace: expected a control process to run what is asked for",
                hint="Start it with `mainstay up` or `mainstay control`, or ask without --wait.",
            )
        asked, is_new = store.ask(database, name, Wish("by_hand", reason.strip(), ()), operator())
        if not is_new:
            raise Misuse(
                f"{name} has a request already, {asked.id[:SHORT_ID]}, which is {asked.status}",
                hint=f"Look at it: mainstay retraining show {asked.id[:SHORT_ID]}",
            )
        record_change(workspace, "retraining.requested", f"{name}/{asked.id}", reason, msgspec.to_builtins(asked))
        if wait:
            asked = _wait(database, asked)
        elif not steered:
            err.print("nobody steers this workspace now: it runs when `mainstay up` or `mainstay control` does")
    _show(asked, json=common.json)
    return 0 if not wait or asked.ending in ("better", "same") else 1


def list_requests(
    name: Annotated[str | None, Parameter(help="A capability; by default all.")] = None,
    /,
    *,
    limit: Annotated[int, Parameter(help="How many, the newest first.")] = 20,
    common: Common = DEFAULT,
) -> None:
    """List what was asked for and what came of it, the newest first.

    Example: mainstay retraining list late-arrival
    """
    workspace = common.open()
    with open_database(workspace) as database:
        found = store.requests_of(database, name, limit)
    if common.json:
        print_json(found)
        return
    if not found:
        out.print("nothing has asked for retraining" if name is None else f"{name}: nothing has asked for retraining")
        return
    rows = [["REQUEST", "ASKED", "CAPABILITY", "BY", "CAUSE", "STATUS", "WHAT CAME OF IT"]]
    rows += [
        [
            each.id[:SHORT_ID],
            f"{each.asked_at:%Y-%m-%dT%H:%MZ}",
            each.capability,
            each.asked_by,
            each.cause,
            each.ending or each.status,
            each.why or each.reason,
        ]
        for each in found
    ]
    for line in columns(rows):
        out.print(line, markup=False)


def show(request_id: str, /, *, common: Common = DEFAULT) -> None:
    """One request: who or what asked, the rows, the challenger, and how it did beside the champion.

    Example: mainstay retraining show 8c2f6e1a

    Parameters
    ----------
    request_id
        Its id, or the beginning of it.
    """
    with open_database(common.open()) as database:
        found = store.find(database, request_id)
    _show(found, json=common.json)


def withdraw(
    name: str, /, *, reason: Annotated[str, Parameter(help="Why; recorded.")], common: Common = DEFAULT
) -> None:
    """Take back a request that no run has taken yet.

    Example: mainstay retraining withdraw late-arrival --reason "the feed is not mended"

    Parameters
    ----------
    name
        The capability.
    """
    workspace = common.open()
    require(workspace, name, "change")
    with open_database(workspace) as database:
        found = store.withdraw(database, name, reason)
    record_change(workspace, "retraining.withdrawn", f"{name}/{found.id}", reason, msgspec.to_builtins(found))
    _show(found, json=common.json)


def _wait(database: Database, asked: Request) -> Request:
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err, transient=True
    ) as bar:
        task = bar.add_task("waiting for the control process", total=None)
        while asked.status in ("open", "running"):
            sleep(POLL_SECONDS)
            asked = store.find(database, asked.id)
            bar.update(task, description=_step(asked))
    return asked


def _step(asked: Request) -> str:
    if asked.status == "open":
        return "waiting for the control process"
    if asked.frozen is None:
        return "freezing rows"
    if asked.trained is None:
        return "training"
    return "comparing with the version in force"


def _steered(database: Database) -> bool:
    found = standing(database)
    return found is not None and found.seconds_left > 0


def _show(found: Request, *, json: bool) -> None:
    if json:
        print_json(found)
        return
    for line in _lines(found):
        out.print(line, markup=False)


def _lines(found: Request) -> Iterator[str]:
    yield f"request     {found.id}"
    yield f"capability  {found.capability}"
    yield f"asked       {found.asked_at:%Y-%m-%dT%H:%M:%SZ} by {found.asked_by}: {found.cause}, {found.reason}"
    for finding in (*found.findings, *found.barred_by):
        yield f"finding     {finding}"
    if found.frozen is not None:
        yield f"rows        snapshot {', '.join(found.frozen.snapshots)}"
    if found.trained is not None:
        trained = found.trained
        yield f"fitted to   {trained.fitted:,} rows, {trained.since:%Y-%m-%d} to {trained.split:%Y-%m-%d}"
        yield f"held out    {trained.held_out:,} rows until {trained.until:%Y-%m-%d}"
        yield f"challenger  {trained.version}{'' if trained.is_new else ', which was there before'}"
    if found.challenge is not None:
        yield from _challenge_lines(found.challenge)
    if found.rollout is not None:
        yield f"rollout     {found.rollout}"
    yield f"status      {_SAID.get(found.ending or '', found.status)}{_ago(found)}"
    if found.why:
        yield f"because     {found.why}"


def _challenge_lines(challenge: Challenge) -> Iterator[str]:
    name = challenge.metric if challenge.top is None else f"{challenge.metric}@{challenge.top}"
    if challenge.better is None or challenge.champion is None or challenge.challenger is None:
        yield f"compared    {challenge.rows:,} rows by {name}, which cannot decide"
        return
    better = challenge.better
    yield (
        f"{name:<11} {challenge.champion:.4f} now, {challenge.challenger:.4f} retrained: better by"
        f" {better.value:+.4f} ({better.low:+.4f} to {better.high:+.4f} at {challenge.level:.0%})"
    )
    judged = [each for each in challenge.segments if each.better is not None and each.verdict != "unknown"]
    for each in sorted(judged, key=lambda segment: segment.better.value if segment.better else 0.0)[:WORST_SEGMENTS]:
        assert each.better is not None, "those without were left out"
        mark = "LOSES" if each.verdict == "loses" else "holds"
        yield f"  {mark}  {each.column}={each.value}, {each.rows:,} rows: {each.better.value:+.4f}"


def _ago(found: Request) -> str:
    if found.ended_at is None or found.began_at is None:
        return ""
    return f", after {(found.ended_at - found.began_at).total_seconds():.0f} s"
