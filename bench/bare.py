"""The bare handler that governed decisions are measured against: granian's RSGI, msgspec, ONNX Runtime, nothing else.

No validation, no key, no record. The same event loop, the same server and the same graph as a Mainstay worker.

    python bench/bare.py MODEL.onnx PORT FIELD...
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server.embed import Server

HEADERS = [("content-type", "application/json")]


def make_application(artifact: str, fields: list[str]) -> Any:
    """The handler."""
    record = msgspec.defstruct("Record", [(name, float) for name in fields], gc=False)
    call: Any = msgspec.defstruct("Call", [("input", record)], gc=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(artifact, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    output = next(each.name for each in session.get_outputs() if "prob" in each.name)
    decode = msgspec.json.Decoder(call).decode
    values = msgspec.structs.astuple
    encode = msgspec.json.Encoder().encode

    async def application(_scope: Any, protocol: Any) -> None:
        row = np.array([values(decode(await protocol()).input)], dtype=np.float32)
        probabilities = session.run([output], {name: row})[0]
        protocol.response_bytes(200, HEADERS, encode({"probability": float(probabilities[0, 1])}))

    return application


async def serve(artifact: str, port: int, fields: list[str]) -> None:
    server = Server(
        make_application(artifact, fields),
        address="127.0.0.1",
        port=port,
        interface=Interfaces.RSGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=1024,
        log_level=LogLevels.error,
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.stop)
    await server.serve()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
