"""The loop that keeps the ledger sealed and indexed while others write it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mainstay.ledger.index import Index
from mainstay.ledger.log import Log
from mainstay.ledger.sealer import Sealer

if TYPE_CHECKING:
    from threading import Event

    from mainstay.signing import SigningKey
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.ledger")


def keep_sealed(workspace: Workspace, key: SigningKey, stop: Event) -> None:
    """Seal and index new records every `seal_interval_seconds` until `stop` is set, and once more after.

    Raises Misuse when another process seals this ledger. A full or failing disk is logged, and tried again.
    """
    with Sealer(workspace.ledger, key, workspace.settings.log) as sealer, Index(workspace.ledger) as index:
        last = False
        while True:
            try:
                sealer.seal_once()
                index.catch_up(Log(workspace.ledger))
            except OSError as error:
                logger.error("sealing failed, trying again: %s", error)  # noqa: TRY400 - the errno says all
            if last:
                return
            last = stop.wait(workspace.settings.seal_interval_seconds)
