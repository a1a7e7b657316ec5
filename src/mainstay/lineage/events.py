"""Events of OpenLineage 2-0-2 (openlineage.io): what a run of a job read, and what it wrote.

Every struct encodes to the JSON object of that name in the standard; a field that is UNSET is left out.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final, Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType, field

PRODUCER: Final = f"urn:mainstay:{version('mainstay-ai')}"

_SPEC: Final = "https://openlineage.io/spec"

EventType: TypeAlias = Literal["START", "RUNNING", "COMPLETE", "FAIL", "ABORT"]


def _defined(facet: str, spec_version: str) -> Any:
    """The field of a facet that says where it is defined."""
    return field(default=f"{_SPEC}/facets/{spec_version}/{facet}.json#/$defs/{facet}", name="_schemaURL")


class Facet(Struct, frozen=True, kw_only=True, rename="camel"):
    """What all facets say of themselves."""

    producer: str = field(default=PRODUCER, name="_producer")


# Of datasets.


class Column(Struct, frozen=True):
    """A column of a dataset."""

    name: str
    type: str | UnsetType = UNSET


class SchemaFacet(Facet, frozen=True, kw_only=True, rename="camel"):
    """Which columns a dataset has."""

    fields: tuple[Column, ...]
    schema_url: str = _defined("SchemaDatasetFacet", "1-2-0")


class DataSourceFacet(Facet, frozen=True, kw_only=True, rename="camel"):
    """Where a dataset stands."""

    name: str
    uri: str
    schema_url: str = _defined("DatasourceDatasetFacet", "1-0-1")


class VersionFacet(Facet, frozen=True, kw_only=True, rename="camel"):
    """Which version of a dataset was read or written."""

    dataset_version: str
    schema_url: str = _defined("DatasetVersionDatasetFacet", "1-0-1")


class InputField(Struct, frozen=True, kw_only=True):
    """A column that another one was made from."""

    namespace: str
    name: str
    field: str


class MadeFrom(Struct, frozen=True, kw_only=True, rename="camel"):
    """The columns that one was made from."""

    input_fields: tuple[InputField, ...]


class ColumnLineageFacet(Facet, frozen=True, kw_only=True, rename="camel"):
    """Which columns each column was made from."""

    fields: dict[str, MadeFrom]
    schema_url: str = _defined("ColumnLineageDatasetFacet", "1-2-0")


class DatasetFacets(Struct, frozen=True, kw_only=True, rename="camel"):
    """What is known of a dataset."""

    schema: SchemaFacet | UnsetType = UNSET
    data_source: DataSourceFacet | UnsetType = UNSET
    version: VersionFacet | UnsetType = UNSET
    column_lineage: ColumnLineageFacet | UnsetType = UNSET


# Of datasets as they are read.


class InputStatisticsFacet(Facet, frozen=True, kw_only=True, rename="camel"):
    """How much was read."""

    row_count: int | UnsetType = UNSET
    size: int | UnsetType = UNSET  # bytes
    file_count: int | UnsetType = UNSET
    schema_url: str = _defined("InputStatisticsInputDatasetFacet", "1-0-0")


class ColumnMetrics(Struct, frozen=True, kw_only=True, rename="camel"):
    """Figures of a column that was read."""

    null_count: int | UnsetType = UNSET
    distinct_count: int | UnsetType = UNSET
    count: float | UnsetType = UNSET
    sum: float | UnsetType = UNSET
    min: float | UnsetType = UNSET
    max: float | UnsetType = UNSET


class QualityMetricsFacet(Facet, frozen=True, kw_only=True, rename="camel"):
    """Figures of what was read."""

    column_metrics: dict[str, ColumnMetrics] = {}
    row_count: int | UnsetType = UNSET
    bytes: int | UnsetType = UNSET
    schema_url: str = _defined("DataQualityMetricsInputDatasetFacet", "1-0-3")


class Assertion(Struct, frozen=True, kw_only=True):
    """A rule that was tried on what was read, and whether it held."""

    assertion: str
    success: bool
    column: str | UnsetType = UNSET
    expected: str | UnsetType = UNSET
    actual: str | UnsetType = UNSET


class QualityAssertionsFacet(Facet, frozen=True, kw_only=True, rename="camel"):
    """The rules that were tried on what was read."""

    assertions: tuple[Assertion, ...]
    schema_url: str = _defined("DataQualityAssertionsDatasetFacet", "1-1-0")


class InputFacets(Struct, frozen=True, kw_only=True, rename="camel"):
    """What is known of a dataset as a run read it."""

    input_statistics: InputStatisticsFacet | UnsetType = UNSET
    data_quality_metrics: QualityMetricsFacet | UnsetType = UNSET
    data_quality_assertions: QualityAssertionsFacet | UnsetType = UNSET


# Of datasets as they are written.


class OutputStatisticsFacet(Facet, frozen=True, kw_only=True, rename="camel"):
    """How much was written."""

    row_count: int | UnsetType = UNSET
    size: int | UnsetType = UNSET  # bytes
    file_count: int | UnsetType = UNSET
    schema_url: str = _defined("OutputStatisticsOutputDatasetFacet", "1-0-2")


class OutputFacets(Struct, frozen=True, kw_only=True, rename="camel"):
    """What is known of a dataset as a run wrote it."""

    output_statistics: OutputStatisticsFacet | UnsetType = UNSET


# Of runs and jobs.


class Named(Struct, frozen=True, kw_only=True):
    """A name in a namespace."""

    namespace: str
    name: str


class RunId(Struct, frozen=True, kw_only=True, rename="camel"):
    """A run by its UUID."""

    run_id: str


class ParentFacet(Facet, frozen=True, kw_only=True, rename="camel"):
    """The run that started this one."""

    run: RunId
    job: Named
    schema_url: str = _defined("ParentRunFacet", "1-2-0")


class ErrorFacet(Facet, frozen=True, kw_only=True, rename="camel"):
    """What a run ended with."""

    message: str
    programming_language: str = "PYTHON"
    schema_url: str = _defined("ErrorMessageRunFacet", "1-0-1")


class EngineFacet(Facet, frozen=True, kw_only=True, rename="camel"):
    """What ran."""

    version: str
    name: str = "mainstay"
    schema_url: str = _defined("ProcessingEngineRunFacet", "1-1-1")


class RunFacets(Struct, frozen=True, kw_only=True):
    """What is known of a run."""

    processing_engine: EngineFacet
    parent: ParentFacet | UnsetType = UNSET
    error_message: ErrorFacet | UnsetType = field(default=UNSET, name="errorMessage")


class JobTypeFacet(Facet, frozen=True, kw_only=True, rename="camel"):
    """What kind of job it is."""

    processing_type: Literal["BATCH", "STREAMING"] = "BATCH"
    integration: str = "MAINSTAY"
    job_type: str = "JOB"
    schema_url: str = _defined("JobTypeJobFacet", "2-0-4")


class JobFacets(Struct, frozen=True, kw_only=True, rename="camel"):
    """What is known of a job."""

    job_type: JobTypeFacet = JobTypeFacet()


class Job(Struct, frozen=True, kw_only=True):
    """What runs again and again."""

    namespace: str
    name: str
    facets: JobFacets = JobFacets()


class Run(Struct, frozen=True, kw_only=True, rename="camel"):
    """Once that a job ran."""

    run_id: str
    facets: RunFacets


class Input(Struct, frozen=True, kw_only=True, rename="camel"):
    """A dataset that a run read."""

    namespace: str
    name: str
    facets: DatasetFacets = DatasetFacets()
    input_facets: InputFacets = InputFacets()


class Output(Struct, frozen=True, kw_only=True, rename="camel"):
    """A dataset that a run wrote."""

    namespace: str
    name: str
    facets: DatasetFacets = DatasetFacets()
    output_facets: OutputFacets = OutputFacets()


class RunEvent(Struct, frozen=True, kw_only=True, rename="camel"):
    """What happened to a run at an instant."""

    event_type: EventType
    event_time: str  # RFC 3339, UTC
    run: Run
    job: Job
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    producer: str = PRODUCER
    schema_url: str = field(default=f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent", name="schemaURL")
