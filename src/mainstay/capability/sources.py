"""What a capability folder declares about live data: where its records come from, and what is decided on a schedule."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from mainstay.capability.words import (  # noqa: TC001 - msgspec reads the types of a struct
    EnvironmentName,
    FieldName,
    HttpUrl,
    Name,
    Owner,
    Text,
)

Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=31_622_400)]
Key: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}\Z",
        description="at most 128 letters, digits, dots, dashes and `_`, a letter or `_` first",
    ),
]
Path: TypeAlias = Annotated[str, Meta(pattern=r"^[^\x00-\x1f]{1,1024}\Z", description="the path of a folder")]
SecretFile: TypeAlias = Annotated[
    str, Meta(pattern=r"^/[^\x00-\x1f]{1,1023}\Z", description="the absolute path of a file that holds a secret")
]


class Secret(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a secret is found when it is needed: exactly one of these. It never stands in the folder."""

    variable: EnvironmentName | None = None
    file: SecretFile | None = None


class ClientCredentials(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OAuth 2.0 client credentials (RFC 6749, section 4.4)."""

    token_url: HttpUrl
    client_id: Secret
    client_secret: Secret
    scope: Text | None = None


class ApiKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key in a header or a query parameter."""

    key: Secret
    name: Key = "X-API-Key"
    place: Literal["header", "query"] = "header"


class RestAuth(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a REST API knows who asks: exactly one of these."""

    bearer: Secret | None = None
    api_key: ApiKey | None = None
    oauth2: ClientCredentials | None = None


class Pages(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an API gives its records page by page.

    `none`: one answer has all. `link`: the `Link` header (RFC 8288) names the next. `next_url`: a field of the answer
    does. `cursor`: a field of the answer is sent back as a parameter. `offset` and `number` count records and pages.
    """

    style: Literal["none", "link", "next_url", "cursor", "offset", "number"] = "none"
    path: Key | None = None  # styles next_url and cursor: the field of the answer, dots between
    parameter: Key | None = None  # styles cursor, offset and number: None means the style's own name
    size: Annotated[int, Meta(ge=1, le=100_000)] | None = None  # records of a page, where it is asked for
    size_parameter: Key = "limit"
    first: Annotated[int, Meta(ge=0, le=1)] = 1  # style number: what the first page is called


class Rest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A REST API that answers with JSON."""

    url: HttpUrl
    records: Key | None = None  # the field of an answer that holds its records, dots between; None: the answer itself
    parameters: dict[Key, Text] = {}
    auth: RestAuth | None = None
    pages: Pages = Pages()
    cursor_parameter: Key | None = None  # the parameter that asks for records from the cursor on
    timeout_seconds: Annotated[float, Meta(gt=0, le=600)] = 30.0
    retries: Annotated[int, Meta(ge=0, le=20)] = 5
    max_answer_bytes: Annotated[int, Meta(ge=1_024, le=1 << 30)] = 64 << 20


class Sql(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table or view of PostgreSQL or SQLite."""

    url: Secret  # an SQLAlchemy URL, password and all
    table: Text  # with its schema before a dot, where it has one
    columns: tuple[FieldName, ...] = ()  # empty: all
    rows: Annotated[int, Meta(ge=1, le=1_000_000)] = 50_000  # taken in one step
    timeout_seconds: Annotated[float, Meta(gt=0, le=3_600)] = 60.0  # of a statement, and of waiting for a lock
    wait_seconds: Annotated[float, Meta(ge=0, le=604_800)] = 3_600.0  # PostgreSQL: for transactions that were open


class Files(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files of a folder, or of a bucket: each is taken once, when it is whole.

    Who writes them puts each in place under its name when it is finished. A file whose size or time still changes
    within `settle_seconds` is left for later.
    """

    folder: Path  # relative to the workspace or absolute, or s3://BUCKET/FOLDER (AWS_* variables say how to reach it)
    pattern: Annotated[
        str, Meta(pattern=r"^[^/\x00-\x1f]{1,255}\Z", description="a pattern of file names, without `/`")
    ] = "*"  # of the names, as a shell has it
    format: Literal["csv", "jsonl", "parquet"] | None = None  # None: by the ending
    delimiter: Annotated[str, Meta(min_length=1, max_length=1)] | None = None  # of CSV; None: by the header
    settle_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 2.0
    in_order: bool = False  # names only grow: none is looked for before the last that was taken
    max_file_bytes: Annotated[int, Meta(ge=1, le=1 << 40)] = 64 << 30


class Push(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events that others send to `POST /v1/capabilities/{name}/sources/{source}/events`."""

    max_waiting_bytes: Annotated[int, Meta(ge=1 << 20, le=1 << 40)] = 1 << 30  # accepted and not yet in the table


class Source(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One feed: what it is, who answers for it, when it comes, and what becomes of what is not as it should be."""

    name: Name
    rest: Rest | None = None  # exactly one of rest, sql, files and push
    sql: Sql | None = None
    files: Files | None = None
    push: Push | None = None
    object: FieldName | None = None  # of the contract; None means the input
    owner: Owner | None = None  # None means the capability's
    every_seconds: Seconds = 60.0  # how often it is asked
    expected_within_seconds: Seconds | None = None  # of silence before the feed counts as late
    cursor: FieldName | None = None  # rest and sql: the field whose greatest value says where to go on
    key: tuple[FieldName, ...] = ()  # what tells one record from another; empty: a repeated record is not noticed
    # What becomes of a known key with other content; a record that is the same again is always ignored.
    repeated: Literal["ignore", "correct", "quarantine"] = "ignore"
    event_time: FieldName | None = None
    allowed_lateness_seconds: Annotated[float, Meta(ge=0, le=31_622_400)] = 0.0  # behind the newest event time
    late: Literal["join", "correct", "ignore", "re-decide"] = "join"
    max_bad_share: Annotated[float, Meta(ge=0, le=1)] = 0.05  # of the last `bad_share_rows`; above it, the feed stops
    bad_share_rows: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_000
    new_columns: Literal["report", "hold"] = "report"  # a column that the contract does not know


class ScheduledBatch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Decisions over what a source took in since the last time, made again and again."""

    name: Name
    source: Name  # of this capability, whose records have what the input needs
    key: FieldName | None = None  # of a row: the business key of its decision; None: its place in the table
    every_seconds: Seconds = 86_400.0
