"""A workspace that serves the 30-feature breast-cancer model with everything switched on, for the benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mainstay.cli.init import create_workspace
from mainstay.cli.versions import record_promotion, record_registration
from mainstay.server.supervisor import wait_until_ready
from mainstay.workspace import Workspace

CAPABILITY = "tumour-triage"

DECLARATION = """\
apiVersion: mainstay/v1
name: tumour-triage
title: Tumour triage
purpose: Tells benign from malignant from 30 measurements of a cell nucleus (breast-cancer data of scikit-learn).
owner:
  team: pathology
  contact: pathology-ml@example.com
objects:
  input: measurements
  output: triage
  outcome: diagnosis
model:
  file: model/model.pkl
  kind: sklearn
output:
  probability: {take: probability, of_class: 1}
  benign: {take: threshold, of_class: 1}
samples: samples.jsonl
reference: {file: reference.jsonl, label: benign}
min_confidence: 0.5
when: {out_of_distribution: review, low_confidence: fallback}
fallback:
  - constant: {probability: 0.0, benign: false}
deadline_ms: 1000
limits: {queue_ms: 10}
"""

AUTHORITY = """\
// Keys call, report and see what their scopes allow; people at the command line change and review.
@id("keys-within-their-scopes")
permit (
  principal is Mainstay::Key,
  action in [Mainstay::Action::"call", Mainstay::Action::"report", Mainstay::Action::"see"],
  resource
);
@id("people-change-and-review")
permit (
  principal is Mainstay::Person,
  action in [Mainstay::Action::"see", Mainstay::Action::"change", Mainstay::Action::"review"],
  resource
);
// A policy that looks at every answer, so that its cost is measured.
@id("answers-when-not-plainly-strange")
permit (principal is Mainstay::Capability, action == Mainstay::Action::"answer", resource)
when {
  context has novelty && context.novelty.greaterThan(decimal("0.0001")) &&
  context.output.probability.lessThanOrEqual(decimal("1.0"))
};
"""

TRAIN = """
import pickle, json, sys
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
data = load_breast_cancer()
if sys.argv[2] == "histogram":
    model = HistGradientBoostingClassifier(max_iter=100, random_state=0)
else:
    model = GradientBoostingClassifier(n_estimators=100, random_state=0)
model.fit(data.data, data.target)
pickle.dump(model, open(sys.argv[1], "wb"))
names = [name.replace(" ", "_") for name in data.feature_names]
rows = [dict(zip(names, map(float, row))) for row in data.data[:200]]
known = [{"input": dict(zip(names, map(float, row))), "outcome": {"benign": bool(label)}}
         for row, label in zip(data.data[100:], data.target[100:])]
low, high = data.data.min(axis=0).tolist(), data.data.max(axis=0).tolist()
json.dump({"rows": rows, "known": known, "low": low, "high": high}, sys.stdout)
"""


@dataclass(frozen=True)
class Fixture:
    """The workspace, a key for it, and sample records."""

    workspace: Workspace
    token: str
    rows: list[dict[str, float]]

    @property
    def fields(self) -> list[str]:
        return list(self.rows[0])

    @property
    def artifact(self) -> Path:
        return next(self.workspace.versions.rglob("*.onnx"))

    @property
    def decisions_path(self) -> str:
        return f"/v1/capabilities/{CAPABILITY}/decisions"


def make_fixture(directory: Path, model: Literal["gradient", "histogram"] = "gradient") -> Fixture:
    """Train, declare, register and promote; about five seconds.

    `model` is which of scikit-learn's gradient boostings of 100 trees: plain, or over histograms.
    """
    workspace, _, token = create_workspace(directory, "bench.example.com/decisions")
    folder = workspace.capabilities / CAPABILITY
    (folder / "model").mkdir(parents=True)
    command = [sys.executable, "-c", TRAIN, str(folder / "model" / "model.pkl"), model]
    trained = subprocess.run(command, check=True, capture_output=True, text=True)
    data = json.loads(trained.stdout)
    rows: list[dict[str, float]] = data["rows"]
    (folder / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "reference.jsonl").write_text("\n".join(map(json.dumps, data["known"])))
    (folder / "capability.yaml").write_text(DECLARATION)
    (folder / "authority.cedar").write_text(AUTHORITY)
    (folder / "contract.odcs.yaml").write_text(json.dumps(_contract(rows, data["low"], data["high"])))
    version = record_registration(workspace, folder, "made by this benchmark").version
    record_promotion(workspace, CAPABILITY, version, "benchmark")
    return Fixture(workspace, token, rows)


def start_worker(fixture: Fixture, port: int, *, core: int | None = None, slot: int = 0) -> subprocess.Popen[bytes]:
    """One worker, alone on a core where one is given; ready when this returns."""
    command = [sys.executable, "-m", "mainstay.server.worker"]
    command += ["--workspace", str(fixture.workspace.root), "--slot", str(slot)]
    process = subprocess.Popen(_pinned(command, core), env={**os.environ, "MAINSTAY_PORT": str(port)})
    wait_until_ready(f"http://127.0.0.1:{port}", 20, alive=lambda: process.poll() is None)
    return process


def _pinned(command: list[str], core: int | None) -> list[str]:
    return command if core is None else ["taskset", "-c", str(core), *command]


def start_bare(fixture: Fixture, port: int, *, core: int | None = None) -> subprocess.Popen[bytes]:
    """The bare handler on the same graph."""
    command = [
        sys.executable,
        str(Path(__file__).with_name("bare.py")),
        str(fixture.artifact),
        str(port),
        *fixture.fields,
    ]
    return subprocess.Popen(_pinned(command, core))


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its threads so far (proc(5), resolution 10 ms)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Resident memory of a process in MB (proc(5))."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def _contract(rows: list[dict[str, float]], low: list[float], high: list[float]) -> dict[str, object]:
    measurements = [
        {
            "name": name,
            "logicalType": "number",
            "required": True,
            "logicalTypeOptions": {"minimum": least - abs(least), "maximum": most + abs(most) + 1},
        }
        for name, least, most in zip(rows[0], low, high, strict=True)
    ]
    triage = [
        {
            "name": "probability",
            "logicalType": "number",
            "required": True,
            "logicalTypeOptions": {"minimum": 0, "maximum": 1},
        },
        {"name": "benign", "logicalType": "boolean", "required": True},
    ]
    return {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "tumour-triage",
        "version": "1.0.0",
        "status": "active",
        "schema": [
            {"name": "measurements", "logicalType": "object", "properties": measurements},
            {"name": "triage", "logicalType": "object", "properties": triage},
            {
                "name": "diagnosis",
                "logicalType": "object",
                "properties": [{"name": "benign", "logicalType": "boolean", "required": True}],
            },
        ],
    }
