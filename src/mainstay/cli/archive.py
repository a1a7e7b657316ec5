from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mainstay.cli.common import DEFAULT, Common, err, operator, out, print_json, signing_key
from mainstay.cli.erase import require_change
from mainstay.errors import Misuse
from mainstay.ledger.archive import Archivist
from mainstay.ledger.index import Index
from mainstay.ledger.log import Log
from mainstay.ledger.retention import instant
from mainstay.ledger.steward import Hand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def archive(
    directory: Path,
    /,
    *,
    before: Annotated[
        str | None, Parameter(help="Entries recorded before this date or time (UTC unless it says otherwise).")
    ] = None,
    entries: Annotated[int | None, Parameter(help="The first so many entries of the log.")] = None,
    remove: Annotated[
        bool, Parameter(negative="", help="Let the entries leave the ledger; their hashes stay.")
    ] = False,
    common: Common = DEFAULT,
) -> None:
    """Copy the oldest entries, in whole bundles of 256, to a directory that verifies by itself; verify it, record it.

    Example: mainstay ledger archive /mnt/archive/2026 --before 2026-07-01 --remove

    Parameters
    ----------
    directory
        Where to; absent or empty.
    """
    if before is not None and entries is not None:
        raise Misuse("expected one of --before and --entries, found both")
    if entries is not None and entries < 1:
        raise Misuse(f"--entries {entries}: expected at least 1")
    until = None if before is None else instant(_parse_time(before))
    workspace = common.open()
    require_change(workspace, None)
    key = signing_key(workspace)
    hand = Hand(workspace, key, operator())
    with _progress("archiving") as progress:
        made = Archivist(workspace, key, hand, operator()).make(
            directory, before=until, entries=entries, remove=remove, progress=progress
        )
    if common.json:
        print_json({"entry": made.entry, **msgspec.to_builtins(made.departure), "verified": made.report})
        return
    departure = made.departure
    out.print(f"entries {departure.first:,} to {departure.size - 1:,} are archived at {departure.place}", markup=False)
    for line in made.report.lines()[-1:]:
        out.print(f"there, {line}", markup=False)
    left = "their entries and bodies have left this ledger; their hashes stay"
    out.print(left if departure.remove else "they are here as well")
    out.print(f"recorded as {made.entry}")


def update_archive(directory: Path, /, *, common: Common = DEFAULT) -> None:
    """Erase in an archive what has been erased in the ledger since it was made; verify it, record it.

    Example: mainstay ledger update-archive /mnt/archive/2026

    Parameters
    ----------
    directory
        Where the archive stands now, writable.
    """
    workspace = common.open()
    require_change(workspace, None)
    key = signing_key(workspace)
    hand = Hand(workspace, key, operator())
    with _progress("verifying") as progress:
        updated = Archivist(workspace, key, hand, operator()).update(directory, progress)
    if common.json:
        facts = {"entry": updated.entry, "bodies": updated.bodies, "archive": updated.manifest}
        print_json({**facts, "verified": updated.report})
        return
    manifest = updated.manifest
    out.print(
        f"{updated.bodies:,} bodies erased in the archive of entries {manifest.first:,} to {manifest.size - 1:,};"
        " it verifies"
    )
    out.print(f"recorded as {updated.entry}")


def reindex(
    *,
    archive: Annotated[
        list[Path] | None, Parameter(help="Where an archive stands now; repeat for several.", negative="")
    ] = None,
    common: Common = DEFAULT,
) -> None:
    """Make the index of the ledger anew; entries that left are read from their archives, and checked.

    Example: mainstay ledger reindex --archive /mnt/moved/2026
    """
    workspace = common.open()
    log = Log(workspace.ledger)
    with Index(workspace.ledger) as index:
        index.begin_again()
        indexed = index.catch_up(log, archive or ())
    if common.json:
        print_json({"indexed": indexed})
    else:
        out.print(f"{indexed:,} entries indexed")


def _parse_time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Misuse(f"--before {text[:80]!r}: expected a date or time as in RFC 3339, such as 2026-07-01") from None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).astimezone(UTC)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error while work lasts."""
    with Progress(
        TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=err, transient=True
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
