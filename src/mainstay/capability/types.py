"""What a capability folder declares, as frozen types. `capability.yaml` has exactly these names, and `apiVersion`."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct, field

API_VERSION = "mainstay/v1"
FILE_NAME = "capability.yaml"
CONTRACT_NAME = "contract.odcs.yaml"  # where the contract stands unless `contract` says otherwise

Name: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z0-9-]{1,62}\Z", description="2 to 63 lower-case letters, digits and dashes, a letter first"
    ),
]
Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=10_000)]
FieldName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]
FolderPath: TypeAlias = Annotated[
    str, Meta(pattern=r"^(?!/)(?!.*(^|/)\.\.(/|$))[^\x00-\x1f\\]{1,512}\Z", description="a path inside the folder")
]
Email: TypeAlias = Annotated[str, Meta(pattern=r"^[^@\s]+@[^@\s]+\Z", max_length=320, description="an e-mail address")]


class Owner(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who answers for it on a Tuesday afternoon."""

    team: Text
    contact: Email


class Objects(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which objects of the contract are the input, the output and the outcome (the truth learned later)."""

    input: FieldName
    output: FieldName
    outcome: FieldName | None = None


class ModelSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The artifact the pilot brought."""

    file: FolderPath
    kind: Literal["onnx", "sklearn"]
    features: tuple[FieldName, ...] = ()  # input fields in the model's order; empty means all, in the contract's order
    trusted_types: tuple[Text, ...] = ()  # types a skops file may hold beyond its own safe list
    tolerance: Annotated[float, Meta(gt=0, le=0.1)] = 1e-5  # largest difference of any output the conversion may show


class OutputField(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one field of the output object comes from the model.

    `probability` is the probability of `of_class`; `label` the class chosen; `value` a regression's number;
    `threshold` is true when the probability of `of_class` is at least `at`.
    """

    take: Literal["probability", "label", "value", "threshold"]
    of_class: str | int | bool | None = None  # None means the last class
    at: Annotated[float, Meta(ge=0, le=1)] = 0.5


class Constant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rung of the fallback ladder: always this output."""

    constant: dict[str, str | int | float | bool | None]


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds per worker process."""

    waiting: Annotated[int, Meta(ge=1, le=1_000_000)] = 2_048  # decisions accepted and not yet answered
    batch: Annotated[int, Meta(ge=1, le=65_536)] = 256  # rows in one run of the model


class Promise(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the pilot said it would do, and what is held against it in production."""

    roc_auc: Annotated[float, Meta(ge=0, le=1)] | None = None
    calibration_error: Annotated[float, Meta(ge=0, le=1)] | None = None  # expected calibration error, at most
    positive: FieldName | None = None  # the boolean outcome field the probability predicts
    score: FieldName | None = None  # the output field that holds the probability


class Capability(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One AI function a business relies on."""

    api_version: Literal["mainstay/v1"] = field(name="apiVersion")
    name: Name
    title: Text
    purpose: Text
    owner: Owner
    replaces: Text | None = None  # what did this work before
    contract: FolderPath = CONTRACT_NAME
    objects: Objects
    model: ModelSource
    output: dict[FieldName, OutputField]
    samples: FolderPath  # JSON lines, one input record each; they must run before anything is registered
    deadline_ms: Annotated[int, Meta(ge=1, le=600_000)] = 1_000
    fallback: tuple[Constant, ...] = ()
    limits: Limits = Limits()
    promise: Promise = Promise()
