"""What is: versions and releases, immutable."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from mainstay.runtime.types import ModelInput, ModelOutput  # noqa: TC001 - msgspec reads the annotations

VERSION_FORMAT: Final = "mainstay-version/1"
RELEASE_FORMAT: Final = "mainstay-release/1"
RELEASE_PAYLOAD: Final = "application/vnd.mainstay.release+json"
MANIFEST = "manifest.json"

Digest = str  # "sha256:" and 64 hex digits


class StoredFile(Struct, frozen=True, kw_only=True):
    """A file of a version: its path inside the version, its digest and its size."""

    path: str
    digest: Digest
    bytes: int


class Conversion(Struct, frozen=True, kw_only=True):
    """How the original model and its ONNX form compare on the sample rows."""

    tolerance: float
    max_difference: float  # over every output of every row; labels that differ count as 1
    rows: int


class Manifest(Struct, frozen=True, kw_only=True):
    """A version: everything a decision needs, by digest. Its id is the digest of this document's canonical JSON.

    Holds no time and no machine: the same content makes the same id anywhere.
    """

    format: Literal["mainstay-version/1"]
    capability: str
    declaration: StoredFile  # capability.yaml
    contract: StoredFile
    samples: StoredFile
    artifact: StoredFile  # ONNX
    source: StoredFile  # what the pilot brought; the artifact itself when that is ONNX
    code: tuple[StoredFile, ...]  # the folder's Python files
    inputs: tuple[ModelInput, ...]
    outputs: tuple[ModelOutput, ...]
    classes: tuple[str | int | bool, ...]  # in the order of the probabilities; empty for a regression
    environment: dict[str, str]  # distributions that shaped the artifact, and Python
    conversion: Conversion | None
    pickle_trusted: str | None  # why a pickle was opened; None when none was


class Release(Struct, frozen=True, kw_only=True):
    """The small document the data plane executes. Numbered per capability and kept for ever."""

    format: Literal["mainstay-release/1"]
    capability: str
    number: int
    stage: Literal["production"]
    version: Digest
    contract: Digest
    published_at: str  # RFC 3339, UTC
    published_by: str
    reason: str
