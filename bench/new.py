"""From a model and a sample to production with only the questions answered: five pilots of different kinds.

For each pilot: `mainstay new`, an answer written over each of its TODOs and nothing else changed, `mainstay validate`,
`register`, `promote`; then every row that was kept back is decided and held against what the model itself says of it.
Clean rows that the drafted contract refuses are counted.

    python bench/new.py [--pilot NAME ...] [--json]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from new_pilots import PILOTS, Pilot

import mainstay
from mainstay.client.types import Decision, Item

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 500
ANSWERS = {
    "purpose": "Shows that a drafted folder serves.",
    "owner.team": "the team that asked",
    "owner.contact": "owner@example.com",
    "replaces": "nothing",
    "deadline_ms": 10_000,
}
_TODO = re.compile(r'"TODO:(?:[^"\\]|\\.)*"')


@dataclass(frozen=True)
class Result:
    """What came of one pilot."""

    pilot: str
    kind: str
    runtime: str
    rows: int  # of the sample
    properties: int
    rules: int  # inferred, beside types
    questions: int
    new_seconds: float
    fresh: int
    refused: int  # clean rows that the contract refused
    answered: int
    wrong: int  # answers that are not the model's own
    largest_difference: float
    reasons: dict[str, int]  # broken rules of refused rows

    @property
    def refused_share(self) -> float:
        return self.refused / self.fresh


class Shell:
    """Runs `mainstay` as a person would, in one workspace."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        workspace.mkdir()
        self.token = str(self.json("init", ".", "--log", "bench.example.com/new")["token"])

    def json(self, *words: str) -> Any:
        done = self._run(*words, "--json")
        if done.returncode:
            raise RuntimeError(f"mainstay {' '.join(words)}: {done.stderr}{done.stdout}")
        return json.loads(done.stdout)

    def code(self, *words: str) -> int:
        return self._run(*words).returncode

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mainstay.cli.main", *words]
        environment = {**os.environ, "COLUMNS": "200"}
        return subprocess.run(
            command, cwd=self.workspace, env=environment, capture_output=True, text=True, timeout=120, check=False
        )


def run_pilot(pilot: Pilot, workspace: Path) -> Result:
    """Everything, from `mainstay new` to the last decision. Raises RuntimeError where a command fails."""
    shell = Shell(workspace)
    began = time.monotonic()
    drafted = shell.json("new", pilot.name, "--model", str(pilot.model), "--data", str(pilot.sample), *pilot.options)
    seconds = time.monotonic() - began
    folder = workspace / drafted["folder"]
    if not drafted["questions"] or shell.code("validate", str(folder)) != 1:
        raise RuntimeError("a draft with open questions validates")
    answer_questions(workspace, drafted["questions"], pilot.positive)
    shell.json("validate", str(folder))
    registered = shell.json("register", str(folder), *pilot.register)
    shell.json("promote", pilot.name, "--reason", "bench")
    decisions = decide(pilot, folder, workspace, shell.token)
    return _judge(pilot, drafted, registered, decisions, seconds)


def answer_questions(workspace: Path, questions: list[dict[str, Any]], positive: Any) -> None:
    """Write an answer over every question, on the line where it stands, and touch nothing else."""
    for question in questions:
        path = workspace / question["file"]
        lines = path.read_text("utf-8").split("\n")
        place = question["line"] - 1
        answered = json.dumps(_answer(question["where"], positive))
        question_here = _TODO.search(lines[place])
        if question_here is None:
            raise RuntimeError(f"{path}:{place + 1}: expected a question")
        lines[place] = lines[place].replace(question_here[0], answered)
        path.write_text("\n".join(lines), "utf-8")


def _answer(where: str, positive: Any) -> Any:
    if where in ANSWERS:
        return ANSWERS[where]
    if where.endswith(".classification"):
        return "internal"
    if where.startswith("fallback[0].constant.prob"):
        return 0.5
    if where.startswith("fallback[0].constant") or where.endswith(".of_class"):
        return positive
    raise RuntimeError(f"{where}: an unexpected question")


def fresh_records(pilot: Pilot, folder: Path) -> list[dict[str, Any]]:
    """The rows kept back as a caller would send them: by the types of the contract, without what is missing."""
    contract = yaml.safe_load((folder / "contract.odcs.yaml").read_text("utf-8"))
    types = {each["name"]: each["logicalType"] for each in contract["schema"][0]["properties"]}
    made: dict[str, Callable[[str], Any]] = {"integer": int, "number": float, "boolean": lambda text: text == "true"}
    with pilot.fresh.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: made.get(kind, str)(row[name]) for name, kind in types.items() if row[name]} for row in rows]


def decide(pilot: Pilot, folder: Path, workspace: Path, token: str) -> list[Decision]:
    items = [Item(each) for each in fresh_records(pilot, folder)]
    with mainstay.embed(pilot.name, workspace, key=token) as capability:
        starts = range(0, len(items), BATCH)
        return [each for start in starts for each in capability.decide_many(items[start : start + BATCH])]


def _judge(
    pilot: Pilot, drafted: dict[str, Any], registered: dict[str, Any], decisions: list[Decision], seconds: float
) -> Result:
    refused, answered, wrong, largest = 0, 0, 0, 0.0
    reasons: dict[str, int] = {}
    for decision, right in zip(decisions, pilot.probabilities, strict=True):
        if decision.outcome == "answered" and decision.output is not None:
            answered += 1
            difference = abs(decision.output["probability"] - right)
            largest = max(largest, difference)
            chosen = decision.output["label"] == pilot.positive
            wrong += difference > 1e-4 or (chosen != (right >= 0.5) and abs(right - 0.5) > 1e-4)
        elif decision.outcome == "refused":
            refused += 1
            for each in decision.reasons:
                reasons[each.detail] = reasons.get(each.detail, 0) + 1
    return Result(
        pilot=pilot.name,
        kind=drafted["model"]["kind"],
        runtime=registered["runtime"],
        rows=drafted["sample"]["rows"],
        properties=len(drafted["input"]),
        rules=sum(len(each["inferred"]["rules"]) - 1 for each in drafted["input"]),
        questions=len(drafted["questions"]),
        new_seconds=round(seconds, 1),
        fresh=len(decisions),
        refused=refused,
        answered=answered,
        wrong=wrong,
        largest_difference=largest,
        reasons=reasons,
    )


def show(results: list[Result]) -> None:
    print("| pilot | model | runs | sample rows | properties | rules | questions | `new` took | fresh rows | refused |"
          " wrong answers | largest difference |")  # fmt: skip  # a row of a table
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for each in results:
        print(
            f"| {each.pilot} | {each.kind} | {each.runtime} | {each.rows:,} | {each.properties} | {each.rules} "
            f"| {each.questions} | {each.new_seconds} s | {each.fresh:,} | {each.refused} ({each.refused_share:.2%}) "
            f"| {each.wrong} of {each.answered:,} | {each.largest_difference:.1e} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pilot", action="append", choices=[*PILOTS], help="only this one; can be given again")
    parser.add_argument("--json", action="store_true", help="print facts as JSON")
    options = parser.parse_args()
    results = []
    for name in options.pilot or PILOTS:
        with tempfile.TemporaryDirectory(prefix="mainstay-bench-") as outside:
            results.append(run_pilot(PILOTS[name](Path(outside)), Path(outside) / "workspace"))
    if options.json:
        print(json.dumps([asdict(each) for each in results], indent=2))
    else:
        show(results)
    if any(each.wrong or each.refused_share >= 0.01 or each.answered + each.refused < each.fresh for each in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
