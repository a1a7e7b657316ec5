"""What a capability folder declares, as frozen types. `capability.yaml` has exactly these names, and `apiVersion`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from mainstay.capability.keeping import (
    Cost,
    Monitoring,
    Retraining,
    Rollout,
    ServiceLevels,
)
from mainstay.capability.sources import ScheduledBatch, Source  # noqa: TC001 - msgspec reads the types of a struct
from mainstay.capability.words import (  # noqa: TC001 - the same
    Classification,
    EntryPoint,
    EnvironmentName,
    FieldName,
    FolderPath,
    HttpUrl,
    Name,
    Owner,
    Record,
    SnapshotName,
    Text,
    VersionName,
)

API_VERSION = "mainstay/v1"
FILE_NAME = "capability.yaml"
AUTHORITY_NAME = "authority.cedar"
CONTRACT_NAME = "contract.odcs.yaml"  # where the contract stands unless `contract` says otherwise


class Objects(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which objects of the contract are the input, the output and the outcome (the truth learned later)."""

    input: FieldName
    output: FieldName
    outcome: FieldName | None = None


class Remote(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model served elsewhere, behind the Open Inference Protocol v2 (REST)."""

    url: HttpUrl  # of the server, without `/v2`
    model: Text
    version: Text | None = None
    token_variable: EnvironmentName | None = None  # the environment variable that holds a bearer token
    input_tensor: Text | None = None  # one FP64 tensor [n, features]; None means a tensor [n] per feature, by its name
    connections: Annotated[int, Meta(ge=1, le=1_024)] = 8  # open at a time, per worker
    retries: Annotated[int, Meta(ge=0, le=5)] = 2  # of failures where the server cannot have decided


class ModelSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The artifact the pilot brought."""

    kind: Literal["onnx", "sklearn", "xgboost", "lightgbm", "python", "remote"]
    file: FolderPath | None = None  # of every kind but python and remote
    features: tuple[FieldName, ...] = ()  # input fields in the model's order; empty means all, in the contract's order
    trusted_types: tuple[Text, ...] = ()  # types a skops file may hold beyond its own safe list
    tolerance: Annotated[float, Meta(gt=0, le=0.1)] = 1e-5  # largest difference of any output the conversion may show
    run: Literal["auto", "isolated"] = "auto"
    call: EntryPoint | None = None  # kind python
    remote: Remote | None = None  # kind remote
    confidence: FieldName | None = None  # kinds python and remote: the number property of the output that states it
    memory_mb: Annotated[int, Meta(ge=64, le=1_048_576)] = 4_096  # of address space of an isolated process
    start_seconds: Annotated[float, Meta(gt=0, le=600)] = 60.0  # how long an isolated process may take to load
    trained_on: SnapshotName | None = None  # the snapshot of the lake that it was fitted to


class OutputField(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one field of the output object comes from the model.

    `probability` is the probability of `of_class`; `label` the class chosen; `value` a regression's number;
    `threshold` is true when the probability of `of_class` is at least `at`. `tensor` is a column of a remote model's
    output tensor.
    """

    take: Literal["probability", "label", "value", "threshold", "tensor"]
    of_class: str | int | bool | None = None  # None means the last class
    at: Annotated[float, Meta(ge=0, le=1)] = 0.5
    tensor: Text | None = None  # None means the field's own name
    column: Annotated[int, Meta(ge=0, le=65_535)] = 0  # of a tensor with two dimensions


class Condition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one input field must be: every test that is given must hold. A missing value only fits `missing: true`."""

    field: FieldName
    missing: bool | None = None
    equals: str | int | float | bool | None = None
    one_of: tuple[str | int | float | bool, ...] = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None


class Case(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where every condition holds, this is the output."""

    when: tuple[Condition, ...] = ()  # empty: always
    then: Record


class LastGood(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The last answer the model gave for the same business key, if it is not older than this."""

    max_age_seconds: Annotated[float, Meta(gt=0, le=31_622_400)] = 86_400.0


class Rung(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rung of the fallback ladder: exactly one of these. The first that has an answer gives it."""

    version: VersionName | None = None  # another version decides
    rule: tuple[Case, ...] = ()  # the first case that fits
    last_good: LastGood | None = None
    constant: Record | None = None  # always this output
    person: bool | None = None  # the decision waits for a person


class Behaviours(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of a decision in trouble, by the code of its reason.

    `answer` gives the model's answer, with the reason beside it; `fallback` climbs the ladder, and refuses where it has
    no answer; `review` leaves it to a person; `refuse` gives none.
    """

    contract_violation: Literal["refuse", "fallback", "review"] = "refuse"
    out_of_distribution: Literal["answer", "fallback", "review", "refuse"] = "answer"
    low_confidence: Literal["answer", "fallback", "review", "refuse"] = "review"
    deadline_exceeded: Literal["fallback", "review", "refuse"] = "fallback"
    model_error: Literal["fallback", "review", "refuse"] = "fallback"
    model_crashed: Literal["fallback", "review", "refuse"] = "fallback"
    model_unavailable: Literal["fallback", "review", "refuse"] = "fallback"
    output_invalid: Literal["fallback", "review", "refuse"] = "fallback"
    overloaded: Literal["refuse", "fallback", "review"] = "refuse"
    feed_stopped: Literal["answer", "fallback", "review", "refuse"] = "fallback"


class Breaker(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When calls of a failing model are not even tried, per worker process."""

    failures: Annotated[float, Meta(gt=0, le=1)] = 0.5  # the share of the last calls that failed, at least
    of: Annotated[int, Meta(ge=2, le=10_000)] = 20  # how many calls that share is of
    open_seconds: Annotated[float, Meta(gt=0, le=3_600)] = (
        1.0  # until one call tries again; doubles up to 32 times this
    )


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds per worker process."""

    waiting: Annotated[int, Meta(ge=1, le=1_000_000)] = 2_048  # decisions accepted and not yet answered
    queue_ms: Annotated[float, Meta(gt=0, le=600_000)] = 100.0  # the longest that a decision may be expected to queue
    batch: Annotated[int, Meta(ge=1, le=65_536)] = 256  # rows in one run of the model
    run_ms: Annotated[float, Meta(gt=0, le=600_000)] | None = None  # how long the model may take


class Reference(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rows the model was not fitted on: JSON lines of `{"input": {...}, "outcome": {...}}`, the outcome if known."""

    file: FolderPath
    label: FieldName | None = None  # the outcome's property that holds the true class; None: nothing is calibrated
    false_alarms: Annotated[float, Meta(gt=0, le=0.2)] = 0.01  # share of ordinary calls called out of distribution


class Retention(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the ledger keeps what may be erased of its records."""

    bodies_days: Annotated[int, Meta(ge=1, le=36_500)] | None = None  # of decisions, outcomes and resolutions


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
    output: dict[
        FieldName, OutputField
    ] = {}  # every property of the output; empty for kind python, where the call gives them
    samples: FolderPath  # JSON lines, one input record each; they must run before anything is registered
    reference: Reference | None = None
    authority: FolderPath = AUTHORITY_NAME
    deadline_ms: Annotated[int, Meta(ge=1, le=600_000)] = 1_000
    min_confidence: Annotated[float, Meta(gt=0, le=1)] | None = None  # below it, confidence is low
    when: Behaviours = Behaviours()
    fallback: tuple[Rung, ...] = ()
    breaker: Breaker = Breaker()
    limits: Limits = Limits()
    protect: dict[Classification, Literal["mask", "drop", "pseudonym"]] = {}
    retention: Retention = Retention()
    promise: Promise = Promise()
    sources: tuple[Source, ...] = ()
    batches: tuple[ScheduledBatch, ...] = ()
    monitoring: Monitoring = Monitoring()
    service_levels: ServiceLevels = ServiceLevels()
    cost: Cost = Cost()
    rollout: Rollout = Rollout()
    retraining: Retraining | None = None
