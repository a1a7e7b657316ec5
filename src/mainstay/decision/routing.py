"""Which version decides a call: the same one for the same key, as long as the shares only grow.

A key's place in [0, 1) is the first 64 bits of SHA-256 over the capability's name and the key, so every worker and
every face agrees, and raising a canary's share moves keys to it but never away from it. Calls without a key are spread
evenly by the golden ratio's low-discrepancy sequence.
"""

from __future__ import annotations

from hashlib import sha256

_GOLDEN = 0.6180339887498949


class Router:
    """Sends a share of the keys of one capability to its canary."""

    __slots__ = ("_name", "_place", "_share")

    def __init__(self, capability: str, percent: float) -> None:
        self._name = b"mainstay/route\x00" + capability.encode() + b"\x00"
        self._share = percent / 100
        self._place = 0.5

    def to_canary(self, key: bytes | None) -> bool:
        """Whether the canary decides the call with this business key; None where it has none."""
        if key is None:
            self._place = (self._place + _GOLDEN) % 1.0
            return self._place < self._share
        return self._holds(key)

    def row_to_canary(self, number: int) -> bool:
        """The same for a row of a table without a key, by its number: the same row always goes the same way."""
        return (0.5 + number * _GOLDEN) % 1.0 < self._share

    def _holds(self, key: bytes) -> bool:
        return int.from_bytes(sha256(self._name + key).digest()[:8]) / 2**64 < self._share
