from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from mainstay.catalog.releases import capabilities_with_releases
from mainstay.cli.common import DEFAULT, Common, columns, err, operator, out, print_json, require, require_sight
from mainstay.cli.quarantine_shown import (
    counted,
    done_lines,
    group_facts,
    list_facts,
    list_lines,
    row_facts,
    row_lines,
    trial_lines,
)
from mainstay.errors import Misuse
from mainstay.intake.declared import sources_in_force
from mainstay.intake.quarantine import Chosen, Quarantine, sources_with_quarantine
from mainstay.intake.quarantine_masks import Masks
from mainstay.intake.quarantine_settling import Settler
from mainstay.intake.quarantine_trial import try_again
from mainstay.intake.types import ITEM, ROW
from mainstay.lake.lake import open_lake

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from mainstay.contract.types import SchemaObject
    from mainstay.intake.quarantine_settling import Done
    from mainstay.intake.quarantine_trial import Trial
    from mainstay.lake.lake import Lake
    from mainstay.workspace import Workspace

MAX_LISTED: Final = 1_000
MAX_REASON_CHARACTERS: Final = 10_000

Rules = Annotated[
    tuple[str, ...], Parameter(name="--rule", help="Rows that break this rule, as FIELD:RULE; may be said again.")
]


@Parameter(name="*")
@dataclass(frozen=True)
class Which:
    """Options that say which open rows are meant."""

    rule: Rules = ()
    item: Annotated[tuple[int, ...], Parameter(name="--item", help="Rows of this item; may be said again.")] = ()
    row: Annotated[tuple[str, ...], Parameter(name="--row", help="This row, as ITEM:ROW; may be said again.")] = ()


ANY: Final = Which()
Unmasked = Annotated[bool, Parameter(negative="", help="Show values that the contract classifies, too.")]


def list_held(
    name: str | None = None,
    source: str | None = None,
    /,
    *,
    rule: Rules = (),
    limit: Annotated[int, Parameter(help="How many rules are shown of each source, those with most rows first.")] = 20,
    unmasked: Unmasked = False,
    common: Common = DEFAULT,
) -> None:
    """List the rows that did not get through the door and are still open, by what was wrong with them.

    Example: mainstay quarantine list late-arrival flights

    Parameters
    ----------
    name
        A capability; by default all, and only how many rows of each source are open.
    source
        A source of it; by default all.
    """
    if not 1 <= limit <= MAX_LISTED:
        raise Misuse(f"--limit {limit}: expected 1 to {MAX_LISTED:,}")
    workspace = common.open()
    lake = open_lake(workspace)
    chosen = _chosen(Which(rule))
    if name is None:
        _list_sources(lake, common)
        return
    require_sight(workspace, name)
    found = [each for each in sources_with_quarantine(lake) if each[0] == name and source in {None, each[1]}]
    if source is not None and not found:
        Quarantine(lake, name, source)  # says what there is
    listed = []
    for _, each in found:
        quarantine = Quarantine(lake, name, each)
        masks = Masks(_described(workspace, name, each), unmasked=unmasked)
        with _bar("reading") as show:
            grouped = quarantine.groups(chosen, _share(show, quarantine.open_rows()))
        groups = [group_facts(quarantine, masks, group) for group in grouped.groups[:limit]]
        under_way = Settler(workspace, lake, name, each).intended()
        listed.append(list_facts(each, grouped, groups, under_way))
    if common.json:
        print_json({"capability": name, "sources": listed})
        return
    for facts in listed:
        for line in list_lines(name, facts):
            out.print(line, markup=False)
    if not any(facts["open_rows"] for facts in listed):
        out.print("no row in quarantine is open")


