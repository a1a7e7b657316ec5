"""The fallback ladder of a release, compiled: what answers when the model does not, rung by rung."""

from __future__ import annotations

from operator import ge, gt, le, lt
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mainstay.capability.types import Case, Condition, Rung
    from mainstay.catalog.types import Digest
    from mainstay.runtime.types import Row

_encode = msgspec.json.Encoder().encode

RungName = Literal["version", "rule", "last_good", "constant", "person"]


class Step(NamedTuple):
    """A rung. Only what its name needs is set."""

    name: RungName
    answer: Callable[[Row], bytes | None] | None = None  # rule and constant: the output as JSON, None where none fits
    version: Digest = ""
    max_age_ms: float = 0.0  # last_good


def compile_ladder(rungs: Sequence[Rung], versions: Sequence[Digest], fields: Sequence[str]) -> tuple[Step, ...]:
    """The steps of a declared ladder.

    `versions` are the versions that its `version` rungs stand for, in order; `fields` the names of the values in a row.
    """
    remaining = iter(versions)
    return tuple(_step(rung, remaining, {name: place for place, name in enumerate(fields)}) for rung in rungs)


def _step(rung: Rung, versions: Any, places: Mapping[str, int]) -> Step:
    if rung.version is not None:
        return Step("version", version=next(versions))
    if rung.last_good is not None:
        return Step("last_good", max_age_ms=rung.last_good.max_age_seconds * 1000)
    if rung.person:
        return Step("person")
    if rung.rule:
        return Step("rule", answer=_compile_rule(rung.rule, places))
    output = _encode(rung.constant)
    return Step("constant", answer=lambda _row: output)


def _compile_rule(cases: Sequence[Case], places: Mapping[str, int]) -> Callable[[Row], bytes | None]:
    """The output of the first case that fits. A row that was never read, `()`, only fits a case without conditions."""
    compiled = [
        ([_compile_condition(condition, places[condition.field]) for condition in case.when], _encode(case.then))
        for case in cases
    ]

    def answer(row: Row) -> bytes | None:
        for tests, output in compiled:
            if not tests or (row and all(test(row) for test in tests)):
                return output
        return None

    return answer


def _compile_condition(condition: Condition, place: int) -> Callable[[Row], bool]:
    """A missing value fits `missing: true` and nothing else."""
    if condition.missing is True:
        return lambda row: row[place] is None
    tests: list[Callable[[Any], bool]] = []
    if condition.equals is not None:
        wanted = condition.equals
        tests.append(lambda value: _same(value, wanted))
    if condition.one_of:
        options = condition.one_of
        tests.append(lambda value: any(_same(value, option) for option in options))
    bounds = ((condition.at_least, ge), (condition.above, gt), (condition.at_most, le), (condition.below, lt))
    tests += [_bound(compare, bound) for bound, compare in bounds if bound is not None]

    def holds(row: Row) -> bool:
        value = row[place]
        return value is not None and all(test(value) for test in tests)

    return holds


def _bound(compare: Callable[[Any, Any], bool], bound: float) -> Callable[[Any], bool]:
    return lambda value: compare(value, bound)


def _same(value: Any, wanted: Any) -> bool:
    """Equal, where true is not 1."""
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)
