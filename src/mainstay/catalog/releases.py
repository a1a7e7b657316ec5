"""Releases: which versions serve. Numbered per capability, signed, kept for ever.

    releases/<capability>/lock
    releases/<capability>/000007.json   DSSE envelope of a Release, written once
    releases/<capability>/current       a copy of the envelope in force, replaced atomically
    releases/<capability>/000006.void   a numbered envelope whose publisher died before it came into force

A publisher that dies leaves either the old or the new `current`. A number that never came into force is set aside by
the next publisher and not used again.

Shadows decide nothing, and so they are no part of what a rollback goes back to: every release keeps those that run,
but for one that begins to decide. Whoever publishes for a step of a rollout (`rollout`, such as the rollout's id and
the number of its step) may do so again after dying anywhere: what was published for that step before is not published
twice, and what stands is returned, be it that release or what somebody has published since.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from mainstay.capability.load import load_capability
from mainstay.capability.words import PREVIOUS
from mainstay.catalog.types import RELEASE_PAYLOAD, Canary, Digest, Release, Shadow
from mainstay.catalog.versions import open_version
from mainstay.errors import NOT_READ, Damaged, Misuse
from mainstay.files import sync_directory, write_atomic
from mainstay.locks import locked
from mainstay.signing import open_envelope, sign_envelope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from mainstay.catalog.versions import StoredVersion
    from mainstay.signing import SigningKey, Verifier
    from mainstay.workspace import Workspace

CURRENT = "current"
LOCK = "lock"
MAX_ENVELOPE_BYTES = 1 << 20
MAX_REASON_CHARACTERS = 10_000
MAX_SHADOWS = 8  # of a release: each is a process beside every worker
MAX_QUEUE = 1_000_000
MAX_ROLLOUT_CHARACTERS = 200

_NAME = re.compile(r"[a-z][a-z0-9-]{1,62}")
_NUMBERED = re.compile(r"(\d{6,})\.(json|void)")

Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who publishes, why, and for which step of which rollout, if for one."""

    reason: str
    principal: str
    rollout: str | None = None


@dataclass(frozen=True, slots=True)
class _Content:
    """What a release puts into force: all that decides."""

    version: Digest
    contract: Digest
    canary: Canary | None
    fallback_versions: tuple[Digest, ...]


def publish(  # noqa: PLR0913 - keywords only: what is published, and who asked for it
    workspace: Workspace,
    capability: str,
    version: Digest,
    *,
    key: SigningKey,
    reason: str,
    principal: str,
    canary: tuple[Digest, float] | None = None,
    rollout: str | None = None,
) -> Release:
    """Put `version` of `capability` into force and return its release; `canary` decides for that percentage of keys.

    The `version` rungs of both ladders are looked up now and stay what they are while this content is in force; a
    version that is in force already keeps what was looked up before.

    Raises Misuse when there is no such version, it is of another capability, a rung of its ladder cannot stand in for
    it, or no reason is given; Damaged when a file of a version, or the release in force, is not what was written.
    Nothing is published then.
    """
    asked = _asked(capability, reason, principal, rollout)
    with locked(workspace.releases / capability / LOCK):
        past = _Past(workspace.releases / capability, capability, key.verifier)
        if past.current is not None and past.was_published(rollout):
            return past.current
        if past.current is not None and past.current.version == version:
            content = replace(_whole_content_of(workspace, past.current), canary=None)
        else:
            content = _resolve(workspace, capability, version, (each.version for each in past.newest_first()))
        if canary is not None:
            content = _beside(workspace, capability, content, canary)
        return _put(past, content, key, asked)


def publish_canary(  # noqa: PLR0913 - keywords only: what is published, and who asked for it
    workspace: Workspace,
    capability: str,
    version: Digest,
    percent: float,
    *,
    key: SigningKey,
    reason: str,
    principal: str,
    rollout: str | None = None,
) -> Release:
    """Keep what is in force, with `version` deciding for `percent` of the keys beside it, in place of another canary.

    Raises as `publish` does, and Misuse when nothing is in force.
    """
    asked = _asked(capability, reason, principal, rollout)
    with locked(workspace.releases / capability / LOCK):
        past = _Past(workspace.releases / capability, capability, key.verifier)
        in_force = _whole_content_of(workspace, past.in_force())
        if past.was_published(rollout):
            return past.in_force()
        return _put(past, _beside(workspace, capability, in_force, (version, percent)), key, asked)


