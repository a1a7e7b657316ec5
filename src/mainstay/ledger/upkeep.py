"""The loop that keeps the ledger sealed and indexed while others write it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mainstay.errors import Damaged, Failed
from mainstay.ledger.index import Index
from mainstay.ledger.log import Log
from mainstay.ledger.publishing import keep_published
from mainstay.ledger.sealer import Sealer
from mainstay.ledger.steward import Steward

if TYPE_CHECKING:
    from threading import Event

    from mainstay.ledger.retention import Declared
    from mainstay.signing import SigningKey
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.ledger")

PRINCIPAL = "control"  # who carries out what was asked for, as receipts say


def keep_sealed(workspace: Workspace, key: SigningKey, stop: Event, *, retention: Declared | None = None) -> None:
    """Seal and index new records every `seal_interval_seconds` until `stop` is set, and once more after.

    Between, bodies go that were asked to be erased, with `retention` also those that are old enough, and entries that
    left with an archive. Checkpoints are given to witnesses and anchors beside that, in a thread that ends when this
    does. Raises Misuse when another process seals this ledger. A full or failing disk is logged, and tried again.
    """
    with Sealer(workspace.ledger, key, workspace.settings.log) as sealer, Index(workspace.ledger) as index:
        anchoring = keep_published(workspace, key.verifier, stop)
        try:
            steward = Steward(workspace, sealer, index, PRINCIPAL, retention)
            _seal_on(workspace, sealer, index, steward, stop)
        finally:
            stop.set()  # also where sealing failed: nothing else would end the thread
            if anchoring is not None:
                anchoring.join()


def _seal_on(workspace: Workspace, sealer: Sealer, index: Index, steward: Steward, stop: Event) -> None:
    last, complaint = False, ""
    while True:
        more = False
        try:
            sealer.seal_once()
            index.catch_up(Log(workspace.ledger))
            more = steward.turn()
        except OSError as error:
            logger.error("sealing failed, trying again: %s", error)  # noqa: TRY400 - the errno says all
        except Damaged:
            raise
        except Failed as error:  # the index cannot be made without an archive: sealing goes on
            if complaint != error.message:
                logger.error("%s", error)  # noqa: TRY400 - the message says all
            complaint = error.message
        if last:
            return
        last = stop.wait(0 if more else workspace.settings.seal_interval_seconds)
