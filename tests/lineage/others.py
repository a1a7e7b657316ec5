"""Our events as others read them: by the classes of the standard's own Python client, and by its JSON Schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
from openlineage.client import facet_v2
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.serde import Serde

from shared_data import shared_data

if TYPE_CHECKING:
    from collections.abc import Iterator

FACETS: dict[str, Any] = {
    "schema": facet_v2.schema_dataset.SchemaDatasetFacet,
    "dataSource": facet_v2.datasource_dataset.DatasourceDatasetFacet,
    "version": facet_v2.dataset_version_dataset.DatasetVersionDatasetFacet,
    "columnLineage": facet_v2.column_lineage_dataset.ColumnLineageDatasetFacet,
    "inputStatistics": facet_v2.input_statistics_input_dataset.InputStatisticsInputDatasetFacet,
    "dataQualityMetrics": facet_v2.data_quality_metrics_input_dataset.DataQualityMetricsInputDatasetFacet,
    "dataQualityAssertions": facet_v2.data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet,
    "outputStatistics": facet_v2.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
    "parent": facet_v2.parent_run.ParentRunFacet,
    "errorMessage": facet_v2.error_message_run.ErrorMessageRunFacet,
    "processing_engine": facet_v2.processing_engine_run.ProcessingEngineRunFacet,
    "jobType": facet_v2.job_type_job.JobTypeJobFacet,
}


def read_by_their_client(event: dict[str, Any]) -> dict[str, Any]:
    """The event as the client's own objects, which check it, and as these write it again."""
    made = RunEvent(
        eventType=RunState(event["eventType"]),
        eventTime=event["eventTime"],
        producer=event["producer"],
        run=Run(runId=event["run"]["runId"], facets=_facets(event["run"]["facets"])),
        job=Job(**{**event["job"], "facets": _facets(event["job"]["facets"])}),
        inputs=[
            InputDataset(each["namespace"], each["name"], _facets(each["inputFacets"]), facets=_facets(each["facets"]))
            for each in event["inputs"]
        ],
        outputs=[
            OutputDataset(
                each["namespace"], each["name"], _facets(each["outputFacets"]), facets=_facets(each["facets"])
            )
            for each in event["outputs"]
        ],
    )
    found: dict[str, Any] = json.loads(Serde.to_json(made))
    return found


def _facets(found: dict[str, Any]) -> dict[str, Any]:
    return {name: _facet(name, content) for name, content in found.items()}


def _facet(name: str, content: dict[str, Any]) -> Any:
    kind = FACETS[name]
    known = {field.name for field in kind.__attrs_attrs__}
    given = {key: value for key, value in content.items() if not key.startswith("_")}
    assert set(given) <= known, f"{name} has fields that its class has not: {set(given) - known}"
    made = kind(**given, producer=content["_producer"])
    assert made._schemaURL == content["_schemaURL"]
    return made


def schema_problems(event: dict[str, Any]) -> Iterator[str]:
    """What the standard's JSON Schema finds wrong with an event and each of its facets."""
    root = shared_data("protocols", "openlineage")
    schemas = [json.loads(path.read_text("utf-8")) for path in (root / "OpenLineage.json", *root.glob("facets/*.json"))]
    bundle = {schema["$id"]: schema for schema in schemas}
    yield from _problems(bundle, event["schemaURL"], event)
    facets = [*event["run"]["facets"].values(), *event["job"]["facets"].values()]
    for each in (*event["inputs"], *event["outputs"]):
        facets += [facet for place in each if place.lower().endswith("facets") for facet in each[place].values()]
    for facet in facets:
        yield from _problems(bundle, facet["_schemaURL"], facet)


def _problems(bundle: dict[str, Any], url: str, content: Any) -> Iterator[str]:
    kind = jsonschema.Draft202012Validator
    validator = kind({"$ref": url, "$defs": bundle}, format_checker=kind.FORMAT_CHECKER)
    yield from (f"{url}: {error.json_path}: {error.message}" for error in validator.iter_errors(content))