def publish_shadow(  # noqa: PLR0913 - keywords only: what is published, and who asked for it
    workspace: Workspace,
    capability: str,
    version: Digest,
    *,
    share: float,
    queue: int,
    key: SigningKey,
    reason: str,
    principal: str,
    rollout: str | None = None,
) -> Release:
    """Keep what is in force, with `version` as its shadow: given `share` of the decisions, `queue` waiting at most.

    Asked for a version that is a shadow already, its share and queue are changed. Raises as `publish` does, and Misuse
    when nothing is in force, the version decides already, or there are MAX_SHADOWS others.
    """
    asked = _asked(capability, reason, principal, rollout)
    if not 0 < share <= 1:
        raise Misuse(f"a shadow is given a share of the decisions: expected above 0 and at most 1, found {share:g}")
    if not 1 <= queue <= MAX_QUEUE:
        raise Misuse(f"decisions wait for a shadow: expected a queue of 1 to {MAX_QUEUE:,}, found {queue:,}")
    with locked(workspace.releases / capability / LOCK):
        past = _Past(workspace.releases / capability, capability, key.verifier)
        current = past.in_force()
        if past.was_published(rollout):
            return current
        if version in _deciding(_content_of(current)):
            raise Misuse(f"{version} decides already: expected another version as a shadow")
        contract = _open(workspace, capability, version).manifest.contract.digest
        made = Shadow(version=version, contract=contract, share=float(share), queue=queue)
        others = tuple(each for each in current.shadows if each.version != version)
        if len(others) >= MAX_SHADOWS:
            raise Misuse(f"{capability} has {len(others)} shadows: expected at most {MAX_SHADOWS}, end one of them")
        return _put_beside(past, current, (*others, made), key, asked)


def end_shadow(
    workspace: Workspace,
    capability: str,
    version: Digest,
    *,
    key: SigningKey,
    reason: str,
    principal: str,
    rollout: str | None = None,
) -> Release:
    """Keep what is in force without the shadow `version`; where it is none, nothing is published and what stands given.

    Raises Misuse when nothing is in force or no reason is given.
    """
    asked = _asked(capability, reason, principal, rollout)
    with locked(workspace.releases / capability / LOCK):
        past = _Past(workspace.releases / capability, capability, key.verifier)
        current = past.in_force()
        others = tuple(each for each in current.shadows if each.version != version)
        if past.was_published(rollout) or len(others) == len(current.shadows):
            return current
        return _put_beside(past, current, others, key, asked)


def roll_back(
    workspace: Workspace,
    capability: str,
    *,
    key: SigningKey,
    reason: str,
    principal: str,
    to: int | None = None,
    rollout: str | None = None,
) -> Release:
    """Publish again what an earlier release put into force, its canary and fallback versions too.

    `to` is that release's number. Without it, it is the newest one, before the content in force was first published,
    that put something else into force and did not have the version in force as its canary. So rolling back twice goes
    back two steps, and what is rolled back from does not go on deciding for some.

    Raises Misuse when there is no such release or no reason is given, and Damaged as `publish` does.
    """
    asked = _asked(capability, reason, principal, rollout)
    with locked(workspace.releases / capability / LOCK):
        past = _Past(workspace.releases / capability, capability, key.verifier)
        current = past.in_force()
        if past.was_published(rollout):
            return current
        found = _earlier(past, current, to)
        content = _whole_content_of(workspace, found)
        return _put(past, content, key, asked, content_of=found.content_of or found.number)


def read_current(releases: Path, capability: str, verifier: Verifier) -> Release:
    """The release in force. Raises Misuse when there is none, Damaged when it is not what was signed."""
    _check_name(capability)
    return _Past(releases / capability, capability, verifier).in_force()


def history(releases: Path, capability: str, verifier: Verifier) -> tuple[Release, ...]:
    """Every release that has been in force, oldest first; empty when there is none.

    Raises Damaged when one is not what was signed, or is missing.
    """
    _check_name(capability)
    return tuple(_Past(releases / capability, capability, verifier).newest_first())[::-1]


def capabilities_with_releases(releases: Path) -> tuple[str, ...]:
    """The names of the capabilities that have a release in force, sorted."""
    return tuple(name for name, *_ in signature_of(releases))


