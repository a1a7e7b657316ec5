"""Which sources are in force: those of the version in production, else those of the folder in `capabilities/`.

A capability that is not in production yet takes data in by its folder, so that there are data to begin with.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from mainstay.capability.load import load_capability
from mainstay.capability.source_checks import object_of
from mainstay.capability.types import CONTRACT_NAME, FILE_NAME
from mainstay.catalog.declared import declared_in_production
from mainstay.catalog.releases import capabilities_with_releases, signature_of
from mainstay.errors import MainstayError, Misuse
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from mainstay.capability.sources import Source
    from mainstay.capability.types import Capability
    from mainstay.catalog.types import Digest
    from mainstay.contract.types import Contract, SchemaObject
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.intake")

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{1,62}")

Seen: TypeAlias = tuple[object, ...]


@dataclass(frozen=True)
class InForce:
    """What a capability declares now."""

    capability: Capability
    contract: Contract
    version: Digest | None  # None: nothing is in production, and its folder counts

    def source(self, name: str) -> Source:
        """Raises Misuse when it declares no such source."""
        for source in self.capability.sources:
            if source.name == name:
                return source
        known = ", ".join(each.name for each in self.capability.sources) or "it declares none"
        raise Misuse(f"{self.capability.name}: expected one of its sources, found {name!r}", hint=f"Sources: {known}.")

    def described(self, source: Source) -> SchemaObject:
        """The object of the contract that the records of a source are."""
        name = object_of(source, self.capability)
        return next(each for each in self.contract.schema if each.name == name)

    @property
    def contract_name(self) -> str:
        """`id@version`, as rows and findings name it."""
        return f"{self.contract.id}@{self.contract.version}"


def sources_in_force(workspace: Workspace, name: str) -> InForce:
    """What counts for a capability now.

    Raises Misuse when it has neither a release nor a folder, InvalidDocument when its folder has problems, and Damaged
    when what is in production is not what was registered.
    """
    if not _NAME.fullmatch(name):
        raise Misuse(f"capability {name[:80]!r}: expected lower-case letters, digits and dashes")
    if name in capabilities_with_releases(workspace.releases):
        version, declared = declared_in_production(workspace, name, load_verifier(workspace.keys))
        return InForce(declared.capability, declared.contract, version)
    folder = workspace.capabilities / name
    if not (folder / FILE_NAME).is_file():
        known = ", ".join(_names(workspace)) or "there is none"
        raise Misuse(f"no capability {name}: expected a release or {folder}", hint=f"Capabilities: {known}.")
    declared = load_capability(folder)
    if declared.capability.name != name:
        raise Misuse(f"{folder / FILE_NAME}: expected the name {name}, as its folder, found {declared.capability.name}")
    return InForce(declared.capability, declared.contract, None)


class Declarations:
    """Every capability with sources, read again when a release or a folder changes."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._known: dict[str, tuple[Seen, InForce | None]] = {}

    def look(self) -> dict[str, InForce]:
        """By name. One that cannot be read keeps what was last read of it, and that is logged once."""
        released = {each[0]: each for each in signature_of(self._workspace.releases)}
        names = _names(self._workspace)
        for name in [*self._known]:
            if name not in names:
                del self._known[name]
        for name in names:
            seen = self._seen(name, released.get(name))
            before = self._known.get(name)
            if before is None or before[0] != seen:
                self._known[name] = (seen, self._read(name, before[1] if before else None))
        read = {name: in_force for name, (_, in_force) in self._known.items()}
        return {name: each for name, each in read.items() if each is not None and each.capability.sources}

    def _read(self, name: str, before: InForce | None) -> InForce | None:
        try:
            return sources_in_force(self._workspace, name)
        except (MainstayError, OSError) as error:
            logger.error("sources of %s not read: %s", name, error)  # noqa: TRY400 - the message says all
            return before

    def _seen(self, name: str, released: tuple[str, int, int, int] | None) -> Seen:
        """A cheap fingerprint of what is declared."""
        if released is not None:
            return released
        before = self._known.get(name)
        contract = before[1].capability.contract if before and before[1] else CONTRACT_NAME
        found: list[object] = []
        for path in (FILE_NAME, contract):
            try:
                stat = (self._workspace.capabilities / name / path).stat()
            except OSError as error:
                found.append(error.errno)
            else:
                found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return (contract, *found)


def _names(workspace: Workspace) -> list[str]:
    """The capabilities that have a release, or a folder with a declaration."""
    try:
        folders = [each for each in os.listdir(workspace.capabilities) if _NAME.fullmatch(each)]  # noqa: PTH208 - names
    except OSError:
        folders = []
    drafted = [each for each in folders if (workspace.capabilities / each / FILE_NAME).is_file()]
    return sorted({*drafted, *capabilities_with_releases(workspace.releases)})
