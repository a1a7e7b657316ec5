"""What is recorded of classified fields: a keyed pseudonym in place of the value.

A pseudonym is the first 128 bits of HMAC-SHA256 (RFC 2104) over the field's path and its JSON value. The same value
of the same field always has the same pseudonym, so records can be found and joined; without the key it cannot be
computed. The model itself is given the clear value.
"""

from __future__ import annotations

import hmac
import os
import secrets
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from mainstay.errors import Misuse
from mainstay.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mainstay.contract.types import Property

KEY_BYTES = 32
KEY_FILE = "pseudonym.key"
PREFIX = "pseudonym:"
OPEN_CLASSES = frozenset({"public", "internal"})


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


class Protector:
    """Replaces the classified fields of one object of a contract."""

    def __init__(self, properties: Iterable[Property], key: bytes) -> None:
        self._properties = tuple(properties)
        self._known = frozenset(each.name for each in self._properties)
        self._key = key

    def protect(self, raw: bytes) -> bytes:
        """The record of `raw`, JSON for JSON. Fields the contract does not know are replaced too: nobody classed them.

        What is not a JSON object is recorded as its digest and size alone.
        """
        try:
            value = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self.withhold(raw)
        if not isinstance(value, dict):
            return self.withhold(raw)
        return msgspec.json.encode(self._object(value, self._properties, ""))

    @staticmethod
    def withhold(raw: bytes) -> bytes:
        return msgspec.json.encode({"withheld": {"sha256": sha256(raw).hexdigest(), "bytes": len(raw)}})

    def _object(self, value: dict[str, Any], properties: Iterable[Property], path: str) -> dict[str, Any]:
        by_name = {each.name: each for each in properties}
        return {name: self._value(item, by_name.get(name), f"{path}.{name}") for name, item in value.items()}

    def _value(self, value: Any, declared: Property | None, path: str) -> Any:
        if value is None:
            return None
        if declared is None or is_classified(declared):
            return self._pseudonym(value, path)
        if isinstance(value, dict) and declared.properties:
            return self._object(value, declared.properties, path)
        if isinstance(value, list) and declared.items is not None:
            return [self._value(item, declared.items, f"{path}[]") for item in value]
        return value

    def _pseudonym(self, value: Any, path: str) -> str:
        message = path.encode() + b"\x00" + msgspec.json.encode(value, order="deterministic")
        return PREFIX + hmac.digest(self._key, message, "sha256")[:16].hex()


def is_classified(declared: Property) -> bool:
    """Whether a value may not be recorded as it is: any classification but public and internal."""
    return declared.classification is not None and declared.classification.strip().lower() not in OPEN_CLASSES


def any_classified(properties: Iterable[Property]) -> bool:
    """Whether any of these or what they hold is classified."""
    return any(
        is_classified(each)
        or any_classified(each.properties or ())
        or (each.items is not None and any_classified((each.items,)))
        for each in properties
    )
