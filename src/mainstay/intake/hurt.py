"""Whom a change of a feed's fields would hurt: the versions in force whose contracts speak of the same fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from mainstay.catalog.declared import load_declared
from mainstay.catalog.releases import capabilities_with_releases, read_current
from mainstay.errors import MainstayError
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from mainstay.catalog.types import Digest, Release
    from mainstay.contract.types import Contract, SchemaObject
    from mainstay.workspace import Workspace

_SHOWN: Final = 10
_DIGEST: Final = 19  # "sha256:" and 12 digits


class Hurt(Struct, frozen=True, kw_only=True):
    """A version in force that reads some of the fields."""

    capability: str
    version: Digest
    stage: str  # production or canary
    fields: tuple[str, ...]  # empty: what it declares cannot be read, so nobody knows

    def __str__(self) -> str:
        said = ", ".join(self.fields) or "what it declares cannot be read"
        return f"{self.capability} {self.version[:_DIGEST]} in {self.stage} ({said})"


def find_hurt(workspace: Workspace, contract: Contract, described: SchemaObject, fields: Collection[str]) -> list[Hurt]:
    """Every version in force that reads one of the fields of an object.

    It is the same object that has its name in a contract of the same id; in another contract, one that has at least
    half of its fields is taken for a copy. A version that cannot be read is listed, as it may be hurt.
    """
    verifier = load_verifier(workspace.keys)
    found = []
    for name in capabilities_with_releases(workspace.releases):
        try:
            release = read_current(workspace.releases, name, verifier)
        except MainstayError:
            continue  # nothing of it can be served anew either, and its workers say so
        for stage, version in _in_force(release):
            try:
                declared = load_declared(workspace, version)
            except (MainstayError, OSError):
                found.append(Hurt(capability=name, version=version, stage=stage, fields=()))
                continue
            read = _read_by(declared.contract, contract.id, described, fields)
            if read:
                found.append(Hurt(capability=name, version=version, stage=stage, fields=read))
    return found


def shown(hurt: Sequence[Hurt]) -> str:
    """All of them, for people."""
    more = f" and {len(hurt) - _SHOWN} more" if len(hurt) > _SHOWN else ""
    return ", ".join(map(str, hurt[:_SHOWN])) + more


def _in_force(release: Release) -> Iterator[tuple[str, Digest]]:
    yield "production", release.version
    if release.canary is not None:
        yield "canary", release.canary.version


def _read_by(contract: Contract, same: str, described: SchemaObject, fields: Collection[str]) -> tuple[str, ...]:
    own = {each.name for each in described.properties}
    read: set[str] = set()
    for declared in contract.schema:
        names = {each.name for each in declared.properties}
        is_it = contract.id == same and declared.name == described.name
        if is_it or 2 * len(names & own) >= len(own):
            read |= names.intersection(fields)
    return tuple(sorted(read))
