from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mainstay.capability.load import load_capability
from mainstay.catalog.releases import capabilities_with_releases
from mainstay.cli.common import (
    DEFAULT,
    Common,
    columns,
    err,
    operator,
    out,
    print_json,
    require,
    signing_key,
)
from mainstay.errors import Misuse
from mainstay.intake.declared import Declarations, sources_in_force
from mainstay.intake.findings import severity_of
from mainstay.intake.holding import release_source
from mainstay.intake.runs import Means, Run
from mainstay.intake.standing import Standing, standing_of
from mainstay.intake.state import state_of
from mainstay.lineage.emitting import Emitter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mainstay.intake.pacing import Ran
    from mainstay.intake.state import Found
    from mainstay.workspace import Workspace

WAIT_SECONDS = 30.0  # for a run that is under way
SHOWN_FINDINGS = 8  # of a source

Lines = list[str]


def run(name: str, source: str | None = None, /, *, common: Common = DEFAULT) -> int:
    """Run the sources of a capability once, now: fetch what is new and take it through the door.

    Exits with 1 when a source failed or is held.

    Example: mainstay intake run late-arrival months

    Parameters
    ----------
    name
        The capability.
    source
        One of its sources; by default all.
    """
    workspace = common.open()
    in_force = sources_in_force(workspace, name)
    chosen = in_force.capability.sources if source is None else (in_force.source(source),)
    if not chosen:
        raise Misuse(f"{name}: expected a capability with sources, found none in its declaration")
    emitter = Emitter(workspace)
    means = Means(workspace, signing_key(workspace), emitter)
    ran = []
    for each in chosen:
        with (
            _progress(each.name) as tell,
            state_of(workspace.data, name, each.name).running(timeout_seconds=WAIT_SECONDS),
        ):
            ran.append(Run(means, in_force, each, on_progress=tell).go())
    emitter.close()
    if common.json:
        print_json({"runs": ran})
    else:
        for done in ran:
            for line in _ran_lines(done):
                out.print(line, markup=False)
    return 1 if any(done.failed or done.held for done in ran) else 0


def status(name: str | None = None, /, *, common: Common = DEFAULT) -> None:
    """How sources are: when the last records came, what became of them, what waits, what was found.

    Example: mainstay intake status late-arrival

    Parameters
    ----------
    name
        A capability; by default all.
    """
    workspace = common.open()
    declared = Declarations(workspace).look() if name is None else {name: sources_in_force(workspace, name)}
    found = [
        standing_of(workspace, in_force, each)
        for _, in_force in sorted(declared.items())
        for each in in_force.capability.sources
    ]
    if common.json:
        print_json({"sources": found})
        return
    if not found:
        out.print("no capability declares a source" if name is None else f"{name} declares no source", markup=False)
        return
    for line in _status_lines(found):
        out.print(line, markup=False)


def release(
    name: str,
    source: str,
    /,
    *,
    reason: Annotated[str, Parameter(help="Why it may go on; recorded.")],
    refuse: Annotated[
        bool, Parameter(negative="", help="Keep the held item out: all its rows go into quarantine.")
    ] = False,
    common: Common = DEFAULT,
) -> None:
    """Let a held source go on, and its capability answer by its model again.

    The item that was held comes in, bad rows apart, or is kept out with --refuse. Those behind it are judged as any.

    Example: mainstay intake release late-arrival months --reason "the carrier sent the month again, in miles"

    Parameters
    ----------
    name
        The capability.
    source
        The source that is held.
    """
    workspace = common.open()
    _require_change(workspace, name)
    released = release_source(
        workspace, name, source, reason=reason, principal=operator(), key=signing_key(workspace), refuse=refuse
    )
    if common.json:
        print_json(released)
        return
    fate = "kept out: its rows go into quarantine" if refuse else "let in"
    what = "nothing waits" if released.item is None else f"item {released.item} is {fate}"
    out.print(f"{name}/{source} goes on; {what}; {_number(released.waiting, 'item')} behind it", markup=False)
    out.print(f"recorded as {released.entry}")


def _require_change(workspace: Workspace, name: str) -> None:
    """Raises Misuse unless the policies let whoever runs this change the capability."""
    released = name in capabilities_with_releases(workspace.releases)
    candidate = None if released else load_capability(workspace.capabilities / name)
    require(workspace, name, "change", candidate=candidate)


