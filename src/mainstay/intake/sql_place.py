"""Where an SQL source goes on, and how rows with the value it ended at are told from those that come to it later."""

from __future__ import annotations

import base64
from collections import Counter
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from msgspec import Struct

from mainstay.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_TIES: Final = 4_096  # whose digests a cursor holds, 43 KB of it

BETWEEN, AT_LOW, AT_HIGH = 0, 1, 2  # where the value of a row stands in what is read

_DIGEST_BYTES: Final = 8
_WHOLE_BYTES: Final = 16

P = TypeVar("P", bound=Struct)


class Place(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a source goes on: the cursor of its items."""

    value: Any  # the greatest that was taken, of the cursor column; None: no row was
    ties: int  # how many rows with it were taken
    columns: list[str] = []  # what their digests are of
    digests: str = ""  # of those rows, in base64; none where they are too many
    told: list[str] = []  # codes of what was told and is still so

    def known(self) -> Counter[bytes]:
        """The digests, each as often as rows had it."""
        joined = base64.b64decode(self.digests)
        return Counter(joined[i : i + _DIGEST_BYTES] for i in range(0, len(joined), _DIGEST_BYTES))


class Whole(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a table without a cursor column held: the cursor of its items."""

    digest: str


class Ties:
    """Looks at every row that is read; its last two values are where it stands and its text, which says which it is."""

    def __init__(self, known: Counter[bytes] | None = None, *, counted: int = AT_HIGH) -> None:
        """`known` rows at the low value are passed over; those at `counted` are for the next place."""
        self.digests: list[bytes] = []  # at most MAX_TIES
        self.count = 0
        self._known = Counter(known or ())
        self._counted = counted

    def keep(self, row: Sequence[Any]) -> bool:
        """Whether the row lands."""
        where, text = row[-2], row[-1]
        if where == BETWEEN:
            return True
        digest = _digest(text, _DIGEST_BYTES)
        if where == AT_LOW and self._known[digest] > 0:
            self._known[digest] -= 1
            return False
        if where == self._counted:
            self.count += 1
            if len(self.digests) < MAX_TIES:
                self.digests.append(digest)
        return True

    def place(self, value: Any, columns: list[str], told: list[str]) -> Place:
        """The place behind the rows that were counted."""
        digests = encode_digests(self.digests) if self.count <= MAX_TIES else ""
        return Place(value=value, ties=self.count, columns=columns if digests else [], digests=digests, told=told)

    def added_to(self, place: Place, told: list[str]) -> Place:
        """The place, with the rows that were counted as well."""
        count = place.ties + self.count
        digests = encode_digests([*place.known().elements(), *self.digests]) if count <= MAX_TIES else ""
        columns = place.columns if digests else []
        return Place(value=place.value, ties=count, columns=columns, digests=digests, told=told)


class Sum:
    """A digest of rows in any order; the last value of a row is its text."""

    def __init__(self) -> None:
        self._sum = 0

    def keep(self, row: Sequence[Any]) -> bool:
        """Every row lands."""
        self._sum += int.from_bytes(_digest(row[-1], _WHOLE_BYTES))
        return True

    @property
    def whole(self) -> Whole:
        return Whole(digest=(self._sum % (1 << 8 * _WHOLE_BYTES)).to_bytes(_WHOLE_BYTES).hex())


def encode_digests(digests: Sequence[bytes]) -> str:
    """As a place holds them."""
    return base64.b64encode(b"".join(digests)).decode()


def decode_place(cursor: Any, kind: type[P]) -> P | None:
    """A cursor as its item held it; None at the beginning, and where it is of the other kind.

    Raises Damaged when it is neither.
    """
    if cursor is None:
        return None
    for each in (kind, Place, Whole):
        try:
            found = msgspec.convert(cursor, each)
        except msgspec.ValidationError:
            continue
        return found if isinstance(found, kind) else None  # a cursor column was declared, or is no longer
    raise Damaged("the cursor of an SQL source: expected where its last step ended, found something else")


def _digest(text: str | bytes, size: int) -> bytes:
    return blake2b(text if isinstance(text, bytes) else text.encode(), digest_size=size).digest()
