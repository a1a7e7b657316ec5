"""Keys whose change means the same whatever stands there: words that explain, and what only the store knows."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET

from mainstay.contract.difference_types import Verdict, compatible, unknown


class Pair(NamedTuple):
    """The verdicts for producers and consumers on a key; the attribute that holds it."""

    attribute: str
    verdicts: tuple[Verdict, Verdict]


_EXPLAINS: Final = (compatible("it explains, and asks nothing of a record"),) * 2
_STORED: Final = (unknown("it is about the store, of which records say nothing: ask those who read and write it"),) * 2
_OPEN: Final = (unknown("the standard leaves open what it means: ask those who use it"),) * 2
_LINKS: Final = (unknown("references are not followed: do all of them lead to a record?"),) * 2
_MADE: Final = (
    compatible("what is sent stays as it is"),
    unknown("the same field is made in another way: does it still mean the same?"),
)

_ELEMENT: Final[dict[str, Pair]] = {
    "id": Pair("id", _EXPLAINS),
    "physicalName": Pair("physical_name", _STORED),
    "physicalType": Pair("physical_type", _STORED),
    "businessName": Pair("business_name", _EXPLAINS),
    "description": Pair("description", _EXPLAINS),
    "tags": Pair("tags", _EXPLAINS),
    "authoritativeDefinitions": Pair("authoritative_definitions", _EXPLAINS),
    "customProperties": Pair("custom_properties", _OPEN),
    "relationships": Pair("relationships", _LINKS),
}
OBJECT_KEYS: Final[dict[str, Pair]] = {
    **_ELEMENT,
    "logicalType": Pair("logical_type", _EXPLAINS),
    "dataGranularityDescription": Pair("data_granularity_description", _EXPLAINS),
}
KEYS: Final[dict[str, Pair]] = {
    **_ELEMENT,
    "partitioned": Pair("partitioned", _STORED),
    "partitionKeyPosition": Pair("partition_key_position", _STORED),
    "encryptedName": Pair("encrypted_name", _STORED),
    "transformSourceObjects": Pair("transform_source_objects", _MADE),
    "transformLogic": Pair("transform_logic", _MADE),
    "transformDescription": Pair("transform_description", _EXPLAINS),
    "examples": Pair("examples", _EXPLAINS),
    "criticalDataElement": Pair("critical_data_element", _EXPLAINS),
}
_APART: Final = (unknown("in an array, the standard does not say what is unique among what"),) * 2
KEYS_IN_ARRAYS: Final[dict[str, Pair]] = {
    "unique": Pair("unique", _APART),
    "primaryKey": Pair("primary_key", _APART),
    "primaryKeyPosition": Pair("primary_key_position", _APART),
}
CONTRACT_KEYS: Final[dict[str, Pair]] = {
    "apiVersion": Pair("api_version", _EXPLAINS),
    "id": Pair("id", (unknown("with another id, it is another contract"),) * 2),
    "name": Pair("name", _EXPLAINS),
    "tenant": Pair("tenant", _EXPLAINS),
    "domain": Pair("domain", _EXPLAINS),
    "dataProduct": Pair("data_product", _EXPLAINS),
    "tags": Pair("tags", _EXPLAINS),
    "authoritativeDefinitions": Pair("authoritative_definitions", _EXPLAINS),
    "customProperties": Pair("custom_properties", _OPEN),
    "team": Pair("team", _EXPLAINS),
    "support": Pair("support", _EXPLAINS),
    "price": Pair("price", (compatible("no record changes with a price"), unknown("it may cost more"))),
    "roles": Pair("roles", (unknown("who may write may have changed"), unknown("who may read may have changed"))),
    "slaDefaultElement": Pair("sla_default_element", _OPEN),
    "contractCreatedTs": Pair("contract_created_ts", _EXPLAINS),
}
DESCRIPTION_KEYS: Final[dict[str, Pair]] = {
    "description.usage": Pair("usage", _EXPLAINS),
    "description.purpose": Pair("purpose", _EXPLAINS),
    "description.limitations": Pair(
        "limitations", (compatible("what is sent stays as it is"), unknown("the use may be limited further"))
    ),
    "description.authoritativeDefinitions": Pair("authoritative_definitions", _EXPLAINS),
    "description.customProperties": Pair("custom_properties", _OPEN),
}


def told(value: Any) -> Any:
    """A part of a contract as a change shows it: as JSON would have it, UNSET for what a contract does not say."""
    if value is UNSET or value is None or value == ():
        return UNSET
    return msgspec.to_builtins(value)