@contextmanager
def _progress(source: str) -> Iterator[Callable[[str], None]]:
    if not err.is_terminal:
        yield lambda _: None
        return
    shown = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*shown, console=err, transient=True) as bar:
        task = bar.add_task(source)
        yield lambda words: bar.update(task, description=f"{source}: {words}")


# For people


def _ran_lines(ran: Ran) -> Lines:
    rows = ran.counts
    took = f"{_number(ran.landed, 'item')} landed, {_number(rows.rows, 'row')} taken"
    became = [
        f"{count:,} {word}"
        for word, count in (
            ("accepted", rows.accepted),
            ("coerced", rows.coerced),
            ("quarantined", rows.quarantined),
            ("late", rows.late),
            ("repeated", rows.repeated),
        )
        if count
    ]
    lines = [f"{ran.source}: {took}" + (f": {', '.join(became)}" if became else "")]
    if ran.failed:
        lines.append(f"  FAILED  {ran.failed}: {_one_line(ran.detail)}")
    if ran.held is not None:
        lines += _held_lines(ran.capability, ran.source, ran.held.code, ran.held.reason)
    return lines


def _held_lines(capability: str, source: str, code: str, reason: str) -> Lines:
    return [
        f"  HELD    {code}: {_one_line(reason)}",
        f"          see what is bad: mainstay quarantine list {capability} {source}",
        f"          let it go on: mainstay intake release {capability} {source} --reason '...'",
    ]


def _status_lines(found: list[Standing]) -> Lines:
    head = ("SOURCE", "STATE", "LAST ARRIVAL", "ACCEPTED", "COERCED", "QUARANTINED", "LATE", "REPEATED", "WAITING")
    lines = columns([head, *(_row(each) for each in found)])
    for each in found:
        below = _below(each)
        if below:
            lines += ["", f"{each.capability}/{each.source}, of {each.owner.team} ({each.owner.contact})", *below]
    return lines


def _row(each: Standing) -> tuple[str, ...]:
    counts = each.counts
    waiting = f"{_number(each.waiting_items, 'item')}, {_bytes(each.waiting_bytes)}" if each.waiting_items else "-"
    return (
        f"{each.capability}/{each.source}",
        each.state if each.state in {"well", "new"} else each.state.upper(),
        _ago(each.last_arrival_at),
        *(
            f"{count:,}"
            for count in (counts.accepted, counts.coerced, counts.quarantined, counts.late, counts.repeated)
        ),
        waiting,
    )


def _below(each: Standing) -> Lines:
    lines: Lines = []
    if each.held is not None:
        lines += _held_lines(each.capability, each.source, each.held.code, each.held.reason)
        lines.append(f"          held since {_time(each.held.since)}, at item {each.held.item}")
    if each.watermark is not None:
        lines.append(f"  watermark {_time(each.watermark)}")
    shown = [found for found in each.findings if each.held is None or found.code != each.held.code]
    lines += [f"  {line}" for line in columns([_finding(found) for found in shown[:SHOWN_FINDINGS]])] if shown else []
    if len(shown) > SHOWN_FINDINGS:
        lines.append(f"  {len(shown) - SHOWN_FINDINGS:,} more findings; see them with --json")
    return lines


def _finding(found: Found) -> tuple[str, ...]:
    where = found.code if found.field is None else f"{found.code} {found.field}"
    if found.passed is not None:
        when = f"passed {_time(found.passed)}"
    elif found.lasts:
        when = f"since {_time(found.since)}"
    else:
        when = f"last {_time(found.last)}"
    times = f"{found.rows:,} rows" if found.rows > found.times else "" if found.times == 1 else f"{found.times:,} times"
    return (severity_of(found.code), where, when, times, _one_line(found.detail))


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KB", "MB"):
        if size < 1_000:
            return f"{size:.3g} {unit}"
        size /= 1_000
    return f"{size:.3g} GB"


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _ago(at: datetime | None) -> str:
    if at is None:
        return "never"
    seconds = max(0.0, (datetime.now(UTC) - at).total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _one_line(text: str) -> str:
    return ". ".join(text.splitlines())
