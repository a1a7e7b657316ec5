"""Business keys in the index: digests under a key of the index's own, so that the file names nobody.

A digest is the first 128 bits of HMAC-SHA256 (RFC 2104). The key stands beside the index and may be deleted with it:
the index is made again, with another.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from hashlib import sha256
from typing import TYPE_CHECKING

from mainstay.files import sync_directory, write_all

if TYPE_CHECKING:
    from pathlib import Path

KEY_FILE = "index.key"
KEY_BYTES = 32
DIGEST_BYTES = 16

_BLOCK_BYTES = 64  # of SHA-256


class KeyDigests:
    """Makes digests under one key of KEY_BYTES."""

    def __init__(self, key: bytes) -> None:
        block = key.ljust(_BLOCK_BYTES, b"\x00")
        # HMAC by its definition: copying both prepared states takes less than half of what `hmac.digest` does.
        self._inner = sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in block))
        self.check = self.of("")  # no business key is empty text that anybody looks for

    def of(self, key: str) -> bytes:
        """The digest of a business key."""
        inner = self._inner.copy()
        inner.update(key.encode("utf-8", "surrogatepass"))
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()[:DIGEST_BYTES]


def load_index_key(directory: Path) -> KeyDigests:
    """The key beside an index, made when it is absent or is none. Processes that make it at once get the same one.

    Raises OSError when the disk will not have it.
    """
    path = directory / KEY_FILE
    key = _read(path)
    while key is None:
        path.unlink(missing_ok=True)
        _create(path)
        key = _read(path)
    return KeyDigests(key)


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            key = file.read(KEY_BYTES + 1)
            private = not os.fstat(file.fileno()).st_mode & 0o077
    except FileNotFoundError:
        return None
    return key if len(key) == KEY_BYTES and private else None


def _create(path: Path) -> None:
    """Make the file whole in one step, unless another process has: a link fails where a name stands already."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(descriptor, secrets.token_bytes(KEY_BYTES))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    # Another process made it first, or a sealer that begins swept the temporary file away: whoever asked looks again.
    with contextlib.suppress(FileExistsError, FileNotFoundError):
        os.link(fresh, path)
    fresh.unlink(missing_ok=True)
    sync_directory(path.parent)
