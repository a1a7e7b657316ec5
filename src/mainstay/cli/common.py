"""What every command shares: the workspace, `--json`, and how to write for people and for programs."""

from __future__ import annotations

import getpass
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.console import Console

from mainstay.catalog.releases import capabilities_with_releases
from mainstay.decision.permits import require_permit
from mainstay.errors import Misuse
from mainstay.ledger.change import Change
from mainstay.ledger.change import record_change as record
from mainstay.signing import load_signing_key, load_verifier
from mainstay.workspace import find_workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mainstay.authority.policy import Moved
    from mainstay.authority.schema import Action
    from mainstay.capability.load import Declared
    from mainstay.signing import SigningKey
    from mainstay.workspace import Workspace

PASSPHRASE_VARIABLE = "MAINSTAY_KEY_PASSPHRASE"  # noqa: S105 - its name, not its value
API_KEY_VARIABLE = "MAINSTAY_API_KEY"

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of every command."""

    workspace: Annotated[Path, Parameter(help="The workspace; by default the nearest one from here upwards.")] = Path()
    json: Annotated[bool, Parameter(negative="", help="Print facts as JSON.")] = False

    def open(self) -> Workspace:
        return find_workspace(self.workspace)


DEFAULT = Common()


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, each column as wide as its widest cell: the same on a terminal and in a pipe."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def passphrase() -> bytes | None:
    """What the signing key is encrypted with; None when the environment names nothing."""
    given = os.environ.get(PASSPHRASE_VARIABLE)
    return None if given is None else given.encode()


def signing_key(workspace: Workspace) -> SigningKey:
    return load_signing_key(workspace.keys, passphrase())


def account() -> str:
    """Who runs this command: the login name of the operating system."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        return f"uid-{os.getuid()}"


def operator() -> str:
    """Who runs this command, for the record."""
    return f"os:{account()}"


def require(
    workspace: Workspace,
    capability: str,
    action: Action,
    *,
    candidate: Declared | None = None,
    moved: Moved | None = None,
) -> None:
    """Raises Misuse unless the policies in force let whoever runs this command do `action`. See `require_permit`."""
    verifier = load_verifier(workspace.keys)
    require_permit(workspace, capability, action, account(), verifier, candidate=candidate, moved=moved)


def require_sight(workspace: Workspace, capability: str) -> None:
    """Raises Misuse unless the policies in force let whoever runs this see decisions of the capability.

    What was never released has no policies in force, and nothing to see but what its own owner left here.
    """
    if capability in capabilities_with_releases(workspace.releases):
        require(workspace, capability, "see")


def record_change(workspace: Workspace, action: str, subject: str, reason: str, details: Any) -> str:
    """Put a change by whoever runs this command into the ledger; the id of its entry."""
    change = Change(action=action, subject=subject, principal=operator(), reason=reason, details=details)
    return record(workspace.ledger, change)


def read_bounded(source: Path, limit_bytes: int) -> bytes:
    """The content of a file, or of standard input for `-`. Raises Misuse when it is absent or larger."""
    try:
        if str(source) == "-":
            content = sys.stdin.buffer.read(limit_bytes + 1)
        else:
            with source.open("rb") as file:
                content = file.read(limit_bytes + 1)
    except OSError as error:
        raise Misuse(f"{source}: expected a readable file, found: {error.strerror}") from None
    if len(content) > limit_bytes:
        raise Misuse(f"{source}: expected at most {limit_bytes:,} bytes, found more")
    return content
