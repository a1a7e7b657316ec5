"""What checks look at: the version, what it declares, what is in force, and the control database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from mainstay.capability.load import load_capability
from mainstay.catalog.declared import load_declared
from mainstay.catalog.releases import capabilities_with_releases, read_current
from mainstay.catalog.versions import open_version
from mainstay.errors import Failed
from mainstay.rollout import store

if TYPE_CHECKING:
    from mainstay.capability.load import Declared
    from mainstay.capability.types import Capability
    from mainstay.catalog.types import Digest, Release
    from mainstay.catalog.versions import StoredVersion
    from mainstay.rollout.gates_types import Stage
    from mainstay.rollout.types import Event, Rollout
    from mainstay.signing import Verifier
    from mainstay.state.database import Database
    from mainstay.workspace import Workspace


@dataclass
class Looking:
    """One version before one stage. What several checks ask for is read once; each raises what reading it raises."""

    workspace: Workspace
    capability: str
    version: Digest
    stage: Stage
    verifier: Verifier
    database: Database | None  # None: it does not answer
    now: datetime

    @cached_property
    def opened(self) -> StoredVersion:
        """The version, every file of which was hashed."""
        return open_version(self.workspace.versions, self.version)

    @cached_property
    def declared(self) -> Declared:
        return load_capability(self.opened.folder)

    @cached_property
    def release(self) -> Release | None:
        """What is in force; None where nothing is."""
        if self.capability not in capabilities_with_releases(self.workspace.releases):
            return None
        return read_current(self.workspace.releases, self.capability, self.verifier)

    @cached_property
    def in_force(self) -> Declared | None:
        """The folder of the version in production; None where there is none."""
        return None if self.release is None else load_declared(self.workspace, self.release.version)

    @cached_property
    def rules(self) -> Capability:
        """By whose declaration a version comes into production: that of the one there, and its own where none is."""
        return (self.in_force or self.declared).capability

    @property
    def is_first(self) -> bool:
        return self.release is None

    @property
    def control(self) -> Database:
        """The control database. Raises Failed where it does not answer."""
        if self.database is None:
            raise Failed("the control database does not answer")
        return self.database

    @cached_property
    def running(self) -> Rollout | None:
        """The rollout that is on trial, of whatever version."""
        return self.control.read(lambda connection: store.find_running(connection, self.capability))

    @cached_property
    def trial(self) -> Rollout | None:
        """The rollout of this version, where it is on trial."""
        return None if self.running is None or self.running.version != self.version else self.running

    @cached_property
    def events(self) -> list[Event]:
        """What happened to that rollout."""
        trial = self.trial
        return [] if trial is None else self.control.read(lambda connection: store.list_events(connection, trial.id))


def instant_of(text: str) -> datetime:
    """A moment that a document or a row states (RFC 3339)."""
    return datetime.fromisoformat(text).astimezone(UTC)
