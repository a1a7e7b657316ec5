"""Beside whoever seals: the process that takes data in, kept alive while a source is in force.

Nothing of the tables is loaded in this process.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mainstay.errors import MainstayError
from mainstay.intake.declared import Declarations
from mainstay.lake.upkeep import keep_running

if TYPE_CHECKING:
    from threading import Event, Thread

    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.intake")


def keep_taken_in(workspace: Workspace, stop: Event) -> Thread | None:
    """Begin a thread that keeps the process that takes data in alive until `stop` is set.

    The process is there while a capability declares sources. None where the settings want none.
    """
    if not workspace.settings.intake_workers:
        return None
    declarations = Declarations(workspace)

    def wanted() -> bool:
        try:
            return bool(declarations.look())
        except (MainstayError, OSError) as error:
            logger.error("declarations not read: %s", error)  # noqa: TRY400 - the message says all
            return False

    return keep_running("intake", "mainstay.intake.running", workspace, stop, wanted)
