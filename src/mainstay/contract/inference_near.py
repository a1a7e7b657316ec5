"""Texts that a slip of the pen made: what may be declared a near miss, in a column whose values keep apart.

A new value that is near a known one is refused (`near_misses`), so the rule may be declared only where clean values
hardly do that. How often they do is the product of two shares: of rows that hold a value never seen (Good 1953; see
`inference_evidence`), and of values that are near another one. Both are taken at their upper bound. So the rule stands
also where the values are no closed set, as names of places are; ids that differ in one digit are near each other, and
get none. Of values that things settle which keep coming, as a brewery its name, the first share is that of new things.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from mainstay.contract.inference_evidence import confidence_of, is_enough, poisson_upper
from mainstay.contract.near_misses import NEAR_MISS, NearMisses
from mainstay.contract.own_rules import ENGINE
from mainstay.contract.types import Quality

if TYPE_CHECKING:
    import polars as pl

    from mainstay.contract.inference_evidence import Evidence
    from mainstay.contract.inference_things import Spread

REFUSED_SHARE: Final = 0.001  # of clean rows, by a column's rule, at most
MOST_NEAR: Final = 0.05  # of values never seen, that are near a known one, at most
MOST_NEAR_VALUES: Final = 500  # that are listed, and compared with each other
LONGEST_VALUE: Final = 200  # characters
SHARES: Final = (0.34, 0.25, 0.2, 0.15, 0.1, 0.05)  # of a text that slips may change; the widest that is safe
LEAST_LENGTH: Final = 6  # characters of a constant: shorter words are near each other by chance
CONSTANT_SHARE: Final = 0.2


class NearRule(NamedTuple):
    """What is declared, and what speaks for it."""

    values: tuple[str, ...]
    share: float
    confidence: float
    words: str

    def quality(self) -> Quality:
        """The check that binds every record to it."""
        given = {"rule": NEAR_MISS, "values": list(self.values), "distance": self.share}
        return Quality(type="custom", engine=ENGINE, dimension="accuracy", implementation=given)


def infer_near_misses(values: pl.Series, evidence: Evidence, spread: Spread | None = None) -> NearRule | None:
    """The rule for a column of texts, or None where its values come too close to each other, or too few rows speak.

    `spread` says how the values stand in the things that settle them, if these keep coming.
    """
    if not evidence.values or not is_enough(max(evidence.draws, evidence.values if evidence.distinct == 1 else 0)):
        return None
    if not 1 <= evidence.distinct <= MOST_NEAR_VALUES:
        return None
    listed = sorted(values.drop_nulls().unique().to_list())
    if any(len(each) > LONGEST_VALUE for each in listed):
        return None
    if len(listed) == 1:
        return _constant(listed[0], evidence)
    unseen = max(evidence.unseen_share, 0.0 if spread is None else spread.unseen_share_upper)
    for share in SHARES:
        if all(len(each) < 1 / share for each in listed):
            return None  # too short for a single edit
        near = _near_each_other(listed, share)
        near_share = min(1.0, poisson_upper(near) / len(listed))
        refused = unseen * near_share
        if near_share <= MOST_NEAR and refused <= REFUSED_SHARE:
            words = f"{near} of {len(listed)} values are within {share:.0%} of another, so a new one that is, is a slip"
            return NearRule(tuple(listed), share, round(1 - refused, 4), words)
    return None


def _constant(text: str, evidence: Evidence) -> NearRule | None:
    """Of other values nothing is known but that none came; it is asked only that one that comes is no misspelling."""
    if len(text) < LEAST_LENGTH:
        return None
    words = f"always the same value; one within {CONSTANT_SHARE:.0%} of it is a slip"
    return NearRule((text,), CONSTANT_SHARE, confidence_of(evidence.values), words)


def _near_each_other(listed: list[str], share: float) -> int:
    rule = NearMisses(listed, share)
    return sum(rule.nearest(each) is not None for each in listed)
