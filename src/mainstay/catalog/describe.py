"""What a model's file says of itself: its kind, the features it takes and their order, its classes, what it answers.

The file is opened as `conversion` opens one, in a child that is confined and holds nothing of ours; an ONNX graph,
which runs no code, in this process. What no file says (what a graph answers, what a Python function gives) is found
out by running rows.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec

from mainstay.catalog.conversion import Limits, Refusal, run_child
from mainstay.catalog.versions import read_bounded
from mainstay.contract.inference_types import Wanted  # noqa: TC001 - msgspec reads the annotations
from mainstay.errors import NOT_READ, Failed, Misuse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.catalog.graph import Graph

REQUEST: Final = "request.json"
REPLY: Final = "reply.json"
MAX_REPLY_BYTES: Final = 64 << 20

Role: TypeAlias = Literal["probabilities", "label", "value"]

_CHILD: Final = "mainstay.catalog.describe_child"
_KINDS: Final[dict[str, Wanted]] = {
    "tensor(float)": "number",
    "tensor(double)": "number",
    "tensor(int64)": "integer",
    "tensor(string)": "string",
    "tensor(bool)": "boolean",
}


class Takes(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes."""

    names: tuple[str, ...] | None = None  # in its order; None where it has none
    width: int | None = None  # how many; None where it takes whatever it is given
    kinds: dict[str, Wanted] = {}  # by name, of those that can be one kind only
    every: Wanted | None = None  # the kind of all that `kinds` does not name

    def kind_of(self, name: str) -> Wanted | None:
        return self.kinds.get(name, self.every)


class Gives(msgspec.Struct, frozen=True, kw_only=True):
    """What a model answers."""

    roles: tuple[Role, ...]
    classes: tuple[str | int | bool, ...] = ()  # in the order of the probabilities; empty for a regression


class Described(msgspec.Struct, frozen=True, kw_only=True, tag="described"):
    """A model as its file describes it."""

    kind: Literal["onnx", "sklearn", "xgboost", "lightgbm", "python"]
    what: str  # for people: `Pipeline`, `Booster`
    takes: Takes
    gives: Gives | None = None  # None where only running it tells
    trusted_types: tuple[str, ...] = ()  # that a skops file holds beyond its own safe list
    notes: tuple[str, ...] = ()


class Called(msgspec.Struct, frozen=True, kw_only=True, tag="called"):
    """What a Python function gave: an output for each record, or None where it raised, and the first of the errors."""

    outputs: list[dict[str, Any] | None]
    error: str = ""


class DescribeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is asked to do: describe `file`, or call `call` with `records`."""

    folder: str  # absolute; what the child may read
    file: str = ""  # inside the folder
    trusted_types: tuple[str, ...] = ()
    call: str = ""
    records: list[dict[str, Any]] = []
    limits: Limits


def describe_file(folder: Path, file: str, trusted_types: Sequence[str], limits: Limits) -> Described:
    """The model in a file of `folder`, which its owner has been made sure to trust where opening it can run code.

    Raises Misuse when it is none that can be taken, Failed when the child fails or takes more than its limits.
    """
    request = DescribeRequest(
        folder=str(folder.resolve()), file=file, trusted_types=tuple(trusted_types), limits=limits
    )
    reply = _ask(request, "opening the model")
    assert isinstance(reply, Described), "it was asked to describe"
    return reply


def call_function(folder: Path, call: str, records: Sequence[dict[str, Any]], limits: Limits) -> Called:
    """What the function `call` of a file of `folder` gives for the records. Raises as `describe_file` does."""
    request = DescribeRequest(folder=str(folder.resolve()), call=call, records=list(records), limits=limits)
    reply = _ask(request, "calling the function")
    assert isinstance(reply, Called), "it was asked to call"
    return reply


def describe_graph(graph: Graph) -> Described:
    """An ONNX graph. Raises Misuse when its inputs are none that can be filled."""
    declared = graph.declared_inputs()
    if len(declared) == 1 and declared[0][2][1:] != [1]:
        _, kind, shape = declared[0]
        width = shape[1] if len(shape) == 2 and isinstance(shape[1], int) else None
        takes = Takes(width=width, every=_KINDS.get(kind))
    else:
        by_name = {name: wanted for name, tensor, _ in declared if (wanted := _KINDS.get(tensor)) is not None}
        takes = Takes(names=tuple(name for name, _, _ in declared), kinds=by_name)
    return Described(kind="onnx", what="ONNX graph", takes=takes)


def _ask(request: DescribeRequest, work: str) -> Described | Called:
    with tempfile.TemporaryDirectory(prefix="mainstay-describe-", ignore_cleanup_errors=True) as private:
        directory = Path(private)
        (directory / REQUEST).write_bytes(msgspec.json.encode(request))
        code, shown = run_child(_CHILD, directory, request.limits.wall_seconds, work)
        printed = shown.decode("utf-8", "replace").strip()
        hint = f"It printed:\n{printed}" if printed else ""
        if code != 0:
            raise Failed(f"{work} ended its process with code {code}", hint=hint)
        try:
            reply = msgspec.json.decode(
                read_bounded(directory / REPLY, MAX_REPLY_BYTES), type=Described | Called | Refusal
            )
        except FileNotFoundError:
            raise Failed(f"{work} ended its process before it answered", hint=hint) from None
        except NOT_READ as error:
            raise Failed(f"{work} answered with something else than a reply: {error}", hint=hint) from None
    if isinstance(reply, Refusal):
        raise Misuse(reply.message, hint=reply.hint)
    return reply