def signature_of(releases: Path) -> Signature:
    """A cheap fingerprint of every `current`: name, inode, modification time in ns, size. Each release changes it."""
    try:
        names = sorted(entry.name for entry in os.scandir(releases) if _NAME.fullmatch(entry.name))
    except FileNotFoundError:
        return ()
    found = []
    for name in names:
        try:
            stat = (releases / name / CURRENT).stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        found.append((name, stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(found)


class _Past:
    """The releases of a capability until now. To publish the next, its lock must be held."""

    def __init__(self, directory: Path, capability: str, verifier: Verifier) -> None:
        self.directory, self.capability, self.verifier = directory, capability, verifier
        self.current = _read_current(directory, capability, verifier)

    def in_force(self) -> Release:
        if self.current is None:
            raise Misuse(f"{self.capability} has no release", hint=f"Publish one: mainstay promote {self.capability}")
        return self.current

    def was_published(self, rollout: str | None) -> bool:
        """Whether a release of the past was published for this step of a rollout."""
        return rollout is not None and any(each.rollout == rollout for each in self.newest_first())

    def newest_first(self) -> Iterator[Release]:
        """Every release that has been in force, read as it is asked for. Raises Damaged when one is missing."""
        if self.current is None:
            return
        numbers = _numbers(self.directory)
        for number in range(self.current.number, 0, -1):
            if number not in numbers:
                last = self.current.number
                raise Damaged(f"{self.directory}: expected every release up to {last}, found no {number:06d}.json")
            if numbers[number] == "json":
                yield _read(self.directory / f"{number:06d}.json", self.capability, number, self.verifier)


def _content_of(release: Release) -> _Content:
    return _Content(release.version, release.contract, release.canary, release.fallback_versions)


def _deciding(content: _Content) -> set[Digest]:
    """The versions that decide for somebody."""
    return {content.version} if content.canary is None else {content.version, content.canary.version}


def _whole_content_of(workspace: Workspace, release: Release) -> _Content:
    """What a release put into force, after hashing every version it names. Raises Damaged where one is not whole."""
    canary = release.canary
    named = (release.version, *release.fallback_versions)
    named += () if canary is None else (canary.version, *canary.fallback_versions)
    for version in dict.fromkeys(named):
        open_version(workspace.versions, version)
    return _content_of(release)


def _earlier(past: _Past, current: Release, to: int | None) -> Release:
    """The release to go back to."""
    if to is not None:
        found = next((each for each in past.newest_first() if each.number == to), None)
        if found is None or found.number == current.number:
            raise Misuse(
                f"release {to} of {past.capability}: expected one that was in force before {current.number}",
                hint=f"List them: mainstay history {past.capability}",
            )
        return found
    before = current.content_of or current.number
    for each in past.newest_first():
        on_trial = each.canary is not None and each.canary.version == current.version
        if each.number < before and _content_of(each) != _content_of(current) and not on_trial:
            return each
    raise Misuse(f"{past.capability}: expected an earlier release with other content to go back to, found none")


def _resolve(workspace: Workspace, capability: str, version: Digest, earlier: Iterable[Digest]) -> _Content:
    """A version and those that its ladder names, all of them whole.

    `earlier` are the versions that were in force before, the newest first.
    """
    opened = _open(workspace, capability, version)
    contract = opened.manifest.contract.digest
    rungs = enumerate(load_capability(opened.folder).capability.fallback)
    named = {f"fallback[{i}] of {version}": rung.version for i, rung in rungs if rung.version is not None}
    previous = next((each for each in earlier if each != version), None) if PREVIOUS in named.values() else None
    found: list[Digest] = []
    for rung, name in named.items():
        digest = previous if name == PREVIOUS else name
        if digest is None:
            raise Misuse(
                f"{rung} is the version in force before: expected an earlier release of {capability} with another "
                "version, found none",
                hint="Promote a version without this rung first, or name a version there: sha256:...",
            )
        other = _open(workspace, capability, digest).manifest.contract.digest
        if other != contract:
            raise Misuse(
                f"{rung} is version {digest}: expected one with the same contract, {contract}, found {other}",
                hint="Its answers were made for another contract than they would be held against. Register that "
                "version's folder again with this contract and name the version that makes, or leave the rung out.",
            )
        found.append(digest)
    return _Content(version, contract, None, tuple(found))


def _beside(workspace: Workspace, capability: str, content: _Content, canary: tuple[Digest, float]) -> _Content:
    """`content` with this canary, whose own `previous` is the version it stands beside."""
    version, percent = canary
    if not 0 < percent < 100:
        raise Misuse(f"a canary decides for a share of the keys: expected above 0 and below 100 %, found {percent:g}")
    if version == content.version:
        raise Misuse(f"{version} decides for all keys already: expected another version as its canary")
    own = _resolve(workspace, capability, version, (content.version,))
    made = Canary(
        version=version, contract=own.contract, percent=float(percent), fallback_versions=own.fallback_versions
    )
    return replace(content, canary=made)


def _open(workspace: Workspace, capability: str, version: Digest) -> StoredVersion:
    opened = open_version(workspace.versions, version)
    if opened.manifest.capability != capability:
        raise Misuse(f"{version} is a version of {opened.manifest.capability!r}: expected one of {capability!r}")
    return opened


def _put_beside(past: _Past, current: Release, shadows: tuple[Shadow, ...], key: SigningKey, asked: _Asked) -> Release:
    """Write the next release: what decides stays as it is, so that a rollback passes over this one."""
    return _put(past, _content_of(current), key, asked, shadows=shadows, content_of=current.content_of)


def _put(
    past: _Past,
    content: _Content,
    key: SigningKey,
    asked: _Asked,
    *,
    shadows: tuple[Shadow, ...] | None = None,
    content_of: int | None = None,
) -> Release:
    """Write the next release; without `shadows` it has those that run now. The lock must be held."""
    if shadows is None:
        shadows = () if past.current is None else past.current.shadows
    deciding = _deciding(content)
    number = _next_number(past)
    release = Release(
        format="mainstay-release/1",
        capability=past.capability,
        number=number,
        stage="production",
        version=content.version,
        contract=content.contract,
        canary=content.canary,
        fallback_versions=content.fallback_versions,
        published_at=datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        published_by=asked.principal,
        reason=asked.reason.strip(),
        content_of=content_of,
        shadows=tuple(each for each in shadows if each.version not in deciding),
        rollout=asked.rollout,
    )
    envelope = sign_envelope(RELEASE_PAYLOAD, msgspec.json.encode(release, order="deterministic"), key)
    write_atomic(past.directory / f"{number:06d}.json", envelope, mode=0o444)
    write_atomic(past.directory / CURRENT, envelope, mode=0o444)
    return release


def _asked(capability: str, reason: str, principal: str, rollout: str | None) -> _Asked:
    """What was said, held against what must be."""
    _check_name(capability)
    if not 1 <= len(reason.strip()) <= MAX_REASON_CHARACTERS:
        raise Misuse("a release needs a reason: expected 1 to 10,000 characters saying why")
    if not principal.strip():
        raise Misuse("a release needs a principal: expected who publishes it")
    if rollout is not None and not 1 <= len(rollout) <= MAX_ROLLOUT_CHARACTERS:
        raise Misuse(f"a step of a rollout has a name: expected 1 to {MAX_ROLLOUT_CHARACTERS} characters")
    return _Asked(reason, principal, rollout)


def _check_name(capability: str) -> None:
    if not _NAME.fullmatch(capability):
        raise Misuse(f"capability {capability[:80]!r}: expected lower-case letters, digits and dashes")


def _next_number(past: _Past) -> int:
    """The number to publish, after setting aside what a publisher that died left behind. The lock must be held."""
    directory, in_force = past.directory, 0 if past.current is None else past.current.number
    numbers = _numbers(directory)
    for number, suffix in numbers.items():
        if number > in_force and suffix == "json":
            (directory / f"{number:06d}.json").rename(directory / f"{number:06d}.void")
    for leftover in directory.glob(".*.tmp"):
        leftover.unlink()
    sync_directory(directory)
    return max(in_force, *numbers, 0) + 1


def _numbers(directory: Path) -> dict[int, str]:
    """The numbers taken, each with `json` or `void`."""
    matches = (_NUMBERED.fullmatch(path.name) for path in directory.iterdir())
    return {int(match[1]): match[2] for match in matches if match is not None}


def _read_current(directory: Path, capability: str, verifier: Verifier) -> Release | None:
    try:
        return _read(directory / CURRENT, capability, None, verifier)
    except FileNotFoundError:
        return None


def _read(path: Path, capability: str, number: int | None, verifier: Verifier) -> Release:
    """The release in an envelope, held against the place it was found in."""
    with path.open("rb") as file:
        content = file.read(MAX_ENVELOPE_BYTES + 1)
    if len(content) > MAX_ENVELOPE_BYTES:
        raise Damaged(f"{path}: expected at most {MAX_ENVELOPE_BYTES} bytes, found more")
    try:
        release = msgspec.json.decode(open_envelope(content, RELEASE_PAYLOAD, verifier), type=Release)
    except Damaged as error:
        raise Damaged(f"{path}: {error.message}", hint=error.hint) from None
    except NOT_READ as error:
        raise Damaged(f"{path}: signed, but no release: {error}") from None
    if release.capability != capability or number not in (None, release.number):
        raise Damaged(f"{path}: expected a release of {capability!r}, found {release.capability!r} {release.number}")
    return release
