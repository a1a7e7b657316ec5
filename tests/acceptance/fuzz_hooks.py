"""What schemathesis is told beside the OpenAPI document; it loads this module by its name in a process of its own.

Half of the valid calls are made to say more: what a chaotic model shall do, and tensors that belong together, which
no schema can say. What is valid stays so, and what is not stays so too; short deadlines become long ones.
"""

from __future__ import annotations

import json
from copy import deepcopy
from typing import TYPE_CHECKING, Any
from zlib import crc32

import schemathesis

if TYPE_CHECKING:
    from schemathesis import HookContext
    from schemathesis.generation.case import Case

LONG_MS = 2_000  # a shorter deadline may pass while the disk writes, and 503 is then the right answer
TROUBLES = (
    *("sleep", "raise", "talk", "out-of-range", "not-a-number", "text", "wrong-type", "missing", "extra", "too-few")
    * 4,
    *("segfault", "exit", "hang", "blow-up", "huge"),  # rarely, since the model is away for a while after each
)


@schemathesis.serializer("application/x-ndjson")
def lines(_context: Any, value: Any) -> bytes:
    """A call a line."""
    calls = value if isinstance(value, list) else [value]
    return b"\n".join(each.encode() if isinstance(each, str) else json.dumps(each).encode() for each in calls)


@schemathesis.hook
def before_call(_context: HookContext, case: Case[Any], _options: Any) -> None:
    if case.meta is None or not isinstance(case.body, dict):
        return
    body = case.body = deepcopy(case.body)
    valid = case.meta.generation.mode.is_positive
    if valid and case.operation.path.endswith("/infer"):
        case.headers.pop("Inference-Header-Content-Length", None)  # JSON alone has no binary data behind it
        _fit(body)
    inputs = body.get("inputs")
    for call in (body, *(inputs if isinstance(inputs, list) else [])):
        if isinstance(call, dict):
            _lengthen(call)
            if valid:
                _trouble(call)


def _lengthen(call: dict[str, Any]) -> None:
    for holder in (call, call.get("parameters")):
        if isinstance(holder, dict) and isinstance(deadline := holder.get("deadline_ms"), int | float):
            holder["deadline_ms"] = LONG_MS if 1 <= deadline < LONG_MS and deadline is not True else deadline


def _trouble(call: dict[str, Any]) -> None:
    record, draw = call.get("input"), crc32(repr(call).encode())
    if isinstance(record, dict) and draw % 2:
        record["note"] = TROUBLES[draw // 2 % len(TROUBLES)]


def _fit(body: dict[str, Any]) -> None:
    draw = crc32(repr(body).encode())
    if draw % 2:
        row = {"a": draw % 300 - 150, "b": draw % 7, "note": TROUBLES[draw // 2 % len(TROUBLES)]}
        body["inputs"] = [
            {"name": name, "shape": [1], "datatype": "BYTES" if name == "note" else "FP64", "data": [value]}
            for name, value in row.items()
        ]
