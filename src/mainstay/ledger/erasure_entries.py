"""What the ledger says of bodies that go: requests to erase, receipts of it, and archives that left.

They are changes whose bodies are never erased. A request names the entries whose bodies go, as runs of sequence
numbers, or a rule of retention that says which do; it is what makes an empty slot right. A receipt says that a request
was carried out. An archive says which entries stand elsewhere, and whether they stand here no longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import msgspec

from mainstay.errors import NOT_READ
from mainstay.ledger.archives import Gone  # noqa: TC001 - msgspec reads the annotations
from mainstay.ledger.review_entries import RESOLVED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mainstay.ledger.entry import Entry

REQUESTED: Final = "erasure.requested"
COMPLETED: Final = "erasure.completed"
ARCHIVED: Final = "ledger.archived"
ERASURE_MARK: Final = b'"action":"erasure.'  # what the leaf of a request or a receipt holds, and hardly another
MAX_RUNS: Final = 10_000  # in one request; more are several

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Run: TypeAlias = tuple[_Count, _Count]  # the entries [first, behind the last)


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bodies that go because of their age: those of a capability recorded at `since` or later and before `before`.

    Only the entries [first, last) are meant, and among them no decision that waited for a person when it was asked for.
    """

    capability: str
    since: str  # RFC 3339, UTC, as leaves have it, so that text compares as time; empty for the beginning
    before: str
    first: _Count
    last: _Count

    def covers(self, capability: str | None, at: str, sequence: int) -> bool:
        """Whether the rule is about an entry. A resolution names no capability in its leaf: rules are not about it."""
        return capability == self.capability and self.since <= at < self.before and self.first <= sequence < self.last


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be erased, and for whom, as the body of a request has it."""

    capability: str | None  # None: all
    key: str | None  # the pseudonym of the business key, where one was given; never the key
    decision: str | None  # the id of the decision, where one was given
    up_to: _Count  # entries in the log when it was looked up: later ones are not meant
    entries: Annotated[tuple[Run, ...], msgspec.Meta(max_length=MAX_RUNS)]  # ascending
    rule: Rule | None = None  # instead of a list

    @property
    def runs(self) -> tuple[Run, ...]:
        """The entries among which those concerned are: of a list all, of a rule those it covers."""
        return self.entries if self.rule is None else ((self.rule.first, self.rule.last),)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request, as it was recorded."""

    sequence: int
    id: str
    at: str
    principal: str
    reason: str
    wish: Wish


class Copies(msgspec.Struct, frozen=True, kw_only=True):
    """An archive that holds entries concerned, whose bodies are not in reach."""

    place: str
    first: _Count
    size: _Count


class Aside(msgspec.Struct, frozen=True, kw_only=True):
    """A damaged segment set aside: bodies overwritten in it, and bytes behind them that were never sealed."""

    file: str
    bodies: _Count
    unread_bytes: _Count


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What carrying out a request came to, as the body of a receipt has it."""

    bodies: _Count  # entries concerned in this ledger whose body is gone; for a rule, without those a request lists
    archives: tuple[Copies, ...] = ()
    aside: tuple[Aside, ...] = ()


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt, as it was recorded."""

    sequence: int
    id: str
    at: str
    principal: str  # who carried it out
    request: str  # the id of the request
    done: Done


class Departure(msgspec.Struct, frozen=True, kw_only=True):
    """An archive that was made, as the body of its entry has it."""

    first: _Count
    size: _Count  # the archive holds the entries [first, size)
    head: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]  # of the log of `size` entries
    place: str
    remove: bool  # the entries [first, size) and their bodies leave this ledger
    earlier: tuple[Gone, ...] = ()  # what had left before: the entries that said so may leave with this one


class Departed(msgspec.Struct, frozen=True, kw_only=True):
    """An archive that was made, as it was recorded."""

    sequence: int
    id: str
    at: str
    principal: str
    departure: Departure


