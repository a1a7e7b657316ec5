"""Bodies that go because of their age, as capabilities declare it: `retention.bodies_days`.

Once a day, at midnight UTC, a day's bodies come due. They are asked for as anybody asks, by an entry of the log, and
carried out the same way. One request is a rule, whatever number of bodies goes by it: a capability, from when to when,
and between which entries. What a rule passed over is listed by a later request: a decision that waited for a person and
was resolved since, an entry sealed late, and what people decided, whose leaves do not name a capability.

The index says which bundles hold bodies of what age, so that a day costs what is due on it, whatever the history.
"""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from mainstay.errors import Failed
from mainstay.ledger.archives import archived_until
from mainstay.ledger.bodies import read_bundle
from mainstay.ledger.eraser import LOCK_FILE, record_request
from mainstay.ledger.erasure_entries import MAX_RUNS, Rule, Wish, runs_of
from mainstay.ledger.tiles import WIDTH
from mainstay.locks import locked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mainstay.ledger.bodies import Bundle
    from mainstay.ledger.erasure_entries import AnyLeaf
    from mainstay.ledger.index import Index
    from mainstay.workspace import Workspace

PRINCIPAL = "retention"
LOOK_SECONDS = 60.0  # how often what is declared is looked at
RULE_BUNDLES = 4_096  # that one rule is about, so that each is carried out within a minute or so


class Declared(Protocol):
    """What is declared of retention, in a place that the ledger does not know."""

    def days(self) -> Mapping[str, int]:
        """For how many days bodies are kept, by capability; those that keep them for ever are left out."""

    def forget(self, capability: str, before: datetime) -> None:
        """Let go of what is remembered of a capability from before an instant outside the ledger."""


class Retention:
    """Asks for bodies to be erased because of their age."""

    def __init__(self, workspace: Workspace, index: Index, declared: Declared) -> None:
        self._root = workspace.ledger
        self._lock = workspace.data / LOCK_FILE
        self._index = index
        self._declared = declared
        self._seen_to: dict[str, str] = {}  # by capability: before when all that is due has gone
        self._look_at = 0.0

    def ask(self, now: datetime) -> bool:
        """Ask, durably, for some of what is due to be erased; whether there was any. All is sealed and indexed.

        Raises OSError when the disk fails, Damaged when the log is not whole.
        """
        if time.monotonic() < self._look_at:
            return False
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self._lock, timeout_seconds=0))
            except Failed:  # somebody is asking
                return False
            for capability, days in self._declared.days().items():
                begin = midnight(now) - timedelta(days=days)
                if self._seen_to.get(capability) == instant(begin):
                    continue
                wish = self._due(capability, instant(begin))
                if wish is not None:
                    reason = f"{capability} keeps bodies for {days} days"
                    record_request(self._root, wish, principal=PRINCIPAL, reason=reason)
                    return True
                self._declared.forget(capability, begin)
                self._seen_to[capability] = instant(begin)
        self._look_at = time.monotonic() + LOOK_SECONDS
        return False

    def _due(self, capability: str, before: str) -> Wish | None:
        """What is due of a capability, or a part of it; None when nothing is."""
        ruled_until = self._index.erasures.ruled_until(capability)
        size = self._index.size
        runs = list(runs_of(self._passed_over(capability, min(ruled_until, before), before, size)))[:MAX_RUNS]
        if runs:
            return Wish(capability=capability, key=None, decision=None, up_to=size, entries=tuple(runs))
        window = self._index.erasures.window(capability, ruled_until, before, RULE_BUNDLES)
        if window is None:
            return None
        until, first, last = window
        rule = Rule(
            capability=capability,
            since=ruled_until,
            before=until,
            first=first * WIDTH,
            last=min((last + 1) * WIDTH, size),
        )
        return Wish(capability=capability, key=None, decision=None, up_to=size, entries=(), rule=rule)

    def _passed_over(self, capability: str, ruled_until: str, before: str, size: int) -> Iterator[int]:
        """The entries that are due and no rule will be about, ascending, from not too many bundles."""
        above, found = archived_until(self._root) // WIDTH - 1, 0
        while bundles := self._index.erasures.bundles_older(capability, ruled_until, above=above):
            for number in bundles:
                bundle = read_bundle(self._root, number, size, capability)
                due = [] if bundle is None else list(self._due_in(bundle, capability, before, size))
                if not due:
                    oldest = None if bundle is None else bundle.oldest(self._root, capability, without=0)
                    self._index.erasures.set_kept(capability, number, oldest)
                yield from due
                found += len(due)
                if found >= MAX_RUNS:
                    return
            above = bundles[-1]

    def _due_in(self, bundle: Bundle, capability: str, before: str, size: int) -> Iterator[int]:
        for sequence in range(bundle.first, bundle.last):
            if not bundle.full >> sequence % WIDTH & 1:
                continue
            leaf = bundle.of_capability(self._root, sequence, capability)
            if leaf is not None and leaf.at < before and not self._waits(leaf, size):
                yield sequence

    def _waits(self, leaf: AnyLeaf, size: int) -> bool:
        return leaf.is_review and self._index.erasures.waited(leaf.id, size)


def midnight(now: datetime) -> datetime:
    """The beginning of the day, UTC."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def instant(moment: datetime) -> str:
    """As leaves write it, so that text compares as time."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
