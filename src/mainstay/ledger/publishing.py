"""Giving each new checkpoint to the witnesses and anchors of a workspace, beside the sealer and never in its way.

A round reads the checkpoint, has every witness cosign it, and stores it, with the cosignatures, at every anchor. The
newest one that satisfies the policy is kept as `ledger/witnessed`. What each of them has is remembered in a file of
its own, so that a restart goes on where the last round ended; all of it is safe to repeat.
"""

from __future__ import annotations

import asyncio
import logging
import time
from threading import Thread
from typing import TYPE_CHECKING, Literal, NamedTuple

from mainstay.errors import Damaged, Failed, MainstayError, Misuse
from mainstay.files import write_atomic
from mainstay.ledger.anchor_memory import (
    SETTINGS,
    Place,
    Remembered,
    now,
    recall,
    remember,
    remember_failure,
)
from mainstay.ledger.anchors import FileAnchor, HttpAnchor, file_path
from mainstay.ledger.anchors_git import PREFIX, GitAnchor
from mainstay.ledger.log import Log
from mainstay.ledger.note import add_signatures, parse_checkpoint, split_note, verify_checkpoint
from mainstay.ledger.outbound import Outbound, persistently
from mainstay.ledger.reading import read_regular
from mainstay.ledger.state import WITNESSED_FILE
from mainstay.ledger.trust_policy import MAX_POLICY_BYTES, parse_policy, shown
from mainstay.ledger.witness_client import WitnessClient
from mainstay.locks import locked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from threading import Event

    from mainstay.ledger.anchors import Anchor
    from mainstay.ledger.note import Checkpoint, NoteSignature, NoteVerifier
    from mainstay.ledger.trust_policy import TrustPolicy, Witness
    from mainstay.workspace import Workspace

logger = logging.getLogger("mainstay.anchors")

LOCK_FILE = "publishing.lock"
LOCK_SECONDS = 120.0  # a round of another process may take as long
STOP_POLL_SECONDS = 0.2


class Outcome(NamedTuple):
    """What became of one of them in a round."""

    place: Place
    result: Literal["stored", "there already", "failed"]
    size: int  # of the checkpoint that was published
    seconds: float
    error: str | None = None


def read_policy(workspace: Workspace, verifier: NoteVerifier) -> TrustPolicy | None:
    """The policy that the setting `witnesses` names; None when it names none. `verifier` is the ledger's key.

    Raises Misuse when there is no such file or it lists other logs only, InvalidDocument when it is no policy.
    """
    name = workspace.settings.witnesses
    if not name:
        return None
    path = workspace.root / name
    try:
        policy = parse_policy(read_regular(path.resolve(), MAX_POLICY_BYTES), name)
    except OSError as error:
        message = f"{path}: expected the trust policy that `witnesses` names, found: {error.strerror or error}"
        raise Misuse(message) from None
    if policy.logs and all(each.verifier.vkey != verifier.vkey for each in policy.logs):
        raise Misuse(f"{path}: expected the log {verifier.name} among its logs", hint=f"Add: log {verifier.vkey}")
    return policy


def open_anchor(url: str, memory: Path) -> tuple[Place, Anchor]:
    """The anchor at a URL; `memory` is the workspace's folder of anchors. Raises Misuse when it is no such URL."""
    if url.startswith("file:"):
        return Place("file", url), FileAnchor(url, file_path(url))
    if url.startswith(PREFIX):
        place = Place("git", url)
        return place, GitAnchor(url, memory / f"{place.file_name}.git")
    if url.startswith(("http:", "https:")):
        place = Place("http", url)
        return place, HttpAnchor(url, memory / f"{place.file_name}.sizes")
    raise Misuse(
        f"anchor {url[:200]!r}: expected a URL of file, git+file, git+ssh, git+https, https or http",
        hint="Such as file:///mnt/worm/ledger or git+ssh://git@example.com/checkpoints.git.",
    )


