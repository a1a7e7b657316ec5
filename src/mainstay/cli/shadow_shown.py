"""The comparison of a shadow as `mainstay shadow` shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from mainstay.cli.common import columns
from mainstay.cli.rollout_shown import MINUTE, SHORT_DIGEST
from mainstay.documents import shorten

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from mainstay.monitoring.intervals import Estimate
    from mainstay.rollout.comparison_types import Case, Comparison, FieldDifference, Part, Timing

VALUE_CHARACTERS: Final = 40


def comparison_lines(found: Comparison) -> Iterator[str]:
    """What differs: over all, by outcome, output and segment, and case by case."""
    trial, whole = found.trial, found.whole
    still = (
        f"a shadow since {_at(trial.since)}"
        if trial.until is None
        else f"was a shadow from {_at(trial.since)} to {_at(trial.until)}"
    )
    yield f"{found.capability}: {trial.version[:SHORT_DIGEST]}, {still}, beside {trial.beside[:SHORT_DIGEST]}"
    if whole is None:
        yield f"nothing was compared yet: {found.decided:,} decisions of its time are in the lake, and none by it"
        return
    yield from columns(list(_summary(found, whole)))
    if found.endings:
        yield ""
        yield from columns(list(_endings(found)))
    if found.fields:
        yield ""
        yield from columns(list(_fields(found)))
    if found.segments:
        yield ""
        yield from columns(list(_segments(found)))
    if found.cases:
        yield ""
        yield "the cases that differ most, of those that both answered:"
        yield from columns(list(_cases(found)))
        yield f"All of one: mainstay explain {found.cases[0].decision_id}"


def _summary(found: Comparison, whole: Part) -> Iterator[list[str]]:
    yield ["  compared", f"{whole.compared:,} of {found.decided:,} decisions"]
    differ = f"{whole.differ:,}, {_share(whole.disagreement)}"
    yield ["  differ", f"{differ}: {whole.outcomes_differ:,} in outcome, {whole.outputs_differ:,} in what is said"]
    yield ["", "(in brackets where the share is, with 95 %, however often it is looked at)"]
    yield ["  errors", f"{whole.errors:,} that the shadow could not answer"]
    if whole.shadow_timing is not None:
        given = "no call asked for one decision alone" if whole.given_timing is None else _timing(whole.given_timing)
        yield ["  latency", f"{given}; shadow {_timing(whole.shadow_timing)}, run behind all others"]
    if whole.given_cost is not None and whole.shadow_cost is not None:
        given, said = _number(whole.given_cost.value), _number(whole.shadow_cost.value)
        yield ["  cost", f"{given} {found.currency} a decision; shadow {said}"]


def _endings(found: Comparison) -> Iterator[list[str]]:
    yield ["OUTCOME", "SHADOW", "DECISIONS", "NEWEST"]
    for each in found.endings:
        yield [each.given, each.shadow, f"{each.decisions:,}", each.newest[0]]


def _fields(found: Comparison) -> Iterator[list[str]]:
    yield ["OUTPUT", "DIFFER", "SHADOW SAYS ON AVERAGE", "APART ON AVERAGE", "AT MOST"]
    yield from map(_field_row, found.fields)


def _field_row(each: FieldDifference) -> list[str]:
    row = [each.name, f"{each.differ / each.compared:.1%}"]
    if each.mean is None or each.mean_absolute is None or each.largest is None:
        return [*row, "", "", ""]
    return [*row, _moved(each.mean), _number(each.mean_absolute), _number(each.largest)]


def _moved(mean: float) -> str:
    return "the same" if not mean else f"{_number(abs(mean))} {'more' if mean > 0 else 'less'}"


def _segments(found: Comparison) -> Iterator[list[str]]:
    yield ["SEGMENT", "COMPARED", "DIFFER", "IN OUTCOME", "ERRORS", "MEDIAN", "OF SHADOW", "COST", "OF SHADOW"]
    for each in found.segments:
        timings = [each.given_timing, each.shadow_timing]
        costs = [each.given_cost, each.shadow_cost]
        yield [
            each.segment or "",
            f"{each.compared:,}",
            _share(each.disagreement),
            f"{each.outcomes_differ:,}",
            f"{each.errors:,}",
            *("" if one is None else _seconds(one.median) for one in timings),
            *("" if one is None else _number(one.value) for one in costs),
        ]


def _cases(found: Comparison) -> Iterator[list[str]]:
    fields = list(dict.fromkeys(name for case in found.cases for name in (*case.given, *case.shadow)))
    yield ["DECISION", "AT", *(name.upper() for name in found.cases[0].segments), *(name.upper() for name in fields)]
    yield from (_case_row(case, fields) for case in found.cases)


def _case_row(case: Case, fields: list[str]) -> list[str]:
    segments = ["" if value is None else shorten(value, VALUE_CHARACTERS) for value in case.segments.values()]
    return [case.decision_id, _at(case.at), *segments, *(_both(case, name) for name in fields)]


def _both(case: Case, name: str) -> str:
    given, said = _value(case.given.get(name)), _value(case.shadow.get(name))
    return given if given == said else f"{given}, shadow {said}"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return _number(value)
    return shorten(value if isinstance(value, str) else msgspec.json.encode(value).decode(), VALUE_CHARACTERS)


def _share(share: Estimate) -> str:
    return f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"


def _timing(timing: Timing) -> str:
    return f"median {_seconds(timing.median)}, 99 % below {_seconds(timing.slow)}"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1_000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _at(at: datetime) -> str:
    return f"{at.isoformat(sep=' ')[:MINUTE]}Z"
