"""What the commands that move versions share: the control database, and what they say when it is done."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from mainstay.catalog.releases import read_current
from mainstay.cli.common import err, out, print_json, signing_key
from mainstay.cli.rollout_shown import proposal_lines, release_lines, rollout_lines
from mainstay.errors import Failed, Misuse
from mainstay.rollout.settling import Steering
from mainstay.rollout.types import Proposal, Rollout
from mainstay.signing import load_verifier
from mainstay.state.database import Database, database_url, open_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.catalog.types import Release
    from mainstay.workspace import Workspace

Reason = Annotated[str, Parameter(help="Why; recorded.")]


@contextmanager
def steered(workspace: Workspace, *, needs_database: bool = True) -> Iterator[Steering]:
    """What it takes to move rollouts. A database that does not answer is only said, where it is not needed."""
    try:
        database = open_database(workspace)
    except Failed as error:
        if needs_database:
            raise
        err.print(f"warning: {error.message}", markup=False)
        database = Database(database_url(workspace))
    with database:
        yield Steering(workspace, signing_key(workspace), database)


@contextmanager
def known_database(workspace: Workspace) -> Iterator[Database | None]:
    """The control database, to be read; None where there is none yet."""
    url = database_url(workspace)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        yield None
        return
    with open_database(workspace) as database:
        yield database


def tell(
    workspace: Workspace, name: str, made: Rollout | Proposal | Release, facts: dict[str, Any], *, json: bool
) -> None:
    """What became of it: the rollout or the proposal, and the release in force."""
    release = in_force(workspace, name)
    if json:
        kind = type(made).__name__.lower()
        named = {each: made if each == kind else None for each in ("rollout", "proposal")}
        print_json({"capability": name, **named, "release": release, **facts})
        return
    if isinstance(made, Proposal):
        lines = proposal_lines(made)
    elif isinstance(made, Rollout):
        lines = [*rollout_lines(made), *([] if release is None else release_lines(release))]
    else:
        lines = release_lines(made)
    for line in lines:
        out.print(line, markup=False)


def in_force(workspace: Workspace, name: str) -> Release | None:
    try:
        return read_current(workspace.releases, name, load_verifier(workspace.keys))
    except Misuse:
        return None
