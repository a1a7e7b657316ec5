"""From a sample of rows to an object of a contract, each rule with what speaks for it.

    1  read each column as what it holds, or as what whoever uses it needs it to be         inference_logical
    2  weigh how many independent draws its rows are worth                                  inference_evidence
       and what the things that keep coming, such as breweries, settle                      inference_things
    3  declare what so many draws can declare: no gaps, a closed set of values, bounds,
       a format, a shape, lengths, whole cents, no value twice                              inference_ranges, _texts
    4  guess what it may say of a person; a guess is asked, never declared                  inference_privacy
    5  find which columns settle others, and what                              inference_dependencies, _mappings

What is declared is meant to hold for every further clean row of the same source; all columns together may refuse about
one of a thousand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from msgspec import structs

from mainstay.contract.inference_evidence import (
    MOST_UNSEEN,
    confidence_of,
    is_enough,
    is_rising,
    poisson_upper,
    weigh,
)
from mainstay.contract.inference_logical import read_column
from mainstay.contract.inference_mappings import infer_tables
from mainstay.contract.inference_names import KEYS, PEOPLE, has_word
from mainstay.contract.inference_near import infer_near_misses
from mainstay.contract.inference_privacy import guess_classification
from mainstay.contract.inference_ranges import infer_cents, infer_range
from mainstay.contract.inference_texts import LONGEST_LISTED, MOST_LISTED, infer_text
from mainstay.contract.inference_things import MOST_REFUSED, Things
from mainstay.contract.inference_types import Finding, InferredColumn, InferredObject
from mainstay.contract.near_misses import NEAR_MISS
from mainstay.contract.types import Options, Property, Quality

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import polars as pl

    from mainstay.contract.inference_evidence import Evidence
    from mainstay.contract.inference_logical import ReadColumn
    from mainstay.contract.inference_things import Spread
    from mainstay.contract.inference_types import Guess, Wanted

REFUSED_SHARE: Final = 1e-3  # of clean rows, by the bounds of all columns together
MOST_EXAMPLES: Final = 3
LONGEST_EXAMPLE: Final = 40  # characters
SPARSE_VALUES: Final = 20  # an integer has a list of values rather than bounds up to so many
OFTEN: Final = 10  # each of them at least
KEY_CONFIDENCE: Final = 6  # n rows without a repeat leave one for at most 6/n of new rows (birthdays, 95 %)


def infer_object(
    frame: pl.DataFrame,
    name: str,
    wanted: Mapping[str, Wanted] | None = None,
    *,
    public: Collection[str] = (),
) -> InferredObject:
    """The columns of `frame` as an object called `name`. Rows must be in the order in which they came.

    `wanted` says what some columns have to be, and `public` which of them say nothing of a person, whatever they look
    like; values of others that may are not written down. Raises Unfit when a column is not what is wanted of it, or is
    nothing a property can be.
    """
    share = REFUSED_SHARE / (2 * max(1, frame.width))
    given = wanted or {}
    reads = [read_column(each, given.get(each.name)) for each in frame.iter_columns()]
    things = Things([each.values for each in reads])
    drafts = [_draft(each, things) for each in reads]
    _share_unseen(drafts)
    columns = tuple(_infer(each, share, is_public=each.name in public) for each in drafts)
    open_ones = [
        each for each in columns if each.guess is None and (each.name in public or not has_word(each.name, PEOPLE))
    ]
    return InferredObject(name, columns, frame.height, infer_tables(open_ones, things))


@dataclass
class _Draft:
    """A column while it is being looked at."""

    read: ReadColumn
    evidence: Evidence
    options: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    quality: tuple[Quality, ...] = ()
    spread: Spread | None = None  # in things that keep coming
    is_key: bool = False  # of such things
    is_listed: bool = True  # whether its values may be listed

    @property
    def name(self) -> str:
        return self.read.values.name

    @property
    def values(self) -> pl.Series:
        return self.read.values


def infer_column(
    column: pl.Series, wanted: Wanted | None = None, *, share: float, is_public: bool = False
) -> InferredColumn:
    """One column. A `share` of new rows may exceed a bound of it. Raises Unfit as `infer_object` does."""
    return _infer(_draft(read_column(column, wanted)), share, is_public=is_public)


def _draft(read: ReadColumn, things: Things | None = None) -> _Draft:
    evidence = weigh(read.values)
    draft = _Draft(read, evidence, options=_given(read.options), notes=list(read.notes), is_listed=evidence.is_closed)
    if things is not None:
        draft.spread, draft.is_key = things.spread_of(draft.name), things.is_key(draft.name)
        draft.is_listed &= draft.spread is None or draft.spread.unseen_share <= MOST_REFUSED
    return draft


def _share_unseen(drafts: Sequence[_Draft]) -> None:
    """Lists of values, as many as together refuse no more rows than one alone may: the least sure are given up."""
    listed = sorted((each for each in drafts if each.is_listed), key=lambda each: each.evidence.unseen_share)
    once = 0
    for each in listed:
        once += each.evidence.seen_once
        each.is_listed = poisson_upper(once) / each.evidence.draws <= MOST_UNSEEN
        if not each.is_listed:
            once -= each.evidence.seen_once


def _infer(draft: _Draft, share: float, *, is_public: bool) -> InferredColumn:
    read, evidence = draft.read, draft.evidence
    draft.findings.append(Finding("type", confidence_of(evidence.values), ""))
    guess = guess_classification(read.values) if evidence.distinct > 1 and not is_public else None
    required = _infer_required(draft)
    unique = _infer_unique(draft)
    if evidence.distinct == 1:
        _infer_near_misses(draft)
        draft.notes.append("always the same value, so nothing is known of others")
    elif read.kind in ("integer", "number") and (unique or _is_name_of_things(draft)):
        draft.notes.append("a key has no bounds")
    elif read.kind in ("integer", "number"):
        _infer_numbers(draft, share)
    elif read.kind == "string" and (_is_personal(guess) or not _infer_enumeration(draft)):
        made = infer_text(read.values, evidence, share=share)
        draft.options |= _given(made.options)
        draft.findings += made.findings
        if guess is None:
            _infer_near_misses(draft)
    declared = Property(
        name=draft.name,
        logical_type=read.kind,
        logical_type_options=Options(**draft.options) if draft.options else None,
        required=required,
        unique=unique,
        quality=draft.quality,
        examples=() if guess is not None or draft.quality else _examples(draft),
    )
    return InferredColumn(declared, read.values, evidence.values, tuple(draft.findings), tuple(draft.notes), guess)


def _given(options: Options | None) -> dict[str, Any]:
    return {} if options is None else {k: v for k, v in structs.asdict(options).items() if v is not None}


def _is_name_of_things(draft: _Draft) -> bool:
    return draft.is_key and has_word(draft.name, KEYS)


def _infer_required(draft: _Draft) -> bool:
    rows = len(draft.values)
    missing = rows - draft.evidence.values
    if missing:
        draft.notes.append(f"missing in {missing:,} of {rows:,} rows ({missing / rows:.2%})")
        return False
    if not is_enough(rows):
        draft.notes.append("no gap seen, in too few rows to require it")
        return False
    draft.findings.append(Finding("required", confidence_of(rows), "no gap seen"))
    return True


def _infer_numbers(draft: _Draft, share: float) -> None:
    if draft.read.kind == "integer" and _infer_sparse(draft):
        return
    found = infer_range(draft.values, draft.evidence, share=share)
    if found is None:
        return
    bounds = {side: getattr(found, side) for side in ("minimum", "maximum") if getattr(found, side) is not None}
    draft.options |= bounds
    for number, side in enumerate(bounds):
        draft.findings.append(Finding(side, found.confidence, "" if number else found.words))
    if not bounds:
        draft.notes.append(found.words)
    step = infer_cents(draft.values, draft.evidence) if draft.read.kind == "number" else None
    if step is not None:
        draft.options["multiple_of"] = step
        draft.findings.append(Finding("multipleOf", confidence_of(draft.evidence.draws), "whole cents"))


def _infer_sparse(draft: _Draft) -> bool:
    """A closed set of integers with gaps between them is listed, for codes are no scale."""
    if not draft.is_listed or draft.evidence.distinct > SPARSE_VALUES:
        return False
    counts = draft.values.drop_nulls().value_counts(name="rows")
    listed = sorted(counts[draft.values.name].to_list())
    if listed[-1] - listed[0] + 1 == len(listed) or int(counts["rows"].min()) < OFTEN:  # type: ignore[arg-type]  # there are some
        return False
    _list_values(draft, listed)
    return True


def _infer_enumeration(draft: _Draft) -> bool:
    evidence = draft.evidence
    if not draft.is_listed or evidence.distinct > MOST_LISTED:
        return False
    listed = sorted(draft.values.drop_nulls().unique().to_list())
    if any(len(each) > LONGEST_LISTED for each in listed):
        return False
    _list_values(draft, listed)
    return True


def _list_values(draft: _Draft, listed: Sequence[str | int]) -> None:
    draft.quality = (allowed_values(listed),)
    unseen = draft.evidence.unseen_share
    words = f"{len(listed)} different values, and a share of at most {unseen:.2%} holds others"
    draft.findings.append(Finding("validValues", min(confidence_of(draft.evidence.draws), round(1 - unseen, 4)), words))


def _is_personal(guess: Guess | None) -> bool:
    """Whether values may say who somebody is: such are not written down."""
    return guess is not None and guess.classification == "personal"


def _infer_near_misses(draft: _Draft) -> None:
    found = infer_near_misses(draft.values, draft.evidence, draft.spread) if draft.read.kind == "string" else None
    if found is not None:
        draft.quality = (found.quality(),)
        draft.findings.append(Finding(NEAR_MISS, found.confidence, found.words))


def allowed_values(listed: Sequence[str | int | bool]) -> Quality:
    """The check that binds every record to one of these values."""
    return Quality(type="library", metric="invalidValues", arguments={"validValues": list(listed)}, must_be=0)


def _infer_unique(draft: _Draft) -> bool:
    evidence = draft.evidence
    if draft.read.kind not in ("integer", "string") or evidence.distinct < max(1, evidence.values):
        return False
    repeats = KEY_CONFIDENCE / evidence.values if evidence.values else 1.0
    is_key = has_word(draft.values.name, KEYS) or is_rising(draft.values)
    if not is_key or not is_enough(evidence.draws) or repeats > 0.01:
        return False
    draft.findings.append(Finding("unique", round(1 - repeats, 4), "no value twice"))
    return True


def _examples(draft: _Draft) -> tuple[Any, ...]:
    if draft.read.kind == "boolean":
        return ()
    different = draft.values.drop_nulls().unique(maintain_order=True).head(20).to_list()
    return tuple(each for each in different if len(str(each)) <= LONGEST_EXAMPLE)[:MOST_EXAMPLES]
