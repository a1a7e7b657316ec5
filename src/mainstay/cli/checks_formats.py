"""Checks as other tools read them: JUnit XML, and SARIF 2.1.0 (OASIS).

JUnit: a check that passes is a passed test; one that fails a *failure*, one whose verdict is unknown an *error*, where
the stage needs it; one that the stage does not need is *skipped* where it does not pass.

SARIF: `kind` is `pass`, `fail` or, for unknown, `open` ("insufficient information to decide"); `level` is `error` for a
failure that the stage needs to be none, `warning` for another, and `none` for all that did not fail (3.27.10).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

from mainstay.rollout.gates_types import CHECKS

if TYPE_CHECKING:
    from mainstay.rollout.gates_types import Check, Report

SARIF_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

_KINDS: Final = {"pass": "pass", "fail": "fail", "unknown": "open"}
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2


def to_junit(report: Report) -> bytes:
    """A JUnit document with a suite of one test for each check."""
    suite = ET.Element("testsuite", name=f"{report.capability} before {report.stage}")
    counted = {"failures": 0, "errors": 0, "skipped": 0}
    for check in report.checks:
        case = ET.SubElement(
            suite, "testcase", classname=f"{report.capability}.{report.stage}", name=check.id, time="0"
        )
        if check.verdict == "pass":
            continue
        tag = "skipped" if check.holds else "failure" if check.verdict == "fail" else "error"
        counted["skipped" if tag == "skipped" else f"{tag}s"] += 1
        told = ET.SubElement(case, tag, message=_xml(f"{check.verdict}: {check.observed}"))
        if tag != "skipped":
            told.set("type", check.verdict)
        told.text = _xml("\n".join(lines_of(check)))
    suite.set("tests", str(len(report.checks)))
    for name, count in counted.items():
        suite.set(name, str(count))
    suite.set("time", "0")
    suite.set("timestamp", f"{report.at:%Y-%m-%dT%H:%M:%S}")
    properties = ET.Element("properties")
    ET.SubElement(properties, "property", name="version", value=report.version)
    suite.insert(0, properties)
    suites = ET.Element("testsuites", {name: suite.attrib[name] for name in ("tests", "failures", "errors", "time")})
    suites.append(suite)
    ET.indent(suites)
    written: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def to_sarif(report: Report, tool_version: str) -> dict[str, Any]:
    """A SARIF document with a rule and a result for each check."""
    names = [check.id for check in report.checks]
    rules = [
        {
            "id": name,
            "shortDescription": {"text": CHECKS[name].text},
            "fullDescription": {"text": f"{CHECKS[name].text} Needed {CHECKS[name].needed}."},
        }
        for name in names
    ]
    run = {
        "tool": {"driver": {"name": "mainstay", "semanticVersion": tool_version, "rules": rules}},
        "automationDetails": {"id": f"mainstay/{report.capability}/{report.stage}/"},
        "results": [_result(report, check, place) for place, check in enumerate(report.checks)],
        "columnKind": "unicodeCodePoints",
        "properties": {"passes": report.passes, "version": report.version},
    }
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(report: Report, check: Check, place: int) -> dict[str, Any]:
    level = "none"
    if check.verdict == "fail":
        level = "error" if check.needed else "warning"
    logical = {
        "name": report.capability,
        "fullyQualifiedName": f"{report.capability}@{report.version}",
        "kind": "module",
    }
    return {
        "ruleId": check.id,
        "ruleIndex": place,
        "kind": _KINDS[check.verdict],
        "level": level,
        "message": {"text": f"{check.question} Observed: {check.observed}. Required: {check.required}."},
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {"uri": f"capabilities/{report.capability}/capability.yaml"}},
                "logicalLocations": [logical],
            }
        ],
        "partialFingerprints": {"mainstay/v1": f"{report.capability}/{report.stage}/{check.id}"},
        "properties": {
            "verdict": check.verdict,
            "needed": check.needed,
            "evidence": list(check.evidence),
            "ageSeconds": check.age_seconds,
        },
    }


def lines_of(check: Check) -> list[str]:
    """All of a check, for people."""
    found = [check.question, f"observed: {check.observed}", f"required: {check.required}"]
    return [*found, *(f"evidence: {each}" for each in check.evidence)]


def _xml(text: str) -> str:
    """What XML can hold of a text."""
    return _NOT_XML.sub("�", text)
