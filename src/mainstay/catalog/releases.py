"""Releases: which version serves. Numbered per capability, signed, kept for ever.

    releases/<capability>/lock
    releases/<capability>/000007.json   DSSE envelope of a Release, written once
    releases/<capability>/current       a copy of the envelope in force, replaced atomically
    releases/<capability>/000006.void   a numbered envelope whose publisher died before it came into force

A publisher that dies leaves either the old or the new `current`. A number that never came into force is set aside by
the next publisher and not used again.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from mainstay.catalog.types import RELEASE_PAYLOAD, Digest, Release
from mainstay.catalog.versions import open_version
from mainstay.errors import Damaged, Misuse
from mainstay.files import sync_directory, write_atomic
from mainstay.locks import locked
from mainstay.signing import open_envelope, sign_envelope

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.signing import SigningKey, Verifier
    from mainstay.workspace import Workspace

CURRENT = "current"
LOCK = "lock"
MAX_ENVELOPE_BYTES = 1 << 20
MAX_REASON_CHARACTERS = 10_000

_NAME = re.compile(r"[a-z][a-z0-9-]{1,62}")
_NUMBERED = re.compile(r"(\d{6,})\.(json|void)")

Signature = tuple[tuple[str, int, int, int], ...]


def publish(
    workspace: Workspace, capability: str, version: Digest, *, key: SigningKey, reason: str, principal: str
) -> Release:
    """Put `version` of `capability` into force and return its release; going back is publishing an earlier version.

    Raises Misuse when there is no such version, it is of another capability, or no reason is given; Damaged when a
    file of the version, or the release in force, is not what was written. Nothing is published then.
    """
    _check_name(capability)
    if not 1 <= len(reason.strip()) <= MAX_REASON_CHARACTERS:
        raise Misuse("a release needs a reason: expected 1 to 10,000 characters saying why")
    if not principal.strip():
        raise Misuse("a release needs a principal: expected who publishes it")
    manifest = open_version(workspace.versions, version).manifest
    if manifest.capability != capability:
        raise Misuse(f"{version} is a version of {manifest.capability!r}: expected one of {capability!r}")
    directory = workspace.releases / capability
    with locked(directory / LOCK):
        number = _next_number(directory, capability, key.verifier)
        release = Release(
            format="mainstay-release/1",
            capability=capability,
            number=number,
            stage="production",
            version=version,
            contract=manifest.contract.digest,
            published_at=datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            published_by=principal,
            reason=reason.strip(),
        )
        payload = msgspec.json.encode(release, order="deterministic")
        envelope = sign_envelope(RELEASE_PAYLOAD, payload, key)
        write_atomic(directory / f"{number:06d}.json", envelope, mode=0o444)
        write_atomic(directory / CURRENT, envelope, mode=0o444)
    return release


def read_current(releases: Path, capability: str, verifier: Verifier) -> Release:
    """The release in force. Raises Misuse when there is none, Damaged when it is not what was signed."""
    _check_name(capability)
    current = _read_current(releases / capability, capability, verifier)
    if current is None:
        raise Misuse(f"{capability} has no release", hint=f"Publish one: mainstay promote {capability}")
    return current


def history(releases: Path, capability: str, verifier: Verifier) -> tuple[Release, ...]:
    """Every release that has been in force, oldest first; empty when there is none.

    Raises Damaged when one is not what was signed, or is missing.
    """
    _check_name(capability)
    directory = releases / capability
    current = _read_current(directory, capability, verifier)
    if current is None:
        return ()
    numbers = _numbers(directory)
    absent = sorted(set(range(1, current.number + 1)) - numbers.keys())
    if absent:
        raise Damaged(f"{directory}: expected every release up to {current.number}, found no {absent[0]:06d}.json")
    return tuple(
        _read(directory / f"{number:06d}.json", capability, number, verifier)
        for number in sorted(numbers)
        if number <= current.number and numbers[number] == "json"
    )


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


def _check_name(capability: str) -> None:
    if not _NAME.fullmatch(capability):
        raise Misuse(f"capability {capability[:80]!r}: expected lower-case letters, digits and dashes")


def _next_number(directory: Path, capability: str, verifier: Verifier) -> int:
    """The number to publish, after setting aside what a publisher that died left behind. The lock must be held."""
    current = _read_current(directory, capability, verifier)
    in_force = 0 if current is None else current.number
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
    except msgspec.DecodeError as error:
        raise Damaged(f"{path}: signed, but no release: {error}") from None
    if release.capability != capability or number not in (None, release.number):
        raise Damaged(f"{path}: expected a release of {capability!r}, found {release.capability!r} {release.number}")
    return release
