"""Where a lake stands, a folder or a bucket, and what its tables may be called."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mainstay.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME_RULE: Final = "one to four parts of lower-case letters, digits, dashes and underscores, with slashes between them"

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,127}(?:/[a-z0-9][a-z0-9_-]{0,127}){0,3}")
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[A-Za-z0-9_.=-]{1,255}){0,16}/?")

# What is taken from the environment for object storage; credentials stand nowhere else.
VARIABLES: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ALLOW_HTTP",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
)
# Each of them lets a commit overwrite another, so that what was written before is lost.
_UNSAFE: Final = ("AWS_S3_ALLOW_UNSAFE_RENAME", "AWS_CONDITIONAL_PUT")


@dataclass(frozen=True, slots=True)
class Location:
    """A folder, or a place in a bucket with the options it takes to reach it."""

    root: str  # an absolute path or s3://BUCKET/PREFIX, without a slash at its end
    options: dict[str, str] = field(default_factory=dict, repr=False)  # repr: credentials are shown nowhere

    @property
    def is_local(self) -> bool:
        return not self.root.startswith("s3://")

    def uri(self, name: str) -> str:
        """Where a table stands."""
        return f"{self.root}/{name}"

    def path(self, name: str) -> Path:
        """The folder of a table of a local lake."""
        return Path(self.root) / name


def find_location(text: str | Path, environment: Mapping[str, str]) -> Location:
    """The location that a person named: a folder, or the URL of a bucket whose credentials the environment holds.

    Raises Misuse when it is neither, or when the environment switches off what keeps two writers apart.
    """
    place = str(text)
    if "://" not in place:
        return Location(str(Path(place).absolute()))
    if not _BUCKET.fullmatch(place):
        raise Misuse(f"lake {place[:200]!r}: expected a folder, or s3://BUCKET and names of folders behind it")
    for variable in _UNSAFE:
        if variable in environment:
            raise Misuse(
                f"{variable} is set: expected commits that never overwrite one another",
                hint="Unset it. The store has to honour `If-None-Match: *` on writes; AWS S3, MinIO and R2 do.",
            )
    options = {name: environment[name] for name in VARIABLES if environment.get(name)}
    if options.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        options.setdefault("AWS_ALLOW_HTTP", "true")
    return Location(place.rstrip("/"), options)


def check_name(name: str) -> str:
    """The name of a table; raises Misuse when it is none."""
    if not _NAME.fullmatch(name):
        raise Misuse(f"table {name[:200]!r}: expected {NAME_RULE}")
    return name
