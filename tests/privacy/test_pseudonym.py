from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.contract.load import parse_contract
from mainstay.errors import Misuse
from mainstay.privacy.pseudonym import Protector, any_classified, create_pseudonym_key, load_pseudonym_key

if TYPE_CHECKING:
    from pathlib import Path

    from mainstay.contract.types import Property

KEY = bytes(range(32))


def properties() -> tuple[Property, ...]:
    document = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "c",
        "version": "1.0.0",
        "status": "active",
        "schema": [
            {
                "name": "person",
                "logicalType": "object",
                "properties": [
                    {"name": "age", "logicalType": "integer", "classification": "public"},
                    {"name": "name", "logicalType": "string", "classification": "Restricted"},
                    {
                        "name": "address",
                        "logicalType": "object",
                        "properties": [
                            {"name": "country", "logicalType": "string"},
                            {"name": "street", "logicalType": "string", "classification": "confidential"},
                        ],
                    },
                    {
                        "name": "phones",
                        "logicalType": "array",
                        "items": {"logicalType": "string", "classification": "confidential", "name": "phone"},
                    },
                ],
            }
        ],
    }
    declared = parse_contract(json.dumps(document).encode(), "contract.odcs.yaml").schema
    assert declared is not None
    return declared[0].properties


PROTECTOR = Protector(properties(), KEY)


def protect(value: Any) -> Any:
    return json.loads(PROTECTOR.protect(json.dumps(value).encode()))


def test_classified_values_become_pseudonyms_and_others_stay() -> None:
    given_record = {
        "age": 41,
        "name": "N. N.",
        "address": {"country": "NO", "street": "Storgata 1"},
        "phones": ["+47 1", "+47 2"],
    }
    record = protect(given_record)
    assert record["age"] == 41
    assert record["address"]["country"] == "NO"
    for hidden in (record["name"], record["address"]["street"], *record["phones"]):
        assert hidden.startswith("pseudonym:")
    assert record["phones"][0] != record["phones"][1]


def test_the_same_value_has_the_same_pseudonym_and_another_field_or_key_another() -> None:
    assert protect({"name": "x"}) == protect({"name": "x"})
    assert protect({"name": "x"})["name"] != protect({"address": {"street": "x"}})["address"]["street"]
    assert json.loads(Protector(properties(), bytes(32)).protect(b'{"name": "x"}')) != protect({"name": "x"})


@given(st.text(min_size=12))
def test_a_field_that_nobody_classed_is_not_recorded_in_clear(value: str) -> None:
    assert protect({"unknown": value})["unknown"].startswith("pseudonym:")


@given(st.binary())
def test_whatever_is_not_an_object_leaves_only_its_digest(raw: bytes) -> None:
    record = json.loads(PROTECTOR.protect(raw))
    if isinstance(_loads(raw), dict):
        return
    assert set(record) == {"withheld"}
    assert record["withheld"]["bytes"] == len(raw)


def _loads(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def test_nothing_is_classified_below_public_properties() -> None:
    assert any_classified(properties())
    assert not any_classified(properties()[:1])
    assert any_classified(properties()[2:3])


def test_a_key_is_made_once_and_read_only_when_nobody_else_can(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="expected the workspace's pseudonym key"):
        load_pseudonym_key(tmp_path)
    create_pseudonym_key(tmp_path)
    assert len(load_pseudonym_key(tmp_path)) == 32
    with pytest.raises(Misuse, match="exists"):
        create_pseudonym_key(tmp_path)
    (tmp_path / "pseudonym.key").chmod(0o644)
    with pytest.raises(Misuse, match="chmod 600"):
        load_pseudonym_key(tmp_path)
