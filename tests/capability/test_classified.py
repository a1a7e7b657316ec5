from __future__ import annotations

from typing import Literal

import pytest

from mainstay.capability.classified import Action, action_for, protect_problems, remote_problems
from mainstay.contract.types import Item, Property


def field(
    name: str,
    classification: str | None = None,
    kind: Literal["string", "number", "integer", "boolean"] = "string",
    *,
    required: bool = False,
) -> Property:
    return Property(name=name, logical_type=kind, classification=classification, required=required)


@pytest.mark.parametrize(
    ("classification", "expected"),
    [(None, None), ("Internal", None), ("public", None), (" Secret ", "drop"), ("pii", "mask"), ("", "mask")],
)
def test_the_action_is_that_of_the_classification_or_of_any_other(
    classification: str | None, expected: Action | None
) -> None:
    assert action_for(field("a", classification), {"secret": "drop", "*": "mask"}) == expected


def test_where_nothing_is_said_it_is_a_pseudonym() -> None:
    assert action_for(field("a", "pii"), {"secret": "drop"}) == "pseudonym"
    assert action_for(None, {"secret": "drop"}) == "pseudonym"
    assert action_for(None, {"*": "drop"}) == "drop"


def test_what_protect_names_must_be_hidden_and_used() -> None:
    phones = Property(
        name="phones", logical_type="array", items=Item(logical_type="string", classification="Contact Data")
    )
    used = (field("a", "pii"), field("b"), phones)
    assert protect_problems({"pii": "mask", "contact data": "drop", "*": "mask"}, used) == {}
    problems = protect_problems({"public": "mask", "pi": "mask"}, used)
    assert "never are" in problems["public"]
    assert problems["pi"].endswith("contact data, pii")


def test_a_required_feature_of_which_only_null_may_leave_is_a_problem() -> None:
    taken = (
        field("income", "pii", "number", required=True),
        field("married", "pii", "boolean", required=True),
        field("bonus", "pii", "number"),
        field("name", "pii", required=True),
        field("street", "secret", required=True),
        field("age", None, "integer", required=True),
    )
    names = [each.name for each in taken]
    problems = remote_problems(taken, [*names, "absent"], {"secret": "drop"})
    assert list(problems) == ["income", "married", "street"]
    assert "this number is pii" in problems["income"]
    assert "(drop)" in problems["street"]
    assert remote_problems(taken, ["age", "bonus"], {}) == {}
