"""The pilot's promise, held against what really came of its decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from mainstay.monitoring.performance import Threshold, Verdict, at_threshold, judge

if TYPE_CHECKING:
    from datetime import datetime

    from mainstay.capability.types import Capability
    from mainstay.ledger.index import Index


class Held(Struct, frozen=True, kw_only=True):
    """How the promise stands. Only decisions that the model answered count: a fallback promises nothing."""

    verdicts: list[Verdict]
    answered: int
    labelled: int  # of those, with a known outcome
    threshold: Threshold | None  # None without labels, or where the output is no yes or no


def hold(index: Index, capability: Capability, since: datetime | None = None, *, newest: int | None = None) -> Held:
    """The promise of a capability against the outcomes of what it answered at or after `since`.

    With `newest`, only the last so many decisions are looked at.

    Where nothing is promised there is no verdict; where labels are missing the verdict is unknown.
    """
    promise = capability.promise
    answered = 0
    labels: list[bool | None] = []
    scores: list[float] = []
    known: list[tuple[bool, float]] = []
    for decision, outcome in index.joined(capability.name, since, newest=newest):
        if decision.outcome != "answered" or decision.output is None:
            continue
        answered += 1
        score = msgspec.json.decode(decision.output).get(promise.score)
        if not isinstance(score, int | float):
            continue  # what is promised of has no score here
        label = None if outcome is None else msgspec.json.decode(outcome.outcome).get(promise.positive)
        scores.append(float(score))
        labels.append(label if isinstance(label, bool) else None)
        if isinstance(label, bool):
            known.append((label, float(score)))
    at = _declared_threshold(capability)
    return Held(
        verdicts=judge(promise, labels, scores),
        answered=answered,
        labelled=len(known),
        threshold=(
            at_threshold([label for label, _ in known], [score for _, score in known], at)
            if known and at is not None
            else None
        ),
    )


def _declared_threshold(capability: Capability) -> float | None:
    """Where the yes or no of the output is drawn, for the first field that is one."""
    return next((field.at for field in capability.output.values() if field.take == "threshold"), None)
