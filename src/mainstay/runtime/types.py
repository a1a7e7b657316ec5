"""What a model takes and gives, and the lane that all runtimes share."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from msgspec import Struct

Row: TypeAlias = tuple[
    Any, ...
]  # a value per field of the input object, in the order of the contract; None where absent


class Prediction(NamedTuple):
    """What the model gave for one row: values in the order of the output fields, and the confidence it states."""

    values: tuple[Any, ...]
    confidence: float | None


class Crashed(Exception):
    """The model's process ended, or was ended, while it had this row."""


class Unavailable(Exception):
    """The model was not tried with this row: it is starting, failed too often, or cannot be reached."""


Result: TypeAlias = Prediction | Exception
"""An exception that is neither Crashed nor Unavailable says that the model failed on this very row."""


class Waiting(Protocol):
    """What may wait in a lane."""

    row: Row
    run_until: float  # on the loop's clock; after that nobody waits for the result


W = TypeVar("W", bound=Waiting)
W_contra = TypeVar("W_contra", bound=Waiting, contravariant=True)


class Lane(Protocol[W_contra]):
    """Runs one model over what is waiting for it. Its methods belong to the event loop's thread, and return soon.

    Each submitted item is delivered once, with its result, unless it was withdrawn before.
    """

    @property
    def ready(self) -> bool:
        """Whether an item submitted now would be tried now or soon; while False, `submit` must not be called."""
        ...

    def submit(self, item: W_contra) -> None: ...
    def withdraw(self, item: W_contra) -> bool:
        """Nobody waits for this item any more. It may be delivered all the same when it has left already.

        Whether it was the model that kept it waiting.
        """
        ...

    def start(self) -> None:
        """Called whenever the journal has nothing left to write; a lane that gathers batches may begin one."""
        ...

    async def wait_ready(self, seconds: float) -> None:
        """Return once `ready`. Raises Failed when that takes longer, or the model cannot be started."""
        ...

    def close(self) -> None:
        """Let go of what is held once nothing is waiting; called once, after the last item."""
        ...


Kind: TypeAlias = Literal["number", "integer", "boolean", "string"]


class Feature(Struct, frozen=True):
    """An input field that the model may take."""

    name: str
    kind: Kind
    nullable: bool  # whether the contract lets it be absent or null


class ModelInput(Struct, frozen=True, kw_only=True):
    """One input of the ONNX graph and the input fields that fill its columns, in order."""

    name: str
    kind: Literal["float", "double", "int64", "string", "bool"]
    fields: tuple[str, ...]


class ModelOutput(Struct, frozen=True, kw_only=True):
    """One output of the ONNX graph that decisions read."""

    name: str
    role: Literal["probabilities", "label", "value"]


class Signature(Protocol):
    """What has to be known of a graph to run it. A version's manifest is one."""

    @property
    def inputs(self) -> tuple[ModelInput, ...]: ...
    @property
    def outputs(self) -> tuple[ModelOutput, ...]: ...
    @property
    def classes(self) -> tuple[str | int | bool, ...]:
        """In the order of the probabilities; empty for a regression."""
        ...
