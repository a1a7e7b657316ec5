"""Whole capability folders for the tests of registering, and what must hold of what is made of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import joblib
import skops.io
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType

from catalog.models import boosted, flights_frame, flights_pipeline, matrix
from mainstay.catalog.versions import list_versions, open_version

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.catalog.register import Registered

TRUST = "made by our own training job"
PREDICTOR = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: urn:datacontract:tests:{name}
version: 1.0.0
status: active
schema:
  - name: record
    logicalType: object
    properties:
{fields}
  - name: answer
    logicalType: object
    properties:
{answer}
  - name: truth
    logicalType: object
    properties:
      - {{name: label, logicalType: string}}
      - {{name: minutes, logicalType: number}}
"""

CAPABILITY = """\
apiVersion: mainstay/v1
name: {name}
title: A model under test
purpose: To be registered.
owner: {{team: tests, contact: tests@example.com}}
objects: {{input: record, output: answer, outcome: truth}}
model: {model}
output: {output}
samples: tests/samples.jsonl
"""

FLIGHT_FIELDS = """\
      - {name: carrier, logicalType: string, required: true}
      - {name: month, logicalType: integer, required: true, logicalTypeOptions: {minimum: 1, maximum: 12}}
      - {name: dep_delay, logicalType: number}
"""
ABC_FIELDS = "".join(f"      - {{name: {name}, logicalType: number, required: true}}\n" for name in "abc")
AUTHORITY = '@id("all") permit (principal, action, resource);\n'
PROBABILITY = """\
      - {name: risk, logicalType: number, required: true, logicalTypeOptions: {minimum: 0, maximum: 1}}
      - {name: late, logicalType: boolean, required: true}
"""
VALUE = "      - {name: estimate, logicalType: number, required: true}\n"
ABC_ROWS = [dict(zip("abc", row, strict=True)) for row in matrix(20).tolist()]


def write_folder(
    folder: Path,
    *,
    model: dict[str, Any],
    declared: dict[str, Any] | None = None,
    fields: str = ABC_FIELDS,
    answer: str = PROBABILITY,
    output: dict[str, Any] | None = None,
    rows: list[Any] = ABC_ROWS,
) -> Path:
    """A whole capability folder but for its model. `declared` are keys of the declaration beside the usual ones."""
    output = {"risk": {"take": "probability"}, "late": {"take": "threshold"}} if output is None else output
    (folder / "model").mkdir(parents=True)
    (folder / "tests").mkdir()
    (folder / "contract.odcs.yaml").write_text(
        CONTRACT.format(name="x", fields=fields.rstrip(), answer=answer.rstrip())
    )
    text = CAPABILITY.format(name="late-arrival", model=json.dumps(model), output=json.dumps(output))
    more = "".join(f"{key}: {json.dumps(value)}\n" for key, value in (declared or {}).items())
    (folder / "capability.yaml").write_text(text + more)
    (folder / "tests" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "authority.cedar").write_text(AUTHORITY)
    (folder / "train.py").write_text("print('fit')\n")
    return folder


def flights_folder(folder: Path) -> Path:
    """Text, integers and gaps, in a skops file."""
    rows = [
        {key: value for key, value in row.items() if value == value}  # noqa: PLR0124 - NaN: the gap is left out
        for row in flights_frame(50).to_dict("records")
    ]
    source = {"file": "model/m.skops", "kind": "sklearn", "trusted_types": [PREDICTOR]}
    write_folder(folder, model=source, fields=FLIGHT_FIELDS, rows=rows)
    skops.io.dump(flights_pipeline(), folder / "model" / "m.skops")
    return folder


def pickle_folder(folder: Path, model: Any) -> Path:
    write_folder(folder, model={"file": "model/m.joblib", "kind": "sklearn"})
    joblib.dump(model, folder / "model" / "m.joblib")
    return folder


def onnx_folder(folder: Path, artifact: bytes, **changes: Any) -> Path:
    write_folder(folder, model={"file": "model/m.onnx", "kind": "onnx"}, **changes)
    (folder / "model" / "m.onnx").write_bytes(artifact)
    return folder


def boosted_onnx(classes: tuple[Any, Any] = ("no", "yes")) -> bytes:
    model = boosted(classes)
    types = [("X", FloatTensorType([None, 3]))]
    return bytes(to_onnx(model, initial_types=types, options={id(model): {"zipmap": False}}).SerializeToString())


def check_whole(versions: Path, registered: Registered) -> None:
    opened = open_version(versions, registered.version)
    assert opened.manifest == registered.manifest
    assert opened.path == registered.path
    assert list(list_versions(versions)) == [registered.version]


def check_nothing_is_stored(versions: Path) -> None:
    assert list_versions(versions) == {}
