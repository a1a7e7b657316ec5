"""The store of versions: immutable, content-addressed directories.

    versions/<64 hex>/manifest.json      canonical JSON; its SHA-256 is the directory's name and the version's id
    versions/<64 hex>/folder/...         the capability folder's files, by their paths in it
    versions/<64 hex>/artifact.onnx      only when the artifact was converted; else it stands in `folder/`
    versions/<64 hex>/profile.bin        only when there were reference rows

A version appears whole, by one rename, or not at all.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from mainstay.catalog.types import MANIFEST, Digest, Manifest, StoredFile
from mainstay.errors import NOT_READ, Damaged, Misuse
from mainstay.files import sync_directory, write_all
from mainstay.locks import locked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FOLDER = "folder"
LOCK = ".lock"
MAX_MANIFEST_BYTES = 16 << 20
MAX_FILE_BYTES = 2 << 30

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_HEX = re.compile(r"[0-9a-f]{64}")
_TEMPORARY = ".new-"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A version whose every file was found to be what was registered."""

    digest: Digest
    manifest: Manifest
    path: Path

    @property
    def folder(self) -> Path:
        """The capability folder as it was registered, for `load_capability`."""
        return self.path / FOLDER

    @property
    def artifact(self) -> Path | None:
        """What runs: the ONNX file, or what an isolated process loads; None for kinds python and remote."""
        return None if self.manifest.artifact is None else self.path / self.manifest.artifact.path

    @property
    def profile(self) -> Path | None:
        """The novelty profile; None when there were no reference rows."""
        return None if self.manifest.profile is None else self.path / self.manifest.profile.file.path


def digest_of(content: bytes) -> Digest:
    return "sha256:" + sha256(content).hexdigest()


def stored_file(path: str, content: bytes) -> StoredFile:
    """How `content` is named in a manifest when it stands at `path` inside the version."""
    return StoredFile(path=path, digest=digest_of(content), bytes=len(content))


def encode_manifest(manifest: Manifest) -> bytes:
    """Canonical JSON: keys sorted, no white space, UTF-8. The same manifest always gives the same bytes."""
    return msgspec.json.encode(manifest, order="deterministic")


def version_path(versions: Path, digest: Digest) -> Path:
    """Where a version stands. Raises Misuse when `digest` is not of the form of one."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise Misuse(f"version {digest[:100]!r}: expected 'sha256:' and 64 hex digits")
    return versions / match[1]


def load_manifest(versions: Path, digest: Digest) -> Manifest:
    """The manifest of a version. Raises Misuse when there is none, Damaged when it is not what was written."""
    path = version_path(versions, digest) / MANIFEST
    try:
        content = read_bounded(path, MAX_MANIFEST_BYTES)
    except FileNotFoundError:
        raise Misuse(f"no version {digest} in {versions}", hint="Register it: mainstay register DIR") from None
    found = digest_of(content)
    if found != digest:
        raise Damaged(f"{path}: expected content of {digest}, found {found}")
    try:
        return msgspec.json.decode(content, type=Manifest)
    except NOT_READ as error:
        raise Damaged(f"{path}: its digest holds, but it is no manifest that this release reads: {error}") from None


def open_version(versions: Path, digest: Digest) -> StoredVersion:
    """A version, after hashing every one of its files; about 1 s per GB.

    Raises Misuse when there is no such version, Damaged naming the first file that is not what was registered.
    """
    manifest = load_manifest(versions, digest)
    path = version_path(versions, digest)
    for stored in files_of(manifest):
        _check(path / stored.path, stored)
    return StoredVersion(digest, manifest, path)


def list_versions(versions: Path) -> dict[Digest, Manifest]:
    """Every version, in the order in which they were registered here. Raises Damaged when a manifest is."""
    return {digest: load_manifest(versions, digest) for digest in stored_digests(versions)}


def stored_digests(versions: Path) -> list[Digest]:
    """The digest of every version, in the order in which they were registered here."""
    if not versions.is_dir():
        return []
    found = [(path.stat().st_mtime_ns, path.name) for path in versions.iterdir() if _HEX.fullmatch(path.name)]
    return ["sha256:" + name for _, name in sorted(found)]


def files_of(manifest: Manifest) -> list[StoredFile]:
    """Every file of a version but the manifest, each once, by path."""
    named = [manifest.declaration, manifest.contract, manifest.authority, manifest.samples, *manifest.code]
    optional = (
        manifest.reference,
        manifest.artifact,
        manifest.source,
        None if manifest.profile is None else manifest.profile.file,
        None if manifest.trust is None else manifest.trust.signature,
    )
    by_path = {stored.path: stored for stored in (*named, *optional) if stored is not None}
    return [by_path[path] for path in sorted(by_path)]


def store_version(versions: Path, manifest: Manifest, contents: Mapping[str, bytes]) -> tuple[StoredVersion, bool]:
    """Write a version durably; returns it and whether it is new.

    `contents` has the bytes of every file of the manifest, by path. A version that is there already is left as it is.
    Raises Damaged when one of its files is not what was registered.
    """
    encoded = encode_manifest(manifest)
    digest = digest_of(encoded)
    path = version_path(versions, digest)
    with locked(versions / LOCK, timeout_seconds=120):
        for leftover in versions.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(leftover)
        if path.exists():
            return open_version(versions, digest), False
        temporary = versions / f"{_TEMPORARY}{secrets.token_hex(8)}"
        temporary.mkdir()
        for stored in files_of(manifest):
            content = contents[stored.path]
            assert stored == stored_file(stored.path, content), "a manifest names the bytes it is written with"
            _write(temporary / stored.path, content)
        _write(temporary / MANIFEST, encoded)
        for directory, _, _ in os.walk(temporary, topdown=False):
            sync_directory(temporary.joinpath(directory))
        temporary.rename(path)
        sync_directory(versions)
    return StoredVersion(digest, manifest, path), True


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """The whole of a regular file, read once.

    Raises FileNotFoundError when it is absent, Misuse when it is no regular file or longer than `limit_bytes`.
    """
    # Without O_NONBLOCK, opening a FIFO would wait for someone to write into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Misuse(f"{path}: expected a regular file")
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise Misuse(f"{path}: expected at most {limit_bytes:,} bytes, found more")
    return content


def _check(path: Path, stored: StoredFile) -> None:
    """Raises Damaged when the file at `path` is not `stored`."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != stored.bytes:
                raise Damaged(f"{path}: expected {stored.bytes:,} bytes, found {size:,}", hint=_REPAIR)
            hasher = sha256()
            while chunk := file.read(_CHUNK_BYTES):
                hasher.update(chunk)
    except OSError as error:
        raise Damaged(
            f"{path}: expected a file of {stored.bytes:,} bytes, found: {error.strerror}", hint=_REPAIR
        ) from None
    found = "sha256:" + hasher.hexdigest()
    if found != stored.digest:
        raise Damaged(f"{path}: expected content of {stored.digest}, found {found}", hint=_REPAIR)


_REPAIR = "Restore the file from a backup; or move the version's directory away and register its folder again."


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
    try:
        write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
