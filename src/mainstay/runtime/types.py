"""What a graph takes and gives, as a version declares it."""

from __future__ import annotations

from typing import Literal, Protocol

from msgspec import Struct


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
