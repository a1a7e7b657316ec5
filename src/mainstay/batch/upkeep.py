"""Beside whoever seals: the process that makes scheduled batches, kept alive while one is declared.

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

logger = logging.getLogger("mainstay.batch")


def keep_scheduled(workspace: Workspace, stop: Event) -> Thread:
    """Begin a thread that keeps the process of scheduled batches alive until `stop` is set.

    The process is there while a capability in production declares a batch.
    """
    declarations = Declarations(workspace)

    def wanted() -> bool:
        try:
            found = declarations.look().values()
        except (MainstayError, OSError) as error:
            logger.error("declarations not read: %s", error)  # noqa: TRY400 - the message says all
            return False
        return any(each.capability.batches for each in found if each.version is not None)

    return keep_running("batches", "mainstay.batch.scheduled", workspace, stop, wanted)
