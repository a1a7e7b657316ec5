"""schemathesis, made from our OpenAPI document, against a worker that really runs.

No answer may be a 5xx. A capability that declares no fallback answers 502 where its model gives nothing usable (NaN,
for one), as documented; so what is fuzzed here declares a ladder, which always has an answer. The model of one does
wrong whatever it is told to, beside.

A longer run by hand: MAINSTAY_FUZZ_EXAMPLES=300 pytest tests/acceptance/test_fuzz.py
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import chaos
import tiny
from mainstay.ledger.verify import verify_ledger
from mainstay.signing import load_verifier

if TYPE_CHECKING:
    from mainstay.workspace import Workspace

pytestmark = pytest.mark.acceptance

EXAMPLES = int(os.environ.get("MAINSTAY_FUZZ_EXAMPLES", "15"))  # of each operation, in each phase
LADDER: dict[str, Any] = {
    "fallback": [{"constant": {"probability": 0.25, "yes": False}}],
    "when": {"overloaded": "fallback"},
}
TROUBLES = "segfault|exit|hang|blow-up|sleep|raise|talk|out-of-range|not-a-number|text|wrong-type|missing|extra|huge"
RUN = "from schemathesis.cli import schemathesis; schemathesis()"
CONFIG = """\
hooks = "fuzz_hooks"
continue-on-failure = true
warnings = false

[cache]
enabled = false

# How shapes, datatypes and lengths of tensors belong together is in words that a schema does not have.
[[operations]]
include-path-regex = "/infer$"
[operations.checks.positive_data_acceptance]
enabled = false
"""


def tiny_served(directory: Path) -> tuple[Workspace, str]:
    return tiny.make_served(directory, **LADDER)


def chaos_served(directory: Path) -> tuple[Workspace, str]:
    contract = copy.deepcopy(tiny.CONTRACT)
    note = next(each for each in contract["schema"][0]["properties"] if each["name"] == "note")
    note["logicalTypeOptions"] = {"pattern": f"^({TROUBLES}|too-few|private)?$"}
    breaker = {"failures": 1.0, "of": 10_000, "open_seconds": 0.01}
    return chaos.make_served(directory, contract=contract, deadline_ms=400, breaker=breaker, **LADDER)


@pytest.mark.parametrize("serve", [tiny_served, chaos_served])
def test_whatever_the_document_allows_or_forbids_the_worker_answers_as_it_says(tmp_path: Path, serve: Any) -> None:
    workspace, token = serve(tmp_path / "w")
    with tiny.up(workspace, token) as up:
        ended = run_schemathesis(up, tmp_path)
        assert ended.returncode == 0, ended.stdout[-8_000:] + ended.stderr[-2_000:]
        assert "No issues found" in ended.stdout
        answer = httpx.post(up.decisions_url, json={"input": {"a": 0.5, "b": 0.25}}, headers=up.headers, timeout=20)
        assert answer.json()["outcome"] in {"answered", "fallback"}
        state = json.loads((workspace.run / "up.json").read_text())
    assert set(state["deaths"].values()) == {0}
    log = (workspace.run / "up.log").read_text()
    assert "a call failed" not in log
    assert "Traceback" not in log
    report = verify_ledger(workspace.ledger, load_verifier(workspace.keys))
    assert not report.findings
    assert report.kinds["decision"] > EXAMPLES


def run_schemathesis(up: tiny.Up, directory: Path) -> subprocess.CompletedProcess[str]:
    """All phases and all checks, on the same cases each time unless many are asked for."""
    config = directory / "schemathesis.toml"
    config.write_text(CONFIG)
    command = [sys.executable, "-c", RUN, "--config-file", str(config), "run", f"{up.url}/openapi.json", "--no-color"]
    command += ["--header", f"Authorization: Bearer {up.token}", "--max-examples", str(EXAMPLES)]
    if "MAINSTAY_FUZZ_EXAMPLES" not in os.environ:
        command.append("--generation-deterministic")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
