"""The words that declarations are made of: names, texts, addresses."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

Name: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z0-9-]{1,62}\Z", description="2 to 63 lower-case letters, digits and dashes, a letter first"
    ),
]
Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=10_000)]
FieldName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]
FolderPath: TypeAlias = Annotated[
    str, Meta(pattern=r"^(?!/)(?!.*(^|/)\.\.(/|$))[^\x00-\x1f\\]{1,512}\Z", description="a path inside the folder")
]
HttpUrl: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^https?://[A-Za-z0-9.\-\[\]:]+(/[^\s?#]*)?\Z",
        max_length=2_048,
        description="an http or https address without user, query or fragment",
    ),
]
EnvironmentName: TypeAlias = Annotated[
    str, Meta(pattern=r"^[A-Z][A-Z0-9_]{0,127}\Z", description="the name of an environment variable")
]
EntryPoint: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^(?!/)(?!.*(^|/)\.\.(/|$))[^\x00-\x1f\\:]{1,512}\.py:[A-Za-z_][A-Za-z0-9_]{0,127}\Z",
        description="a Python file of the folder and a function in it, such as `predict.py:predict`",
    ),
]
SnapshotName: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,127}\Z",
        description="1 to 128 lower-case letters, digits, dashes and underscores, a letter or digit first",
    ),
]
TableName: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,127}(/[a-z0-9][a-z0-9_-]{0,127}){0,3}\Z",
        description="the name of a table of the lake, such as `intake/late-arrival/departures`",
    ),
]
PREVIOUS = "previous"
VersionName: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^(previous|sha256:[0-9a-f]{64})\Z",
        description="a version of this capability (`sha256:...`), or `previous`: the one in force before",
    ),
]
Classification: TypeAlias = Annotated[
    str,
    Meta(pattern=r"^(\*|[^A-Z\x00-\x20]{1,64})\Z", description="a classification in lower case, or `*` for any other"),
]
Email: TypeAlias = Annotated[str, Meta(pattern=r"^[^@\s]+@[^@\s]+\Z", max_length=320, description="an e-mail address")]
Scalar: TypeAlias = str | int | float | bool | None
Record: TypeAlias = dict[str, Scalar]


class Owner(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who answers for it on a Tuesday afternoon."""

    team: Text
    contact: Email