def show_held(
    name: str,
    source: str,
    row: str | None = None,
    /,
    *,
    rule: Rules = (),
    limit: Annotated[int, Parameter(help="How many rows are shown with --rule, the oldest first.")] = 3,
    unmasked: Unmasked = False,
    common: Common = DEFAULT,
) -> None:
    """Show held rows whole: the bytes that came, from where, every rule they break, and what became of them.

    Example: mainstay quarantine show late-arrival flights 12:40

    Parameters
    ----------
    name
        A capability.
    source
        A source of it.
    row
        A row, as ITEM:ROW; or say which open ones with --rule.
    """
    if (row is None) == (not rule):
        raise Misuse(f"expected either a row, as ITEM:ROW, or --rule, found {'neither' if row is None else 'both'}")
    if not 1 <= limit <= MAX_LISTED:
        raise Misuse(f"--limit {limit}: expected 1 to {MAX_LISTED:,}")
    workspace = common.open()
    require_sight(workspace, name)
    quarantine = Quarantine(open_lake(workspace), name, source)
    chosen = _chosen(Which(rule))
    places = _first_places(quarantine, chosen, limit) if row is None else [_place(row, "ROW")]
    masks = Masks(_described(workspace, name, source), unmasked=unmasked)
    held = quarantine.rows(places) if places else {}
    facts = [row_facts(quarantine, masks, held[place]) for place in places]
    if common.json:
        print_json({"capability": name, "source": source, "rows": facts})
        return
    for number, each in enumerate(facts):
        for line in ([""] if number else []) + row_lines(each):
            out.print(line, markup=False)
    if not facts:
        out.print("no open row breaks that rule")


def replay_held(
    name: str,
    source: str,
    /,
    *,
    reason: Annotated[str | None, Parameter(help="Why they are expected to pass now; recorded.")] = None,
    which: Which = ANY,
    dry_run: Annotated[bool, Parameter(negative="", help="Only say how many would pass now.")] = False,
    common: Common = DEFAULT,
) -> None:
    """Send open rows to the door again, under the contract now in force: all of them, or those that are meant.

    They go as they came, once, as a new item. Those that are still bad are held again.

    Example: mainstay quarantine replay late-arrival flights --rule distance:maximum --reason "contract 1.3.0"

    Parameters
    ----------
    name
        A capability.
    source
        A source of it.
    """
    workspace = common.open()
    chosen = _chosen(which)
    lake = open_lake(workspace)
    if dry_run:
        require_sight(workspace, name)
        in_force = sources_in_force(workspace, name)
        quarantine = Quarantine(lake, name, source)
        with _bar("trying") as show:
            trial = try_again(workspace, lake, in_force, source, chosen, _share(show, quarantine.open_rows()))
        _show_trial(trial, common)
        return
    given = _reason(reason, "a replay")
    _require_change(workspace, name)
    sources_in_force(workspace, name).source(source)  # nobody would take them in
    with _bar("replaying") as show:
        done = Settler(workspace, lake, name, source).settle(
            "replayed", chosen, reason=given, by=operator(), progress=show
        )
    _show_done(done, name, source, common)


def discard_held(
    name: str,
    source: str,
    /,
    *,
    reason: Annotated[str | None, Parameter(help="Why nobody needs them; recorded.")] = None,
    which: Which = ANY,
    all_: Annotated[bool, Parameter(name="--all", negative="", help="Every open row of the source.")] = False,
    dry_run: Annotated[bool, Parameter(negative="", help="Only say how many rows are meant.")] = False,
    common: Common = DEFAULT,
) -> None:
    """Give up open rows. They stay in the table of held rows, with who gave them up and why.

    Example: mainstay quarantine discard late-arrival flights --item 12 --reason "test data of the sender"

    Parameters
    ----------
    name
        A capability.
    source
        A source of it.
    """
    workspace = common.open()
    chosen = _chosen(which)
    if chosen.is_everything != all_:
        found = "none of them" if not all_ else "--all and others"
        raise Misuse(f"expected either --all, or which rows with --rule, --item and --row, found {found}")
    lake = open_lake(workspace)
    if dry_run:
        require_sight(workspace, name)
        quarantine = Quarantine(lake, name, source)
        with _bar("reading") as show:
            rows = quarantine.groups(chosen, _share(show, quarantine.open_rows())).rows
        if common.json:
            print_json({"would_discard": rows})
        else:
            out.print(f"would discard {counted(rows, 'row')}")
        return
    given = _reason(reason, "a discard")
    _require_change(workspace, name)
    with _bar("discarding") as show:
        done = Settler(workspace, lake, name, source).settle(
            "discarded", chosen, reason=given, by=operator(), progress=show
        )
    _show_done(done, name, source, common)


