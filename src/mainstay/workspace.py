"""The workspace: one directory with `mainstay.toml`, `capabilities/` and the data directory `.mainstay/`.

Settings come from `mainstay.toml`; each may be overridden by the environment variable named beside it, a list by its
values with spaces between them.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta
from msgspec.inspect import VarTupleType, type_info

from mainstay.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

SETTINGS_FILE = "mainstay.toml"
DATA_DIRECTORY = ".mainstay"

_UNSHOWN = frozenset({"control_database"})  # where somebody may have put a URL with its password by mistake


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a workspace can set. Each field `x` is also read from `MAINSTAY_X`."""

    log: str  # the origin of the ledger's checkpoints, such as "mainstay.example.com/lending"
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65_535)] = 8321
    workers: Annotated[int, Meta(ge=1, le=1_024)] = 2  # processes that serve decisions
    drain_seconds: Annotated[float, Meta(ge=0, le=3_600)] = (
        10.0  # how long a worker may finish what it accepted after SIGTERM
    )
    max_body_bytes: Annotated[int, Meta(ge=1, le=16 << 20)] = 1 << 20  # one decision; a batch may be 64 times this
    seal_interval_seconds: Annotated[float, Meta(ge=0.001, le=3_600)] = (
        0.25  # how often new records are sealed into the log
    )
    refresh_seconds: Annotated[float, Meta(ge=0.01, le=60)] = (
        0.5  # how often a worker looks for a new release, changed keys or a hold
    )
    witnesses: Annotated[str, Meta(max_length=4_096)] = (
        ""  # a trust policy (C2SP tlog-policy), relative to the workspace: who is asked to cosign the ledger
    )
    anchors: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=2_048)], ...], Meta(max_length=16)
    ] = ()  # where checkpoints are kept besides: URLs of directories, git repositories and HTTP services
    anchor_interval_seconds: Annotated[float, Meta(ge=0.1, le=86_400)] = (
        300.0  # how often a new checkpoint is given to witnesses and anchors
    )
    # Where tables stand: a folder, relative to the workspace, or s3://BUCKET/FOLDER; empty: in the data directory.
    lake: Annotated[str, Meta(max_length=1_024)] = ""
    lake_interval_seconds: Annotated[float, Meta(ge=0, le=3_600)] = (
        10.0  # how often sealed decisions are exported to the lake; 0: never
    )
    lake_maintenance_seconds: Annotated[float, Meta(ge=10, le=604_800)] = (
        3_600.0  # how often tables are compacted, and old rows and files removed
    )
    lake_versions_days: Annotated[float, Meta(ge=0, le=7)] = 7.0  # how long older versions of a table can be read
    lake_rows_days: Annotated[int, Meta(ge=0, le=36_500)] = 0  # how old rows of daily tables may become; 0: any age
    intake_workers: Annotated[int, Meta(ge=0, le=64)] = 4  # processes that take data in, at most; 0: none is taken in
    # Where events of lineage go: a file, relative to the workspace, or a URL; empty: a file in the data directory.
    lineage: Annotated[str, Meta(max_length=1_024)] = ""
    monitor_interval_seconds: Annotated[float, Meta(ge=0, le=86_400)] = (
        60.0  # how often what is new in the lake is counted and judged; 0: never
    )
    # The variable that holds the URL of the control database, a PostgreSQL; empty: a SQLite file in the data directory.
    control_database: Annotated[str, Meta(pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,127})?\Z")] = ""
    control_lease_seconds: Annotated[float, Meta(ge=1, le=600)] = (
        10.0  # how long a control process that says nothing is waited for, before another takes over
    )
    steering_interval_seconds: Annotated[float, Meta(ge=0, le=3_600)] = (
        5.0  # how often rollouts are looked at; 0: never
    )


