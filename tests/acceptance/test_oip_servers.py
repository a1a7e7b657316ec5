"""A server that others wrote for the Open Inference Protocol, as the remote model.

`mlserver` wants other versions of what is installed here, so it has an environment of its own, whose Python
MAINSTAY_MLSERVER_PYTHON names; without it, these tests skip.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx
import pytest

from mainstay.capability.types import OutputField, Remote
from mainstay.errors import Failed
from mainstay.runtime.remote import check_remote, run_remote
from mainstay.runtime.remote_model import MissingValue, RemoteModel, RowsFailed
from mainstay.runtime.types import Feature, Prediction, Unavailable
from mainstay.server.supervisor import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.acceptance

FEATURES = (Feature("a", "number", nullable=False), Feature("b", "number", nullable=True))
SUM = {"sum": OutputField(take="tensor")}

ADDER = """
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Adder(MLModel):
    async def predict(self, payload):
        a, b = (self.decode(tensor, default_codec=NumpyCodec) for tensor in payload.inputs)
        if (b == 40).any():
            raise ValueError("no row may have 40")
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("sum", a + b)])
"""


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLServer with a model that adds a and b."""
    python = os.environ.get("MAINSTAY_MLSERVER_PYTHON")
    if python is None:
        pytest.skip("MAINSTAY_MLSERVER_PYTHON names no Python of an environment with mlserver")
    folder: Path = tmp_path_factory.mktemp("mlserver")
    (folder / "adder.py").write_text(ADDER)
    ports = {f"{face}_port": free_port("127.0.0.1") for face in ("http", "grpc", "metrics")}
    (folder / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "parallel_workers": 0, **ports}))
    tensor = {"datatype": "FP64", "shape": [-1]}
    settings = {
        "name": "adder",
        "implementation": "adder.Adder",
        "inputs": [{"name": name, **tensor} for name in ("a", "b")],
        "outputs": [{"name": "sum", **tensor}],
    }
    (folder / "model-settings.json").write_text(json.dumps(settings))
    command = [python, "-c", "from mlserver.cli import main; main()", "start", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    url = f"http://127.0.0.1:{ports['http_port']}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        wait_until_ready(url, process)
        yield url
    except BaseException as error:
        error.add_note((folder / "log").read_text()[-2_000:])
        raise
    finally:
        process.terminate()
        process.wait(20)


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up and process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/v2/models/adder/ready").status_code == 200:
                return
        time.sleep(0.1)
    pytest.fail("MLServer was not ready in time")


def test_a_model_in_mlserver_is_checked_and_run(mlserver: str) -> None:
    remote = Remote(url=mlserver, model="adder")
    asyncio.run(check_remote(remote, FEATURES, SUM, None))
    model = RemoteModel(remote, fields=("a", "b"), features=FEATURES, output=SUM, confidence=None, secret=None)
    rows: list[tuple[float, float | None]] = [(float(place), 0.25) for place in range(40)]
    rows[7] = (1.0, 40.0)  # the model fails on it
    rows[9] = (1.0, None)  # MLServer does not state binary tensor data, so it is not told of a missing number
    results = run_remote(model, rows, batch=40, seconds=20)
    assert (type(results[7]), type(results[9])) == (RowsFailed, MissingValue)
    sound = [place for place in range(40) if place not in {7, 9}]
    assert [results[place] for place in sound] == [Prediction((place + 0.25,), None) for place in sound]


def test_a_declaration_that_does_not_fit_the_model_in_mlserver_is_refused(mlserver: str) -> None:
    remote = Remote(url=mlserver, model="adder", input_tensor="x")
    with pytest.raises(Failed, match=r"input tensor x: expected one of a, b"):
        asyncio.run(check_remote(remote, FEATURES, SUM, None))


def test_a_model_that_mlserver_does_not_have_is_unavailable(mlserver: str) -> None:
    remote = Remote(url=mlserver, model="nobody", retries=0)
    model = RemoteModel(remote, fields=("a", "b"), features=FEATURES, output=SUM, confidence=None, secret=None)
    (result,) = run_remote(model, [(1.0, 1.0)], batch=1, seconds=20)
    assert type(result) is Unavailable
    assert "answered 404: Model nobody" in str(result)
