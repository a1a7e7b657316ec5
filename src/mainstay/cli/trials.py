from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.catalog.releases import history as past_releases
from mainstay.cli.common import DEFAULT, Common, out, print_json
from mainstay.cli.rollout_shown import history_lines, trial_facts, trial_lines
from mainstay.cli.steered import known_database
from mainstay.rollout import store
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mainstay.rollout.types import Event, Rollout
    from mainstay.workspace import Workspace


def rollouts(name: str = "", /, *, common: Common = DEFAULT) -> None:
    """What is on trial, how it stands, and what waits for somebody's approval.

    Example: mainstay rollouts

    Parameters
    ----------
    name
        The capability; by default all.
    """
    workspace = common.open()
    found = gather_trials(workspace, name or None)
    if common.json:
        print_json(found)
        return
    for line in trial_lines(found):
        out.print(line, markup=False)


def history(name: str, /, *, common: Common = DEFAULT) -> None:
    """The releases of a capability and its rollouts, oldest first: what changed, who, why, on what evidence.

    Example: mainstay history late-arrival

    Parameters
    ----------
    name
        The capability.
    """
    workspace = common.open()
    releases = past_releases(workspace.releases, name, load_verifier(workspace.keys))
    with known_database(workspace) as database:
        told = [] if database is None else database.read(partial(_told, name=name))
    if common.json:
        print_json(
            {
                "capability": name,
                "releases": releases,
                "rollouts": [{**msgspec.to_builtins(rollout), "events": events} for rollout, events in told],
            }
        )
        return
    for line in history_lines(workspace, name, releases, told):
        out.print(line, markup=False)


def _told(connection: Connection, name: str) -> list[tuple[Rollout, list[Event]]]:
    """The rollouts of a capability, oldest first, and what happened to each."""
    found = store.list_rollouts(connection, name)[::-1]
    return [(rollout, store.list_events(connection, rollout.id)) for rollout in found]


def gather_trials(workspace: Workspace, name: str | None) -> dict[str, Any]:
    """The rollouts that are on trial or still watched, and the proposals that wait, as plain values."""
    with known_database(workspace) as database:
        if database is None:
            return {"rollouts": [], "proposals": []}
        unsettled = database.read(store.list_unsettled)
        proposals = database.read(lambda connection: store.list_proposals(connection, name))
    shown = [each for each in unsettled if name in {None, each.capability} and (each.running or each.watched)]
    return {"rollouts": [trial_facts(each) for each in shown], "proposals": msgspec.to_builtins(proposals)}