# What is asked for.


def _chosen(which: Which) -> Chosen:
    split = []
    for each in which.rule:
        field, _, rule = each.rpartition(":")
        if not field or not rule:
            raise Misuse(f"--rule {each[:80]}: expected FIELD:RULE, as `mainstay quarantine list` shows them")
        split.append((field, rule))
    return Chosen(tuple(split), which.item, tuple(_place(each, "--row") for each in which.row))


def _place(text: str, what: str) -> tuple[int, int]:
    item, _, row = text.partition(":")
    if not (item.isascii() and item.isdecimal() and row.isascii() and row.isdecimal() and len(text) <= 36):
        raise Misuse(f"{what} {text[:80]!r}: expected ITEM:ROW, two numbers such as 12:40")
    return int(item), int(row)


def _reason(reason: str | None, what: str) -> str:
    if reason is None or not 1 <= len(reason.strip()) <= MAX_REASON_CHARACTERS:
        raise Misuse(f"{what} needs a reason: expected --reason with 1 to {MAX_REASON_CHARACTERS:,} characters")
    return reason


def _require_change(workspace: Workspace, name: str) -> None:
    if name in capabilities_with_releases(workspace.releases):
        require(workspace, name, "change")


def _described(workspace: Workspace, name: str, source: str) -> SchemaObject | None:
    """What the rows of a source are held against; None where it is not declared any more."""
    try:
        in_force = sources_in_force(workspace, name)
        return in_force.described(in_force.source(source))
    except Misuse:
        return None


def _first_places(quarantine: Quarantine, chosen: Chosen, limit: int) -> list[tuple[int, int]]:
    places: list[tuple[int, int]] = []
    for rows in quarantine.chunks(chosen, [ITEM, ROW]):
        places += rows.head(limit - len(places)).rows()
        if len(places) == limit:
            break
    return places


def _bar(doing: str) -> AbstractContextManager[Callable[[float], None]]:
    return _Bar(doing)


class _Bar:
    """A bar on standard error that is told the share that is done."""

    def __init__(self, doing: str) -> None:
        self._bar = Progress(
            TextColumn(doing),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=err,
            transient=True,
            disable=not err.is_terminal,  # where it shows nothing, it would still leave an empty line
        )

    def __enter__(self) -> Callable[[float], None]:
        self._bar.start()
        task = self._bar.add_task("", total=1.0)
        return lambda share: self._bar.update(task, completed=share)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _share(show: Callable[[float], None], total: int) -> Callable[[int], None]:
    """What is told numbers of rows, and shows the share that is done."""
    seen = 0

    def told(rows: int) -> None:
        nonlocal seen
        seen += rows
        show(min(seen / max(total, 1), 1.0))

    return told


def _list_sources(lake: Lake, common: Common) -> None:
    found = []
    for capability, source in sources_with_quarantine(lake):
        days = [day for day in Quarantine(lake, capability, source).days() if day.rows > day.settled]
        rows = sum(day.rows - day.settled for day in days)
        oldest = days[0].day.isoformat() if days else None
        found.append({"capability": capability, "source": source, "open_rows": rows, "oldest_day": oldest})
    if common.json:
        print_json({"sources": found})
        return
    if not found:
        out.print("no row was ever in quarantine")
        return
    table = [["CAPABILITY", "SOURCE", "OPEN ROWS", "OLDEST"]]
    table += [
        [str(each[name] or "-") for name in ("capability", "source", "open_rows", "oldest_day")] for each in found
    ]
    for line in columns(table):
        out.print(line, markup=False)


def _show_trial(trial: Trial, common: Common) -> None:
    if common.json:
        print_json(trial)
        return
    for line in trial_lines(trial):
        out.print(line, markup=False)


def _show_done(done: Done | None, name: str, source: str, common: Common) -> None:
    if common.json:
        print_json({"done": None if done is None else done._asdict()})
        return
    if done is None:
        out.print("nothing to do: no open row is meant that can be read")
        return
    for line in done_lines(done, name, source):
        out.print(line, markup=False)
