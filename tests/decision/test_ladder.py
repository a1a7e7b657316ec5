from __future__ import annotations

from typing import Any

import pytest

from mainstay.capability.types import Case, Condition, LastGood, Rung
from mainstay.decision.ladder import compile_ladder

FIELDS = ("delay", "carrier", "vip")
LATE: dict[str, Any] = {"late": True}
ON_TIME: dict[str, Any] = {"late": False}


def rule(*cases: Case) -> Any:
    (step,) = compile_ladder([Rung(rule=cases)], (), FIELDS)
    assert step.answer is not None
    return step.answer


@pytest.mark.parametrize(
    ("condition", "fits", "misses"),
    [
        (Condition(field="delay", above=15), [15.5, 16], [15, 0, None]),
        (Condition(field="delay", at_least=15), [15], [14.9, None]),
        (Condition(field="delay", below=0), [-1], [0, None]),
        (Condition(field="delay", at_most=0), [0, -3.5], [0.1, None]),
        (Condition(field="delay", above=0, below=10), [5], [0, 10, None]),
        (Condition(field="delay", equals=1), [1, 1.0], [True, 2, None]),
        (Condition(field="delay", missing=True), [None], [0, 1]),
        (Condition(field="delay", missing=False), [0, 1], [None]),
        (Condition(field="delay", one_of=(1, 2)), [1, 2.0], [3, True, None]),
    ],
)
def test_a_condition_fits_what_it_says_and_a_gap_only_where_gaps_are_asked_for(
    condition: Condition, fits: list[Any], misses: list[Any]
) -> None:
    answer = rule(Case(when=(condition,), then=LATE))
    assert all(answer((value, None, None)) == b'{"late":true}' for value in fits)
    assert all(answer((value, None, None)) is None for value in misses)


def test_the_first_case_whose_conditions_all_hold_answers() -> None:
    answer = rule(
        Case(when=(Condition(field="delay", above=15), Condition(field="vip", equals=False)), then=LATE),
        Case(when=(Condition(field="carrier", one_of=("UA", "DL")),), then=ON_TIME),
    )
    assert answer((20, "UA", False)) == b'{"late":true}'
    assert answer((20, "UA", True)) == b'{"late":false}'
    assert answer((20, "AA", True)) is None


def test_a_row_that_was_never_read_only_fits_a_case_without_conditions() -> None:
    answer = rule(Case(when=(Condition(field="delay", missing=True),), then=LATE), Case(then=ON_TIME))
    assert answer((None, None, None)) == b'{"late":true}'
    assert answer((1, None, None)) == b'{"late":false}'
    assert answer(()) == b'{"late":false}'


def test_each_rung_becomes_a_step_in_order_and_versions_are_filled_in() -> None:
    steps = compile_ladder(
        [
            Rung(version="previous"),
            Rung(last_good=LastGood(max_age_seconds=2)),
            Rung(version="sha256:" + "0" * 64),
            Rung(constant=LATE),
            Rung(person=True),
        ],
        ("sha256:one", "sha256:two"),
        FIELDS,
    )
    assert [step.name for step in steps] == ["version", "last_good", "version", "constant", "person"]
    assert [step.version for step in steps] == ["sha256:one", "", "sha256:two", "", ""]
    assert steps[1].max_age_ms == 2_000
    assert steps[3].answer is not None
    assert steps[3].answer(()) == b'{"late":true}'