@dataclass(frozen=True, slots=True)
class Workspace:
    """A directory that holds everything of one installation, and where each part stands."""

    root: Path
    settings: Settings

    @property
    def data(self) -> Path:
        return self.root / DATA_DIRECTORY

    @property
    def capabilities(self) -> Path:
        return self.root / "capabilities"

    @property
    def ledger(self) -> Path:
        return self.data / "ledger"

    @property
    def versions(self) -> Path:
        return self.data / "versions"

    @property
    def releases(self) -> Path:
        return self.data / "releases"

    @property
    def holds(self) -> Path:
        """Which capabilities are held because a feed of theirs is stopped."""
        return self.data / "holds"

    @property
    def access(self) -> Path:
        return self.data / "access"

    @property
    def keys(self) -> Path:
        return self.data / "keys"

    @property
    def anchors(self) -> Path:
        """What is known of witnesses and anchors; made anew from what they say when it is lost."""
        return self.data / "anchors"

    @property
    def memory(self) -> Path:
        """What workers remember across restarts and may lose: last good answers."""
        return self.data / "memory"

    @property
    def run(self) -> Path:
        """What lives only while processes do: process ids, worker metrics."""
        return self.data / "run"

    def with_settings(self, said: Mapping[str, object], place: Callable[[str], str]) -> Workspace:
        """The same workspace with other settings, each value held to the bounds of its setting.

        `place` says where a setting's value came from, such as an option or a variable. Raises Misuse on a wrong value.
        """
        changes: dict[str, Any] = {}
        for field in msgspec.structs.fields(Settings):
            if field.name in said:
                value = said[field.name]
                shown = "..." if field.name in _UNSHOWN else f"{value}"
                try:
                    str(value).encode()  # a variable of other bytes is text with halves of surrogate pairs
                    changes[field.name] = msgspec.convert(_listed(value, field.type), field.type, strict=False)
                except UnicodeEncodeError:
                    raise Misuse(f"{place(field.name)}={shown!a}: expected UTF-8") from None
                except msgspec.ValidationError as error:
                    raise Misuse(f"{place(field.name)}={shown}: {error}") from None
        return replace(self, settings=msgspec.structs.replace(self.settings, **changes))


def _listed(value: object, kind: Any) -> object:
    """A value for a setting of this type: text for a list is its values with spaces between."""
    return value.split() if isinstance(value, str) and isinstance(type_info(kind), VarTupleType) else value


def find_workspace(start: Path) -> Workspace:
    """The workspace at `start` or the nearest one above it.

    Raises Misuse when there is none, or when its settings are wrong.
    """
    for directory in (start.resolve(), *start.resolve().parents):
        if (directory / SETTINGS_FILE).is_file():
            return open_workspace(directory)
    raise Misuse(
        f"no workspace at {start} or above it: expected a directory with {SETTINGS_FILE}",
        hint="Make one with `mainstay init DIR`, or name one with `--workspace DIR`.",
    )


def open_workspace(root: Path, environment: Mapping[str, str] = os.environ) -> Workspace:
    """Read the workspace at `root`; raises Misuse when a setting is unknown or of the wrong kind."""
    path = root / SETTINGS_FILE
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        message = f"{root} is no workspace: it has no {SETTINGS_FILE}"
        raise Misuse(message, hint="Make one with `mainstay init DIR`.") from None
    except OSError as error:
        raise Misuse(f"{path}: expected a readable file, found: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or a number or a nesting beyond Python's
        raise Misuse(f"{path}: expected TOML, found an error: {error}") from None
    try:
        settings = msgspec.convert(found, Settings)
    except msgspec.ValidationError as error:
        names = ", ".join(Settings.__struct_fields__)
        raise Misuse(f"{path}: {error}", hint=f"Settings are: {names}.") from None
    variables = {name: f"MAINSTAY_{name.upper()}" for name in Settings.__struct_fields__}
    said = {name: environment[variable] for name, variable in variables.items() if variable in environment}
    return Workspace(root.resolve(), settings).with_settings(said, variables.__getitem__)
