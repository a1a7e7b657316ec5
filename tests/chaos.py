"""A capability whose model is a Python function that does whatever its input's `note` says, and answers otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tiny
from mainstay.cli.versions import record_promotion, record_registration

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.workspace import Workspace

FUNCTION = """\
import ctypes
import math
import os
import sys
import time


def answer(records):
    for record in records:
        TROUBLES.get(record["note"], lambda: None)()
    if any(record["note"] == "too-few" for record in records):
        return []
    return [GARBAGE.get(record["note"]) or right(record) for record in records]


def right(record):
    p = 1 / (1 + math.exp(-(record["a"] + (record["b"] or 0.0))))
    return {"probability": p, "yes": p >= 0.5}


def hang():
    while True:
        pass


def blow_up():
    held = []
    while True:
        held.append(bytearray(64 << 20))


def fail():
    raise ValueError("this row is not for me")


def talk():
    for _ in range(2_000):
        print("x" * 1_000)
        os.write(1, b"y" * 1_000)
        sys.stderr.write("z" * 1_000)


TROUBLES = {
    "segfault": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(3),
    "hang": hang,
    "sleep": lambda: time.sleep(0.05),
    "blow-up": blow_up,
    "raise": fail,
    "talk": talk,
}

GARBAGE = {
    "out-of-range": {"probability": 7.0, "yes": True},
    "not-a-number": {"probability": float("nan"), "yes": True},
    "text": "no record at all",
    "wrong-type": {"probability": "high", "yes": True},
    "missing": {"probability": 0.5},
    "extra": {"probability": 0.5, "yes": True, "more": 1},
    "huge": {"probability": 0.5, "yes": "x" * (64 << 20)},
}
"""


def write_folder(folder: Path, **changes: Any) -> Path:
    """A capability folder; `changes` replace keys of its declaration."""
    model = {"kind": "python", "call": "answer.py:answer", "memory_mb": 1_024, "start_seconds": 20}
    tiny.write_folder(folder, **{"model": model, "output": {}, "deadline_ms": 1_000, **changes})
    (folder / "model" / "tiny.onnx").unlink()
    (folder / "answer.py").write_text(FUNCTION)
    return folder


def make_served(directory: Path, **changes: Any) -> tuple[Workspace, str]:
    """A workspace with this capability in production under the name `tiny`, and a key that may do everything."""
    workspace, token = tiny.create(directory, "tests.example.com/chaos")
    release(workspace, **changes)
    return workspace, token


def release(workspace: Workspace, **changes: Any) -> str:
    """Register the capability with these changes and promote it; the version."""
    folder = write_folder(workspace.capabilities / tiny.NAME, **changes)
    version = record_registration(workspace, folder, None).version
    record_promotion(workspace, tiny.NAME, version, "for a test")
    return version
