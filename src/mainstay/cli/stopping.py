"""Stopping a capability needs as little as it can: its policies, its signing key, and a disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from mainstay.catalog import holding
from mainstay.cli.common import DEFAULT, Common, operator, out, print_json, require, signing_key

if TYPE_CHECKING:
    from mainstay.authority.schema import Action
    from mainstay.signing import SigningKey
    from mainstay.workspace import Workspace

Reason = Annotated[str, Parameter(help="Why; recorded.")]


def stop(name: str, /, *, reason: Reason, common: Common = DEFAULT) -> None:
    """Send every decision of a capability to its fallback ladder, at once, until it is resumed.

    Example: mainstay stop late-arrival --reason "answers are nonsense since noon"

    Parameters
    ----------
    name
        The capability.
    """
    workspace, key = _permitted(common, name, "stop")
    stopped = holding.stop(workspace, name, key=key, reason=reason, principal=operator())
    if common.json:
        print_json({"capability": name, "stopped": stopped})
        return
    out.print(f"{name} is stopped since {stopped.since}, by {stopped.by}: {stopped.reason}", markup=False)
    out.print("every decision goes to the fallback ladder, within two seconds at every worker")
    out.print(f"Next: mainstay resume {name} --reason '...'")


def resume(name: str, /, *, reason: Reason, common: Common = DEFAULT) -> None:
    """Let a capability that was stopped decide again, and its rollout go on.

    Example: mainstay resume late-arrival --reason "the feed is mended"

    Parameters
    ----------
    name
        The capability.
    """
    workspace, key = _permitted(common, name, "resume")
    lifted = holding.resume(workspace, name, key=key, reason=reason, principal=operator())
    if common.json:
        print_json({"capability": name, "lifted": lifted})
    elif lifted is None:
        out.print(f"{name} was not stopped")
    else:
        since = "" if lifted.stopped is None else f"; it was stopped since {lifted.stopped.since}"
        out.print(f"{name} decides again{since}")


def _permitted(common: Common, name: str, action: Action) -> tuple[Workspace, SigningKey]:
    """The workspace and its key. Raises Misuse unless the policies let whoever runs this do `action`."""
    workspace = common.open()
    require(workspace, name, action)
    return workspace, signing_key(workspace)
