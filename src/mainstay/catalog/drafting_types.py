"""What is known of a pilot while its folder is drafted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from mainstay.capability.types import OutputField
    from mainstay.catalog.describe import Described, Gives
    from mainstay.catalog.drafting_data import Sample
    from mainstay.contract.inference_types import InferredObject
    from mainstay.contract.types import SchemaObject

INPUT, OUTPUT, OUTCOME = "input", "output", "outcome"  # the objects of a drafted contract
SAMPLES: Final = "tests/samples.jsonl"
REFERENCE: Final = "tests/reference.jsonl"

Task = Literal["binary", "multi-class", "regression", "function"]


class Matched(NamedTuple):
    """Which columns of the sample are what."""

    features: tuple[str, ...]  # in the model's order
    features_by: str  # how that is known
    label: str | None
    label_by: str
    unused: tuple[str, ...]


class Given(NamedTuple):
    """What the model answers, as an object of the contract."""

    gives: Gives | None  # None for a Python function, which gives whole objects
    described: SchemaObject
    mapping: dict[str, OutputField]  # empty for a Python function
    confidence: str | None = None  # the property in which a Python function states it


@dataclass(frozen=True, slots=True, kw_only=True)
class Pilot:
    """A pilot as far as it is known without asking anybody."""

    name: str
    brought: str  # what the model's file was called
    file: str | None  # where it stands in the folder
    call: str | None  # of a Python function
    model: Described
    sample: Sample
    matched: Matched
    input: InferredObject
    given: Given
    outcome: InferredObject | None  # the label's column
    classes_agree: bool  # whether the label's values are the model's classes, so that they can be compared
    sample_places: tuple[int, ...]  # rows that stand in SAMPLES
    reference_places: tuple[int, ...]  # rows that stand in REFERENCE; empty: there are too few
    notes: tuple[str, ...]

    @property
    def task(self) -> Task:
        if self.given.gives is None:
            return "function"
        if "value" in self.given.gives.roles:
            return "regression"
        return "binary" if len(self.given.gives.classes) == 2 else "multi-class"

    def label_shares(self) -> list[tuple[Any, float]]:
        """The label's values and how often each is, the most frequent first; none where there is no class."""
        if self.outcome is None or self.task in ("regression", "function"):
            return []
        values = self.outcome.columns[0].values.drop_nulls()
        counts = values.value_counts(sort=True, name="rows")
        return [(value, rows / len(values)) for value, rows in counts.iter_rows()]
