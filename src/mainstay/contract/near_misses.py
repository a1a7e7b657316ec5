"""The rule `near-miss`: a text that is none of the listed ones, and nearly one of them, is taken for a slip.

What is far from all of them may be new, and is let through. How far two texts are apart is the number of characters to
insert, delete, replace, or exchange with their neighbour (the distance of optimal string alignment: Damerau 1964), as
a share of the longer text.

    quality:
      - type: custom
        engine: mainstay
        implementation: { rule: near-miss, values: [anchorage, birmingham], distance: 0.2 }
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

NEAR_MISS: Final = "near-miss"
MOST_VALUES: Final = 2_000  # a text that is not listed is compared with all of about its length
LONGEST_VALUE: Final = 400  # characters
FARTHEST: Final = 0.5  # a share beyond which everything is near
_SIGNATURE_BITS: Final = 127  # a prime, so that neighbouring letters differ


class NearMisses:
    """The listed texts, ready to be compared with."""

    def __init__(self, values: Iterable[str], share: float) -> None:
        self.values = frozenset(values)
        self.share = share
        self._ordered = sorted(self.values, key=lambda text: (len(text), text))
        self._lengths = [len(text) for text in self._ordered]
        self._signatures = [_signature(text) for text in self._ordered]

    def holds(self, text: str) -> bool:
        """Whether a text is listed, or far from all that are."""
        return text in self.values or self.nearest(text) is None

    def nearest(self, text: str) -> str | None:
        """The listed text nearest to one that is not listed, or None where it is near none.

        Of several as near, the shortest, and of these the first in the order of the alphabet.
        """
        places = self._of_like_length(len(text))
        if not places:
            return None
        chosen, fewest = None, None
        length, own, table = len(text), _signature(text), _places(text)
        for at in places:
            other = self._ordered[at]
            allowed = int(self.share * max(length, self._lengths[at]))
            if fewest is not None:
                allowed = min(allowed, fewest - 1)
            # An edit adds or takes away at most one letter each: two bits.
            if allowed < 1 or (own ^ self._signatures[at]).bit_count() > 2 * allowed or other == text:
                continue
            found = _edits(table, length, other)
            if found <= allowed:
                chosen, fewest = other, found
        return chosen

    def _of_like_length(self, length: int) -> range:
        """The places of the texts whose length alone does not put them too far away."""
        shortest, longest = length * (1 - self.share), length / (1 - self.share)
        return range(bisect_left(self._lengths, int(shortest)), bisect_right(self._lengths, int(longest) + 1))


def edits(one: str, other: str) -> int:
    """The distance of two texts: how many characters to insert, delete, replace, or exchange with their neighbour."""
    return _edits(_places(one), len(one), other)


def _signature(text: str) -> int:
    made = 0
    for char in set(text):
        made |= 1 << (ord(char) % _SIGNATURE_BITS)
    return made


def _places(text: str) -> dict[str, int]:
    """Where each character stands in a text, as bits."""
    found: dict[str, int] = {}
    for place, char in enumerate(text):
        found[char] = found.get(char, 0) | 1 << place
    return found


def _edits(places: dict[str, int], length: int, other: str) -> int:
    """The distance from a text, given by its places, by the bit vectors of Hyyrö 2003, "A bit-vector algorithm for
    computing Levenshtein and Damerau edit distances".
    """
    if not length:
        return len(other)
    everything, last = (1 << length) - 1, 1 << (length - 1)
    up, down, diagonal, before = everything, 0, 0, 0  # vertical differences of +1 and -1; diagonal ones of 0
    distance = length
    for char in other:
        here = places.get(char, 0)
        exchanged = ((~diagonal & here) << 1) & before
        diagonal = ((((here & up) + up) ^ up) | here | down | exchanged) & everything
        right = (down | ~(diagonal | up)) & everything
        left = diagonal & up
        distance += bool(right & last) - bool(left & last)
        right, left = (right << 1) | 1, left << 1
        up = (left | ~(diagonal | right)) & everything
        down = right & diagonal
        before = here
    return distance


def near_misses_of(implementation: dict[str, Any]) -> NearMisses:
    """The rule that an implementation, found right when its contract was read, declares."""
    return NearMisses(implementation["values"], float(implementation["distance"]))
