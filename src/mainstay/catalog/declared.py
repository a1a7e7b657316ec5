"""What a stored version declares, without hashing all of it: its declaration and its contract are held to the manifest.

Hashing a whole version, as `open_version` does, would keep whoever only asks for a declaration waiting for its model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainstay.capability.load import load_capability
from mainstay.catalog.releases import read_current
from mainstay.catalog.versions import FOLDER, digest_of, load_manifest, read_bounded, version_path
from mainstay.errors import Damaged, Misuse

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.capability.load import Declared
    from mainstay.catalog.types import Digest, StoredFile
    from mainstay.signing import Verifier
    from mainstay.workspace import Workspace


def load_declared(workspace: Workspace, version: Digest) -> Declared:
    """The folder of a version. Raises Misuse when there is none, Damaged when it is not what was registered."""
    manifest = load_manifest(workspace.versions, version)
    path = version_path(workspace.versions, version)
    for stored in (manifest.declaration, manifest.contract):
        _check(path / stored.path, stored)
    return load_capability(path / FOLDER)


def declared_in_production(workspace: Workspace, capability: str, verifier: Verifier) -> tuple[Digest, Declared]:
    """The version in production, and what it declares. Raises Misuse when there is none, Damaged as `load_declared`."""
    version = read_current(workspace.releases, capability, verifier).version
    return version, load_declared(workspace, version)


def _check(path: Path, stored: StoredFile) -> None:
    try:
        is_same = digest_of(read_bounded(path, stored.bytes)) == stored.digest
    except OSError as error:
        raise Damaged(f"{path}: expected what was registered, found: {error.strerror}") from None
    except Misuse as error:
        raise Damaged(error.message) from None
    if not is_same:
        raise Damaged(f"{path}: expected what was registered, found other content")
