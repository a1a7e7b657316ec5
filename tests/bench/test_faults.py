"""What bench/faults.py calls right, wrong, late and recovered."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

VERSION = "sha256:" + "0" * 64
RIGHT = {"probability": 0.5, "yes": True}  # where a + b is 0
RETRY = {"status": 503, "retry_after": True}


def told(outcome: str, output: Any, *reasons: str) -> bytes:
    codes = [{"code": reason, "detail": ""} for reason in reasons]
    return msgspec.json.encode(
        {"outcome": outcome, "output": output, "reasons": codes, "version": VERSION, "release": 1}
    )


def problem(name: str) -> bytes:
    return json.dumps({"type": f"urn:mainstay:problem:{name}"}).encode()


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("answered", {"body": told("answered", RIGHT)}),
        ("wrong", {"body": told("answered", {"probability": 0.6, "yes": True})}),
        ("wrong", {"body": told("answered", {"probability": 0.5, "yes": False})}),
        ("wrong", {"body": told("answered", RIGHT), "note": "hang"}),
        ("answered", {"body": told("answered", RIGHT), "note": "print-much"}),
        ("fallback", {"body": told("fallback", {"probability": 0.25, "yes": False}, "model_crashed")}),
        ("wrong", {"body": told("fallback", {"probability": 0.75, "yes": True}, "model_crashed")}),
        ("unclear", {"body": told("fallback", {"probability": 0.25, "yes": False}, "output_invalid")}),
        ("unclear", {"body": told("review", None, "model_crashed")}),
        ("refused", {"body": problem("unrecorded"), **RETRY}),
        ("unclear", {"body": problem("unrecorded"), **RETRY, "retry_after": False}),
        ("unclear", {"body": problem("overloaded"), **RETRY}),
        ("unclear", {"body": problem("unauthorized"), "status": 401, "victim": True}),
        (
            "refused",
            {"body": problem("unauthorized"), "status": 401, "victim": True, "sent_at": 20.0, "ended_at": 21.0},
        ),
        ("unclear", {"body": problem("fault"), "status": 500}),
        ("unclear", {"status": 0}),
    ],
)
def test_every_answer_is_one_of_these(program: Callable[[str], ModuleType], kind: str, changes: dict[str, Any]) -> None:
    audit, caller, inject = program("faults_audit"), program("faults_caller"), program("faults_inject")
    given: dict[str, Any] = {"key": "k", "a": 1.0, "b": -1.0, "note": None, "allowed_seconds": 0.4, "victim": False}
    call = caller.Call(**{**given, "sent_at": 1.0, "ended_at": 1.1, "status": 200, **changes})
    found = audit.Findings("segfault")
    audit._judge(call, inject.FAULTS["segfault"], {VERSION: 1}, [audit.Injection(10.0, 11.0)], found)
    assert {name: getattr(found, name) for name in ("answered", "fallback", "refused", "wrong", "unclear")} == {
        **dict.fromkeys(("answered", "fallback", "refused", "wrong", "unclear"), 0),
        kind: 1,
    }


def test_a_fault_lasts_until_the_last_call_that_it_disturbed_has_ended(program: Callable[[str], ModuleType]) -> None:
    audit, caller, inject = program("faults_audit"), program("faults_caller"), program("faults_inject")

    def call(sent: float, ended: float, outcome: str) -> Any:
        body = told(outcome, None)
        return caller.Call("k", 0.0, 0.0, None, 0.4, False, sent, ended, 200, False, body)  # noqa: FBT003 - a record

    calls = [
        call(9.9, 10.1, "answered"),
        call(9.9, 10.2, "fallback"),
        call(10.1, 10.5, "fallback"),
        call(10.4, 10.6, "answered"),
        call(12.0, 12.1, "answered"),
    ]
    injections = [audit.Injection(10.0, 10.0), audit.Injection(12.0, 12.0)]
    found = list(audit._recoveries(inject.FAULTS["hang"], calls, injections))
    assert found == [pytest.approx(0.5), 0.0]
