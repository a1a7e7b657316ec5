"""`docs/reference/authority.md`: every policy on the page is read, and does what the page says."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from authority import folders
from docs.markdown import read_lines
from mainstay.authority.cases import AnswerCase
from mainstay.authority.keys import Principal
from mainstay.authority.policy import NOT_PERMITTED, Authority, Denial, Moved, Person, compile_authority
from mainstay.authority.schema import ACTIONS, ANSWER, answer_context, schema_document, schema_text
from mainstay.capability.load import load_capability

if TYPE_CHECKING:
    from mainstay.capability.load import Declared

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "reference" / "authority.md").read_text()
DESK = Principal("1f0c9a2b", "counter", ("loan-risk",), ("decide",))
OTHER = Principal("00000000", "other", ("*",), ("decide",))


def blocks(language: str) -> list[str]:
    found: dict[int, list[str]] = {}
    for line in read_lines(PAGE):
        if line.fence == language:
            found.setdefault(line.block, []).append(line.text)
    return ["\n".join(lines) + "\n" for lines in found.values()]


@pytest.fixture
def declared(tmp_path: Path) -> Declared:
    return load_capability(folders.write_folder(tmp_path / "loan-risk"))


@pytest.fixture
def read(tmp_path: Path) -> list[Authority]:
    """The authority of each block of policies, in the order of the page."""
    return [
        compile_authority(load_capability(folders.write_folder(tmp_path / str(number), block)))
        for number, block in enumerate(blocks("cedar"))
    ]


def answer(amount: float = 500.0, confidence: float | None = 0.9, novelty: float | None = None) -> AnswerCase:
    output = msgspec.json.encode({"probability": 0.1})
    return AnswerCase((amount, "DE"), output, confidence, novelty, "sha256:0", canary=False)


def test_the_schema_on_the_page_is_the_one_that_is_made(declared: Declared) -> None:
    context = answer_context(declared.input.properties, declared.output.properties)
    assert blocks("cedarschema") == [schema_text(schema_document(context))]


def test_every_action_stands_on_the_page() -> None:
    for action in (*ACTIONS, ANSWER):
        assert f"\n| `{action}` |" in PAGE


def test_the_policies_on_the_page_do_what_it_says(read: list[Authority]) -> None:
    begin, amounts, confidence, one_key, _ = read
    assert begin.may(OTHER, "call") is None
    assert begin.may(OTHER, "change") == Denial(NOT_PERMITTED)
    assert begin.may(Person("os:ops"), "review") is None
    assert begin.answers.denial is None
    assert not begin.answers.depends_on_call
    large = Denial("large-loans-need-a-person", "Loans above 10,000 euros are decided by the credit desk.")
    assert amounts.outside([answer(10_000.0), answer(10_000.01)]) == [None, large]
    cases = [answer(), answer(confidence=0.79), answer(confidence=None), answer(novelty=0.005)]
    assert confidence.outside(cases) == [None, *[Denial(NOT_PERMITTED)] * 3]
    assert one_key.may(DESK, "call") is None
    assert one_key.may(OTHER, "call") == Denial(NOT_PERMITTED)


def test_the_policies_on_the_page_say_who_changes_what(read: list[Authority]) -> None:
    changes = read[-1]
    someone, desk = Person("someone"), Person("desk")
    into = partial(Moved, "production", "sha256:1")
    assert changes.may(someone, "promote", Moved("canary", "sha256:1")) is None
    forbidden = changes.may(someone, "promote", into())
    assert forbidden == Denial("production-is-for-the-desk", "The credit desk decides what decides about loans.")
    assert changes.may(desk, "approve", into("someone")) is None
    assert changes.may(desk, "approve", into("desk")) == Denial("four-eyes")
    assert changes.may(desk, "approve", into()) is None
    assert changes.may(desk, "override", into()) is None
    assert changes.may(someone, "override", into()) == Denial(NOT_PERMITTED)
    assert [changes.may(someone, action) for action in ("change", "roll_back", "stop", "resume")] == [None] * 4


def test_the_policies_on_the_page_cost_what_it_says(read: list[Authority]) -> None:
    assert [each.judged for each in read] == ["always alike", "compiled", "compiled", *["always alike"] * 2]
    for policies in read:
        assert all(policy.id for policy in policies.policies)
