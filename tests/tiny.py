"""A tiny capability for tests: two numbers in, a probability out. Its graph is written by hand, not trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mainstay.catalog.types import VERSION_FORMAT, Manifest
from mainstay.catalog.versions import store_version, stored_file
from mainstay.cli.init import create_workspace
from mainstay.cli.settings_record import remember_settings
from mainstay.cli.versions import record_promotion, record_registration
from mainstay.runtime.types import ModelInput, ModelOutput
from mainstay.server.supervisor import free_port, wait_until_ready
from mainstay.workspace import SETTINGS_FILE, open_workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.workspace import Workspace

NAME = "tiny"
SLOW_SIZE = 1_500
POISON = 40.0  # a value of `b` on which the graph of `poisonous` fails

CONTRACT: dict[str, Any] = {
    "apiVersion": "v3.1.0",
    "kind": "DataContract",
    "id": "tiny",
    "version": "1.0.0",
    "status": "active",
    "schema": [
        {
            "name": "request",
            "logicalType": "object",
            "properties": [
                {
                    "name": "a",
                    "logicalType": "number",
                    "required": True,
                    "logicalTypeOptions": {"minimum": -100, "maximum": 100},
                },
                {"name": "b", "logicalType": "number"},
                {"name": "note", "logicalType": "string", "classification": "confidential"},
            ],
        },
        {
            "name": "answer",
            "logicalType": "object",
            "properties": [
                {
                    "name": "probability",
                    "logicalType": "number",
                    "required": True,
                    "logicalTypeOptions": {"minimum": 0, "maximum": 1},
                },
                {"name": "yes", "logicalType": "boolean", "required": True},
            ],
        },
        {
            "name": "truth",
            "logicalType": "object",
            "properties": [{"name": "yes", "logicalType": "boolean", "required": True}],
        },
    ],
}

DECLARATION: dict[str, Any] = {
    "apiVersion": "mainstay/v1",
    "name": NAME,
    "title": "Tiny",
    "purpose": "Shows what a decision is.",
    "owner": {"team": "tests", "contact": "tests@example.com"},
    "objects": {"input": "request", "output": "answer", "outcome": "truth"},
    "model": {"file": "model/tiny.onnx", "kind": "onnx", "features": ["a", "b"]},
    "output": {"probability": {"take": "probability"}, "yes": {"take": "threshold", "at": 0.5}},
    "samples": "samples.jsonl",
    "deadline_ms": 5000,
    "promise": {"roc_auc": 0.7, "calibration_error": 0.5, "positive": "yes", "score": "probability"},
}

AUTHORITY = """\
// Keys call, report, push and see what their scopes allow; people at the command line change and review.
@id("keys-within-their-scopes")
permit (
  principal is Mainstay::Key,
  action in [Mainstay::Action::"call", Mainstay::Action::"report", Mainstay::Action::"push", Mainstay::Action::"see"],
  resource
);
@id("people-change-and-review")
permit (
  principal is Mainstay::Person,
  action in [Mainstay::Action::"see", Mainstay::Action::"change", Mainstay::Action::"review"],
  resource
);
// Every answer may be given without a person.
@id("answers-by-itself")
permit (principal is Mainstay::Capability, action == Mainstay::Action::"answer", resource);
"""


@dataclass(frozen=True)
class Up:
    """A workspace that is up."""

    workspace: Workspace
    token: str
    url: str
    process: subprocess.Popen[bytes]

    @property
    def decisions_url(self) -> str:
        return f"{self.url}/v1/capabilities/{NAME}/decisions"

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}


def probability_graph(*, slow_steps: int = 0, poisonous: bool = False) -> bytes:
    """The graph of sigmoid(a + b), as two probabilities a row.

    It also multiplies matrices `slow_steps` times, about 0.04 s each; `poisonous`, it fails where b is
    POISON. Where b is missing its probabilities are NaN.
    """
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["score"]),
        helper.make_node("Sigmoid", ["score"], ["p"]),
        helper.make_node("Sub", ["one", "p"], ["q"]),
    ]
    constants = [
        numpy_helper.from_array(np.ones((2, 1), np.float32), "weights"),
        numpy_helper.from_array(np.array([1], np.float32), "one"),
    ]
    last = "p"
    if slow_steps:
        constants.append(numpy_helper.from_array(np.full((SLOW_SIZE, SLOW_SIZE), 1e-9, np.float32), "big"))
        constants.append(numpy_helper.from_array(np.array([0], np.float32), "zero"))
        nodes += [
            helper.make_node("ReduceSum", ["p"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["big", "sum"], ["m0"]),
            *(helper.make_node("MatMul", [f"m{step}", "big"], [f"m{step + 1}"]) for step in range(slow_steps)),
            helper.make_node("ReduceSum", [f"m{slow_steps}"], ["heavy"], keepdims=0),
            helper.make_node("Mul", ["heavy", "zero"], ["nothing"]),
            helper.make_node("Add", ["p", "nothing"], ["p1"]),
        ]
        last = "p1"
    if poisonous:
        constants.append(numpy_helper.from_array(np.zeros(int(POISON), np.float32), "table"))
        constants.append(numpy_helper.from_array(np.array([1], np.int64), "second"))
        nodes += [
            helper.make_node("Gather", ["x", "second"], ["b"], axis=1),
            helper.make_node("Cast", ["b"], ["place"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "place"], ["offset"], axis=0),
            helper.make_node("Add", [last, "offset"], ["p2"]),
        ]
        last = "p2"
    nodes.append(helper.make_node("Concat", ["q", last], ["probabilities"], axis=1))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def write_folder(folder: Path, *, graph: bytes | None = None, contract: Any = None, **changes: Any) -> Path:
    """A capability folder; `changes` replace keys of its declaration."""
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "model" / "tiny.onnx").write_bytes(probability_graph() if graph is None else graph)
    (folder / "contract.odcs.yaml").write_text(json.dumps(CONTRACT if contract is None else contract))
    (folder / "authority.cedar").write_text(AUTHORITY)
    (folder / "capability.yaml").write_text(json.dumps({**DECLARATION, **changes}))
    samples = [{"a": 0.5, "b": 0.25}, {"a": -1, "b": 1.5, "note": "private"}, {"a": 3, "b": 2}]
    (folder / "samples.jsonl").write_text("\n".join(map(json.dumps, samples)))
    return folder


def create(directory: Path, log: str) -> tuple[Workspace, str]:
    """A workspace, and the token of a key that may do everything.

    The processes that export and steer, which load much that serving does not, begin after a minute. A test that is
    about them sets another time.
    """
    workspace, _, token = create_workspace(directory, log)
    with (workspace.root / SETTINGS_FILE).open("a") as file:
        file.write("lake_interval_seconds = 60\nsteering_interval_seconds = 60\n")
    workspace = open_workspace(workspace.root, {})
    remember_settings(workspace)
    return workspace, token


def make_served(directory: Path, *, graph: bytes | None = None, **changes: Any) -> tuple[Workspace, str]:
    """A workspace with the tiny capability in production, and the token of a key that may do everything."""
    workspace, token = create(directory, "tests.example.com/tiny")
    release(workspace, graph=graph, **changes)
    return workspace, token


def release(workspace: Workspace, *, graph: bytes | None = None, **changes: Any) -> str:
    """Register the tiny capability with these changes and promote it; the version."""
    folder = write_folder(workspace.capabilities / NAME, graph=graph, **changes)
    version = record_registration(workspace, folder, None).version
    record_promotion(workspace, NAME, version, "for a test")
    return version


def store(workspace: Workspace, artifact: bytes = b"onnx", **changes: Any) -> str:
    """Store a version whose artifact is never run, with these changes; its digest."""
    with tempfile.TemporaryDirectory() as made:
        folder = write_folder(Path(made), graph=artifact, **changes)
        contents = {
            f"folder/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }
    stored = {path.removeprefix("folder/"): stored_file(path, content) for path, content in contents.items()}
    manifest = Manifest(
        format=VERSION_FORMAT,
        capability=changes.get("name", NAME),
        declaration=stored["capability.yaml"],
        contract=stored["contract.odcs.yaml"],
        authority=stored["authority.cedar"],
        samples=stored["samples.jsonl"],
        reference=None,
        runtime="onnx",
        artifact=stored["model/tiny.onnx"],
        source=stored["model/tiny.onnx"],
        code=(),
        inputs=(ModelInput(name="X", kind="float", fields=("a",)),),
        outputs=(ModelOutput(name="Y", role="value"),),
        classes=(),
        environment={"python": "3.11"},
        conversion=None,
        isolated_because=None,
        calibration=None,
        profile=None,
        trust=None,
    )
    return store_version(workspace.versions, manifest, contents)[0].digest


@contextmanager
def up(workspace: Workspace, token: str, *, workers: int = 1, **settings: Any) -> Iterator[Up]:
    """`mainstay up` on a free port, drained at the end. `settings` are given by environment."""
    port = free_port("127.0.0.1")
    environment = {**os.environ, **{f"MAINSTAY_{name.upper()}": str(value) for name, value in settings.items()}}
    command = [sys.executable, "-m", "mainstay.cli.main", "up", "--workspace", str(workspace.root)]
    command += ["--port", str(port), "--workers", str(workers)]
    url = f"http://127.0.0.1:{port}"
    workspace.run.mkdir(parents=True, exist_ok=True)
    with (workspace.run / "up.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
    try:
        try:
            wait_until_ready(url, 30, alive=lambda: process.poll() is None)
        except Exception as error:
            error.add_note((workspace.run / "up.log").read_text())
            raise
        yield Up(workspace, token, url, process)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
