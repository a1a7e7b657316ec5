"""A workspace with versions whose models are never run, to be moved through their stages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import tiny
from mainstay.catalog.releases import history, read_current
from mainstay.ledger.log import Log
from mainstay.ledger.sealer import Sealer
from mainstay.rollout import store
from mainstay.rollout.moves import Move
from mainstay.rollout.settling import Steering
from mainstay.signing import load_signing_key

if TYPE_CHECKING:
    from mainstay.catalog.types import Release
    from mainstay.rollout.types import Begun, Event, Rollout
    from mainstay.state.database import Database
    from mainstay.workspace import Workspace

OPS = "os:ops"
OTHER = "os:other"


class Stage:
    """The workspace, and short words for what tests do there."""

    def __init__(self, workspace: Workspace, database: Database) -> None:
        self.workspace, self.database = workspace, database
        self.key = load_signing_key(workspace.keys, None)
        self.steering = Steering(workspace, self.key, database)
        self._versions = 0

    def version(self, **changes: Any) -> str:
        """A new version."""
        self._versions += 1
        return tiny.store(self.workspace, f"model {self._versions}".encode(), **changes)

    def move(self, version: str, stage: Begun, **changes: Any) -> Move:
        said: dict[str, Any] = {"reason": "for a test", "principal": OPS, **changes}
        return Move(capability=tiny.NAME, version=version, stage=stage, **said)

    @property
    def current(self) -> Release:
        return read_current(self.workspace.releases, tiny.NAME, self.key.verifier)

    @property
    def shadows(self) -> list[str]:
        """The versions that are shadows now."""
        return [each.version for each in self.current.shadows]

    @property
    def releases(self) -> tuple[Release, ...]:
        return history(self.workspace.releases, tiny.NAME, self.key.verifier)

    def rollout(self, rollout_id: str) -> Rollout:
        found = self.database.read(lambda connection: store.find(connection, rollout_id))
        assert found is not None
        return found

    def events(self, rollout_id: str) -> list[Event]:
        return self.database.read(lambda connection: store.list_events(connection, rollout_id))

    def told(self) -> list[tuple[str, str]]:
        """Action and principal of every rollout's change in the ledger."""
        return changes(self.workspace)


def changes(workspace: Workspace) -> list[tuple[str, str]]:
    """Action and principal of every change of a rollout that is in the ledger, sealed here."""
    key = load_signing_key(workspace.keys, None)
    with Sealer(workspace.ledger, key, workspace.settings.log) as sealer:
        sealer.seal_once()
    log = Log(workspace.ledger)
    leaves = [json.loads(entry.leaf) for entry in log.entries(0, log.size)]
    return [(each["action"], each["principal"]) for each in leaves if each.get("action", "").startswith("rollout.")]
