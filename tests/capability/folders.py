"""A capability folder in a few lines, and what is wrong with one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import jsonschema
import yaml

from mainstay.capability.jsonschema import published_schema
from mainstay.capability.load import Declared, load_capability
from mainstay.errors import InvalidDocument

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.problems import Problem

_SCHEMA: Final = jsonschema.Draft202012Validator(json.loads(published_schema()))

CAPABILITY = """\
apiVersion: mainstay/v1
name: late-arrival
title: Will it be late?
purpose: To rebook.
owner: {team: Operations, contact: ops-control@example.com}
objects: {input: departure, output: prediction, outcome: arrival}
model:
  file: model/model.onnx
  kind: onnx
  features: [delay, carrier]
output:
  probability: {take: probability, of_class: 1}
  late: {take: threshold}
samples: samples.jsonl
fallback:
  - constant: {probability: 0.25, late: false}
promise:
  positive: late
  score: probability
"""
CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: c
version: 1.0.0
status: active
schema:
  - name: departure
    properties:
      - {name: carrier, logicalType: string, required: true}
      - {name: delay, logicalType: integer, required: true}
      - {name: at, logicalType: timestamp}
  - name: prediction
    properties:
      - name: probability
        logicalType: number
        required: true
        logicalTypeOptions: {minimum: 0, maximum: 1}
      - {name: late, logicalType: boolean, required: true}
  - name: arrival
    properties:
      - {name: late, logicalType: boolean, required: true}
      - {name: delay, logicalType: integer}
  - name: empty
"""
AUTHORITY = "permit (principal, action, resource);\n"


def write(folder: Path, capability: str = CAPABILITY, contract: str = CONTRACT) -> Path:
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "model" / "model.onnx").write_bytes(b"onnx")
    (folder / "samples.jsonl").write_text("{}\n")
    (folder / "capability.yaml").write_text(capability)
    (folder / "contract.odcs.yaml").write_text(contract)
    (folder / "authority.cedar").write_text(AUTHORITY)
    return folder


def read(folder: Path) -> Declared | tuple[Problem, ...]:
    try:
        declared = load_capability(folder)
    except InvalidDocument as invalid:
        return invalid.problems
    _SCHEMA.validate(yaml.safe_load((folder / "capability.yaml").read_text()))  # which refuses nothing that loads
    return declared


def problems_of(folder: Path) -> list[str]:
    """The problems of a folder as `file:line where: expected | found`."""
    found = read(folder)
    return [
        f"{each.file.removeprefix(f'{folder}/')}:{each.line} {each.where}: {each.expected} | {each.found}"
        for each in (() if isinstance(found, Declared) else found)
    ]
