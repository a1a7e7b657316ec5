"""Is every empty body empty on the word of an entry of the log, and every body gone that a receipt says is gone?

Requests stand behind the entries they are about. So when the first empty body is met, the leaves from there on are
searched for requests and receipts, once, and each empty body is held against them as it comes. What that takes in
memory is a bit for each entry, in stretches of 65,536 entries of which a request lists one, and a few words for each
rule, however many bodies have gone by it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mainstay.errors import Damaged
from mainstay.ledger.bodies import read_body
from mainstay.ledger.entry import Entry, commitment, read_leaf
from mainstay.ledger.erasure_entries import ERASURE_MARK, read_any, read_receipt, read_request
from mainstay.ledger.index_erasures import by_bundle
from mainstay.ledger.log import Log
from mainstay.ledger.merkle import tree_root, verify_inclusion
from mainstay.ledger.note import MAX_NOTE_BYTES, verify_checkpoint
from mainstay.ledger.reading import read_regular
from mainstay.ledger.state import CHECKPOINT_FILE
from mainstay.ledger.tiles import BODIES, ENTRIES, WIDTH, TileName, split_leaves
from mainstay.ledger.treecheck import read_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from mainstay.ledger.erasure_entries import AnyLeaf, Receipt, Request, Rule
    from mainstay.ledger.findings import Findings
    from mainstay.ledger.note import Checkpoint
    from mainstay.signing import Verifier

_STRETCH_BUNDLES = 256


class Trusted(NamedTuple):
    """Against what a log is verified: the head that was signed, by whom, and of which log."""

    head: Checkpoint
    verifier: Verifier
    origin: str


class _Bits:
    """A set of entries: a bit for each, in stretches that hold one."""

    def __init__(self) -> None:
        self._stretches: dict[int, bytearray] = {}

    def add(self, first: int, last: int) -> None:
        """Put in the entries [first, last)."""
        for bundle, (begin, end) in by_bundle(first, last):
            stretch, place = divmod(bundle, _STRETCH_BUNDLES)
            held = self._stretches.setdefault(stretch, bytearray(_STRETCH_BUNDLES * WIDTH // 8))
            at = place * WIDTH // 8
            mask = ((1 << (end - begin)) - 1) << (begin % WIDTH)
            mask |= int.from_bytes(held[at : at + WIDTH // 8], "little")
            held[at : at + WIDTH // 8] = mask.to_bytes(WIDTH // 8, "little")

    def of(self, bundle: int) -> int:
        """Those of a bundle: bit n for its entry n."""
        stretch, place = divmod(bundle, _STRETCH_BUNDLES)
        held = self._stretches.get(stretch)
        at = place * WIDTH // 8
        return 0 if held is None else int.from_bytes(held[at : at + WIDTH // 8], "little")

    def has(self, sequence: int) -> bool:
        return bool(self.of(sequence // WIDTH) >> sequence % WIDTH & 1)

    def below(self, bundle: int) -> Iterator[tuple[int, int]]:
        """The bundles below one that hold any, and those they hold."""
        for stretch in sorted(self._stretches):
            for each in range(stretch * _STRETCH_BUNDLES, min(bundle, (stretch + 1) * _STRETCH_BUNDLES)):
                if held := self.of(each):
                    yield each, held


@dataclass(slots=True)
class _Ruled:
    """A rule, and how many bodies were found gone by it alone."""

    rule: Rule
    receipt: Receipt | None = None
    found: int = 0


class ErasedCheck:
    """Holds the empty bodies of the log of `size` entries in `root` against what the log says of them.

    The entries before `first` have left with an archive. `known` are entries behind `size` that were proven to be in
    the log: those an archive brings with it.
    """

    def __init__(
        self,
        root: Path,
        trusted: Trusted,
        findings: Findings,
        *,
        first: int = 0,
        known: Iterable[tuple[int, Entry]] = (),
    ) -> None:
        self._root = root
        self._trusted = trusted
        self._findings = findings
        self.first = first
        self._known = known
        self._searched = -1  # entries below have been searched for requests; none before the first empty body
        self._begun = 0  # the bundle from which on they were
        self._listed, self._gone = _Bits(), _Bits()
        self._later = _Bits()  # listed by requests behind the head
        self._requests: dict[str, Request] = {}  # without a receipt yet, by id
        self._rules: dict[str, list[_Ruled]] = {}  # by capability, in the order of time
        self.erased = 0  # bodies found gone, rightly

    @property
    def _size(self) -> int:
        return self._trusted.head.size

    # While the log is read, bundle by bundle.

    def check_empty(self, sequence: int, leaf: bytes, file: str) -> None:
        """An empty body: is there an entry that says so? Raises Enough when there are too many findings."""
        if self._searched < 0:
            self._search(sequence // WIDTH)
        found = read_any(leaf)
        if not self._allows(found, sequence):
            self._search_further()
            if not self._allows(found, sequence):
                what = "expected a body, found that it was erased, and no entry of the log says so"
                if found is not None and not found.erasable:
                    what = f"expected a body, found that it was erased: that of a {found.kind} never is"
                self._findings.add(file, what, sequence=sequence)
                return
        self.erased += 1

    def check_bundle(self, bundle: int, empty: int, count: int) -> None:
        """The first `count` bodies of a bundle, of which those in `empty` (bit n for its entry n) are empty."""
        if self._searched >= 0:
            left = self._gone.of(bundle) & ~empty & ((1 << count) - 1)
            if left:
                self._add_left(bundle, left)

    def finish(self, *, any_erasure: bool) -> None:
        """All has been read. `any_erasure` is whether any request or receipt was among it."""
        if self._searched < 0:
            if not any_erasure:
                return
            self._search(self.first // WIDTH)
            self._begun = -(-self._size // WIDTH)  # no body was empty
        for bundle, left in self._gone.below(self._begun):
            self._add_left(bundle, left)
        for rules in self._rules.values():
            for ruled in rules:
                whole = self.first <= ruled.rule.first and ruled.rule.last <= self._size
                if ruled.receipt is not None and whole:
                    self._check_count(ruled, ruled.receipt)

    def _add_left(self, bundle: int, left: int) -> None:
        lowest = (left & -left).bit_length() - 1
        self._findings.add(
            TileName(BODIES, bundle).path,
            "expected that this body is gone, as a receipt in the log says, found it here",
            sequence=bundle * WIDTH + lowest,
        )

    def _check_count(self, ruled: _Ruled, receipt: Receipt) -> None:
        rule, stated = ruled.rule, receipt.done.bodies
        if ruled.found != stated:
            self._search_further()  # somebody may have had one erased that the rule had kept, while we read
            excess = sum(self._later.of(bundle).bit_count() for bundle, _ in by_bundle(rule.first, rule.last))
            if stated <= ruled.found <= stated + excess:
                return
            self._findings.add(
                TileName(BODIES, rule.first // WIDTH).path,
                f"expected {stated} bodies of {rule.capability} recorded before {rule.before} to be gone from entries"
                f" {rule.first} to {rule.last - 1}, as entry {receipt.sequence} says, found {ruled.found} gone",
                sequence=rule.first,
            )

    def _allows(self, leaf: AnyLeaf | None, sequence: int) -> bool:
        if leaf is None or not leaf.erasable:
            return False
        if self._listed.has(sequence) or self._later.has(sequence):
            return True
        rules = self._rules.get(leaf.capability or "", [])
        at = bisect_right(rules, leaf.at, key=lambda each: each.rule.before)
        if at == len(rules) or not rules[at].rule.covers(leaf.capability, leaf.at, sequence):
            return False
        rules[at].found += 1
        return True

    # What the log says.

    def _search(self, bundle: int) -> None:
        """Find what the entries from `bundle` on say, and what is known of those behind the head."""
        self._begun, self._searched = bundle, self._size
        for number in range(bundle, -(-self._size // WIDTH)):
            for sequence, entry in self._in_bundle(number, self._size):
                self._take(sequence, entry)
        for sequence, entry in self._known:
            self._take(sequence, entry)

    def _in_bundle(self, number: int, size: int) -> Iterator[tuple[int, Entry]]:
        """The requests and receipts of a bundle that can be read; of what cannot, others have findings."""
        width = min(WIDTH, size - number * WIDTH)
        try:
            content = read_file(self._root, TileName(ENTRIES, number, width))
            if ERASURE_MARK not in content:
                return
            leaves = split_leaves(content, width)
        except (Damaged, OSError):
            return
        for sequence, leaf in enumerate(leaves, number * WIDTH):
            if ERASURE_MARK in leaf:
                body = read_body(self._root, sequence)
                decoded = read_leaf(leaf)
                if body is not None and decoded is not None and decoded.body == commitment(*body):
                    yield sequence, Entry(leaf, *body)

    def _take(self, sequence: int, entry: Entry) -> None:
        request = read_request(entry, sequence)
        if request is not None:
            self._requests[request.id] = request
            listed = self._listed if sequence < self._size else self._later
            for run in request.wish.entries:
                self._add_run(listed, run)
            if request.wish.rule is not None:
                rules = self._rules.setdefault(request.wish.rule.capability, [])
                rules.append(_Ruled(request.wish.rule))
                rules.sort(key=lambda each: each.rule.before)
            return
        receipt = read_receipt(entry, sequence)
        asked = None if receipt is None else self._requests.pop(receipt.request, None)
        if receipt is None or asked is None:
            return
        for run in asked.wish.entries:
            self._add_run(self._gone, run)
        for ruled in self._rules.get(asked.wish.rule.capability, []) if asked.wish.rule is not None else []:
            if ruled.rule == asked.wish.rule:
                ruled.receipt = receipt

    def _add_run(self, bits: _Bits, run: tuple[int, int]) -> None:
        first, last = max(run[0], self.first), min(run[1], self._size)
        if first < last:
            bits.add(first, last)

    # What was asked for since the head was signed: bodies may go while we read.

    def _search_further(self) -> None:
        try:
            note = read_regular(self._root / CHECKPOINT_FILE, MAX_NOTE_BYTES)
            later = verify_checkpoint(note, self._trusted.verifier, self._trusted.origin)
            if later.size <= self._searched:
                return
            log = Log(self._root)
            node = log.node(later.size)
            if tree_root(self._size, node) != self._trusted.head.root or tree_root(later.size, node) != later.root:
                return
        except (Damaged, OSError):
            return
        for number in range(self._searched // WIDTH, -(-later.size // WIDTH)):
            for sequence, entry in self._in_bundle(number, later.size):
                proof = log.inclusion_proof(sequence, later.size)
                proven = verify_inclusion(entry.leaf_hash, sequence, later.size, proof, later.root)
                if sequence >= self._searched and proven and read_request(entry, sequence) is not None:
                    self._take(sequence, entry)
        self._searched = later.size
