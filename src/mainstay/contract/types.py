"""The Open Data Contract Standard v3.1.0 as frozen types, and what breaking a contract looks like.

Names are the standard's, in snake case. None and an empty tuple mean that the document does not say. What the standard
leaves open is `Any`: None, bool, int, float, str, list or dict. Rules that hang on the value of another key (which keys
a kind of server has, which options a logical type) are in `standard`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, get_args

from msgspec import UNSET, Meta, Struct, UnsetType, field

StableId: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]+\Z", description="letters, digits, - and _")]
Scalar: TypeAlias = str | int | float | bool | None
# Its form is checked in `standard`: msgspec 0.22 corrupts memory on a union of a text with a pattern and a list.
References: TypeAlias = str | tuple[str, ...]
Length: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Bound: TypeAlias = str | int | float
Interval: TypeAlias = Annotated[tuple[int | float, ...], Meta(min_length=2, max_length=2)]

LogicalType: TypeAlias = Literal[
    "string", "date", "timestamp", "time", "number", "integer", "object", "array", "boolean"
]


class _Standard(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A part of the standard."""


class CustomProperty(_Standard, frozen=True, kw_only=True):
    id: StableId | None = None
    property: str
    value: Any
    description: str | None = None


class AuthoritativeDefinition(_Standard, frozen=True, kw_only=True):
    """A link to where something is defined."""

    id: StableId | None = None
    url: str
    type: str
    description: str | None = None


class _Described(_Standard, frozen=True, kw_only=True):
    """What many parts of a contract may carry."""

    tags: tuple[str, ...] = ()
    authoritative_definitions: tuple[AuthoritativeDefinition, ...] = ()
    custom_properties: tuple[CustomProperty, ...] = ()


class Role(_Standard, frozen=True, kw_only=True):
    """An access role, and who grants it."""

    id: StableId | None = None
    role: str
    description: str | None = None
    access: str | None = None
    first_level_approvers: str | None = None
    second_level_approvers: str | None = None
    custom_properties: tuple[CustomProperty, ...] = ()


ServerType: TypeAlias = Literal[
    "api", "athena", "azure", "bigquery", "clickhouse", "cloudsql", "custom", "databricks", "db2", "denodo", "dremio",
    "duckdb", "glue", "hive", "impala", "informix", "kafka", "kinesis", "local", "mysql", "oracle", "postgres",
    "postgresql", "presto", "pubsub", "redshift", "s3", "sftp", "snowflake", "sqlserver", "synapse", "trino", "vertica",
    "zen",
]  # fmt: skip  # one a line would fill a page


class Server(_Standard, frozen=True, kw_only=True):
    """Where the data is. Which of the keys below `custom_properties` a type has is in `standard`."""

    id: StableId | None = None
    server: str
    type: ServerType
    description: str | None = None
    environment: str | None = None
    roles: tuple[Role, ...] = ()
    custom_properties: tuple[CustomProperty, ...] = ()
    account: str | None = None
    catalog: str | None = None
    database: str | None = None
    dataset: str | None = None
    delimiter: str | None = None
    endpoint_url: str | None = None
    format: str | None = None
    host: str | None = None
    location: str | None = None
    path: str | None = None
    port: int | None = None
    project: str | None = None
    region: str | None = None
    region_name: str | None = None
    schema: str | None = None
    service_name: str | None = None
    staging_dir: str | None = None
    stream: str | None = None
    warehouse: str | None = None


class Quality(_Described, frozen=True, kw_only=True):
    """A quality check. UNSET tells an operator that is absent from one that compares with null."""

    id: StableId | None = None
    type: Literal["text", "library", "sql", "custom"] | None = None
    name: str | None = None
    description: str | None = None
    business_impact: str | None = None
    dimension: (
        Literal["accuracy", "completeness", "conformity", "consistency", "coverage", "timeliness", "uniqueness"] | None
    ) = None
    method: str | None = None
    schedule: str | None = None
    scheduler: str | None = None
    severity: str | None = None
    unit: str | None = None
    metric: Literal["nullValues", "missingValues", "invalidValues", "duplicateValues", "rowCount"] | None = None
    rule: str | None = None
    arguments: dict[str, Any] | None = None
    query: str | None = None
    engine: str | None = None
    implementation: str | dict[str, Any] | None = None
    must_be: Any = UNSET
    must_not_be: Any = UNSET
    must_be_greater_than: int | float | None = None
    must_be_greater_or_equal_to: int | float | None = None
    must_be_less_than: int | float | None = None
    must_be_less_or_equal_to: int | float | None = None
    must_be_between: Interval | None = None
    must_not_be_between: Interval | None = None


class Options(_Standard, frozen=True, kw_only=True):
    """logicalTypeOptions of every logical type. Which of them a type has is in `standard`."""

    min_length: Length | None = None
    max_length: Length | None = None
    pattern: str | None = None
    format: str | None = None
    minimum: Bound | None = None
    maximum: Bound | None = None
    exclusive_minimum: Bound | None = None
    exclusive_maximum: Bound | None = None
    multiple_of: Annotated[int, Meta(gt=0)] | Annotated[float, Meta(gt=0)] | None = None
    timezone: bool | None = None
    default_timezone: str | None = None
    min_items: Length | None = None
    max_items: Length | None = None
    unique_items: bool | None = None
    min_properties: Length | None = None
    max_properties: Length | None = None
    required: Annotated[tuple[str, ...], Meta(min_length=1)] | None = None


