from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mainstay.capability.words import Name
from mainstay.catalog.declared import load_declared
from mainstay.catalog.releases import history
from mainstay.cli.common import DEFAULT, Common, err, out, print_json, require_sight
from mainstay.cli.shadow_shown import comparison_lines
from mainstay.cli.versions import find_version
from mainstay.lake.lake import open_lake
from mainstay.rollout.comparison import compare_shadow, trial_of
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from mainstay.rollout.comparison_types import Comparison
    from mainstay.workspace import Workspace


def shadow(
    name: Name,
    version: Annotated[
        str, Parameter(help="A version's id or its beginning; by default the one that was released as a shadow last.")
    ] = "",
    /,
    *,
    cases: Annotated[int, Parameter(help="How many of the cases that differ most are listed, at most 100.")] = 10,
    common: Common = DEFAULT,
) -> None:
    """What a shadow decides otherwise: how often, in which segments, in time and cost, and the cases that differ most.

    Example: mainstay shadow late-arrival --cases 20

    Parameters
    ----------
    name
        The capability.
    """
    workspace = common.open()
    require_sight(workspace, name)
    found = gather_comparison(workspace, name, version, cases)
    if common.json:
        print_json(found)
        return
    for line in comparison_lines(found):
        out.print(line, markup=False)


def gather_comparison(workspace: Workspace, name: str, version: str, cases: int) -> Comparison:
    """The comparison of a shadow, and on the terminal how far it has come. Raises Misuse where there is no shadow."""
    digest = find_version(workspace, name, version) if version else None
    trial = trial_of(history(workspace.releases, name, load_verifier(workspace.keys)), digest)
    declared = load_declared(workspace, trial.beside)
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err, transient=True
    ) as bar:
        task = bar.add_task("comparing", total=None)
        return compare_shadow(
            open_lake(workspace),
            declared,
            trial,
            cases,
            lambda compared: bar.update(task, description=f"comparing: {compared:,} decisions"),
        )