class _ChangeLeaf(msgspec.Struct):
    kind: str
    id: str
    at: str
    action: str
    subject: str
    principal: str


class _WishBody(msgspec.Struct):
    reason: str
    details: Wish


class _DoneBody(msgspec.Struct):
    details: Done


class _DepartureBody(msgspec.Struct):
    details: Departure


class AnyLeaf(msgspec.Struct):
    """What tells whether an entry may be erased, and by which rule."""

    kind: str
    id: str
    at: str
    capability: str | None = None
    outcome: str | None = None
    action: str | None = None

    @property
    def is_review(self) -> bool:
        """Whether it is a decision that was left to a person. A shadow's outcome leaves nothing to anybody."""
        return self.kind == "decision" and self.outcome == "review"

    @property
    def erasable(self) -> bool:
        """Whether entries of this kind may ever be erased: what people and models said may, changes may not."""
        return self.kind in {"decision", "outcome", "shadow"} or (self.kind == "change" and self.action == RESOLVED)


_any_leaf = msgspec.json.Decoder(AnyLeaf).decode
_change_leaf = msgspec.json.Decoder(_ChangeLeaf).decode
_wish_body = msgspec.json.Decoder(_WishBody).decode
_done_body = msgspec.json.Decoder(_DoneBody).decode
_departure_body = msgspec.json.Decoder(_DepartureBody).decode


def read_any(leaf: bytes) -> AnyLeaf | None:
    """A leaf as far as erasing needs it; None when it is not one that Mainstay writes."""
    try:
        return _any_leaf(leaf)
    except NOT_READ:
        return None


def read_request(entry: Entry, sequence: int) -> Request | None:
    """The request in an entry; None when it is none, or does not name entries before it in ascending order."""
    found = _read(entry, REQUESTED, _wish_body)
    if found is None:
        return None
    leaf, body = found
    wish: Wish = body.details
    behind = 0
    for first, last in wish.runs:
        if not behind <= first < last <= sequence:
            return None
        behind = last
    if wish.rule is not None and wish.entries:
        return None
    return Request(
        sequence=sequence,
        id=leaf.id,
        at=leaf.at,
        principal=leaf.principal,
        reason=body.reason,
        wish=wish,
    )


def read_receipt(entry: Entry, sequence: int) -> Receipt | None:
    """The receipt in an entry; None when it is none."""
    found = _read(entry, COMPLETED, _done_body)
    if found is None:
        return None
    leaf, body = found
    return Receipt(
        sequence=sequence,
        id=leaf.id,
        at=leaf.at,
        principal=leaf.principal,
        request=leaf.subject,
        done=body.details,
    )


def read_departed(entry: Entry, sequence: int) -> Departed | None:
    """The archive that an entry speaks of; None when it speaks of none, or of entries that are not before it."""
    found = _read(entry, ARCHIVED, _departure_body)
    if found is None or not found[1].details.first < found[1].details.size <= sequence:
        return None
    leaf, body = found
    return Departed(sequence=sequence, id=leaf.id, at=leaf.at, principal=leaf.principal, departure=body.details)


def _read(entry: Entry, action: str, decode: Any) -> tuple[_ChangeLeaf, Any] | None:
    try:
        leaf = _change_leaf(entry.leaf)
        if leaf.kind != "change" or leaf.action != action:
            return None
        return leaf, decode(entry.body)
    except NOT_READ:
        return None


def runs_of(sequences: Iterable[int]) -> Iterator[Run]:
    """Ascending numbers, the same ones once, as runs.

    >>> list(runs_of([3, 4, 4, 5, 9]))
    [(3, 6), (9, 10)]
    """
    first = last = -1
    for sequence in sequences:
        if sequence > last and first >= 0:
            yield first, last
            first = sequence
        elif first < 0:
            first = sequence
        last = sequence + 1
    if first >= 0:
        yield first, last
