"""A model served elsewhere, behind the Open Inference Protocol v2 (REST), as a lane; and what registering one asks."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from contextlib import asynccontextmanager
from itertools import islice
from typing import TYPE_CHECKING, Final, Generic

from mainstay.errors import Failed, Misuse
from mainstay.runtime.oip import DATATYPES, BrokenMessage, ModelMetadata, decode_document
from mainstay.runtime.remote_model import BrokenAnswer, RemoteModel
from mainstay.runtime.types import Unavailable, W

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from mainstay.capability.types import OutputField, Remote
    from mainstay.runtime.oip import TensorMetadata
    from mainstay.runtime.types import Feature, Result, Row

logger = logging.getLogger("mainstay.runtime")

CHECK_SECONDS: Final = 10.0  # for each answer when a model is registered


def read_secret(remote: Remote) -> str | None:
    """The bearer token of a remote model, None where none is declared.

    Raises Misuse when the variable that should hold it holds none, or what no header can carry.
    """
    if remote.token_variable is None:
        return None
    secret = os.environ.get(remote.token_variable, "")
    if not re.fullmatch(r"[\x21-\x7e]+", secret):
        found = "nothing" if not secret else "other characters"
        raise Misuse(
            f"environment variable {remote.token_variable}: expected the token of the remote model, in ASCII without"
            f" spaces; found {found}"
        )
    return secret


class RemoteLane(Generic[W]):
    """Batches what waits, with up to `remote.connections` requests under way. Belongs to the event loop's thread."""

    def __init__(  # noqa: PLR0913 - keywords only: what describes the model, and what every lane takes
        self,
        remote: Remote,
        *,
        fields: Sequence[str],
        features: tuple[Feature, ...],
        output: Mapping[str, OutputField],
        confidence: str | None,
        loop: asyncio.AbstractEventLoop,
        batch: int,
        deliver: Callable[[Sequence[W], Sequence[Result]], None],
        secret: str | None,
        leaving: Callable[[Row], Row] | None = None,
    ) -> None:
        """`leaving` makes of a row what may leave this process; None: all of it.

        Opens no connection yet. Raises ValueError as RemoteModel does.
        """
        self._model = RemoteModel(
            remote, fields=fields, features=features, output=output, confidence=confidence, secret=secret
        )
        self._connections = remote.connections
        self._loop = loop
        self._batch = batch
        self._deliver = deliver
        self._leaving = leaving
        self._waiting: dict[W, None] = {}  # in order of arrival
        self._called = False
        self._closed = False
        self._under_way: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        return not self._closed

    def submit(self, item: W) -> None:
        self._waiting[item] = None
        if not self._called:
            self._called = True
            self._loop.call_soon(self._start_soon)

    def withdraw(self, item: W) -> bool:
        self._waiting.pop(item, None)
        return True

    def start(self) -> None:
        """Send what waits, as far as connections are free."""
        while self._waiting and len(self._under_way) < self._connections:
            items = list(islice(self._waiting, self._batch))
            for item in items:
                del self._waiting[item]
            task = self._loop.create_task(self._run(items))
            self._under_way.add(task)
            task.add_done_callback(self._ran)

    async def wait_ready(self, _seconds: float) -> None:
        """It is: whether the server answers is seen call by call."""

    def close(self) -> None:
        self._closed = True
        self._closing = self._loop.create_task(self._let_go())

    def _start_soon(self) -> None:
        self._called = False
        self.start()

    async def _run(self, items: list[W]) -> None:
        until = max(item.run_until for item in items)
        try:
            rows = [item.row if self._leaving is None else self._leaving(item.row) for item in items]
            results = await self._model.predict(rows, until)
        except Exception as error:  # a fault of ours must not leave items without a result
            logger.exception("a batch for a remote model failed: rows=%d", len(items))
            results = [error] * len(items)
        self._deliver(items, results)

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self.start()

    async def _let_go(self) -> None:
        for task in self._under_way:  # only what has been withdrawn is left
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._model.close()


@asynccontextmanager
async def _opened(model: RemoteModel) -> AsyncIterator[RemoteModel]:
    try:
        yield model
    finally:
        await model.close()


