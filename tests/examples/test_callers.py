"""The steady and the flooding load, against a real service."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tiny

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.acceptance

LOAD = Path(__file__).resolve().parents[2] / "examples" / "flights" / "callers.py"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tiny.Up]:
    workspace, token = tiny.make_served(tmp_path_factory.mktemp("load") / "w")
    with tiny.up(workspace, token, workers=2) as up:
        yield up


def run(up: tiny.Up, directory: Path, *words: str) -> list[dict[str, Any]]:
    inputs = directory / "inputs.jsonl"
    inputs.write_text('{"a": 0.5, "b": 0.25}\n{"a": 1000}\n')
    command = [sys.executable, str(LOAD), "--url", up.url, "--capability", tiny.NAME, "--inputs", str(inputs), *words]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "MAINSTAY_API_KEY": up.token},
    ) as process:
        assert process.stdout is not None
        lines = process.stdout.readlines()  # standard input stays open meanwhile
    assert process.returncode == 0
    return [json.loads(line) for line in lines]


def test_a_steady_load_keeps_its_rate_and_tells_of_every_call(served: tiny.Up, tmp_path: Path) -> None:
    calls = run(served, tmp_path, "--rate", "50", "--seconds", "1")
    assert 45 <= len(calls) <= 51
    assert {(call["status"], call["outcome"], call["reason"]) for call in calls} == {
        (200, "answered", None),
        (422, "refused", "contract_violation"),
    }
    assert all(call["decision_id"] and call["ms"] > 0 and call["release"] == 1 for call in calls)


def test_a_flood_calls_from_as_many_at_once_as_it_is_told(served: tiny.Up, tmp_path: Path) -> None:
    calls = run(served, tmp_path, "--callers", "20", "--seconds", "0.5")
    assert len(calls) >= 20
    starts = sorted(call["at"] for call in calls)[:20]
    assert starts[-1] - starts[0] < 0.5


def test_a_call_that_nobody_answers_is_told_with_the_reason(served: tiny.Up, tmp_path: Path) -> None:
    nobody = dataclasses.replace(served, url="http://127.0.0.1:9")  # the port for discarding
    calls = run(nobody, tmp_path, "--callers", "1", "--seconds", "0.2")
    assert calls
    assert {call["status"] for call in calls} == {0}
    assert "ConnectionRefusedError" in calls[0]["error"]
