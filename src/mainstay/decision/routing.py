"""Which version decides a call: the same one for the same key, as long as the shares only grow.

A key's place in [0, 1) is the first 64 bits of SHA-256 over the capability's name and the key, so every worker and
every face agrees, and raising a canary's share moves keys to it but never away from it. Calls without a key are spread
evenly by the golden ratio's low-discrepancy sequence.
"""

from __future__ import annotations

from hashlib import sha256

_GOLDEN = 0.6180339887498949


class Sample:
    """A share of the decisions of one capability, chosen for its shadows by keys as a router does for a canary.

    The places of keys are others than those of routing: who is mirrored does not depend on who decided. All shadows of
    a capability see the same keys, as far as their shares go.
    """

    __slots__ = ("_name", "_place", "_share")

    def __init__(self, capability: str, share: float) -> None:
        self._name = b"mainstay/shadow\x00" + capability.encode() + b"\x00"
        self._share = share
        self._place = 0.5

    def takes(self, key: bytes | None) -> bool:
        """Whether the decision with this business key is in the sample; None where it has none."""
        if self._share >= 1:
            return True
        if key is None:
            self._place = (self._place + _GOLDEN) % 1.0
            return self._place < self._share
        return _place_of(self._name, key) < self._share


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
        return _place_of(self._name, key) < self._share

    def row_to_canary(self, number: int) -> bool:
        """The same for a row of a table without a key, by its number: the same row always goes the same way."""
        return (0.5 + number * _GOLDEN) % 1.0 < self._share


def _place_of(name: bytes, key: bytes) -> float:
    return int.from_bytes(sha256(name + key).digest()[:8]) / 2**64
