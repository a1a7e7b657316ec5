from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from mainstay.cli.common import DEFAULT, Common, operator, require
from mainstay.cli.steered import Reason, steered, tell
from mainstay.rollout import steering


def rollback(
    name: str,
    /,
    *,
    reason: Reason,
    to: Annotated[
        int | None,
        Parameter(help="The number of a release to go back to; by default what is on trial goes, else one step back."),
    ] = None,
    common: Common = DEFAULT,
) -> None:
    """Take back what came last: the version on trial, else the one in production. Nothing is rebuilt; it takes 2 s.

    Example: mainstay rollback late-arrival --reason "refuses night flights"

    Parameters
    ----------
    name
        The capability.
    """
    workspace = common.open()
    require(workspace, name, "roll_back")
    with steered(workspace, needs_database=False) as steers:
        made = steering.roll_back(steers, name, reason=reason, principal=operator(), to=to)
    tell(workspace, name, made, {}, json=common.json)
