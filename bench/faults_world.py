"""The workspace of a fault campaign: a model that does what its input says, its right answers, and its processes."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from mainstay.cli.init import create_workspace
from mainstay.cli.versions import record_promotion, record_registration
from mainstay.server.supervisor import free_port, running_state, wait_until_ready

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mainstay.workspace import Workspace

CAPABILITY = "steady"
DEADLINE_SECONDS = 0.4
WORKERS = 2
CONSTANT = {"probability": 0.25, "yes": False}
RULED = {"probability": 0.75, "yes": True}  # the rule's answer, where `b` is above RULED_ABOVE
RULED_ABOVE = 1.0

FUNCTION = """\
import ctypes
import math
import os
import sys
import time

SIGN = {sign}


def answer(records):
    for record in records:
        TROUBLES.get(record["note"], lambda: None)()
    if any(record["note"] == "too-few" for record in records):
        return []
    return [GARBAGE.get(record["note"], right)(record) for record in records]


def right(record):
    p = 1 / (1 + math.exp(-(record["a"] + SIGN * record["b"])))
    return {{"probability": p, "yes": p >= 0.5}}


def hang():
    while True:
        pass


def sleep():
    while True:
        time.sleep(60)


def blow_up():
    held = []
    while True:
        held.append(bytearray(16 << 20))


def blow_up_and_go_on():
    held = []
    while True:
        try:
            held.append(bytearray(16 << 20))
        except MemoryError:
            held.append(None)


def babble():
    os.write(int(sys.argv[1]), b"no frame at all " * 64)


def answer_another():
    os.write(int(sys.argv[1]), bytes([0, 0, 0, 3, 0x92, 0x00, 0x90]))


def print_much():
    for _ in range(500):
        print("x" * 1_000)


TROUBLES = {{
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "exit": lambda: os._exit(3),
    "hang": hang,
    "sleep": sleep,
    "blow-up": blow_up,
    "blow-up-and-go-on": blow_up_and_go_on,
    "babble": babble,
    "answer-another": answer_another,
    "print-much": print_much,
}}

