"""Keyed pseudonyms: the same value of the same field always has the same one, so that records can be found and joined.

A pseudonym is the first 128 bits of HMAC-SHA256 (RFC 2104) over the field's path and its JSON value. Without the key
it cannot be computed, and so not be guessed either.
"""

from __future__ import annotations

import os
import secrets
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.errors import Misuse
from mainstay.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY_BYTES = 32
KEY_FILE = "pseudonym.key"
PREFIX = "pseudonym:"
PSEUDONYM_HEX = 32  # 128 bits

_BLOCK_BYTES = 64  # of SHA-256
_encode = msgspec.json.Encoder(order="deterministic").encode


def create_pseudonym_key(directory: Path) -> None:
    """Write a new key, readable by its owner only. Never replaces one: records would no longer join."""
    path = directory / KEY_FILE
    if path.exists():
        raise Misuse(f"{path} exists; replacing it would orphan every pseudonym recorded with it")
    write_atomic(path, secrets.token_bytes(KEY_BYTES), mode=0o600)


def load_pseudonym_key(directory: Path) -> bytes:
    """The workspace's key. Raises Misuse when it is absent or not a key."""
    path = directory / KEY_FILE
    try:
        with path.open("rb") as file:
            key = file.read(KEY_BYTES + 1)
            readable_by_others = os.fstat(file.fileno()).st_mode & 0o077
    except OSError as error:
        raise Misuse(f"{path}: expected the workspace's pseudonym key, found: {error.strerror}") from None
    if len(key) != KEY_BYTES:
        raise Misuse(f"{path}: expected {KEY_BYTES} bytes, found {len(key)}{'+' if len(key) > KEY_BYTES else ''}")
    if readable_by_others:
        raise Misuse(f"{path} can be read by others than its owner", hint=f"Run: chmod 600 {path}")
    return key


class Pseudonyms:
    """Makes pseudonyms under one key of KEY_BYTES."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a pseudonym key has {KEY_BYTES} bytes, found {len(key)}")
        block = key.ljust(_BLOCK_BYTES, b"\x00")
        # HMAC by its definition: copying both prepared states takes less than half of what `hmac.digest` does.
        self._inner = sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in block))

    def of_field(self, path: str) -> Callable[[Any], str | None]:
        """What makes the pseudonym of a JSON value, decoded, of the field at `path`. Null has none, and stays null."""
        begun = self._inner.copy()
        begun.update(path.encode() + b"\x00")
        copy_inner, copy_outer = begun.copy, self._outer.copy

        def pseudonym(value: Any) -> str | None:
            if value is None:
                return None
            inner = copy_inner()
            inner.update(_encode(value))
            outer = copy_outer()
            outer.update(inner.digest())
            return PREFIX + outer.hexdigest()[:PSEUDONYM_HEX]

        return pseudonym