class Relationship(_Standard, frozen=True, kw_only=True):
    """A foreign key. `from_` is absent where the property itself is meant."""

    type: Literal["foreignKey"] = "foreignKey"
    from_: References | None = field(default=None, name="from")
    to: References
    custom_properties: tuple[CustomProperty, ...] = ()


class _Element(_Described, frozen=True, kw_only=True):
    """What objects and properties have in common."""

    id: StableId | None = None
    physical_name: str | None = None
    physical_type: str | None = None
    business_name: str | None = None
    description: str | None = None
    quality: tuple[Quality, ...] = ()
    relationships: tuple[Relationship, ...] = ()


class Property(_Element, frozen=True, kw_only=True):
    """A property of an object: a column, a field, a key."""

    name: str
    logical_type: LogicalType | None = None
    logical_type_options: Options | None = None
    required: bool = False
    unique: bool = False
    primary_key: bool = False
    primary_key_position: int = -1
    partitioned: bool = False
    partition_key_position: int = -1
    classification: str | None = None
    encrypted_name: str | None = None
    transform_source_objects: tuple[str, ...] = ()
    transform_logic: str | None = None
    transform_description: str | None = None
    examples: tuple[Any, ...] = ()
    critical_data_element: bool = False
    properties: tuple[Property, ...] = ()  # of an object
    items: Item | None = None  # of an array


class Item(Property, frozen=True, kw_only=True):
    """The items of an array: a property that needs no name."""

    name: str = ""


class SchemaObject(_Element, frozen=True, kw_only=True):
    """An object of the contract: a table, a topic, a document, a record."""

    name: str
    logical_type: Literal["object"] | None = None
    data_granularity_description: str | None = None
    properties: tuple[Property, ...] = ()


class TeamMember(_Described, frozen=True, kw_only=True):
    id: StableId | None = None
    username: str
    name: str | None = None
    description: str | None = None
    role: str | None = None
    date_in: str | None = None
    date_out: str | None = None
    replaced_by_username: str | None = None


class Team(_Described, frozen=True, kw_only=True):
    id: StableId | None = None
    name: str | None = None
    description: str | None = None
    members: tuple[TeamMember, ...] = ()


class SupportItem(_Standard, frozen=True, kw_only=True):
    """A channel where help is found."""

    id: StableId | None = None
    channel: str
    url: str | None = None
    description: str | None = None
    tool: str | None = None
    scope: str | None = None
    invitation_url: str | None = None
    custom_properties: tuple[CustomProperty, ...] = ()


class Price(_Standard, frozen=True, kw_only=True):
    id: StableId | None = None
    price_amount: int | float | None = None
    price_currency: str | None = None
    price_unit: str | None = None


class ServiceLevel(_Standard, frozen=True, kw_only=True):
    """An entry of slaProperties."""

    id: StableId | None = None
    property: str
    value: Scalar
    value_ext: Scalar | UnsetType = UNSET
    unit: str | None = None
    element: str | None = None
    driver: str | None = None
    description: str | None = None
    scheduler: str | None = None
    schedule: str | None = None


class Description(Struct, frozen=True, kw_only=True, rename="camel"):
    """What the data is for. The standard allows further keys here; they are not kept."""

    usage: str | None = None
    purpose: str | None = None
    limitations: str | None = None
    authoritative_definitions: tuple[AuthoritativeDefinition, ...] = ()
    custom_properties: tuple[CustomProperty, ...] = ()


class Contract(_Described, frozen=True, kw_only=True):
    """A data contract."""

    api_version: Literal["v3.1.0", "v3.0.2", "v3.0.1", "v3.0.0"]
    kind: Literal["DataContract"]
    id: str
    version: str
    status: str
    name: str | None = None
    tenant: str | None = None
    domain: str | None = None
    data_product: str | None = None
    description: Description | None = None
    schema: tuple[SchemaObject, ...] = ()
    servers: tuple[Server, ...] = ()
    team: Team | tuple[TeamMember, ...] | None = None  # the list is the form of v3.0
    roles: tuple[Role, ...] = ()
    support: tuple[SupportItem, ...] = ()
    price: Price | None = None
    sla_default_element: str | None = None
    sla_properties: tuple[ServiceLevel, ...] = ()
    contract_created_ts: str | None = None


Rule: TypeAlias = Literal[
    "malformed",  # no JSON, or nested too deeply; in a CSV file, no row
    "not-an-object",  # JSON, and no object
    "unknown-field",
    "duplicate-key",  # a name occurs twice, and a value that a later one replaces breaks the contract
    "required",  # absent or null
    "type",
    "minimum",
    "maximum",
    "exclusive-minimum",
    "exclusive-maximum",
    "multiple-of",
    "min-length",
    "max-length",
    "pattern",
    "format",
    "valid-values",
    "near-miss",  # none of the listed texts, and nearly one of them
    "min-items",
    "max-items",
    "unique-items",
    "min-properties",
    "max-properties",
    "functional-dependency",  # what other properties of the record settle by a table
    "unique",  # this and the next are told of tables: one record does not show what others hold
    "primary-key",
]
RULES: tuple[Rule, ...] = get_args(Rule)


class Violation(Struct, frozen=True):
    """A rule that a record breaks. `field` is a path such as `address.lines[2]`, and `$` for the record itself."""

    field: str
    rule: Rule
    expected: str
    found: str  # at most 80 characters; `(masked)` where the contract classifies the field
