"""Asking for bodies to be erased, and what the ledger says of those that were.

A request is an entry of the log and waits there until it is carried out (`eraser.py`), by the control process or, where
none runs, by whoever asks.
"""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from mainstay.errors import Failed, Misuse
from mainstay.ledger.archives import archived_until
from mainstay.ledger.bodies import read_bundle
from mainstay.ledger.eraser import LOCK_FILE, record_request
from mainstay.ledger.erasure_entries import (
    MAX_RUNS,
    Receipt,
    Request,
    Wish,
    read_any,
    read_receipt,
    read_request,
    runs_of,
)
from mainstay.ledger.index import Index
from mainstay.ledger.log import Log
from mainstay.ledger.state import DAMAGED_FOLDER
from mainstay.ledger.steward import WAIT_SECONDS
from mainstay.ledger.tiles import WIDTH
from mainstay.ledger.wal import segments
from mainstay.locks import locked

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mainstay.ledger.steward import Hand
    from mainstay.workspace import Workspace


class Sought(NamedTuple):
    """Whose entries are to be erased: those with a business key, or those of one decision."""

    capability: str | None  # None: of any
    key: str | None
    decision_id: str | None
    pseudonym: str | None  # of the key, for the record


class Concerned(NamedTuple):
    """What would be erased."""

    sequences: list[int]  # ascending
    kinds: dict[str, int]  # how many, by kind; those that left with an archive are `archived`
    up_to: int  # entries in the log now; later ones are not concerned
    aside: tuple[str, ...]  # damaged segments kept aside: what was never sealed of them cannot be searched


class Erasure(NamedTuple):
    """What became of the body of an entry: asked for by whom, when and why, and carried out when, if it was."""

    request: Request
    receipt: Receipt | None


class Carried(NamedTuple):
    """A request that was carried out."""

    request: Request
    receipt: Receipt


class ErasureDesk:
    """Takes requests for a workspace, and sees to it that they are carried out."""

    def __init__(self, workspace: Workspace, hand: Hand, principal: str) -> None:
        """`principal` is on whose word bodies go."""
        self._workspace = workspace
        self._ledger = workspace.ledger
        self._hand = hand
        self._principal = principal
        self._log = Log(workspace.ledger)

    def find(self, sought: Sought) -> Concerned:
        """What is to be erased, of what is sealed, and was not asked for before.

        Raises Misuse when no decision has the id that is sought.
        """
        with Index(self._ledger) as index:
            index.catch_up(self._log)
            if sought.key is not None:
                sequences = index.erasures.concerned_by_key(sought.capability, sought.key)
            else:
                sequences = self._of_decision(index, sought)
            concerned = [each for each in sequences if not index.erasures.listing(each)]
            up_to = index.size
        there, kinds = self._look_at(concerned, up_to)
        aside = tuple(f"{DAMAGED_FOLDER}/{path.name}" for path in segments(self._ledger / DAMAGED_FOLDER))
        return Concerned(there, kinds, up_to, aside)

    @staticmethod
    def _of_decision(index: Index, sought: Sought) -> list[int]:
        decision_id = (sought.decision_id or "").lower()
        sequence = index.find(decision_id)
        found = None if sequence is None else index.capability_of(sequence)
        if sequence is None or found is None or sought.capability not in {None, found}:
            of = "" if sought.capability is None else f" of {sought.capability}"
            raise Misuse(
                f"no decision{of} has the id {decision_id[:80]!r}", hint="Expected the decision_id of an answer."
            )
        return sorted({sequence, *index.erasures.about(decision_id)})

    def _look_at(self, sequences: list[int], size: int) -> tuple[list[int], dict[str, int]]:
        """Those whose body is there, and how many of which kind; what has left with an archive is taken as it is."""
        there, kinds = [], Counter[str]()
        gone_until = archived_until(self._ledger)
        for number, found in groupby(sequences, lambda sequence: sequence // WIDTH):
            if number * WIDTH < gone_until:
                archived = list(found)
                there += archived
                kinds["archived"] += len(archived)
                continue
            bundle = read_bundle(self._ledger, number, size, None)
            for sequence in found:
                leaf = None if bundle is None else bundle.leaf(sequence)
                if bundle is not None and leaf is not None and bundle.full >> sequence % WIDTH & 1:
                    there.append(sequence)
                    kinds["resolution" if leaf.kind == "change" else leaf.kind] += 1
        return there, dict(kinds)

    def request(self, sought: Sought, reason: str) -> list[str]:
        """Ask, durably, for what concerns somebody now to be erased; the ids of the requests.

        There are several when more than MAX_RUNS runs of entries are concerned, and none when nothing is. Raises Failed
        while another request is being made, and OSError when the disk will not take it.
        """
        with locked(self._workspace.data / LOCK_FILE):
            found = self.find(sought)
            runs = list(runs_of(found.sequences))
            return [
                record_request(
                    self._ledger,
                    Wish(
                        capability=sought.capability,
                        key=sought.pseudonym,
                        decision=sought.decision_id,
                        up_to=found.up_to,
                        entries=tuple(runs[begin : begin + MAX_RUNS]),
                    ),
                    principal=self._principal,
                    reason=reason,
                )
                for begin in range(0, len(runs), MAX_RUNS)
            ]

    def carry_out(self, ids: Sequence[str]) -> list[Carried]:
        """See to it that requests are carried out.

        Raises Failed when they are not within WAIT_SECONDS; they stay in the ledger, and whoever seals goes on.
        """
        if not self._hand.until(lambda: len(self._carried(ids)) == len(ids)):
            raise Failed(
                f"requested as {', '.join(ids)}, and not carried out within {WAIT_SECONDS:g} s: {self._hand.held_by()}",
                hint="Nothing need be done again: whoever seals carries it out, and `mainstay explain ID` says when.",
            )
        return self._carried(ids)

    def _carried(self, ids: Sequence[str]) -> list[Carried]:
        """Those requests that have been carried out."""
        with Index(self._ledger) as index:
            index.catch_up(self._log)
            sequences = [index.erasures.find_request(each) for each in ids]
            found = [_read(self._log, index, each) for each in sequences if each is not None]
        return [Carried(each.request, each.receipt) for each in found if each.receipt is not None]


def erasure_of(ledger_dir: Path, sequence: int) -> Erasure | None:
    """Why the body of an entry is gone, or is to go; None when nobody has asked for that.

    Raises Archived when the entry has left, Damaged when the log is not whole.
    """
    log = Log(ledger_dir)
    with Index(ledger_dir) as index:
        index.catch_up(log)
        entry = log.entry(sequence)
        leaf = read_any(entry.leaf)
        asked = index.erasures.listing(sequence)
        if not asked and not entry.salt and leaf is not None and leaf.capability is not None:
            asked = index.erasures.ruling(leaf.capability, leaf.at, sequence)
        return _read(log, index, asked[0]) if asked else None


def _read(log: Log, index: Index, sequence: int) -> Erasure:
    request = read_request(log.entry(sequence), sequence)
    answered = index.erasures.receipt_of(sequence)
    receipt = None if answered is None else read_receipt(log.entry(answered), answered)
    assert request is not None, "the index takes as requests what can be read as one"
    return Erasure(request, receipt)
