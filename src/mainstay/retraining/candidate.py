"""From the champion and frozen rows to a challenger: its folder copied, trained anew, registered.

The challenger is the champion's folder with other files in place of those that training may write. What the model was
fitted to stands in its manifest. The same champion, rows and seed make the same version.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, NamedTuple

from mainstay.authority.policy import compile_authority
from mainstay.capability.load import load_capability
from mainstay.catalog.conversion import PICKLE_SUFFIXES
from mainstay.catalog.register import register
from mainstay.catalog.versions import open_version
from mainstay.errors import Misuse
from mainstay.retraining.training import FOLDER, train

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mainstay.capability.keeping import Retraining
    from mainstay.capability.load import Declared
    from mainstay.catalog.types import Digest, TrainedOn
    from mainstay.workspace import Workspace


class Candidate(NamedTuple):
    """A challenger, registered."""

    version: Digest
    is_new: bool  # False: the same content was registered before
    printed: str  # the end of what training printed
    notes: tuple[str, ...]


def declared_in(workspace: Workspace, version: Digest) -> tuple[Declared, Retraining]:
    """What a version declares. Raises Misuse when it declares no retraining."""
    declared = load_capability(open_version(workspace.versions, version).folder)
    if declared.capability.retraining is None:
        raise Misuse(
            f"{declared.capability.name} declares no retraining",
            hint="See `retraining` in the reference of capability.yaml; register a version that has it first.",
        )
    return declared, declared.capability.retraining


def make_candidate(
    workspace: Workspace,
    champion: Digest,
    trained_on: TrainedOn,
    private: Path,
    progress: Callable[[str], None] = lambda _: None,
) -> Candidate:
    """Train and register. `private` is a directory that holds `rows.parquet`, and nothing else that is needed after.

    Raises Failed when training fails, Misuse or InvalidDocument when what it made cannot be registered.
    """
    _, declared = declared_in(workspace, champion)
    folder = private / FOLDER
    _copy(open_version(workspace.versions, champion).folder, folder)
    progress("training")
    printed = train(private, declared)
    model = load_capability(folder).capability.model.file
    is_pickle = model is not None and model.lower().endswith(PICKLE_SUFFIXES)
    registered = register(
        folder,
        workspace.versions,
        trust_pickle=f"trained here, on snapshot {trained_on.snapshot}" if is_pickle else None,
        check=compile_authority,
        trained_on=trained_on,
        progress=progress,
    )
    return Candidate(registered.version, registered.created, printed, registered.notes)


def _copy(source: Path, target: Path) -> None:
    """The folder, to be written to: what stands in a version may not be."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    for path in (target, *target.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
