"""The process that steers: `python -m mainstay.cli.steering WORKSPACE`.

It holds the lease of the control database, or waits for it, and gives every pass its turns. It ends when its standard
input does, and so with whoever started it. Nothing that it does, or dies of, delays serving or sealing.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Final

from mainstay.cli.common import signing_key
from mainstay.errors import MainstayError
from mainstay.processes import begin_beside
from mainstay.retraining.passing import RetrainingPass
from mainstay.rollout.passing import RolloutPass
from mainstay.state.database import open_database
from mainstay.state.passes import run_passes

if TYPE_CHECKING:
    from mainstay.signing import SigningKey
    from mainstay.state.passes import Pass
    from mainstay.workspace import Workspace

_NICE: Final = 5  # serving and sealing come first


def passes(workspace: Workspace, key: SigningKey) -> list[Pass]:
    """What this process does. A pass is a line here; see `state.passes.Pass` for what it promises."""
    return [RolloutPass(workspace, key), RetrainingPass(workspace, key)]


def main() -> None:
    """Steer until standard input ends, or a signal says so."""
    workspace, stop = begin_beside("steering", niceness=_NICE)
    try:
        with open_database(workspace) as database:
            run_passes(
                database, workspace.settings.control_lease_seconds, passes(workspace, signing_key(workspace)), stop
            )
    except MainstayError as error:
        sys.exit(str(error))
    logging.shutdown()
    os._exit(0)  # at once: a step of a job that is under way may take hours, and the next process makes it again


if __name__ == "__main__":
    main()