def run_remote(model: RemoteModel, rows: Sequence[Row], *, batch: int, seconds: float) -> list[Result]:
    """A result per row, in batches one after the other, each within `seconds`. Runs a loop of its own.

    The model is closed after that.
    """

    async def run() -> list[Result]:
        results: list[Result] = []
        async with _opened(model):
            for at in range(0, len(rows), batch):
                until = asyncio.get_running_loop().time() + seconds
                results += await model.predict(rows[at : at + batch], until)
        return results

    return asyncio.run(run())


async def check_remote(
    remote: Remote, features: tuple[Feature, ...], output: Mapping[str, OutputField], secret: str | None
) -> None:
    """Ask the server whether it is ready and whether its model takes and gives what is declared.

    Tensors are compared where the server describes them. Raises Misuse when the declaration cannot be met by any
    server, Failed when this one cannot be reached, is not ready, or describes another model.
    """
    fields = tuple(feature.name for feature in features)
    try:
        model = RemoteModel(remote, fields=fields, features=features, output=output, confidence=None, secret=secret)
    except ValueError as error:
        raise Misuse(str(error)) from None
    async with _opened(model):
        await _ask(model, f"{model.root}/health/ready")
        described = await _ask(model, model.address)
    try:
        found = decode_document(described, ModelMetadata)
    except BrokenMessage as error:
        raise Failed(f"{model.address}: {error}") from None
    problems = [*_input_problems(model.inputs, found.inputs or ()), *_output_problems(output, found.outputs or ())]
    if problems:
        raise Failed(f"{model.address}: the model is not what is declared\n" + "\n".join(problems))


async def _ask(model: RemoteModel, address: str) -> bytes:
    """What the server says at an address. Raises Failed unless it says it with 200."""
    try:
        answer = await model.get(address, asyncio.get_running_loop().time() + CHECK_SECONDS)
    except (Unavailable, BrokenAnswer) as error:
        raise Failed(f"{address}: {error}") from None
    if answer.status != 200:
        raise Failed(f"{address}: expected 200, found {answer.status}")
    return answer.body


def _input_problems(sent: Sequence[TensorMetadata], taken: Sequence[TensorMetadata]) -> Iterator[str]:
    """Where what we send is not what the model takes."""
    if not taken:
        return
    by_name = {tensor.name: tensor for tensor in taken}
    for tensor in sent:
        found = by_name.pop(tensor.name, None)
        if found is None:
            yield f"input tensor {tensor.name}: expected one of {', '.join(each.name for each in taken)}"
        elif found.datatype != tensor.datatype:
            yield f"input tensor {tensor.name}: {tensor.datatype} is sent, the model takes {found.datatype}"
        elif not _fits(tensor.shape, found.shape):
            yield f"input tensor {tensor.name}: {list(tensor.shape)} is sent, the model takes {list(found.shape)}"
    for name in by_name:
        yield f"input tensor {name}: the model takes it, and no feature fills it"


def _fits(sent: Sequence[int], taken: Sequence[int]) -> bool:
    """Whether a shape of any number of rows may be sent."""
    return len(sent) == len(taken) and all(there in (-1, here) for here, there in zip(sent, taken, strict=True))


def _output_problems(output: Mapping[str, OutputField], given: Sequence[TensorMetadata]) -> Iterator[str]:
    """Where what we read is not what the model gives."""
    if not given:
        return
    by_name = {tensor.name: tensor for tensor in given}
    for name, field in output.items():
        tensor = by_name.get(field.tensor or name)
        if tensor is None:
            expected = ", ".join(by_name)
            yield f"output.{name}: expected an output tensor of the model: {expected}; found {field.tensor or name}"
        elif tensor.datatype not in DATATYPES:
            yield f"output.{name}: expected a datatype of {', '.join(DATATYPES)}, the model gives {tensor.datatype}"
        elif len(tensor.shape) not in (1, 2):
            yield f"output.{name}: expected 1 or 2 dimensions, the model gives {list(tensor.shape)}"
        elif field.column and (len(tensor.shape) == 1 or 0 <= tensor.shape[1] <= field.column):
            yield f"output.{name}: expected more than {field.column} columns, the model gives {list(tensor.shape)}"
