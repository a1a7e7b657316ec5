from __future__ import annotations

from typing import Any

import pytest

from mainstay.contract.columns_records import NotJson
from mainstay.contract.load import parse_contract
from mainstay.intake.coercion import Coercer

HEAD = """\
apiVersion: v3.1.0
kind: DataContract
id: c
version: 1.0.0
status: active
schema:
  - name: c
    properties:
      - {name: other, logicalType: integer}
      - name: x
"""


def coercer(declared: str, forms: str) -> Coercer:
    rest = f"        {declared}\n        customProperties: [{{property: mainstay.coerce, value: {forms}}}]\n"
    return Coercer(parse_contract((HEAD + rest).encode(), "c.yaml").schema[0])


LISTED = "quality: [{metric: invalidValues, arguments: {validValues: [Vienna, Graz, A, a]}, mustBe: 0}]"


@pytest.mark.parametrize(
    ("declared", "forms", "value", "made"),
    [
        ("logicalType: string\n        logicalTypeOptions: {maxLength: 2}", "[trim]", " ab\n", "ab"),
        ("logicalType: integer", "[number]", " 12 ", 12),
        ("logicalType: integer", "[number]", "+12", 12),
        ("logicalType: integer", "[number, integer]", "1.0", 1),
        ("logicalType: integer", "[integer]", 1.0, 1),
        ("logicalType: number", "[number]", "1e3", 1_000.0),
        ("logicalType: number", "[number]", ".5", 0.5),
        ("logicalType: boolean", "[boolean]", "Yes", True),
        ("logicalType: boolean", "[boolean]", 0, False),
        ("logicalType: boolean", "[boolean]", "N", False),
        ("logicalType: date", "[{date: ['%d.%m.%Y', '%m/%d/%y']}]", "2/29/24", "2024-02-29"),
        ("logicalType: timestamp", "[{date: ['%d.%m.%Y %H:%M']}]", "1.2.2024 13:05", "2024-02-01T13:05:00Z"),
        ("logicalType: timestamp", "[{date: ['%d.%m.%Y %H:%M %z']}]", "1.2.2024 13:05 +0100", "2024-02-01T12:05:00Z"),
        (
            "logicalType: timestamp\n        logicalTypeOptions: {timezone: false}",
            "[{date: ['%Y%m%d']}]",
            "20240201",
            "2024-02-01T00:00:00",
        ),
        (f"logicalType: string\n        {LISTED}", "[case, trim]", " VIENNA ", "Vienna"),
        ("logicalType: number", "[{missing: [n/a, -999.5]}]", "n/a", None),
        ("logicalType: number\n        logicalTypeOptions: {minimum: 0}", "[{missing: [n/a, -999.5]}]", -999.5, None),
        ("logicalType: number", "[{missing: [NaN]}]", NotJson("NaN"), None),
        ("logicalType: integer", "[trim, {missing: ['']}]", "  ", None),
    ],
)
def test_a_value_becomes_what_the_contract_allows(declared: str, forms: str, value: Any, made: Any) -> None:
    found = coercer(declared, forms).coerce({"other": 5, "x": value})
    assert found is not None
    assert found.values == (5, made)
    assert found.originals == {"x": value}


@pytest.mark.parametrize(
    ("declared", "forms", "value"),
    [
        ("logicalType: string", "[trim]", " fine as it is "),
        ("logicalType: integer", "[number]", "1.5"),
        ("logicalType: integer", "[number]", "1,000"),
        ("logicalType: integer", "[number]", "9" * 60),
        ("logicalType: number", "[number]", "1e999"),
        ("logicalType: number", "[number]", True),
        ("logicalType: number", "[number]", NotJson("NaN")),
        ("logicalType: boolean", "[boolean]", 2),
        ("logicalType: boolean", "[boolean]", "perhaps"),
        ("logicalType: date", "[{date: ['%d.%m.%Y']}]", "31.2.2024"),
        ("logicalType: date", "[{date: ['%d.%m.%Y']}]", ["1.1.2024"]),
        (f"logicalType: string\n        {LISTED}", "[case]", "Linz"),
        ("logicalType: number\n        required: true", "[{missing: [n/a]}]", "n/a"),
        ("logicalType: integer\n        logicalTypeOptions: {minimum: 5}", "[number]", "4"),
    ],
)
def test_a_value_that_no_form_mends_stays_bad(declared: str, forms: str, value: Any) -> None:
    assert coercer(declared, forms).coerce({"other": 5, "x": value}) is None


def test_a_record_that_is_bad_elsewhere_stays_bad(caplog: pytest.LogCaptureFixture) -> None:
    made = coercer("logicalType: integer", "[number]")
    assert made.coerce({"other": "five", "x": "5"}) is None
    assert made.coerce({"other": 2**70, "x": "5"}) is None
    assert made.coerce({"other": NotJson("NaN"), "x": "5"}) is None
    assert made.coerce({"x": "5"}) is not None
    assert not caplog.records


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mainstay.intake.coercion.MOST_REMEMBERED", 3)
    made = coercer("logicalType: integer", "[number]")
    for number in [*range(10), *range(10)]:
        found = made.coerce({"x": f"{number}"})
        assert found is not None
        assert found.values == (None, number)
    assert made.coerce({"x": " " * 300 + "7"}) is not None
