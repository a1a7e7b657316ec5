"""What was inferred of a sample: the property that is declared, why, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from msgspec import structs

from mainstay.contract.types import CustomProperty, Property, SchemaObject

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl

    from mainstay.contract.inference_mappings import InferredTable

INFERRED: Final = "inferred"  # the custom property that holds what programs may know of an inference

Wanted: TypeAlias = Literal["string", "number", "integer", "boolean"]
"""What whoever uses a column needs it to be; a number may be an integer or a boolean as well."""


class Unfit(Exception):
    """A column cannot be what is wanted of it, or holds what no property can. `str` says which, and what was found."""


class Finding(NamedTuple):
    """One thing that is declared of a column, and what speaks for it."""

    rule: (
        str  # type, required, minimum, maximum, validValues, near-miss, format, pattern, maxLength, multipleOf, unique
    )
    confidence: float  # see `inference_evidence.confidence_of`
    words: str


class Guess(NamedTuple):
    """What a column may say of a person. A guess is never declared as a fact; a person is asked."""

    classification: Literal["personal", "quasi-identifier"]
    confidence: float  # 0 to 1
    words: str


@dataclass(frozen=True, slots=True)
class InferredColumn:
    """A column of the sample, and the property that describes it."""

    declared: Property
    values: pl.Series  # as JSON has them: Int64, Float64, Boolean or String; null where nothing was
    support: int  # values that are not missing
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()  # what was seen and not declared
    guess: Guess | None = None

    @property
    def name(self) -> str:
        return self.declared.name

    @property
    def confidence(self) -> float:
        return min((each.confidence for each in self.findings), default=0.0)

    def words(self) -> str:
        """Everything that speaks for what is declared, in a line."""
        rows = f"{self.support:,} value{'' if self.support == 1 else 's'}"
        said = [each.words for each in self.findings if each.words]
        return "; ".join([f"inferred from {rows}", *said, *self.notes])

    def facts(self) -> dict[str, Any]:
        """The same for programs."""
        made: dict[str, Any] = {
            "support": self.support,
            "confidence": self.confidence,
            "rules": {each.rule: each.confidence for each in self.findings},
        }
        if self.guess is not None:
            made["classification"] = {"guess": self.guess.classification, "confidence": self.guess.confidence}
        return made

    def marked(self) -> Property:
        """The property with `facts` as a custom property."""
        mark = CustomProperty(property=INFERRED, value=self.facts())
        return structs.replace(self.declared, custom_properties=(*self.declared.custom_properties, mark))

    def required_by(self, words: str) -> InferredColumn:
        """The same where the column is needed for a reason that is no inference, which `words` gives."""
        others = tuple(each for each in self.findings if each.rule != "required")
        finding = Finding("required", 1.0, words)
        return replace(
            self, declared=structs.replace(self.declared, required=True), findings=(*others[:1], finding, *others[1:])
        )


@dataclass(frozen=True, slots=True)
class InferredObject:
    """The columns of a sample, in their order, as an object of a contract."""

    name: str
    columns: tuple[InferredColumn, ...]
    rows: int
    tables: tuple[InferredTable, ...] = ()  # of what some columns settle about others

    def column(self, name: str) -> InferredColumn:
        return next(each for each in self.columns if each.name == name)

    def marked(self) -> SchemaObject:
        """The object with everything that was inferred, and what speaks for it as custom properties."""
        return SchemaObject(
            name=self.name,
            logical_type="object",
            properties=tuple(each.marked() for each in self.columns),
            quality=tuple(
                structs.replace(
                    each.quality(), custom_properties=(CustomProperty(property=INFERRED, value=each.facts()),)
                )
                for each in self.tables
            ),
        )

    def records(self, places: Sequence[int]) -> Iterator[dict[str, Any]]:
        """The rows at these places as JSON has them; what is missing is left out."""
        names = [each.name for each in self.columns]
        values = [each.values.gather(list(places)).to_list() for each in self.columns]
        for row in zip(*values, strict=True):
            yield {name: value for name, value in zip(names, row, strict=True) if value is not None}
