"""What is: versions and releases, immutable."""

from __future__ import annotations

from itertools import pairwise
from typing import Final, Literal

from msgspec import Struct

from mainstay.runtime.types import ModelInput, ModelOutput  # noqa: TC001 - msgspec reads the annotations

VERSION_FORMAT: Final = "mainstay-version/1"
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


class Trust(Struct, frozen=True, kw_only=True):
    """Why the model's file is trusted: one that can run code when it is opened (a pickle) is opened in isolation."""

    reason: str | None  # what whoever registered it said; None where a signature is all there is
    signed_by: str | None = None  # SHA-256 of the public key (SubjectPublicKeyInfo, DER) whose signature was verified
    signature: StoredFile | None = None  # that signature


class Calibration(Struct, frozen=True, kw_only=True):
    """From the confidence a model states to the share of such answers that is right, piecewise linear.

    Fitted on the reference rows. The errors are expected calibration errors, the calibrated one by cross-validation.
    """

    method: Literal["isotonic", "sigmoid", "identity"]
    stated: tuple[float, ...]  # strictly increasing
    calibrated: tuple[float, ...]  # one for each
    rows: int
    error_before: float
    error_after: float

    def __post_init__(self) -> None:
        rising = all(one < other for one, other in pairwise(self.stated))
        if not rising or not 1 <= len(self.stated) == len(self.calibrated):
            raise ValueError("expected strictly increasing confidences, and a share for each")


class Profile(Struct, frozen=True, kw_only=True):
    """What ordinary input looks like: the out-of-distribution score, fitted on the reference rows."""

    file: StoredFile
    rows: int
    false_alarms: float  # the share of ordinary rows that it is calibrated to


class TrainedOn(Struct, frozen=True, kw_only=True):
    """The snapshot of the lake that a model was fitted to, as it was when the version was registered."""

    snapshot: str
    table: str
    table_version: int
    where: str | None  # the rows of the table that it has, as SQL; None for all
    rows: int
    sha256: str  # of their canonical bytes


class Manifest(Struct, frozen=True, kw_only=True):
    """A version: everything a decision needs, by digest. Its id is the digest of this document's canonical JSON.

    Holds no time and no machine: the same content makes the same id anywhere.
    """

    format: Literal["mainstay-version/1"]
    capability: str
    declaration: StoredFile  # capability.yaml
    contract: StoredFile
    authority: StoredFile  # authority.cedar
    samples: StoredFile
    reference: StoredFile | None
    runtime: Literal["onnx", "isolated", "remote"]
    artifact: StoredFile | None  # what runs: ONNX, or what an isolated process loads; None for kinds python and remote
    source: StoredFile | None  # what the pilot brought; the artifact itself unless it was converted
    code: tuple[StoredFile, ...]  # the folder's Python files; for kind python also what stands beside and below its own
    inputs: tuple[ModelInput, ...]  # of the ONNX graph, else empty
    outputs: tuple[ModelOutput, ...]
    classes: tuple[str | int | bool, ...]  # in the order of the probabilities; empty for a regression
    environment: dict[str, str]  # distributions that shaped the artifact, and Python
    conversion: Conversion | None
    isolated_because: str | None  # why a model that could be converted runs isolated
    calibration: Calibration | None
    profile: Profile | None
    trust: Trust | None  # None when nothing that can run code was opened, and no signature asked for
    trained_on: TrainedOn | None = None  # None where the declaration names no snapshot


class Canary(Struct, frozen=True, kw_only=True):
    """A second version that decides for a share of the keys."""

    version: Digest
    contract: Digest
    percent: float  # of the keys, above 0 and below 100
    fallback_versions: tuple[Digest, ...] = ()  # as of the release, for the canary's own ladder


class Shadow(Struct, frozen=True, kw_only=True):
    """A version that decides beside those in force, after the answer and without effect."""

    version: Digest
    contract: Digest
    share: float  # of the decisions, above 0 and at most 1
    queue: int  # decisions that may wait for it in a worker; more are dropped


class Release(Struct, frozen=True, kw_only=True):
    """The small document the data plane executes. Numbered per capability and kept for ever."""

    format: Literal["mainstay-release/1"]
    capability: str
    number: int
    stage: Literal["production"]
    version: Digest
    contract: Digest
    canary: Canary | None = None
    fallback_versions: tuple[Digest, ...] = ()  # one for each `version` rung of the serving version's ladder, in order
    published_at: str  # RFC 3339, UTC
    published_by: str
    reason: str
    content_of: int | None = None  # after a rollback: the release whose versions these are, published again
    shadows: tuple[Shadow, ...] = ()
    rollout: str | None = None  # the step of a rollout that asked for it, for which nothing is published twice

    @property
    def deciding(self) -> frozenset[Digest]:
        """The versions that decide: shadows do not, and those on a ladder do it in the name of another."""
        return frozenset({self.version} if self.canary is None else {self.version, self.canary.version})
