"""Where checkpoints of a ledger may be read: what a person names, and what a workspace has configured."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mainstay.errors import Damaged, Failed, Misuse
from mainstay.ledger.anchored import KeptNote
from mainstay.ledger.anchors import FileAnchor, FileSource, UrlSource, file_path
from mainstay.ledger.anchors_git import PREFIX, GitAnchor
from mainstay.ledger.cosignature import time_of
from mainstay.ledger.note import split_note
from mainstay.ledger.outbound import Outbound
from mainstay.ledger.publishing import open_anchor, read_policy
from mainstay.ledger.state import WITNESSED_FILE
from mainstay.ledger.trust_policy import shown
from mainstay.ledger.witness_client import WitnessClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mainstay.ledger.anchored import Source
    from mainstay.ledger.note import NoteVerifier
    from mainstay.ledger.trust_policy import TrustPolicy, Witness
    from mainstay.workspace import Workspace


class WitnessSource:
    """A witness, asked for the checkpoint of the log that it cosigned last."""

    outside = True

    def __init__(self, witness: Witness, url: str, origin: str) -> None:
        self.name = f"witness {shown(witness.name)} at {shown(url)}"
        self._witness = witness
        self._url = url
        self._origin = origin

    async def notes(self) -> AsyncIterator[KeptNote]:
        async with Outbound(self._url) as http:
            try:
                note = await WitnessClient(http, self._witness.verifier).latest(self._origin)
            except Damaged as error:
                raise Failed(f"gave what it has not cosigned: {error.message}") from None
        if note is None:
            raise Failed("it shows no checkpoint of this log")
        times = [time_of(each.signature) for each in split_note(note)[1] if each.claims(self._witness.verifier)]
        yield KeptNote(self.name, note, datetime.fromtimestamp(max(times), UTC) if any(times) else None)


def open_source(text: str) -> Source:
    """The source that a person named: a file, a directory, a git repository, or the URL of one of them or of a note.

    Raises Misuse when there is no such thing.
    """
    if text.startswith(PREFIX):
        return GitAnchor(text)
    if text.startswith(("http:", "https:")):
        return UrlSource(text)
    path = file_path(text) if text.startswith("file:") else Path(text)
    if path.is_dir():
        is_git = (path / ".git").exists() or ((path / "HEAD").is_file() and (path / "objects").is_dir())
        return GitAnchor(f"{PREFIX}{path.resolve().as_uri()}") if is_git else FileAnchor(text, path)
    if path.is_file():
        return FileSource(path.resolve())
    raise Misuse(
        f"{text[:200]}: expected a file, a directory, a git repository or a URL that keeps checkpoints, found none"
    )


def configured_sources(workspace: Workspace, verifier: NoteVerifier) -> tuple[list[Source], TrustPolicy | None]:
    """Everything that a workspace has configured, and the policy by which its witnesses are believed.

    Raises Misuse or InvalidDocument when a setting or the policy is wrong.
    """
    policy = read_policy(workspace, verifier)
    sources: list[Source] = []
    if policy is not None:
        witnessed = workspace.ledger / WITNESSED_FILE
        if witnessed.exists():
            sources.append(FileSource(witnessed, outside=False))  # only the cosignatures in it vouch for it
        sources += [
            WitnessSource(each, each.url, workspace.settings.log) for each in policy.witnesses if each.url is not None
        ]
    sources += [open_anchor(url, workspace.anchors)[1] for url in workspace.settings.anchors]
    return sources, policy