GARBAGE = {{
    "out-of-range": lambda _: {{"probability": 7.0, "yes": True}},
    "not-a-number": lambda _: {{"probability": float("nan"), "yes": True}},
    "text": lambda _: "no record at all",
    "nothing": lambda _: None,
    "wrong-type": lambda _: {{"probability": "high", "yes": True}},
    "missing": lambda _: {{"probability": 0.5}},
    "extra": lambda _: {{"probability": 0.5, "yes": True, "more": 1}},
    "huge": lambda _: {{"probability": 0.5, "yes": "x" * (64 << 20)}},
    "deep": lambda _: {{"probability": 0.5, "yes": [[[[[[[[]]]]]]] * 1_000]}},
    "object": lambda _: {{"probability": object(), "yes": True}},
}}
"""

CONTRACT = {
    "apiVersion": "v3.1.0",
    "kind": "DataContract",
    "id": CAPABILITY,
    "version": "1.0.0",
    "status": "active",
    "schema": [
        {
            "name": "request",
            "logicalType": "object",
            "properties": [
                {"name": "a", "logicalType": "number", "required": True},
                {"name": "b", "logicalType": "number", "required": True},
                {"name": "note", "logicalType": "string"},
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
    ],
}

DECLARATION = {
    "apiVersion": "mainstay/v1",
    "name": CAPABILITY,
    "title": "Steady",
    "purpose": "Adds two numbers and squeezes the sum between 0 and 1, unless its input tells it to do harm.",
    "owner": {"team": "benchmarks", "contact": "benchmarks@example.com"},
    "objects": {"input": "request", "output": "answer"},
    "model": {"kind": "python", "call": "answer.py:answer", "memory_mb": 512, "start_seconds": 5},
    "samples": "samples.jsonl",
    "deadline_ms": round(DEADLINE_SECONDS * 1000),
    "fallback": [
        {"rule": [{"when": [{"field": "b", "above": RULED_ABOVE}], "then": RULED}]},
        {"constant": CONSTANT},
    ],
    "breaker": {"open_seconds": 0.2},
}

IN_PROCESS = {
    "model": {"kind": "onnx", "file": "model.onnx", "features": ["a", "b"]},
    "output": {"probability": {"take": "probability"}, "yes": {"take": "threshold", "at": 0.5}},
}

AUTHORITY = Path(__file__).with_name("slow_model") / "authority.cedar"  # it may answer everything by itself

SIGNS = (1, -1)  # what each version does with `b`


@dataclass(frozen=True)
class World:
    """A workspace that is up."""

    workspace: Workspace
    token: str
    port: int
    versions: dict[str, int]  # each version and its sign
    slow: Path  # while this file exists, the disk is slow
    log: Path

    @property
    def workers(self) -> dict[str, int]:
        """The process of each worker by its name, as the supervisor last said."""
        return {name: pid for name, pid in self._processes.items() if name.startswith("worker")}

    @property
    def models(self) -> list[int]:
        """The process of each model that runs now."""
        workers = set(self.workers.values())
        program = "mainstay.runtime.child"
        return [pid for pid, parent, command in _processes() if parent in workers and program in command]

    @property
    def _processes(self) -> dict[str, int]:
        state: Any = running_state(self.workspace) or {}
        processes: dict[str, int] = state.get("processes", {})
        return processes

    def promote(self, version: str) -> None:
        record_promotion(self.workspace, CAPABILITY, version, "for a campaign")


def right_output(sign: int, a: float, b: float) -> dict[str, Any]:
    """What a version gives for an input."""
    p = 1 / (1 + math.exp(-(a + sign * b)))
    return {"probability": p, "yes": p >= 0.5}


def fallback_output(b: float) -> dict[str, Any]:
    """What the ladder gives for an input."""
    return RULED if b > RULED_ABOVE else CONSTANT


def make_workspace(root: Path, *, in_process: bool) -> tuple[Workspace, str, dict[str, int]]:
    """The workspace, a key for everything, and its versions; the first of them is in production."""
    declaration = DECLARATION | (IN_PROCESS if in_process else {})
    workspace, _, token = create_workspace(root, "bench.example.com/faults")
    versions = {}
    for sign in SIGNS:
        folder = workspace.capabilities / CAPABILITY
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "capability.yaml").write_text(json.dumps(declaration))
        (folder / "contract.odcs.yaml").write_text(json.dumps(CONTRACT))
        shutil.copy(AUTHORITY, folder)
        if in_process:
            (folder / "model.onnx").write_bytes(_graph(sign))
        else:
            (folder / "answer.py").write_text(FUNCTION.format(sign=sign))
        (folder / "samples.jsonl").write_text('{"a": 0.5, "b": 0.25}\n{"a": -1, "b": 1.5, "note": "calm"}\n')
        versions[record_registration(workspace, folder, None).version] = sign
    record_promotion(workspace, CAPABILITY, next(iter(versions)), "for a campaign")
    return workspace, token, versions


@contextmanager
def up(root: Path, outside: Path, *, in_process: bool) -> Iterator[World]:
    """A new workspace at `root`, up until the end, then drained. `outside` is a folder on another disk.

    `in_process` the model is a graph, and there is nothing in it that could do harm.
    """
    workspace, token, versions = make_workspace(root, in_process=in_process)
    port = free_port("127.0.0.1")
    slow, log_path = outside / "slow", outside / "up.log"
    paths = (str(Path(__file__).with_name("slow_disk")), os.environ.get("PYTHONPATH"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "FAULTS_SLOW_DISK": str(slow)}
    command = [sys.executable, "-m", "mainstay.cli.main", "up", "--workspace", str(root)]
    command += ["--port", str(port), "--workers", str(WORKERS)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", 30, alive=lambda: process.poll() is None)
        yield World(workspace, token, port, versions, slow, log_path)
    finally:
        process.terminate()
        process.wait(60)


def _graph(sign: int) -> bytes:
    """An ONNX graph that gives the right answers in single precision."""
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["score"]),
        helper.make_node("Sigmoid", ["score"], ["p"]),
        helper.make_node("Sub", ["one", "p"], ["q"]),
        helper.make_node("Concat", ["q", "p"], ["probabilities"], axis=1),
    ]
    constants = [
        numpy_helper.from_array(np.array([[1], [sign]], np.float32), "weights"),
        numpy_helper.from_array(np.array([1], np.float32), "one"),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])
    found = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])
    graph = helper.make_graph(nodes, CAPABILITY, [given], [found], constants)
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()
    return content


def _processes() -> Iterator[tuple[int, int, str]]:
    """Each process, its parent and its command line (proc(5))."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it has ended meanwhile
                continue
            yield int(entry.name), parent, command
