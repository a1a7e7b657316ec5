"""For how long capabilities say that bodies are kept, and what is forgotten outside the ledger when they go.

What counts is what the version in production declares; until there is one, nothing goes because of its age.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from mainstay.catalog.declared import declared_in_production
from mainstay.catalog.releases import capabilities_with_releases, signature_of
from mainstay.catalog.versions import list_versions
from mainstay.decision.last_good import LastGood
from mainstay.errors import MainstayError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from mainstay.catalog.releases import Signature
    from mainstay.signing import Verifier
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.decision")


class DeclaredRetention:
    """What is declared of retention in a workspace; read again when a release changes."""

    def __init__(self, workspace: Workspace, verifier: Verifier) -> None:
        self._workspace = workspace
        self._verifier = verifier
        self._seen: Signature | None = None
        self._days: dict[str, int] = {}

    def days(self) -> Mapping[str, int]:
        """For how many days bodies are kept, by capability; those that keep them for ever are left out.

        A capability whose release cannot be read keeps what was last read of it, and that is logged.
        """
        seen = signature_of(self._workspace.releases)
        if seen != self._seen:
            self._seen = seen
            self._days = {
                name: days
                for name in capabilities_with_releases(self._workspace.releases)
                if (days := self._read(name)) is not None
            }
        return self._days

    def _read(self, capability: str) -> int | None:
        try:
            _, declared = declared_in_production(self._workspace, capability, self._verifier)
        except (MainstayError, OSError) as error:
            logger.error("retention of %s not read: %s", capability, error)  # noqa: TRY400 - the message says all
            self._seen = None  # it is tried again
            return self._days.get(capability)
        return declared.capability.retention.bodies_days

    def forget(self, capability: str, before: datetime) -> None:
        """Let go of last good answers from before an instant."""
        path = _table_of(self._workspace, capability)
        if path.exists():
            _forget_before(path, before)


def _forget_before(path: Path, before: datetime) -> None:
    table = LastGood(path, contract="")  # whatever the contract
    try:
        table.forget_before(int(before.timestamp() * 1000))
    finally:
        table.close()


def forget_key(workspace: Workspace, capability: str, key: str) -> bool:
    """Let go of the last good answers for a business key, under every contract there was; whether there was one."""
    path = _table_of(workspace, capability)
    if not path.exists():
        return False
    manifests = list_versions(workspace.versions).values()
    contracts = {each.contract.digest for each in manifests if each.capability == capability}
    forgotten = False
    for contract in contracts:
        table = LastGood(path, contract)
        try:
            forgotten = table.forget(msgspec.json.encode(key)) or forgotten
        finally:
            table.close()
    return forgotten


def _table_of(workspace: Workspace, capability: str) -> Path:
    return workspace.memory / f"{capability}.table"