class Publisher:
    """Publishes the checkpoints of one workspace. Kept over several rounds, it does not wait twice for a dead disk."""

    def __init__(self, workspace: Workspace, verifier: NoteVerifier) -> None:
        """Raises Misuse or InvalidDocument when a setting or the policy is wrong."""
        self._ledger = workspace.ledger
        self._origin = workspace.settings.log
        self._memory = workspace.anchors
        self._verifier = verifier
        self._policy = read_policy(workspace, verifier)
        self._anchors = [open_anchor(url, workspace.anchors) for url in workspace.settings.anchors]
        listed = self._policy.witnesses if self._policy else ()
        self._witnesses = [(Place("witness", each.name), each) for each in listed if each.url is not None]

    @property
    def places(self) -> list[Place]:
        """Every witness that has a URL, and every anchor."""
        return [place for place, _ in self._witnesses] + [place for place, _ in self._anchors]

    def publish(self) -> list[Outcome]:
        """Give the checkpoint to all of them, also to those that are known to have it; empty when nothing was sealed.

        Raises Damaged when the checkpoint is not of this log, Failed when another process does not come to its end.
        """
        with locked(self._memory / LOCK_FILE, timeout_seconds=LOCK_SECONDS):
            return asyncio.run(self.round(again=True))

    async def round(self, *, again: bool = False) -> list[Outcome]:
        """Give the checkpoint to those that do not have it, or `again` to all; the caller holds the lock."""
        note = Log(self._ledger).note()
        if note is None:
            return []
        checkpoint = verify_checkpoint(note, self._verifier, self._origin)
        if checkpoint.size == 0:
            return []
        cosigned = [] if again else self._kept_signatures(note)
        asked = (self._ask(place, witness, note, checkpoint, cosigned) for place, witness in self._witnesses)
        outcomes = await asyncio.gather(*asked)
        note = add_signatures(note, sorted(cosigned))
        self._keep_witnessed(note, checkpoint)
        stored = (self._store(place, anchor, note, checkpoint, again=again) for place, anchor in self._anchors)
        return [*outcomes, *await asyncio.gather(*stored)]

    async def _ask(
        self, place: Place, witness: Witness, note: bytes, checkpoint: Checkpoint, cosigned: list[NoteSignature]
    ) -> Outcome:
        """Have a witness cosign, and add its cosignatures to `cosigned`, unless they are among them."""

        async def ask(before: Remembered) -> bool:
            if any(each.claims(witness.verifier) for each in cosigned):
                return False
            async with Outbound(witness.url or "") as http:
                client, log = WitnessClient(http, witness.verifier), Log(self._ledger)
                cosigned.extend(await persistently(lambda: client.cosign(log, note, before.size)))
            return True

        return await self._tend(place, checkpoint, ask)

    async def _store(
        self, place: Place, anchor: Anchor, note: bytes, checkpoint: Checkpoint, *, again: bool
    ) -> Outcome:
        async def store(before: Remembered) -> bool:
            if before.size > checkpoint.size:
                raise Failed(f"was given {before.size} entries, here are {checkpoint.size}: THIS LOG HAS LOST ENTRIES")
            has = (before.size, before.root) == (checkpoint.size, checkpoint.root.hex())
            return (again or not has) and await persistently(lambda: anchor.store(checkpoint, note))

        return await self._tend(place, checkpoint, store)

    async def _tend(
        self, place: Place, checkpoint: Checkpoint, work: Callable[[Remembered], Awaitable[bool]]
    ) -> Outcome:
        """Do what is to be done for one of them, and remember how it went. `work` says whether that was news to it."""
        began = time.monotonic()
        before = recall(self._memory, place)
        try:
            new = await work(before)
        except (MainstayError, OSError) as error:
            remember_failure(self._memory, place, before, error)
            return Outcome(place, "failed", checkpoint.size, time.monotonic() - began, str(error))
        except Exception as error:  # a fault of ours with one must not keep the checkpoint from the others
            logger.exception("anchoring failed: kind=%s name=%s", place.kind, shown(place.name))
            remember_failure(self._memory, place, before, error)
            return Outcome(place, "failed", checkpoint.size, time.monotonic() - began, repr(error))
        after = Remembered(checkpoint.size, checkpoint.root.hex(), now() if new else before.stored_at or now())
        if after != before:
            remember(self._memory, place, after)
        if before.failing_since is not None:
            logger.info("anchoring again: kind=%s name=%s", place.kind, shown(place.name))
        return Outcome(place, "stored" if new else "there already", checkpoint.size, time.monotonic() - began)

    def _kept_signatures(self, note: bytes) -> list[NoteSignature]:
        """The cosignatures of `ledger/witnessed`, when it is of the same checkpoint as this note."""
        try:
            text, signatures = split_note(_read(self._ledger / WITNESSED_FILE))
        except Damaged:
            return []
        if text != split_note(note)[0]:
            return []
        keys = [witness.verifier for _, witness in self._witnesses]
        return [
            each
            for each in signatures
            if any(each.claims(key) and key.verify(text.encode(), each.signature) for key in keys)
        ]

    def _keep_witnessed(self, note: bytes, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint as the newest that enough witnesses have cosigned, if it is."""
        if self._policy is None:
            return
        verdict = self._policy.evaluate(note, [self._verifier])
        path = self._ledger / WITNESSED_FILE
        kept = _read(path)
        if verdict.satisfied and verdict.cosigned and kept != note and _size(kept) <= checkpoint.size:
            write_atomic(path, note)


def _size(note: bytes) -> int:
    try:
        return parse_checkpoint(split_note(note)[0]).size
    except Damaged:
        return 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def standing(workspace: Workspace, verifier: NoteVerifier) -> list[tuple[Place, Remembered]]:
    """How it stands with every witness and anchor, as it is remembered, and with the settings that name them."""
    found = recall(workspace.anchors, SETTINGS)
    try:
        places = Publisher(workspace, verifier).places
    except MainstayError as error:
        places = []
        found = Remembered(failing_since=found.failing_since or now(), error=str(error))
    failing = [(SETTINGS, found)] if found.failing_since is not None else []
    return failing + [(place, recall(workspace.anchors, place)) for place in places]


def keep_published(workspace: Workspace, verifier: NoteVerifier, stop: Event) -> Thread | None:
    """Begin a thread that publishes every `anchor_interval_seconds` until `stop` is set; None when there is nobody to.

    Failures are logged once and remembered for `mainstay status`; none of them reaches the caller.
    """
    if not workspace.settings.anchors and not workspace.settings.witnesses:
        return None
    thread = Thread(target=_publish_on, args=(workspace, verifier, stop), name="anchors")
    thread.start()
    return thread


def _publish_on(workspace: Workspace, verifier: NoteVerifier, stop: Event) -> None:
    publisher: Publisher | None = None
    policy: bytes | None = None  # the file that the publisher was made with
    while not stop.is_set():
        before = recall(workspace.anchors, SETTINGS)
        try:
            current = _policy_file(workspace)
            if publisher is None or current != policy:
                publisher, policy = Publisher(workspace, verifier), current
            _try_round(publisher, workspace.anchors, stop)
            if before.failing_since is not None:
                remember(workspace.anchors, SETTINGS, Remembered())
        except (MainstayError, OSError) as error:
            publisher = None
            remember_failure(workspace.anchors, SETTINGS, before, error)
        except Exception:  # a fault of ours must not end what keeps the ledger anchored
            logger.exception("anchoring failed")
        stop.wait(workspace.settings.anchor_interval_seconds)


def _try_round(publisher: Publisher, memory: Path, stop: Event) -> None:
    """One round, unless another process is in the middle of one."""
    try:
        with locked(memory / LOCK_FILE, timeout_seconds=STOP_POLL_SECONDS):
            asyncio.run(_until(stop, publisher.round()))
    except Damaged:
        raise
    except Failed as error:  # the lock is held
        logger.info("a round is left out: %s", error.message)


def _policy_file(workspace: Workspace) -> bytes | None:
    """The policy as it stands; None when there is none, or none that can be read, which `Publisher` tells."""
    try:
        return read_regular((workspace.root / workspace.settings.witnesses).resolve(), MAX_POLICY_BYTES)
    except (OSError, Damaged):
        return None


async def _until(stop: Event, work: Awaitable[object]) -> None:
    """Wait for `work`, and give it up when `stop` is set."""
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.wait({task}, timeout=STOP_POLL_SECONDS)
        if stop.is_set() and not task.done():
            task.cancel()
            await asyncio.wait({task})
            return
    task.result()
