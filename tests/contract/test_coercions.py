from __future__ import annotations

import pytest

from mainstay.contract.coercions import Coercion, coercion_of
from mainstay.contract.load import parse_contract
from mainstay.errors import InvalidDocument

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


def read(declared: str, forms: str) -> Coercion | None:
    rest = f"        {declared}\n        customProperties: [{{property: mainstay.coerce, value: {forms}}}]\n"
    return coercion_of(parse_contract((HEAD + rest).encode(), "c.yaml").schema[0].properties[1])


def test_the_forms_of_a_property_are_read() -> None:
    found = read("logicalType: date", "[trim, {missing: ['', -1]}, {date: ['%d.%m.%Y']}]")
    assert found == Coercion(trim=True, missing=("", -1), dates=("%d.%m.%Y",))


def test_a_property_that_says_nothing_allows_nothing() -> None:
    assert coercion_of(parse_contract(HEAD.encode(), "c.yaml").schema[0].properties[0]) is None


@pytest.mark.parametrize(
    ("forms", "problem"),
    [
        ("trim", "expected a list of forms"),
        ("[]", "expected a list of forms"),
        ("[trm]", "did you mean trim?"),
        ("[number]", "number is for integer, number"),
        ("[case]", "expected a check of invalidValues"),
        ("[trim, trim]", "expected each form once"),
        ("[{trim: [a]}]", "expected trim alone"),
        ("[missing]", "expected a list, as in missing: [...]"),
        ("[{missing: []}]", "expected a list of 1 to 100 values"),
        ("[{missing: [true]}]", "expected a text or a number"),
    ],
)
def test_a_form_that_means_nothing_is_told(forms: str, problem: str) -> None:
    with pytest.raises(InvalidDocument) as raised:
        read("logicalType: string", forms)
    assert problem in str(raised.value)


@pytest.mark.parametrize("form", ["%d.%m", "%Q", "2024", "%Y-%m-%d %", "%Y-%d"])
def test_a_format_without_a_whole_date_is_told(form: str) -> None:
    with pytest.raises(InvalidDocument, match="a format"):
        read("logicalType: date", f"[{{date: ['{form}']}}]")


def test_only_fields_of_the_record_itself_are_coerced() -> None:
    below = "{name: y, logicalType: string, customProperties: [{property: mainstay.coerce, value: [trim]}]}"
    text = HEAD + f"        logicalType: object\n        properties: [{below}]\n"
    with pytest.raises(InvalidDocument, match="no such property but at the properties of an object"):
        parse_contract(text.encode(), "c.yaml")
